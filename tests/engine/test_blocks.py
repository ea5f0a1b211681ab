"""Blocks: held, cached or free, never two of them; shared by content; forgotten oldest first."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatwheel.engine.blocks import BLOCK_SIZE, BlockPool, block_keys


def test_keys_stand_for_all_tokens_before() -> None:
    one = block_keys(range(40))
    assert len(one) == 2
    assert block_keys(range(32)) == one
    assert block_keys(range(64), one)[:2] == one
    other = block_keys([99, *range(1, 40)])
    assert not {*one} & {*other}  # the second blocks hold the same tokens, after others
    assert block_keys(range(40), scope=b"adapter") != one


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 30), st.integers(1, 5)), max_size=80), st.integers(5, 20))
def test_any_story(story: list[tuple[int, int, int]], size: int) -> None:
    pool = BlockPool(size)
    holders: list[list[int]] = []  # what each of them holds
    content: dict[int, bytes] = {}  # what a block was last published as
    for action, what, count in story:
        if action == 0 and count <= pool.available:
            taken = pool.take(count)
            assert len({*taken}) == count
            assert not {*taken} & {block for held in holders for block in held}
            for block in taken:
                content.pop(block, None)
            holders.append(taken)
        elif action == 1 and holders:
            pool.release(holders.pop(what % len(holders)))
        elif action == 2 and holders:
            held = holders[what % len(holders)]
            keys = block_keys(range(1000 * what, 1000 * what + len(held) * BLOCK_SIZE))
            for block, key in zip(held, keys, strict=True):
                if block not in content and key not in content.values():
                    content[block] = key
                pool.publish(block, key)
        elif action == 3:
            keys = block_keys(range(1000 * what, 1000 * what + count * BLOCK_SIZE))
            found = pool.find(keys)
            assert [content[block] for block in found] == keys[: len(found)]
            pool.share(found)
            holders.append(found)
        assert pool.held == len({block for held in holders for block in held})
        assert pool.held + pool.available == size
    for held in holders:
        pool.release(held)
    assert pool.available == size
    assert sorted(pool.take(size)) == list(range(size))


def test_the_beginning_of_a_sequence_is_forgotten_last() -> None:
    pool = BlockPool(4)
    keys = block_keys(range(4 * BLOCK_SIZE))
    blocks = pool.take(4)
    for block, key in zip(blocks, keys, strict=True):
        pool.publish(block, key)
    pool.release(blocks)
    pool.take(1)
    assert pool.find(keys) == blocks[:3]
    pool.take(2)
    assert pool.find(keys) == blocks[:1]


def test_nothing_is_found_after_the_weights_have_moved() -> None:
    pool = BlockPool(3)
    keys = block_keys(range(2 * BLOCK_SIZE))
    held, cached = pool.take(1), pool.take(1)
    pool.publish(held[0], keys[0])
    pool.publish(cached[0], keys[1])
    pool.release(cached)
    pool.forget()
    assert pool.find(keys) == []
    assert pool.available == 2
    pool.release(held)
    assert pool.find(keys) == []
    assert pool.available == 3


def test_mistakes_are_caught() -> None:
    pool = BlockPool(2)
    with pytest.raises(AssertionError, match="that are not there"):
        pool.take(3)
    with pytest.raises(AssertionError, match="nobody holds"):
        pool.release([0])
