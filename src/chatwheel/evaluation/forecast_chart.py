"""A forecast as SVG text: measured errors with their intervals, the curve through them, and where it goes on to."""

from __future__ import annotations

import math
from html import escape

from chatwheel.evaluation.charts import BOTTOM, LEFT, RIGHT, TOP, WIDTH, Frame, nice_ticks, number
from chatwheel.evaluation.figures import standing_alone
from chatwheel.evaluation.forecast import Forecast, percent

HEIGHT = 260.0
_LINE = 62
"""Characters of a line below the picture."""


def draw_forecast(forecast: Forecast, name: str = "forecast") -> str:
    """The chart as one `<svg>` element. Examples are on a logarithmic axis; the band is the curve's 95 % interval.
    name: unique on the page, for ids."""
    first, total = forecast.measured[0].examples, forecast.examples
    ends = [
        (m, max(0.0, m.error - 1.96 * m.standard_error), m.error + 1.96 * m.standard_error) for m in forecast.measured
    ]
    highest = max([*(high for _, _, high in ends), *(high for _, _, _, high in forecast.curve)])
    doublings = math.log2(2 * total / first)
    frame = Frame([0.0, doublings], nice_ticks(0.0, min(1.0, highest)), HEIGHT)

    def place(examples: float, error: float) -> tuple[float, float]:
        return frame.place((math.log2(examples / first), min(error, frame.y[-1])))

    known = [point for point in forecast.curve if point[0] <= total * 1.0001]
    beyond = [point for point in forecast.curve if point[0] >= total * 0.9999] or list(forecast.curve[-2:])
    beyond = [known[-1], *(point for point in beyond if point is not known[-1])]
    band = [place(n, low) for n, low, _, _ in forecast.curve] + [
        place(n, high) for n, _, _, high in forecast.curve[::-1]
    ]
    x, y = place(2 * total, forecast.forecast)
    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" ',
        f'aria-labelledby="title-{name} desc-{name}">',
        f'<title id="title-{name}">Error by the number of examples</title>',
        f'<desc id="desc-{name}">{escape(forecast.sentence)}</desc>',
        *_axes(frame, [*(m.examples for m in forecast.measured), 2 * total], first),
        f'<polygon class="band" points="{_points(band)}"/>',
        f'<polyline class="smooth" points="{_points([place(n, middle) for n, _, middle, _ in known])}"/>',
        f'<polyline class="smooth ahead" points="{_points([place(n, middle) for n, _, middle, _ in beyond])}"/>',
    ]
    for one, low, high in ends:
        (across, up), top, bottom = place(one.examples, one.error), place(1, high)[1], place(1, low)[1]
        words = f"{number(one.examples)} examples: {percent(one.error)} ({percent(low)} to {percent(high)})"
        parts += [
            f'<line class="whisker" x1="{across:.1f}" x2="{across:.1f}" y1="{top:.1f}" y2="{bottom:.1f}"/>',
            f'<circle class="end" cx="{across:.1f}" cy="{up:.1f}" r="4"><title>{words}</title></circle>',
        ]
    if 0 < 1 - forecast.target < frame.y[-1]:
        level = place(1, 1 - forecast.target)[1]
        parts += [
            f'<line class="reference" x1="{LEFT:g}" x2="{WIDTH - RIGHT:g}" y1="{level:.1f}" y2="{level:.1f}"/>',
            f'<text class="note" x="{LEFT + 4:g}" y="{level - 5:.1f}">{100 * forecast.target:.4g} % right</text>',
        ]
    parts.append(f'<text class="end" x="{x + 7:.1f}" y="{y + 4:.1f}">{percent(forecast.forecast)}</text></svg>')
    return "".join(parts)


def picture(forecast: Forecast) -> str:
    """The chart with its sentence as an SVG file."""
    chart = draw_forecast(forecast).removeprefix("<svg ")
    parts = [
        '<text class="heading" x="12" y="26">What more examples would do</text>',
        f'<svg y="40" width="{WIDTH:g}" height="{HEIGHT:g}" {chart}',
    ]
    y = HEIGHT + 62
    for line in _wrapped(forecast.sentence):
        parts.append(f'<text x="12" y="{y:.1f}">{escape(line)}</text>')
        y += 17
    return standing_alone("What more examples would do", WIDTH, y, parts)


def _points(places: list[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)


def _axes(frame: Frame, examples: list[int], first: int) -> list[str]:
    parts, right, bottom = [], WIDTH - RIGHT, HEIGHT - BOTTOM
    for tick in frame.y:
        y = frame.place((0.0, tick))[1]
        parts.append(f'<line class="grid" x1="{LEFT:g}" x2="{right:g}" y1="{y:.1f}" y2="{y:.1f}"/>')
        label = f"{number(float(f'{100 * tick:.3g}'))} %"
        parts.append(f'<text class="tick" x="{LEFT - 6:g}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    for count in sorted(set(examples)):
        x = frame.place((math.log2(count / first), 0.0))[0]
        parts.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 15:g}" text-anchor="middle">{number(count)}</text>')
    now = frame.place((frame.x[-1] - 1, 0.0))[0]
    parts.append(f'<line class="mark" x1="{now:.1f}" x2="{now:.1f}" y1="{TOP:g}" y2="{bottom:.1f}"/>')
    below = f'y="{bottom + 31:g}"'
    parts.append(f'<text class="label" x="{right:g}" {below} text-anchor="end">examples →</text>')
    parts.append(f'<text class="label" x="{LEFT - 6:g}" {below}>↑ error</text>')
    return parts


def _wrapped(sentence: str) -> list[str]:
    lines = [""]
    for word in sentence.split():
        if len(lines[-1]) + len(word) >= _LINE:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines
