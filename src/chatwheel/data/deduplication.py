"""Near-duplicates by MinHash and locality-sensitive hashing (Broder, 1997; Leskovec et al., ch. 3), in bounded memory.

A text is the set of its shingles, five units in a row; a unit is a word, or a character of a script without spaces. The
share of shingles that two texts have in common (Jaccard) is estimated from 128 numbers each: one permutation, whose
values are dealt into bins of which each keeps its smallest (Li et al., 2012); what stays empty is filled from its
neighbours (Shrivastava & Li, 2014). Texts that agree in all bins of a band are compared. Per text 256 bytes are kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from chatwheel.data.records import Record

RecordT = TypeVar("RecordT", bound=Record)

SHINGLE = 5
BINS = 128
BANDS = 16
"""Of eight bins each: of two texts with a Jaccard of 0.8 these compare 95 %, of 0.9 all, of 0.5 6 %."""

FEWEST = 64
MOST_LEADERS = 32
"""How many different texts of one key are compared with: boilerplate that thousands share must not take forever."""

Hashes = NDArray[np.uint64]
Signatures = NDArray[np.uint16]

_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that it has an inverse modulo 2^64
_INVERSE = np.uint64(pow(0x9E3779B97F4A7C15, -1, 2**64))
_EMPTY = np.uint64(2**64 - 1)


@cache
def _kinds() -> NDArray[np.uint8]:
    """By code point of the basic plane: 0 between units, 1 part of a word, 2 a unit of its own (Chinese, Thai)."""
    kinds = np.array([chr(c).isalnum() for c in range(0x10000)], np.uint8)
    for first, last in ((0x0E00, 0x0EFF), (0x1780, 0x17FF), (0x3040, 0x30FF), (0x3400, 0x9FFF), (0xF900, 0xFAFF)):
        kinds[first : last + 1] *= 2
    return kinds


@dataclass(frozen=True)
class Units:
    """The words of a text, and the characters that are units of their own, in order.

    lengths: in characters. alone: which are a character of a script without spaces. hashes: equal for equal units,
    whatever their case. num_points: code points of the case-folded text.
    """

    lengths: NDArray[np.int64]
    alone: NDArray[np.bool_]
    hashes: Hashes
    num_points: int

    def __len__(self) -> int:
        return len(self.hashes)

    @np.errstate(over="ignore")
    def runs(self, size: int) -> Hashes:
        """A hash of each run of `size` units, in order."""
        count = max(0, len(self) - size + 1)
        combined = np.zeros(count, np.uint64)
        for i in range(size):
            combined = combined * _BASE + self.hashes[i : i + count]
        return _mixed(combined)


@np.errstate(over="ignore")
def units(text: str) -> Units:
    """The units of a text."""
    points = np.frombuffer(text.casefold().encode("utf-32-le", "surrogatepass"), np.uint32)
    kinds = np.where(points < 0x10000, _kinds()[np.minimum(points, 0xFFFF)], 2).astype(np.uint8)
    # A unit begins at every character that stands alone, and where a word does.
    alone, word = kinds == 2, kinds == 1
    begins = np.flatnonzero(alone | (word & ~np.concatenate(([False], word[:-1]))))
    ends = np.flatnonzero(alone | (word & ~np.concatenate((word[1:], [False])))) + 1
    # With S[i] the sum of c_j B^j over j < i, a unit from a to b has the hash (S[b] - S[a]) B^-a, wherever it stands.
    powers, inverses = _powers(len(points) + 1)
    sums = np.zeros(len(points) + 1, np.uint64)
    np.cumsum(points.astype(np.uint64) * powers[:-1], out=sums[1:])
    hashes = _mixed((sums[ends] - sums[begins]) * inverses[begins])
    return Units(ends - begins, alone[begins], hashes, len(points))


def shingles(text: str) -> Hashes:
    """A 64-bit hash of each different shingle; of a text with fewer units, one of them all. Empty without units."""
    found = units(text)
    return np.unique(found.runs(min(SHINGLE, len(found)))) if len(found) else np.zeros(0, np.uint64)


_POWERS: dict[int, tuple[Hashes, Hashes]] = {}


@np.errstate(over="ignore")
def _powers(count: int) -> tuple[Hashes, Hashes]:
    """B^0 .. B^(count - 1) and their inverses, modulo 2^64; grown as needed."""
    have = _POWERS.get(0)
    if have is None or len(have[0]) < count:
        size = max(count, 1 << 16, 0 if have is None else 2 * len(have[0]))
        parts = []
        for base in (_BASE, _INVERSE):
            values = np.full(size, base, np.uint64)
            values[0] = 1
            parts.append(np.cumprod(values, dtype=np.uint64))
        _POWERS[0] = have = (parts[0], parts[1])
    return have[0][:count], have[1][:count]


@np.errstate(over="ignore")
def _mixed(values: Hashes) -> Hashes:
    """splitmix64's finaliser: every bit of the input moves every bit of the output."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@np.errstate(over="ignore")
def signature(text: str) -> Signatures:
    """The BINS numbers of a text. Two texts agree in a bin with a probability of about their Jaccard; short ones, of
    fewer than FEWEST shingles, agree in all if their shingles are the same, and else in none."""
    hashes = shingles(text)
    if not len(hashes):
        return np.zeros(BINS, np.uint16)
    if len(hashes) < FEWEST:  # too few to estimate a share from: near is the same, in all bins or in none
        everything = np.bitwise_xor.reduce(hashes) + np.uint64(len(hashes))
        salted = everything + np.arange(BINS, dtype=np.uint64) * _BASE
        return (_mixed(salted) & np.uint64(0xFFFF)).astype(np.uint16)
    bins = (hashes >> np.uint64(57)).astype(np.int64)
    smallest = np.full(BINS, _EMPTY, np.uint64)
    np.minimum.at(smallest, bins, hashes)
    if len(hashes) < 8 * BINS:
        smallest = _filled(smallest)
    # 16 bits of a mixed value: two texts that differ in a bin agree in them once in 65,536 times.
    return (_mixed(smallest) & np.uint64(0xFFFF)).astype(np.uint16)


@np.errstate(over="ignore")
def _filled(smallest: Hashes) -> Hashes:
    """Each empty bin gets the value of the next full one to its right, and how far that was."""
    full = np.flatnonzero(smallest != _EMPTY)
    place = np.searchsorted(full, np.arange(BINS))
    source = full[place % len(full)]
    distance = ((source - np.arange(BINS)) % BINS).astype(np.uint64)
    return smallest[source] + distance * np.uint64(0xD6E8FEB86659FD93)


def near_duplicates(signatures: Signatures, threshold: float = 0.8) -> list[int]:
    """For each text the first one of its group of near-duplicates, itself if it is that or has none.

    threshold: the least share of equal bins. Groups are transitive: what is near to a near-duplicate belongs to them.
    """
    first = np.arange(len(signatures))
    told = np.asarray(signatures.any(axis=1))  # a text without units is like no other
    rows = BINS // BANDS
    for band in range(BANDS):
        part = np.ascontiguousarray(signatures[:, band * rows : (band + 1) * rows])
        keys = part.view(np.dtype((np.void, part.dtype.itemsize * rows)))[:, 0]
        order = np.argsort(keys, kind="stable")
        order = order[told[order]]
        borders = np.flatnonzero(keys[order[1:]] != keys[order[:-1]]) + 1
        begins, ends = np.concatenate(([0], borders)), np.concatenate((borders, [len(order)]))
        for begin, end in zip(begins[ends - begins > 1], ends[ends - begins > 1], strict=True):
            _join(first, signatures, order[begin:end].tolist(), threshold)
    return [_root(first, i) for i in range(len(first))]


def _join(first: NDArray[np.int64], signatures: Signatures, run: Sequence[int], threshold: float) -> None:
    """Joins those of a run of equal keys that are near-duplicates; each is compared with the leaders before it."""
    leaders: list[int] = []
    for i in run:
        for leader in leaders:
            a, b = _root(first, leader), _root(first, i)
            if a == b or np.mean(signatures[leader] == signatures[i]) >= threshold:
                first[max(a, b)] = min(a, b)
                break
        else:
            if len(leaders) < MOST_LEADERS:
                leaders.append(i)


def _root(first: NDArray[np.int64], i: int) -> int:
    while first[i] != i:
        first[i] = first[first[i]]
        i = int(first[i])
    return i


def signatures_of(many: Iterable[str]) -> Signatures:
    """One row a text."""
    content = bytearray()
    for text in many:
        content += signature(text).tobytes()
    return signatures_from(content)


def signatures_from(content: bytearray) -> Signatures:
    """One row for each that was appended to the bytes."""
    return np.frombuffer(content, np.uint16).reshape(-1, BINS)


def firsts(records: Iterable[RecordT], leaders: Sequence[int], dropped: Counter[str]) -> Iterator[RecordT]:
    """The records that lead their groups, by what `near_duplicates` gave; how many do not is counted as
    "near-duplicate"."""
    for i, record in enumerate(records):
        if leaders[i] == i:
            yield record
        else:
            dropped["near-duplicate"] += 1
