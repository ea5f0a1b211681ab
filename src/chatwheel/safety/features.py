"""Texts as bags of hashed n-grams: of characters, which see through misspellings, and of words.

All texts of a batch are hashed together in NumPy. Shapes: N texts, M n-grams of all texts, P code points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

VERSION = 1
"""Of the hashing. Weights that were learnt with another one mean nothing here."""
BITS = 16
BUCKETS = 2**BITS
LETTERS = (2, 3, 4, 5)
"""Lengths of character n-grams; those of Chinese characters are 1 to 3: a character there says what a syllable does."""
CHINESE = (1, 2, 3)

Hashes = NDArray[np.uint64]
_BASE = np.uint64(0x9E3779B97F4A7C15)
_ENDS = "\x00"


@dataclass(frozen=True)
class Bags:
    """buckets: sorted by text, each bucket once a text. begins: where each text's begin. values: of each n-gram,
    so that a text's have the length 1. words: words, and Chinese characters each."""

    buckets: NDArray[np.int64]
    begins: NDArray[np.int64]
    values: NDArray[np.float32]
    words: NDArray[np.int64]


@cache
def _kinds() -> NDArray[np.uint8]:
    """By code point of the basic plane: 0 between words, 1 part of a word, 2 a word of its own; 3 between texts."""
    kinds = np.array([chr(c).isalnum() for c in range(0x10000)], np.uint8)
    for first, last in ((0x0E00, 0x0EFF), (0x3040, 0x30FF), (0x3400, 0x9FFF), (0xF900, 0xFAFF)):
        kinds[first : last + 1] *= 2
    kinds[0] = 3
    return kinds


@np.errstate(over="ignore")
def bags(texts: Sequence[str]) -> Bags:
    """The n-grams of normalised texts."""
    joined = _ENDS + "".join(f" {text.replace(_ENDS, ' ')} {_ENDS}" for text in texts)
    points = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), np.uint32)
    kinds = np.where(points < 0x10000, _kinds()[np.minimum(points, 0xFFFF)], 2).astype(np.uint8)
    rows = np.cumsum(kinds == 3) - 1
    starts, codes = _words(points, kinds)
    keys = [*_of_characters(points, kinds, rows), *_of_words(starts, codes, rows)]
    found = np.unique(np.concatenate(keys))
    row = found >> BITS
    counts = np.bincount(row, minlength=len(texts))
    values = 1 / np.sqrt(np.maximum(counts, 1)).astype(np.float32)
    return Bags(
        buckets=found & (BUCKETS - 1),
        begins=np.cumsum(counts) - counts,
        values=values[row],
        words=np.bincount(rows[starts], minlength=len(texts)),
    )


def _of_characters(
    points: NDArray[np.uint32], kinds: NDArray[np.uint8], rows: NDArray[np.int64]
) -> list[NDArray[np.int64]]:
    """Keys (text, bucket) of the runs of characters; a Chinese one is told by its last character."""
    keys = []
    codes = points.astype(np.uint64)
    rolling = np.zeros(len(points), np.uint64)
    places = np.arange(len(points))
    since = places - np.maximum.accumulate(np.where(kinds == 3, places, 0))  # characters since the text began
    for size in range(1, max(LETTERS) + 1):
        # rolling[i] hashes the `size` characters that end at i.
        rolling = np.concatenate(([np.uint64(0)], rolling[:-1])) * _BASE + codes + np.uint64(1)
        wanted = np.where(kinds == 2, size in CHINESE, size in LETTERS) & (since >= size)
        keys.append(_keys(rolling[wanted], size, rows[wanted]))
    return keys


def _of_words(starts: NDArray[np.int64], codes: Hashes, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Keys of words and of two words in a row."""
    if not len(starts):
        return []
    row = rows[starts]
    same = row[1:] == row[:-1]
    pairs = codes[:-1] * _BASE + codes[1:]
    return [_keys(codes, 100, row), _keys(pairs[same], 101, row[1:][same])]


def _words(points: NDArray[np.uint32], kinds: NDArray[np.uint8]) -> tuple[NDArray[np.int64], Hashes]:
    """Where each word begins, and a hash of it, which does not depend on where it stands."""
    alone, word = kinds == 2, kinds == 1
    begins = np.flatnonzero(alone | (word & ~np.concatenate(([False], word[:-1]))))
    if not len(begins):
        return begins, np.zeros(0, np.uint64)
    inside = alone | word
    at = np.flatnonzero(inside)
    offset = (at - begins[np.searchsorted(begins, at, side="right") - 1]).astype(np.uint64)
    parts = _mixed((points[at].astype(np.uint64) << np.uint64(32)) + offset)
    return begins, np.add.reduceat(parts, np.searchsorted(at, begins))


def _keys(hashes: Hashes, kind: int, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    buckets = _mixed(hashes * _BASE + np.uint64(kind)) >> np.uint64(64 - BITS)
    return (rows << BITS) | buckets.astype(np.int64)


@np.errstate(over="ignore")
def _mixed(values: Hashes) -> Hashes:
    """splitmix64's finaliser: every bit of the input moves every bit of the output."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
