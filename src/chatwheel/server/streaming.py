"""Answers that leave in pieces: a task that makes them, a response that reads them, server-sent events between."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar

from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from chatwheel.errors import ChatwheelError
from chatwheel.server.callers import KeyEndedError, watched

T = TypeVar("T")
KEEP_ALIVE_SECONDS = 15.0


class Feed(Generic[T]):
    """Values that a task of its own makes. The reader may leave at any time; the task then is cancelled.

    The task, not the reader, owns the model and the rows it writes, so it can finish its work in order even when
    the reader's connection has gone.
    """

    def __init__(self, make: Callable[[Callable[[T], None]], Coroutine[Any, Any, None]]) -> None:
        self._queue: asyncio.Queue[T | None] = asyncio.Queue()
        self._held: list[T] = []
        self._cancelled = self._unread = False
        self.reason: ChatwheelError | None = None
        self._task = asyncio.create_task(make(self._queue.put_nowait))
        self._task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._queue.put_nowait(None)
        if not task.cancelled():
            task.exception()  # seen, even if the reader has left

    async def first(self) -> None:
        """Waits until there is something to read. Raises what the task raised before it made anything."""
        value = await self._queue.get()
        if value is None:
            self._queue.put_nowait(None)
            await self._task
        else:
            self._held.append(value)

    async def events(self, keep_alive: float = KEEP_ALIVE_SECONDS) -> AsyncIterator[T | None]:
        """The values; None when nothing has come for a while. Raises what the task raised, and why it was cancelled."""
        while self._held:
            yield self._held.pop(0)
        while True:
            try:
                async with asyncio.timeout(keep_alive):  # unlike wait_for, no task of its own
                    value = await self._queue.get()
            except TimeoutError:
                yield None
                continue
            if value is None:
                break
            yield value
        if self.reason is not None and (self._task.cancelled() or self._unread):
            raise self.reason
        await self._task

    def cancel(self, reason: ChatwheelError | None = None) -> None:
        """Asks the task to stop, once: what it still does at its end is not interrupted again. reason: what the reader
        is told, in the place of what it has not read yet, also where the task has ended already."""
        if reason is not None and self.reason is None:
            self.reason, self._unread = reason, self._task.done()
            self._held.clear()
            while not self._queue.empty():
                self._queue.get_nowait()
            if self._unread:
                self._queue.put_nowait(None)
        if not self._cancelled:
            self._cancelled = True
            self._task.cancel()

    async def wait(self) -> None:
        """Until the task has ended, in whatever way."""
        await asyncio.wait([self._task])

    def on_end(self, callback: Callable[[], None]) -> None:
        """Calls back when the task has ended, even if it was cancelled before it began."""
        self._task.add_done_callback(lambda _task: callback())


class FeedResponse(StreamingResponse):
    """Server-sent events from a feed; a client that goes away cancels the feed, and so does a key that ends."""

    media_type = "text/event-stream"

    def __init__(self, feed: Feed[Any], body: AsyncIterator[str]) -> None:
        super().__init__(body, headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        self._feed = feed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the events."""
        try:
            with watched(scope, self._feed.cancel):
                await super().__call__(scope, receive, send)
        finally:
            self._feed.cancel()


def sse(data: Any, event: str | None = None) -> str:
    """One server-sent event. JSON has no raw line breaks, so one `data:` line is enough."""
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return f"event: {event}\ndata: {text}\n\n" if event else f"data: {text}\n\n"


KEEP_ALIVE = ": still here\n\n"


@asynccontextmanager
async def closing(values: AsyncIterator[T]) -> AsyncIterator[AsyncIterator[T]]:
    """The iterator, closed at the end of the block, which is how a stream is told that nobody reads on."""
    try:
        yield values
    finally:
        if isinstance(values, AsyncGenerator):
            await values.aclose()


async def until_disconnect(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The work's result; cancels the work if the client goes away, so that nobody computes for nobody. Raises
    KeyEndedError where the client's key ends meanwhile."""
    task = asyncio.create_task(work)
    gone = asyncio.create_task(_disconnected(request.receive))
    ended: asyncio.Future[KeyEndedError] = asyncio.get_running_loop().create_future()
    try:
        with watched(request.scope, ended.set_result):
            await asyncio.wait((task, gone, ended), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return await task
        if ended.done():
            raise ended.result()
        raise ClientGoneError
    finally:
        ended.cancel()
        task.cancel()
        gone.cancel()


async def together(work: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """All results, in order; if one fails or the caller is cancelled, the others are too."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def begun(request: Request, feed: Feed[T]) -> Feed[T]:
    """The feed once there is something to read: an error before that still has its own status. Cancels it where the
    client goes away."""
    try:
        await until_disconnect(request, feed.first())
    except BaseException:
        feed.cancel()
        raise
    return feed


class ClientGoneError(Exception):
    """The client closed the connection; there is nobody to answer."""


async def _disconnected(receive: Callable[[], Awaitable[Any]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
