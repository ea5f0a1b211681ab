"""The report's section on the reward model: the numbers given, and nothing where there are none."""

from __future__ import annotations

import copy
from typing import Any
from xml.etree import ElementTree

import pytest
from tests.evaluation.test_report import SPACE, Page, world_run

from chatwheel.evaluation.charts import BOTTOM, LEFT, RIGHT, TOP, WIDTH
from chatwheel.evaluation.reliability import HEIGHT, Bin, draw_reliability
from chatwheel.evaluation.report import render, signed


def measured() -> dict[str, Any]:
    return {
        "prompts": 210,
        "pair_accuracy_interval": [0.7912, 0.8655],
        "groups": {
            "source": {"hh<b>": {"pairs": 800, "accuracy": 0.71, "interval": [0.66, 0.75]}},
            "labeller": {"anna": {"pairs": 404, "accuracy": 0.9012, "interval": [0.87, 0.93]}},
            "behaviour": {"facts": {"pairs": 33, "accuracy": 0.5, "interval": [0.33, 0.67]}},
        },
        "calibration": {
            "pairs": 1204,
            "error": 0.0432,
            "nats": 0.5,
            "temperature": 1.379,
            "fitted_error": 0.0187,
            "fitted_nats": 0.49,
            "bins": [
                {"predicted": 0.53, "preferred": 0.5, "pairs": 200},
                {"predicted": 0.91, "preferred": 0.8, "pairs": 1004},
            ],
        },
        "length": {
            "reward_correlation": -0.31,
            "place_correlation": 0.123,
            "pairs": 1100,
            "equal_pairs": 104,
            "model_prefers": 0.655,
            "labellers_prefer": 0.515,
            "excess": 0.14,
            "excess_interval": [0.09, 0.19],
            "accuracy_longer": 0.88,
            "accuracy_shorter": 0.633,
        },
        "form": {"list": {"answers": 150, "effect": 0.74, "interval": [0.61, 0.87], "raised": 0.93}},
        "ensemble": {
            "members": 2,
            "member_pair_accuracy": [0.8312, 0.8401],
            "pair_accuracy": 0.8523,
            "deviation": 0.27,
            "agreeing": 0.917,
            "accuracy_agreeing": 0.886,
            "accuracy_disagreeing": 0.542,
        },
    }


def with_reward(values: dict[str, Any]) -> dict[str, Any]:
    run = world_run()
    run["results"]["stage:reward"] |= values
    return run


def test_the_section_shows_the_numbers_given() -> None:
    page = Page(render("tiny", with_reward(measured())))
    text = page.text.replace(SPACE, " ")
    for number in ("95 %: 79.1 % to 86.6 %", "4.3 %", "on 1,204 pairs", "divided by 1.38", "1.9 %"):
        assert number in text
    assert page.row("hh<b>")[-3:] == ["71.0", "%", "800"]
    assert page.row("anna")[-3:] == ["90.1", "%", "404"]
    assert "tells what its text said" in " ".join(page.row("Facts"))
    assert "The model prefers the longer answer 65.5 %" in text
    assert "The labellers do which is how often “the longer one wins” is right 51.5 %" in text
    assert "−0.31" in text
    assert "+14.0 points (+9.0 to +19.0)" in text
    assert "+0.74 +0.61 to +0.87" in text
    for number in ("85.2 %", "83.1 % 84.0 %", "91.7 %", "88.6 %", "54.2 %", "0.27"):
        assert number in text
    assert ("a", {"href": "#reward"}) in page.elements


def test_without_measures_there_is_no_section() -> None:
    page = Page(render("tiny", world_run()))
    assert "trusted" not in page.text
    assert ("a", {"href": "#reward"}) not in page.elements


LEAVES = [
    (*path, key)
    for path, value in (
        ((), measured()),
        (("calibration",), measured()["calibration"]),
        (("length",), measured()["length"]),
        (("ensemble",), measured()["ensemble"]),
        (("form", "list"), measured()["form"]["list"]),
        (("groups", "source", "hh<b>"), measured()["groups"]["source"]["hh<b>"]),
    )
    for key in value
]


@pytest.mark.parametrize("path", LEAVES, ids=".".join)
@pytest.mark.parametrize("instead", ["gone", None, "text", [1, 2, 3], float("nan")])
def test_any_part_may_be_missing_or_something_else(path: tuple[str, ...], instead: Any) -> None:
    values = copy.deepcopy(measured())
    *parents, last = path
    place: Any = values
    for key in parents:
        place = place[key]
    if instead == "gone":
        del place[last]
    else:
        place[last] = instead
    html = render("tiny", with_reward(values))
    Page(html)
    section = html.partition('<section id="reward">')[2].partition("</section>")[0]
    assert "nan" not in section
    assert "text" not in Page(f"<div>{section}</div>").words


def test_the_reliability_diagram_is_to_scale() -> None:
    bins = [Bin(0.55, 0.6, 40), Bin(0.75, 0.75, 400), Bin(0.95, 0.8, 100)]
    svg = draw_reliability(bins)
    assert svg is not None
    root = ElementTree.fromstring(svg)
    dots = [(float(c.get("cx", "")), float(c.get("cy", "")), float(c.get("r", ""))) for c in root.iter("circle")]
    (line,) = [e for e in root.iter("line") if e.get("class") == "reference"]
    x0, y0, x1, y1 = (float(line.get(name, "")) for name in ("x1", "y1", "x2", "y2"))
    assert (x0, x1) == pytest.approx((LEFT, WIDTH - RIGHT), abs=0.1)
    assert y1 == pytest.approx(TOP, abs=0.1)
    assert y0 <= HEIGHT - BOTTOM

    def on_diagonal(x: float) -> float:
        return y0 + (x - x0) / (x1 - x0) * (y1 - y0)

    above, on, below = dots
    assert above[1] < on_diagonal(above[0]), "y grows downwards"
    assert on[1] == pytest.approx(on_diagonal(on[0]), abs=0.2)
    assert below[1] > on_diagonal(below[0])
    assert on[2] > below[2] > above[2]
    whiskers = [e for e in root.iter("line") if e.get("class") == "whisker"]
    lengths = [abs(float(e.get("y1", "")) - float(e.get("y2", ""))) for e in whiskers]
    assert lengths[0] > lengths[2] > lengths[1]
    assert root.findtext("desc") == (
        "55 % sure, right in 60 % of 40 pairs; 75 % sure, right in 75 % of 400 pairs; "
        "95 % sure, right in 80 % of 100 pairs."
    )
    assert draw_reliability([]) is None


def test_a_bin_of_one_wrong_pair_stays_on_the_paper() -> None:
    svg = draw_reliability([Bin(0.99, 0.0, 1)])
    assert svg is not None
    (dot,) = ElementTree.fromstring(svg).iter("circle")
    assert TOP <= float(dot.get("cy", "")) <= HEIGHT - BOTTOM


def test_signs() -> None:
    assert [signed(0.5), signed(-0.254), signed(None), signed(12.34, 1)] == ["+0.50", "−0.25", "—", "+12.3"]
