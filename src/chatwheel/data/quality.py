"""Is a document prose? The filters of Gopher (Rae et al., 2021, table A1), and one each of C4's and FineWeb's kind,
for Chinese and English alike: a word is a unit of `deduplication`, so a Chinese character counts as one.

They are for crawled text. Each measure has its name, a reason under which documents are counted that are beyond it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from chatwheel.data.deduplication import Units, units

LIMITS: dict[str, tuple[float, float]] = {
    "symbols": (0.0, 0.1),
    "alphabetic share": (0.6, 1.0),
    "mean word length": (3.0, 10.0),
    "bullet lines": (0.0, 0.9),
    "ellipsis lines": (0.0, 0.3),
    "unpunctuated lines": (0.0, 0.88),
    "duplicate paragraphs": (0.0, 0.2),
    "duplicate lines": (0.0, 0.2),
    "top 2-gram": (0.0, 0.2),
    "top 3-gram": (0.0, 0.18),
    "top 4-gram": (0.0, 0.16),
}
"""What a measure may be, from least to most.

symbols: #, ellipses and bullets a word.        alphabetic share: letters among the characters that are not space.
mean word length: in characters, where no Chinese is (a few characters are not enough).
bullet lines, ellipsis lines, unpunctuated lines: the share of lines that begin so, or end so; unpunctuated as FineWeb
has it (Penedo et al., 2024). duplicate paragraphs, duplicate lines: the share of characters in those that were there
before. top n-gram: the share of characters that the commonest run of n words covers, if it comes twice.
"""

FEWEST_WORDS = 50
"""Gopher drops shorter documents; here the length is `min_characters`' business, and the shares of words, of which
there are too few to tell, are not looked at."""

_LETTERS = re.compile(r"[^\W\d_]+")
_SYMBOLS = re.compile(r"[#…•‣◦●▪■]|\.\.\.+")
_BULLETS = ("•", "‣", "◦", "●", "▪", "■", "·", "* ", "- ", "+ ")  # no dash: a novel's dialogue begins with one
_ELLIPSES = ("...", "…")
_ENDS = (*".!?;:。！？；：…\"'”’)）」』》", "`")
_PARAGRAPHS = re.compile(r"\n[ \t\u3000]*\n")


def quality_fault(text: str) -> str | None:
    """The name of the first measure that is beyond its limits, or None."""
    for name, value in measures(text):
        least, most = LIMITS[name]
        if not least <= value <= most:
            return name
    return None


def measures(text: str) -> Iterator[tuple[str, float]]:
    """Each measure that the text is long enough for, in the order of LIMITS."""
    words = units(text)
    lines = [line for line in map(str.strip, text.split("\n")) if line]
    if not lines:
        return
    yield "symbols", len(_SYMBOLS.findall(text)) / max(1, len(words))
    yield "alphabetic share", sum(map(len, _LETTERS.findall(text))) / sum(map(len, "".join(lines).split()))
    if len(words) >= FEWEST_WORDS and words.alone.mean() < 0.02:
        yield "mean word length", float(words.lengths.mean())
    yield "bullet lines", _share(line.startswith(_BULLETS) for line in lines)
    yield "ellipsis lines", _share(line.endswith(_ELLIPSES) for line in lines)
    yield "unpunctuated lines", _share(not line.endswith(_ENDS) for line in lines)
    yield "duplicate paragraphs", _repeated([part for part in _PARAGRAPHS.split(text) if part.strip()])
    yield "duplicate lines", _repeated(lines)
    if len(words) >= FEWEST_WORDS:
        for size in (2, 3, 4):
            yield f"top {size}-gram", _top_share(words, size)


def _share(which: Iterable[bool]) -> float:
    marks = list(which)
    return sum(marks) / len(marks)


def _repeated(parts: Sequence[str]) -> float:
    """The share of characters in parts that were there before."""
    counts = Counter(parts)
    if len(counts) == len(parts):
        return 0.0
    return sum((count - 1) * len(part) for part, count in counts.items()) / sum(map(len, parts))


def _top_share(words: Units, size: int) -> float:
    """The share of the words' characters in the commonest run of so many; runs that overlap count each."""
    runs = words.runs(size)
    ordered = np.sort(runs)
    borders = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1], [True])))
    counts = np.diff(borders)
    top = int(counts.argmax())
    if counts[top] < 2:
        return 0.0
    begin = int((runs == ordered[borders[top]]).argmax())
    return float(counts[top] * words.lengths[begin : begin + size].sum() / words.lengths.sum())
