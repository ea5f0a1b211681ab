"""Sequences of uneven length in rows of one length: little is padded, and nothing attends across borders."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int32]


class RowSource(Protocol):
    """Rows to train on, wherever they are."""

    @property
    def row_length(self) -> int: ...

    def __len__(self) -> int: ...

    def rows(self, index: NDArray[np.int64]) -> Packed:
        """Some of the rows, in memory."""
        ...


@dataclass(frozen=True, kw_only=True)
class Packed:
    """N rows of T tokens.

    tokens, positions: NT. segments: NT, 0 is padding, 1, 2, ... are the sequences of a row in order.
    supervised: NT, whether the token is to be predicted (never the first of a sequence).
    branches: NT, the branch of a tree that a token is on, 0 the trunk; None if all sequences are plain.
    places: for each input sequence its (row, begin, length); a sequence that was cut has its first piece's.
    """

    tokens: IntArray
    positions: IntArray
    segments: IntArray
    supervised: NDArray[np.bool_]
    places: list[tuple[int, int, int]]
    branches: IntArray | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def row_length(self) -> int:
        return int(self.tokens.shape[1])

    def rows(self, index: NDArray[np.int64]) -> Packed:
        """Some of the rows; `places` is not carried over."""
        return Packed(
            tokens=self.tokens[index],
            positions=self.positions[index],
            segments=self.segments[index],
            supervised=self.supervised[index],
            places=[],
            branches=self.branches[index] if self.branches is not None else None,
        )


@dataclass(frozen=True, kw_only=True)
class Tree:
    """Sequences that begin alike, the common beginning kept once: a trunk, then one branch after the other.

    tokens, positions, branches: in step; branch 0 is the trunk, and each branch's positions go on from it.
    ends: where in `tokens` the last token of each sequence is.
    """

    tokens: list[int]
    positions: list[int]
    branches: list[int]
    ends: list[int]

    def places(self, number: int, length: int) -> IntArray:
        """Where in `tokens` each of the tokens of a sequence is, which has so many: first the trunk's, then its own."""
        trunk = self.branches.count(0)
        places = np.arange(length, dtype=np.int32)
        places[trunk:] += self.ends[number] - (length - 1)
        return places


# Strangers share a chat template's first tokens; that is not worth a tree.
LEAST_SAVED = 8


def grow_trees(sequences: Sequence[Sequence[int]], length: int) -> list[Tree]:
    """Trees of at most `length` tokens that hold the sequences in order; neighbours share what they begin with.

    What a model computes of a branch is what it computes of the whole sequence: see `packed_mask`.
    """
    groups: list[tuple[list[Sequence[int]], int]] = []  # (sequences, length of the trunk)
    for sequence in sequences:
        if groups:
            members, trunk = groups[-1]
            # Each branch keeps a token of its own, the one that is scored.
            shared = _common(members[0], sequence, min(trunk, len(sequence) - 1))
            size = _size([*members, sequence], shared)
            if size <= length and size + LEAST_SAVED <= _size(members, trunk) + len(sequence):
                groups[-1] = ([*members, sequence], shared)
                continue
        groups.append(([sequence], len(sequence) - 1))
    return [_tree(members, trunk) for members, trunk in groups]


def _size(members: Sequence[Sequence[int]], trunk: int) -> int:
    return trunk + sum(len(m) - trunk for m in members)


def _common(one: Sequence[int], other: Sequence[int], most: int) -> int:
    for i in range(most):
        if one[i] != other[i]:
            return i
    return most


def _tree(members: list[Sequence[int]], trunk: int) -> Tree:
    tokens, positions, branches, ends = list(members[0][:trunk]), list(range(trunk)), [0] * trunk, []
    for number, member in enumerate(members, start=1):
        tokens += member[trunk:]
        positions += range(trunk, len(member))
        branches += [number] * (len(member) - trunk)
        ends.append(len(tokens) - 1)
    return Tree(tokens=tokens, positions=positions, branches=branches, ends=ends)


def pack_trees(trees: Sequence[Tree], length: int) -> Packed:
    """Packs trees, none longer than a row; `places` are the trees'."""
    assert all(len(tree.tokens) <= length for tree in trees), "a tree cannot be cut"
    packed = pack([tree.tokens for tree in trees], length)
    branches = np.zeros_like(packed.segments)
    for tree, (row, at, size) in zip(trees, packed.places, strict=True):
        packed.positions[row, at : at + size] = tree.positions
        branches[row, at : at + size] = tree.branches
    return replace(packed, branches=branches)


def pack(
    sequences: Sequence[Sequence[int] | IntArray],
    length: int,
    *,
    masks: Sequence[Sequence[bool] | NDArray[np.bool_]] | None = None,
    pad: int = 0,
) -> Packed:
    """Packs token sequences into rows of `length`, longest first into the fullest row that still has room (best fit).

    A sequence longer than a row is cut into pieces that overlap by one token, so that each token but the very first
    is predicted once. masks: which tokens are supervised, all without one. The result depends on the input alone.
    """
    layout = layout_of([len(sequence) for sequence in sequences], length)
    places = [(0, 0, 0)] * len(sequences)
    pieces: list[Piece] = []
    for row, at, number, begin, end in layout.pieces.tolist():
        pieces.append((row, at, sequences[number][begin:end]))
        if begin == 0:
            places[number] = (row, at, end - begin)
    packed = filled(pieces, layout.num_rows, length, pad)
    if masks is not None:
        for row, at, number, begin, end in layout.pieces.tolist():
            packed.supervised[row, at + 1 : at + end - begin] = masks[number][begin + 1 : end]
    return replace(packed, places=places)


@dataclass(frozen=True)
class Layout:
    """Where pieces of sequences go. pieces: P x 5 of int32: row, where in it, sequence, begin and end in the sequence;
    ordered by row and place."""

    pieces: IntArray

    @property
    def num_rows(self) -> int:
        return int(self.pieces[-1, 0]) + 1 if len(self.pieces) else 0

    def row(self, number: int) -> list[list[int]]:
        """The pieces of a row, without its number."""
        begin, end = np.searchsorted(self.pieces[:, 0], [number, number + 1])
        return self.pieces[begin:end, 1:].tolist()  # type: ignore[no-any-return]


def layout_of(lengths: Sequence[int], length: int) -> Layout:
    """The layout of sequences of these lengths in rows of `length`, as `pack` says."""
    assert length >= 2, "pieces overlap by a token, so a row of one would never end"
    pieces: list[tuple[int, int, int]] = []  # (sequence, begin, end)
    for number, size in enumerate(lengths):
        begin = 0
        while True:
            end = min(begin + length, size)
            pieces.append((number, begin, end))
            if end >= size:
                break
            begin = end - 1
    pieces.sort(key=lambda p: (p[1] - p[2], p[0], p[1]))
    open_rows: list[tuple[int, int]] = []  # (room, row), sorted
    found = np.zeros((len(pieces), 5), np.int32)
    num_rows = 0
    for i, (number, begin, end) in enumerate(pieces):
        size = end - begin
        at = bisect_left(open_rows, (size, -1))
        if at < len(open_rows):
            room, row = open_rows.pop(at)
        else:
            room, row = length, num_rows
            num_rows += 1
        found[i] = row, length - room, number, begin, end
        if room > size:
            insort(open_rows, (room - size, row))
    return Layout(found[np.lexsort((found[:, 1], found[:, 0]))])


Piece = tuple[int, int, Sequence[int] | IntArray]
"""(row, where in it, tokens)"""


def filled(pieces: Iterable[Piece], num_rows: int, length: int, pad: int = 0) -> Packed:
    """Rows of these pieces, which come in the order of their places in a row; all but the first token of each is
    supervised."""
    tokens = np.full((num_rows, length), pad, np.int32)
    positions = np.zeros((num_rows, length), np.int32)
    segments = np.zeros((num_rows, length), np.int32)
    supervised = np.zeros((num_rows, length), np.bool_)
    count = [0] * num_rows
    for row, at, content in pieces:
        size = len(content)
        count[row] += 1
        tokens[row, at : at + size] = content
        positions[row, at : at + size] = np.arange(size)
        segments[row, at : at + size] = count[row]
        supervised[row, at + 1 : at + size] = True
    return Packed(tokens=tokens, positions=positions, segments=segments, supervised=supervised, places=[])
