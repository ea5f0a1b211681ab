"""What is made for a reader, and what the reader gets of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from chatwheel.server.callers import KeyEndedError
from chatwheel.server.streaming import Feed


@pytest.mark.parametrize("ended", [False, True], ids=["goes on", "has ended"])
@pytest.mark.parametrize("stopped", [False, True], ids=["", "stopped before"])
def test_nothing_that_waited_is_sent_after_a_key_has_ended(ended: bool, stopped: bool) -> None:
    """The reader is slow: all but the first piece wait for it."""

    async def make(put: Callable[[int], None]) -> None:
        for number in range(5):
            put(number)
        if not ended:
            await asyncio.Event().wait()

    async def read() -> list[int | None]:
        feed = Feed[int](make)
        await feed.first()
        got: list[int | None] = []
        events = feed.events()
        got.append(await anext(events))
        if ended:
            await feed.wait()
        if stopped:
            feed.cancel()
        feed.cancel(KeyEndedError())
        with pytest.raises(KeyEndedError):
            got.append(await anext(events))
        return got

    assert asyncio.run(read()) == [0]


def test_what_the_task_says_at_its_end_is_still_sent() -> None:
    """It knows why it ends, and tells it itself."""

    async def make(put: Callable[[str], None]) -> None:
        put("text")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            put(f"error: {feed.reason and feed.reason.code}")

    async def read() -> list[str | None]:
        nonlocal feed
        feed = Feed[str](make)
        await feed.first()
        feed.cancel(KeyEndedError())
        return [event async for event in feed.events()]

    feed: Feed[str]
    assert asyncio.run(read()) == ["error: invalid_api_key"]


def test_a_key_that_ends_before_the_first_piece_was_read_is_told() -> None:
    async def make(put: Callable[[int], None]) -> None:
        put(1)

    async def read() -> list[int | None]:
        feed = Feed[int](make)
        await feed.first()
        feed.cancel(KeyEndedError())
        return [event async for event in feed.events()]

    with pytest.raises(KeyEndedError):
        asyncio.run(read())
