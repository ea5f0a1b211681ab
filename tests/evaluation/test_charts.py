"""Charts: well-formed, truthful, few points, and nothing where there is nothing to show."""

from __future__ import annotations

import math
import random
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatwheel.evaluation.charts import LineChart, Point, draw, evenly, nice_ticks, number, smoothed, spikes_kept


def chart(points: list[Point], **options: object) -> LineChart:
    values = {"name": "loss", "title": "Loss", "x_label": "step", "y_label": "nats", "points": points} | options
    return LineChart(**values)  # type: ignore[arg-type]


def parsed(points: list[Point], **options: object) -> ElementTree.Element:
    svg = draw(chart(points, **options))
    assert svg is not None
    return ElementTree.fromstring(svg)


def line(svg: ElementTree.Element, kind: str) -> list[Point]:
    element = svg.find(f".//polyline[@class='{kind}']")
    assert element is not None
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in element.attrib["points"].split())]


def test_a_falling_loss_is_drawn_falling_from_left_to_right() -> None:
    svg = parsed([(float(i), 8 * math.exp(-i / 100)) for i in range(1000)])
    for kind in ("raw", "smooth"):
        drawn = line(svg, kind)
        assert len(drawn) <= 400
        assert drawn[0][1] < drawn[-1][1], "SVG's y grows downwards"
        assert all(a[0] <= b[0] for a, b in pairwise(drawn))


def test_raw_values_lie_where_the_ticks_say() -> None:
    svg = parsed([(0.0, 0.0), (10.0, 5.0), (20.0, 10.0)])
    tick_of = {t.text: t.attrib for t in svg.iterfind(".//text[@class='tick']")}
    (_, low), (middle, five), (_, high) = line(svg, "raw")
    assert low > five > high
    # A label stands 4 units below its line, so that its middle is on it.
    assert float(tick_of["4"]["y"]) - 4 > five > float(tick_of["6"]["y"]) - 4
    assert middle == pytest.approx(float(tick_of["10"]["x"]))


def test_hovering_tells_step_and_value() -> None:
    svg = parsed([(100.0, 0.25), (200.0, 0.5)], percent=True)
    assert [t.text for t in svg.iterfind(".//g[@class='hover']/title")] == ["step 100: 25 %", "step 200: 50 %"]


def test_the_picture_has_a_title_and_a_description_in_words() -> None:
    svg = parsed([(0.0, 2.5), (10.0, 1.25)])
    assert [svg.findtext("title"), svg.findtext("desc")] == [
        "Loss",
        "Loss, nats: from 2.5 at step 0 to 1.25 at step 10; smoothed, between 1.25 and 2.5.",
    ]
    names = svg.attrib["aria-labelledby"].split()
    assert {e.attrib["id"] for e in svg if "id" in e.attrib} >= set(names)


@pytest.mark.parametrize(("at", "anchor"), [(2.0, None), (9.0, "end")])
def test_a_mark_stands_where_it_is_said_with_its_label_where_there_is_room(at: float, anchor: str | None) -> None:
    svg = parsed([(0.0, 0.0), (5.0, 1.0), (10.0, 2.0)], mark=(at, "the <peak>"))
    mark, (first, _, last) = svg.find(".//line[@class='mark']"), line(svg, "raw")
    assert mark is not None
    assert mark.attrib["x1"] == mark.attrib["x2"]
    assert float(mark.attrib["x1"]) == pytest.approx(first[0] + at / 10 * (last[0] - first[0]), abs=0.2)
    (label,) = [t for t in svg.iterfind(".//text[@class='note']") if t.text == "the <peak>"]
    assert label.get("text-anchor") == anchor


def test_charts_over_the_same_stretch_lie_below_each_other() -> None:
    long, short = parsed([(0.0, 0.0), (10.0, 1.0)]), parsed([(2.0, 5.0), (4.0, 6.0)], across=(0.0, 10.0))
    (left, _), (right, _) = line(long, "raw")
    (a, _), (b, _) = line(short, "raw")
    assert a == pytest.approx(left + 0.2 * (right - left), abs=0.2)
    assert b == pytest.approx(left + 0.4 * (right - left), abs=0.2)


def test_labels_are_escaped() -> None:
    svg = parsed([(0.0, 1.0), (1.0, 2.0)], title='<script>"&', y_label="<b>", reference=(1.5, "a < b"))
    assert svg.findtext("title") == '<script>"&'
    assert svg.find(".//script") is None
    assert "a < b" in [t.text for t in svg.iter("text")]


def test_values_that_are_no_numbers_are_left_out_and_counted() -> None:
    svg = parsed([(0.0, 1.0), (1.0, math.nan), (2.0, math.inf), (3.0, 2.0)])
    assert len(line(svg, "raw")) == 2
    assert "2 not finite, left out" in [t.text for t in svg.iter("text")]


@pytest.mark.parametrize("points", [[], [(0.0, 1.0)], [(0.0, math.nan), (1.0, 1.0)]])
def test_fewer_than_two_values_are_no_chart(points: list[Point]) -> None:
    assert draw(chart(points)) is None


@given(st.lists(st.tuples(st.floats(), st.floats()), max_size=40))
def test_whatever_the_values_the_picture_is_well_formed_and_finite(points: list[Point]) -> None:
    svg = draw(chart(points, reference=(0.5, "half"), low=0.0))
    if svg is not None:
        root = ElementTree.fromstring(svg)
        assert all(math.isfinite(v) for kind in ("raw", "smooth") for point in line(root, kind) for v in point)


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.integers(3, 8))
def test_ticks_are_few_round_and_reach_both_ends(low: float, span: float, about: int) -> None:
    ticks = nice_ticks(low, low + span, about)
    step = ticks[1] - ticks[0]
    assert 2 <= len(ticks) <= about + 2
    assert ticks[0] <= low + 1e-6 * step
    assert ticks[-1] >= low + span - 1e-6 * step
    assert any(math.isclose(step / 10 ** math.floor(math.log10(step * 1.001)), m, rel_tol=1e-3) for m in (1, 2, 5))


def test_a_constant_series_has_an_axis() -> None:
    assert nice_ticks(3.0, 3.0)[0] < 3.0 < nice_ticks(3.0, 3.0)[-1]
    assert nice_ticks(0.0, 0.0)[0] < 0.0 < nice_ticks(0.0, 0.0)[-1]


def test_smoothing_keeps_a_straight_line_straight_and_calms_noise() -> None:
    straight = [(float(i), 2.0 * i) for i in range(300)]
    assert all(y == pytest.approx(2 * x) for x, y in smoothed(straight))
    rng = random.Random(0)
    noisy = [(float(i), rng.gauss(0, 1)) for i in range(3000)]
    assert max(abs(y) for _, y in smoothed(noisy)[100:]) < 0.8
    assert smoothed(noisy)[0] == noisy[0]


def test_downsampling_keeps_ends_and_spikes() -> None:
    points = [(float(i), 1.0) for i in range(10_000)]
    points[5_123] = (5_123.0, 99.0)
    assert points[5_123] in spikes_kept(points, 400)
    assert len(spikes_kept(points, 400)) <= 400
    some = evenly(points, 400)
    assert (len(some), some[0], some[-1]) == (400, points[0], points[-1])


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.1 + 0.2, "0.3"), (12_000, "12k"), (2_500_000, "2.5M"), (-1.5, "−1.5"), (5.551e-17, "0")],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert number(value) == text
