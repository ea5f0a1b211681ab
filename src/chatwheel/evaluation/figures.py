"""Pictures that stand alone, for documents: dots of several runs in rows, and line charts below each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from chatwheel.evaluation.charts import LEFT, WIDTH, LineChart, draw, finite

STYLE = """
  svg { --raised: #fff; --line: #e3ded2; --text: #23221e; --muted: #6b675d; --sft: #d08a12; --ppo: #0b6e69;
    font: 12px system-ui, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
  @media (prefers-color-scheme: dark) {
    svg { --raised: #212321; --line: #363934; --text: #ecebe4; --muted: #a8a69b; --sft: #efb03f; --ppo: #57bcb1; } }
  .paper { fill: var(--raised); } text { fill: var(--muted); font-variant-numeric: tabular-nums; }
  .heading { fill: var(--text); font-size: 15px; font-weight: 650; } .sub { fill: var(--text); font-weight: 600; }
  .grid { stroke: var(--line); } .reference { stroke: var(--sft); stroke-dasharray: 4 4; }
  .mark { stroke: var(--muted); stroke-dasharray: 2 3; }
  polyline { fill: none; stroke: var(--ppo); stroke-linejoin: round; stroke-linecap: round; }
  .raw { stroke-width: 1; opacity: .3; } .smooth { stroke-width: 2.2; }
  .note { paint-order: stroke; stroke: var(--raised); stroke-width: 4px; stroke-linejoin: round; }
  text.end { font-weight: 650; fill: var(--text); } circle.end { fill: var(--ppo); }
  .hover rect { opacity: 0; } .hover circle { opacity: 0; } .hover:hover circle { fill: var(--ppo); opacity: 1; }
  .dot { fill: var(--ppo); opacity: .75; } .whisker { stroke: var(--ppo); opacity: .45; }
  .band { fill: var(--ppo); opacity: .16; } .ahead { stroke-dasharray: 5 4; }
  .mean { stroke: var(--text); stroke-width: 2.5; } .before { fill: var(--sft); }
"""
BROAD, LABELS, VALUES = 640.0, 172.0, 118.0
"""Of a picture of dots: its width, and what of it are the rows' names and what is said of them."""
ROW, BETWEEN, HEAD = 26.0, 30.0, 52.0
"""Heights of a row of dots, of a group's heading and of the picture's."""


@dataclass(frozen=True)
class Dots:
    """A row: shares of several runs, perhaps each with an interval, and what they are held against. said: of them."""

    name: str
    shares: Sequence[float]
    before: float | None = None
    intervals: Sequence[tuple[float, float]] = ()
    said: str = ""


def dots_in_rows(title: str, groups: Sequence[tuple[str, Sequence[Dots]]], legend: str) -> str:
    """Rows of shares on one axis from 0 to 100 %, as one SVG file: a dot a run, a bar their mean, a diamond what was
    before. groups: each with its heading."""
    parts, y = [f'<text class="heading" x="12" y="26">{escape(title)}</text>'], HEAD
    for heading, rows in groups:
        parts.append(f'<text class="sub" x="12" y="{y + 16:.1f}">{escape(heading)}</text>')
        y += BETWEEN
        for percent in range(0, 101, 25):
            x, top = _across(percent / 100), y - 4
            parts.append(
                f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top:.1f}" y2="{top + ROW * len(rows):.1f}"/>'
            )
        for row in rows:
            parts += _row(row, y + ROW / 2 - 4)
            y += ROW
    for percent in range(0, 101, 25):
        x = _across(percent / 100)
        parts.append(f'<text x="{x:.1f}" y="{y + 12:.1f}" text-anchor="middle">{percent} %</text>')
    parts.append(f'<text x="12" y="{y + 36:.1f}">{escape(legend)}</text>')
    return standing_alone(title, BROAD, y + 48, parts)


def _row(row: Dots, middle: float) -> list[str]:
    parts = [f'<text x="{LABELS - 8:g}" y="{middle + 4:.1f}" text-anchor="end">{escape(row.name)}</text>']
    reach = min(14.0, 3.5 * max(0, len(row.shares) - 1))
    if row.before is not None:
        x = _across(row.before)
        parts.append(f'<path class="before" d="M{x:.1f} {middle - 7:.1f} l5 7 l-5 7 l-5 -7 z"/>')
    for i, share in enumerate(row.shares):
        y = middle + (reach * (i / (len(row.shares) - 1) - 0.5) if len(row.shares) > 1 else 0.0)
        if row.intervals:
            low, high = (_across(end) for end in row.intervals[i])
            parts.append(f'<line class="whisker" x1="{low:.1f}" x2="{high:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<circle class="dot" cx="{_across(share):.1f}" cy="{y:.1f}" r="3"/>')
    if row.shares:
        x = _across(sum(row.shares) / len(row.shares))
        parts.append(f'<line class="mean" x1="{x:.1f}" x2="{x:.1f}" y1="{middle - 9:.1f}" y2="{middle + 9:.1f}"/>')
    parts.append(f'<text x="{BROAD - VALUES + 14:g}" y="{middle + 4:.1f}">{escape(row.said)}</text>')
    return parts


def _across(share: float) -> float:
    return LABELS + min(1.0, max(0.0, share)) * (BROAD - LABELS - VALUES)


def below_each_other(title: str, charts: Sequence[LineChart], said: Sequence[str]) -> str:
    """Line charts as one SVG file, each under its title; those with fewer than two values are left out. said: lines at
    the end."""
    parts, y = [f'<text class="heading" x="12" y="26">{escape(title)}</text>'], HEAD
    for chart in charts:
        if (image := draw(chart)) is None:
            continue
        parts.append(f'<text class="sub" x="{LEFT - 6:g}" y="{y:.1f}">{escape(chart.title)}</text>')
        place = f'<svg y="{y + 6:.1f}" width="{WIDTH:g}" height="{chart.height:g}" '
        parts.append(place + image.removeprefix("<svg "))
        y += chart.height + 28
    for line in said:
        parts.append(f'<text x="12" y="{y:.1f}">{escape(line)}</text>')
        y += 17
    return standing_alone(title, WIDTH, y, parts)


def shown(charts: Sequence[LineChart]) -> bool:
    """Whether there is something to see in each."""
    return all(len(finite(chart.points)) > 1 for chart in charts)


def standing_alone(title: str, width: float, height: float, parts: Sequence[str]) -> str:
    """Parts of a picture as an SVG file, with its own colours."""
    return "".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:.0f}" width="{width:g}" ',
            f'height="{height:.0f}" role="img"><title>{escape(title)}</title><style>{STYLE}</style>',
            f'<rect class="paper" width="{width:g}" height="{height:.0f}"/>',
            *(f"{part}\n" for part in parts),
            "</svg>\n",
        ]
    )
