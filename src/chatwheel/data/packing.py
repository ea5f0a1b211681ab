"""Sequences of uneven length in rows of one length: little is padded, and nothing attends across borders."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int32]


@dataclass(frozen=True, kw_only=True)
class Packed:
    """N rows of T tokens.

    tokens, positions: NT. segments: NT, 0 is padding, 1, 2, ... are the sequences of a row in order.
    supervised: NT, whether the token is to be predicted (never the first of a sequence).
    places: for each input sequence its (row, begin, length); a sequence that was cut has its first piece's.
    """

    tokens: IntArray
    positions: IntArray
    segments: IntArray
    supervised: NDArray[np.bool_]
    places: list[tuple[int, int, int]]

    def __len__(self) -> int:
        return len(self.tokens)

    def rows(self, index: NDArray[np.int64]) -> Packed:
        """Some of the rows; `places` is not carried over."""
        return Packed(
            tokens=self.tokens[index],
            positions=self.positions[index],
            segments=self.segments[index],
            supervised=self.supervised[index],
            places=[],
        )


def pack(
    sequences: Sequence[Sequence[int] | IntArray],
    length: int,
    *,
    masks: Sequence[Sequence[bool]] | None = None,
    pad: int = 0,
) -> Packed:
    """Packs token sequences into rows of `length`, longest first into the fullest row that still has room (best fit).

    A sequence longer than a row is cut into pieces that overlap by one token, so that each token but the very first
    is predicted once. masks: which tokens are supervised, all without one. The result depends on the input alone.
    """
    assert length >= 2, "pieces overlap by a token, so a row of one would never end"
    pieces: list[tuple[int, int, int]] = []  # (sequence, begin, end)
    for number, sequence in enumerate(sequences):
        begin = 0
        while True:
            end = min(begin + length, len(sequence))
            pieces.append((number, begin, end))
            if end >= len(sequence):
                break
            begin = end - 1
    pieces.sort(key=lambda p: (p[1] - p[2], p[0], p[1]))
    open_rows: list[tuple[int, int]] = []  # (room, row), sorted
    layout: list[tuple[int, int, tuple[int, int, int]]] = []
    num_rows = 0
    for piece in pieces:
        size = piece[2] - piece[1]
        at = bisect_left(open_rows, (size, -1))
        if at < len(open_rows):
            room, row = open_rows.pop(at)
        else:
            room, row = length, num_rows
            num_rows += 1
        layout.append((row, length - room, piece))
        if room > size:
            insort(open_rows, (room - size, row))
    return _fill(sequences, masks, layout, num_rows, length, pad)


def _fill(
    sequences: Sequence[Sequence[int] | IntArray],
    masks: Sequence[Sequence[bool]] | None,
    layout: list[tuple[int, int, tuple[int, int, int]]],
    num_rows: int,
    length: int,
    pad: int,
) -> Packed:
    tokens = np.full((num_rows, length), pad, np.int32)
    positions = np.zeros((num_rows, length), np.int32)
    segments = np.zeros((num_rows, length), np.int32)
    supervised = np.zeros((num_rows, length), np.bool_)
    places = [(0, 0, 0)] * len(sequences)
    count = [0] * num_rows
    for row, at, (number, begin, end) in layout:
        size = end - begin
        count[row] += 1
        tokens[row, at : at + size] = sequences[number][begin:end]
        positions[row, at : at + size] = np.arange(size)
        segments[row, at : at + size] = count[row]
        supervised[row, at : at + size] = True if masks is None else masks[number][begin:end]
        supervised[row, at] = False
        if begin == 0:
            places[number] = (row, at, size)
    return Packed(tokens=tokens, positions=positions, segments=segments, supervised=supervised, places=places)
