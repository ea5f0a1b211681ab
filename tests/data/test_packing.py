"""Packing: every token is in exactly one place, borders are marked, and little is padded."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from chatwheel.data.packing import Packed, grow_trees, pack, pack_trees

PAD = 999


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[list[int]], list[list[bool]] | None, int]:
    length = draw(st.integers(2, 12))
    sizes = draw(st.lists(st.integers(1, 30), max_size=14))
    # Every token is different, so that a token says where it came from.
    first = np.cumsum([0, *sizes])
    sequences = [list(range(int(begin), int(begin) + size)) for begin, size in zip(first, sizes, strict=False)]
    masks = None
    if draw(st.booleans()):
        masks = [draw(st.lists(st.booleans(), min_size=n, max_size=n)) for n in sizes]
    return sequences, masks, length


def pieces(packed: Packed) -> list[tuple[int, int, int]]:
    """(row, begin, end) of each segment, from `segments` alone."""
    found = []
    for row, segments in enumerate(packed.segments):
        for number in range(1, int(segments.max(initial=0)) + 1):
            (places,) = np.nonzero(segments == number)
            assert len(places) == places[-1] - places[0] + 1, "a segment is one stretch"
            found.append((row, int(places[0]), int(places[-1]) + 1))
    return found


@settings(max_examples=300, deadline=None)
@given(cases())
def test_every_token_is_in_exactly_one_place(case: tuple[list[list[int]], list[list[bool]] | None, int]) -> None:
    sequences, masks, length = case
    packed = pack(sequences, length, masks=masks, pad=PAD)
    assert packed.tokens.shape == packed.positions.shape == packed.segments.shape == packed.supervised.shape
    assert packed.tokens.shape[1] == length
    covered = np.zeros_like(packed.segments, dtype=bool)
    parts = []
    for row, begin, end in pieces(packed):
        covered[row, begin:end] = True
        parts.append(packed.tokens[row, begin:end].tolist())
        assert packed.positions[row, begin:end].tolist() == list(range(end - begin))
        assert not packed.supervised[row, begin]  # nothing in the row comes before it
    # What no piece covers is padding: marked 0, never to be predicted.
    assert (packed.segments[~covered] == 0).all()
    assert (packed.tokens[~covered] == PAD).all()
    assert not packed.supervised[~covered].any()
    # The pieces of each sequence, put one after another with an overlap of one token, are the sequence.
    parts.sort()
    rebuilt: list[list[int]] = []
    for part in parts:
        if rebuilt and rebuilt[-1][-1] == part[0]:
            assert len(part) > 1
            rebuilt[-1] += part[1:]
        else:
            rebuilt.append(part)
    assert rebuilt == sequences
    if all(len(s) <= length for s in sequences):
        assert len(parts) == len(sequences)


@settings(max_examples=300, deadline=None)
@given(cases())
def test_each_supervised_token_is_predicted_once(
    case: tuple[list[list[int]], list[list[bool]] | None, int],
) -> None:
    sequences, masks, length = case
    packed = pack(sequences, length, masks=masks, pad=PAD)
    predicted = sorted(packed.tokens[packed.supervised].tolist())
    expected = [
        token
        for number, sequence in enumerate(sequences)
        for i, token in enumerate(sequence)
        if i > 0 and (masks is None or masks[number][i])
    ]
    assert predicted == expected
    # And the token before it in the row is the one before it in the sequence.
    rows, columns = np.nonzero(packed.supervised)
    assert (packed.tokens[rows, columns - 1] == packed.tokens[rows, columns] - 1).all()
    assert (packed.segments[rows, columns - 1] == packed.segments[rows, columns]).all()


@settings(max_examples=200, deadline=None)
@given(cases())
def test_places_say_where_each_sequence_begins(case: tuple[list[list[int]], list[list[bool]] | None, int]) -> None:
    sequences, masks, length = case
    packed = pack(sequences, length, masks=masks, pad=PAD)
    assert len(packed.places) == len(sequences)
    for sequence, (row, begin, size) in zip(sequences, packed.places, strict=True):
        assert size == min(length, len(sequence))
        assert packed.tokens[row, begin : begin + size].tolist() == sequence[:size]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 16), min_size=1, max_size=60))
def test_rows_are_few(sizes: list[int]) -> None:
    packed = pack([[1] * n for n in sizes], 16)
    filled = (packed.segments > 0).sum(axis=1)
    assert sum(filled <= 8) <= 1  # else the larger piece of the later row would have gone into the earlier one


def test_nothing_is_nothing() -> None:
    assert len(pack([], 8)) == 0


def test_some_rows_are_those_rows() -> None:
    packed = pack([[i] * 8 for i in range(5)], 8)
    chosen = packed.rows(np.array([3, 1, 3]))
    assert chosen.tokens[:, 0].tolist() == [3, 1, 3]
    assert len(chosen) == 3


def test_the_same_sequences_are_packed_the_same() -> None:
    sequences = [list(range(n)) for n in (5, 3, 5, 8, 2, 3, 5)]
    a, b = pack(sequences, 8), pack(sequences, 8)
    assert (a.tokens == b.tokens).all()
    assert a.places == b.places


@st.composite
def answered(draw: st.DrawFn) -> list[list[int]]:
    """Prompts with several answers each, some of them equal, some prompts too short to share."""
    sequences: list[list[int]] = []
    for prompt in draw(st.lists(st.integers(0, 20), max_size=5)):
        beginning = draw(st.lists(st.integers(0, 3), min_size=prompt, max_size=prompt))
        for _ in range(draw(st.integers(1, 4))):
            sequences.append([*beginning, *draw(st.lists(st.integers(0, 3), min_size=1, max_size=12))])
    return sequences


@settings(max_examples=300, deadline=None)
@given(answered())
def test_a_tree_holds_every_sequence_and_keeps_what_they_share_once(sequences: list[list[int]]) -> None:
    trees = grow_trees(sequences, 40)
    found = []
    for tree in trees:
        assert len(tree.tokens) == len(tree.positions) == len(tree.branches) <= 40
        for number, end in enumerate(tree.ends, start=1):
            path = [i for i, branch in enumerate(tree.branches) if branch in (0, number)]
            assert path[-1] == end
            assert [tree.positions[i] for i in path] == list(range(len(path)))
            found.append([tree.tokens[i] for i in path])
    assert found == sequences
    assert sum(len(t.tokens) for t in trees) <= sum(map(len, sequences))


def test_answers_to_one_prompt_share_it_and_strangers_do_not() -> None:
    prompt = list(range(100, 120))
    sequences = [[*prompt, 1, 2], [*prompt, 1, 2], [*prompt, 3], [100, 101, 7, 8, 9, 10, 11, 12, 13, 14]]
    trees = grow_trees(sequences, 64)
    assert [len(t.ends) for t in trees] == [3, 1]
    assert trees[0].tokens == [*prompt, 1, 2, 1, 2, 3]
    packed = pack_trees(trees, 64)
    row, at, size = packed.places[0]
    assert packed.branches is not None
    assert packed.branches[row, at : at + size].tolist() == [0] * 20 + [1, 1, 2, 2, 3]
    assert packed.positions[row, at : at + size].tolist() == [*range(20), 20, 21, 20, 21, 20]
