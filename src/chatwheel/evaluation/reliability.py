"""A reliability diagram as SVG text: how sure a reward model is of its favourites, against how often they were it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from chatwheel.evaluation.charts import BOTTOM, LEFT, RIGHT, WIDTH, Frame, nice_ticks, number
from chatwheel.training.reward_report import wilson

HEIGHT = 260.0
LARGEST, SMALLEST = 9.0, 3.0
"""Radii of a dot."""


@dataclass(frozen=True)
class Bin:
    """Pairs of which the model is about equally sure: their mean probability, the share in which its favourite was the
    better answer, how many there are."""

    predicted: float
    preferred: float
    pairs: int


def draw_reliability(bins: Sequence[Bin]) -> str | None:
    """The diagram as one `<svg>` element: a dot a bin, the larger the more pairs, with the 95 % interval of its share
    (Wilson's, over pairs); on the diagonal a model is as sure as it is right. None without a bin."""
    if not bins:
        return None
    ranges = [wilson(b.preferred, b.pairs) for b in bins]
    ticks = nice_ticks(min(0.5, *(low for low, _ in ranges)), 1.0)
    frame = Frame([0.5, 0.6, 0.7, 0.8, 0.9, 1.0], [tick for tick in ticks if tick <= 1.0 + 1e-9], HEIGHT)
    (x0, y0), (x1, y1), (x, y) = (frame.place(point) for point in ((0.5, 0.5), (1.0, 1.0), (0.85, 0.91)))
    return "".join(
        [
            f'<svg class="chart" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" ',
            'aria-labelledby="title-reliability desc-reliability">',
            '<title id="title-reliability">Reliability of the reward model</title>',
            f'<desc id="desc-reliability">{escape("; ".join(map(_in_words, bins)))}.</desc>',
            *_axes(frame),
            f'<line class="reference" x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}"/>',
            f'<text class="note" x="{x:.1f}" y="{y:.1f}" text-anchor="end">as sure as right</text>',
            *(part for b, r in zip(bins, ranges, strict=True) for part in _dot(frame, b, r, bins)),
            "</svg>",
        ]
    )


def _dot(frame: Frame, one: Bin, interval: tuple[float, float], bins: Sequence[Bin]) -> list[str]:
    x, y = frame.place((one.predicted, one.preferred))
    low, high = (frame.place((one.predicted, end))[1] for end in interval)
    radius = max(SMALLEST, LARGEST * (one.pairs / max(b.pairs for b in bins)) ** 0.5)
    words = escape(_in_words(one))
    return [
        f'<line class="whisker" x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>',
        f'<circle class="end" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"><title>{words}</title></circle>',
    ]


def _in_words(one: Bin) -> str:
    return f"{_share(one.predicted)} sure, right in {_share(one.preferred)} of {one.pairs} pairs"


def _axes(frame: Frame) -> list[str]:
    parts, right, bottom = [], WIDTH - RIGHT, HEIGHT - BOTTOM
    for tick in frame.y:
        y = frame.place((0.5, tick))[1]
        parts.append(f'<line class="grid" x1="{LEFT:g}" x2="{right:g}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 6:g}" y="{y + 4:.1f}" text-anchor="end">{_share(tick)}</text>')
    for tick in frame.x:
        x = frame.place((tick, frame.y[0]))[0]
        parts.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 15:g}" text-anchor="middle">{_share(tick)}</text>')
    below = f'y="{bottom + 31:g}"'
    parts.append(f'<text class="label" x="{right:g}" {below} text-anchor="end">sure of its favourite →</text>')
    parts.append(f'<text class="label" x="{LEFT - 6:g}" {below}>↑ right</text>')
    return parts


def _share(value: float) -> str:
    return f"{number(float(f'{value * 100:.3g}'))} %"
