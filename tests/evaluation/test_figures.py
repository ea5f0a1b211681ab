"""Pictures that stand alone: well-formed, and where the numbers say."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from chatwheel.evaluation.charts import LineChart
from chatwheel.evaluation.figures import Dots, below_each_other, dots_in_rows, shown
from chatwheel.training.reward_report import wilson

SVG = "{http://www.w3.org/2000/svg}"


def parsed(text: str) -> ElementTree.Element:
    return ElementTree.fromstring(text)


def chart(name: str, *points: tuple[float, float]) -> LineChart:
    return LineChart(name=name, title=f"<{name}>", x_label="x", y_label="y", points=points)


def test_dots_lie_where_the_percents_say_and_the_bar_at_their_mean() -> None:
    picture = parsed(dots_in_rows("a < b", [("Group", [Dots("row", [0.25, 0.75], 0.5, [(0.2, 0.3), (0.7, 0.8)])])], ""))
    places = {t.text: float(t.attrib["x"]) for t in picture.iter(f"{SVG}text") if t.text and t.text.endswith("%")}
    first, second = (float(c.attrib["cx"]) for c in picture.iterfind(f".//{SVG}circle[@class='dot']"))
    assert (first, second) == (pytest.approx(places["25 %"]), pytest.approx(places["75 %"]))
    (mean,) = picture.iterfind(f".//{SVG}line[@class='mean']")
    assert float(mean.attrib["x1"]) == pytest.approx(places["50 %"])
    whisker = next(picture.iterfind(f".//{SVG}line[@class='whisker']"))
    assert float(whisker.attrib["x1"]) < first < float(whisker.attrib["x2"])
    assert "a < b" in [t.text for t in picture.iter(f"{SVG}text")]


def test_charts_lie_below_each_other_and_empty_ones_are_left_out() -> None:
    whole = [chart("one", (0.0, 0.0), (1.0, 1.0)), chart("two", (0.0, 3.0), (1.0, 1.0))]
    picture = parsed(below_each_other("title", [*whole, chart("empty")], ["said"]))
    inner = picture.findall(f"{SVG}svg")
    assert len(inner) == 2
    assert float(inner[1].attrib["y"]) > float(inner[0].attrib["y"]) + float(inner[0].attrib["height"])
    assert "said" in [t.text for t in picture.iter(f"{SVG}text")]
    assert shown(whole)
    assert not shown([*whole, chart("empty")])


def test_wilson_s_interval_is_the_book_s() -> None:
    """Of 81 of 263 (Newcombe, 1998, table I: 0.2553 to 0.3662)."""
    assert wilson(81 / 263, 263) == (pytest.approx(0.2553, abs=1e-4), pytest.approx(0.3662, abs=1e-4))
    assert wilson(0.0, 20)[0] == 0
    assert wilson(1.0, 20)[1] == pytest.approx(1)
