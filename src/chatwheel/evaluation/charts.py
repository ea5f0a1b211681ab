"""Line charts as SVG text: no script, no dependency, the page's own colours through CSS classes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import Any

Point = tuple[float, float]

MAX_POINTS = 400
NUM_HOVER_BANDS = 48
WIDTH = 440.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 48.0, 12.0, 36.0


@dataclass(frozen=True, kw_only=True)
class LineChart:
    """What to draw.

    name: unique on the page, for ids. title: for those who cannot see it. points: in the order in which they were
    measured; those that are not finite are left out, and counted. reference: a level to compare with, and its label.
    low, high: values the vertical axis must reach. percent: whether the values are shares, to be shown as per cent.
    across: values the horizontal axis must reach. mark: where on it something is to be seen, and what.
    """

    name: str
    title: str
    x_label: str
    y_label: str
    points: Sequence[Point]
    reference: tuple[float, str] | None = None
    low: float | None = None
    high: float | None = None
    percent: bool = False
    height: float = 220.0
    across: tuple[float, float] | None = None
    mark: tuple[float, str] | None = None


@dataclass(frozen=True)
class Frame:
    """Where values lie on the paper. x, y: the ticks, whose first and last are the ends of the axes."""

    x: Sequence[float]
    y: Sequence[float]
    height: float

    def place(self, point: Point) -> Point:
        """A point's place, in the SVG's units; y grows downwards."""
        x, y = point
        across = (x - self.x[0]) / (self.x[-1] - self.x[0])
        up = (y - self.y[0]) / (self.y[-1] - self.y[0])
        bottom = self.height - BOTTOM
        return LEFT + across * (WIDTH - LEFT - RIGHT), bottom - up * (bottom - TOP)


def draw(chart: LineChart) -> str | None:
    """The chart as one `<svg>` element of well-formed XML: raw values faint, smoothed ones strong, values on hover.

    None if fewer than two points are finite: there is nothing to see.
    """
    points = finite(chart.points)
    if len(points) < 2:
        return None
    smooth = smoothed(points)
    frame = _frame(chart, points, smooth)
    name = escape(chart.name)
    return "".join(
        [
            f'<svg class="chart" viewBox="0 0 {WIDTH:g} {chart.height:g}" role="img" ',
            f'aria-labelledby="title-{name} desc-{name}">',
            f'<title id="title-{name}">{escape(chart.title)}</title>',
            f'<desc id="desc-{name}">{escape(_in_words(chart, smooth))}</desc>',
            f'<clipPath id="clip-{name}"><rect x="{LEFT:g}" y="{TOP - 4:g}" width="{WIDTH - LEFT - RIGHT + 4:g}" '
            f'height="{chart.height - BOTTOM - TOP + 8:g}"/></clipPath>',
            *_axes(chart, frame),
            *_reference(chart, frame),
            *_mark(chart, frame),
            f'<g clip-path="url(#clip-{name})">',
            f'<polyline class="raw" points="{_path(frame, spikes_kept(points, MAX_POINTS))}"/>',
            f'<polyline class="smooth" points="{_path(frame, evenly(smooth, MAX_POINTS))}"/>',
            "</g>",
            *_notes(chart, frame, smooth, len(chart.points) - len(points)),
            *_hover_bands(chart, frame, points, smooth),
            "</svg>",
        ]
    )


def _in_words(chart: LineChart, smooth: Sequence[Point]) -> str:
    ends = [f"{_label(chart, y)} at {chart.x_label} {number(x)}" for x, y in (smooth[0], smooth[-1])]
    low, high = (_label(chart, pick(y for _, y in smooth)) for pick in (min, max))
    return f"{chart.title}, {chart.y_label}: from {ends[0]} to {ends[1]}; smoothed, between {low} and {high}."


def _notes(chart: LineChart, frame: Frame, smooth: Sequence[Point], num_left_out: int) -> list[str]:
    """Where the smoothed line ends, what the reference is, and how many values were no numbers."""
    (x, y), end = frame.place(smooth[-1]), _label(chart, float(f"{smooth[-1][1]:.3g}"))
    parts = [
        f'<circle class="end" cx="{x:.1f}" cy="{y:.1f}" r="3"/>',
        f'<text class="end" x="{x + 7:.1f}" y="{y + 4:.1f}">{end}</text>',
    ]
    if chart.reference is not None:
        level = frame.place((frame.x[0], chart.reference[0]))[1]
        label = escape(chart.reference[1])
        parts.append(f'<text class="note" x="{WIDTH - RIGHT:g}" y="{level - 5:.1f}" text-anchor="end">{label}</text>')
    if num_left_out:
        parts.append(f'<text class="note" x="{LEFT + 4:g}" y="{TOP + 6:g}">{num_left_out} not finite, left out</text>')
    return parts


def real(value: Any) -> float | None:
    """A finite number, or None for anything else."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if number and math.isfinite(value) else None


def finite(points: Iterable[Point]) -> list[Point]:
    """The points without NaN, infinities, and values so large that sums of them would become infinite."""
    return [(x, y) for x, y in points if abs(x) < 1e100 and abs(y) < 1e100]


def smoothed(points: Sequence[Point]) -> list[Point]:
    """Means over about a fifteenth of the points. The window grows with the first points, whose fall is steep and must
    not be hidden, and keeps at least half its width at the end, where the line should not follow the noise."""
    reach, last = len(points) // 30, len(points) - 1
    sums = [(0.0, 0.0)]
    for x, y in points:
        sums.append((sums[-1][0] + x, sums[-1][1] + y))
    means = []
    for i in range(len(points)):
        begin, end = max(i - reach, 0), min(2 * i, i + reach, last) + 1
        (x0, y0), (x1, y1) = sums[begin], sums[end]
        means.append(((x1 - x0) / (end - begin), (y1 - y0) / (end - begin)))
    return means


def evenly(points: Sequence[Point], most: int) -> list[Point]:
    """At most `most` of the points, the first and the last among them."""
    if len(points) <= most:
        return list(points)
    step = (len(points) - 1) / (most - 1)
    return [points[round(i * step)] for i in range(most)]


def spikes_kept(points: Sequence[Point], most: int) -> list[Point]:
    """At most `most` of the points: of each stretch the lowest and the highest, so that no spike is lost."""
    if len(points) <= most:
        return list(points)
    stretches = most // 2
    kept = []
    for i in range(stretches):
        begin, end = i * len(points) // stretches, (i + 1) * len(points) // stretches
        by_value = sorted(range(begin, end), key=lambda j: points[j][1])
        kept += sorted({by_value[0], by_value[-1]})
    return [points[i] for i in kept]


def nice_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten) from at most `low` to at least `high`."""
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        low, high = low - (abs(low) or 1) * 0.5, high + (abs(high) or 1) * 0.5
    rough = (high - low) / max(1, about - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if rough <= m * power * (1 + 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, last + 1)]


def number(value: float) -> str:
    """A value in few characters: 12k, 3.25, 0.004."""
    if abs(value) >= 1_000_000:
        return f"{value / 1_000_000:.4g}M"
    if abs(value) >= 10_000:
        return f"{value / 1000:.4g}k"
    return f"{0.0 if abs(value) < 1e-12 else value:.4g}".replace("-", "−")


def _frame(chart: LineChart, points: Sequence[Point], smooth: Sequence[Point]) -> Frame:
    """Axes around the smoothed line and all but the wildest hundredth of the raw values on each side."""
    values = sorted(y for _, y in points)
    cut = len(values) // 100
    must = [y for _, y in smooth] + [values[cut], values[-1 - cut]]
    must += [y for y in (chart.low, chart.high, chart.reference and chart.reference[0]) if y is not None]
    xs = [*(x for x, _ in points), *(chart.across or ())]
    y = nice_ticks(min(must), max(must), 6 if chart.height > 150 else 4)
    x = nice_ticks(min(xs), max(xs), 6)
    # Time ends where the data end; only values get a margin.
    ends = (min(xs), max(xs)) if max(xs) > min(xs) else (x[0], x[-1])
    return Frame([ends[0], *(t for t in x if ends[0] < t < ends[1]), ends[1]], y, chart.height)


def _path(frame: Frame, points: Sequence[Point]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in map(frame.place, points))


def _axes(chart: LineChart, frame: Frame) -> list[str]:
    parts, right, bottom = [], WIDTH - RIGHT, chart.height - BOTTOM
    for tick in frame.y:
        y = frame.place((frame.x[0], tick))[1]
        parts.append(f'<line class="grid" x1="{LEFT:g}" x2="{right:g}" y1="{y:.1f}" y2="{y:.1f}"/>')
        label = _label(chart, tick)
        parts.append(f'<text class="tick" x="{LEFT - 6:g}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    for tick in _readable(frame.x):
        x = frame.place((tick, frame.y[0]))[0]
        parts.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 15:g}" text-anchor="middle">{number(tick)}</text>')
    # Both labels below: a turned one beside the axis would need turned heads.
    below = f'y="{bottom + 31:g}"'
    parts.append(f'<text class="label" x="{right:g}" {below} text-anchor="end">{escape(chart.x_label)} →</text>')
    parts.append(f'<text class="label" x="{LEFT - 6:g}" {below}>↑ {escape(chart.y_label)}</text>')
    return parts


def _readable(ticks: Sequence[float]) -> list[float]:
    """The round ticks; the ends of the data only if they are round too."""
    inner = list(ticks[1:-1])
    if len(inner) < 2:
        return list(ticks) if all(number(a) != number(b) for a, b in pairwise(ticks)) else [ticks[0], ticks[-1]]
    step = inner[1] - inner[0]
    ends = [t for t in (ticks[0], ticks[-1]) if abs(t / step - round(t / step)) < 1e-6]
    return sorted([*inner, *ends])


def _reference(chart: LineChart, frame: Frame) -> list[str]:
    if chart.reference is None:
        return []
    y = frame.place((frame.x[0], chart.reference[0]))[1]
    return [f'<line class="reference" x1="{LEFT:g}" x2="{WIDTH - RIGHT:g}" y1="{y:.1f}" y2="{y:.1f}"/>']


def _mark(chart: LineChart, frame: Frame) -> list[str]:
    """A line from top to bottom, its label on the side where there is room."""
    if chart.mark is None:
        return []
    at, label = chart.mark
    x, bottom = frame.place((at, frame.y[0]))
    left = x > (LEFT + WIDTH - RIGHT) / 2
    side = f'x="{x - 5:.1f}" text-anchor="end"' if left else f'x="{x + 5:.1f}"'
    return [
        f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP:g}" y2="{bottom:.1f}"/>',
        f'<text class="note" {side} y="{bottom - 6:.1f}">{escape(label)}</text>',
    ]


def _hover_bands(chart: LineChart, frame: Frame, points: Sequence[Point], smooth: Sequence[Point]) -> list[str]:
    """Invisible columns that show a dot and the value under the pointer."""
    chosen = sorted({round(i) for i in _spread(len(points), NUM_HOVER_BANDS)}, key=lambda i: smooth[i][0])
    places = [frame.place(smooth[i]) for i in chosen]
    middles = [(a[0] + b[0]) / 2 for a, b in pairwise(places)]
    edges = [LEFT, *middles, WIDTH - RIGHT]
    height = chart.height - TOP - BOTTOM
    parts = []
    for i, (cx, cy), (begin, end) in zip(chosen, places, pairwise(edges), strict=True):
        width = max(0.0, end - begin)
        parts.append(
            f'<g class="hover"><title>{escape(_tip(chart, points[i], smooth[i]))}</title>'
            f'<rect x="{begin:.1f}" y="{TOP:g}" width="{width:.1f}" height="{height:g}"/>'
            f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="3.5"/></g>'
        )
    return parts


def _tip(chart: LineChart, point: Point, mean: Point) -> str:
    value, smooth = _label(chart, point[1]), _label(chart, mean[1])
    tip = f"{chart.x_label} {number(point[0])}: {value}"
    return tip if smooth == value else f"{tip}, smoothed {smooth}"


def _spread(length: int, most: int) -> list[float]:
    count = min(length, most)
    return [i * (length - 1) / (count - 1) for i in range(count)]


def _label(chart: LineChart, value: float) -> str:
    return f"{number(float(f'{value * 100:.3g}'))} %" if chart.percent else number(value)
