"""The engine in a thread of its own, for callers on an event loop: the loop never waits for a matrix."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from chatwheel.engine.engine import Counts
from chatwheel.engine.metrics import Metrics
from chatwheel.engine.requests import Completion, Delta, Request
from chatwheel.errors import ChatwheelError

logger = logging.getLogger(__name__)
Item = Delta | Exception
SHUT_DOWN = "the engine has been shut down"


@dataclass(frozen=True)
class _Listener:
    """Who waits for a request's pieces. loop: in which `put` is to be called; None: anywhere."""

    put: Callable[[Item], None]
    loop: asyncio.AbstractEventLoop | None = None


class Speaking(Protocol):
    """What answers requests: `Engine`, or another one in its place."""

    @property
    def counts(self) -> Counts: ...
    @property
    def idle(self) -> bool: ...
    def submit(self, request: Request) -> int: ...
    def cancel(self, request_id: int) -> Completion | None: ...
    def step(self, *, stream: bool = True) -> list[tuple[int, Delta]]: ...


class EngineService:
    """Runs one engine. `stream` may be called from any event loop, many times at once: all share the batch."""

    def __init__(self, engine: Speaking) -> None:
        self._engine = engine
        self.metrics = Metrics()
        self._inbox: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._listeners: dict[int, _Listener] = {}
        self._closing = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    async def stream(self, request: Request) -> AsyncIterator[Delta]:
        """The answer in pieces. Closing the iterator early cancels the request within a step."""
        inbox = asyncio.Queue[Item]()
        listener = _Listener(inbox.put_nowait, asyncio.get_running_loop())
        ids: list[int] = []
        self._post(lambda: ids.extend(self._submit(request, listener)))
        try:
            while True:
                item = await inbox.get()
                if isinstance(item, Exception):
                    raise item
                yield item
                if item.completion is not None:
                    return
        finally:
            self._inbox.put(lambda: self._cancel(ids))

    @property
    def counts(self) -> Counts:
        """What the engine has done, and how much is under way; from any thread."""
        return self._engine.counts

    def generate(self, request: Request) -> Completion:
        """The whole answer; blocks the calling thread."""
        done: queue.SimpleQueue[Item] = queue.SimpleQueue()
        self._post(lambda: self._submit(request, _Listener(done.put)))
        while True:
            item = done.get()
            if isinstance(item, Exception):
                raise item
            if item.completion is not None:
                return item.completion

    def close(self) -> None:
        """Ends the thread; requests under way end with an error."""
        self._inbox.put(None)
        self._thread.join()

    def _post(self, call: Callable[[], object]) -> None:
        with self._closing:
            if self._closed:
                raise ChatwheelError(SHUT_DOWN)
            self._inbox.put(call)

    def _submit(self, request: Request, listener: _Listener) -> list[int]:
        """The request's id; none if it was refused, which the listener is told."""
        try:
            request_id = self._engine.submit(request)
        except Exception as error:
            _deliver([(listener, error)])
            return []
        self._listeners[request_id] = listener
        return [request_id]

    def _cancel(self, ids: list[int]) -> None:
        for request_id in ids:
            self._listeners.pop(request_id, None)
            if (completion := self._engine.cancel(request_id)) is not None:
                self.metrics.observe(completion, time.monotonic())

    def _run(self) -> None:
        while self._take_calls(wait=self._engine.idle):
            if self._engine.idle:
                continue
            try:
                deltas = self._engine.step()
                _deliver([(self._listeners[i], delta) for i, delta in deltas if i in self._listeners])
                for request_id, delta in deltas:
                    if delta.completion is not None:
                        self._listeners.pop(request_id, None)
                        self.metrics.observe(delta.completion, time.monotonic())
            except Exception as error:
                # A step that fails ends the requests in it, not the server.
                logger.exception("the engine's step failed")
                self._fail_all(error)
        with self._closing:
            self._closed = True
        # What was posted before that is still answered, if only with an error.
        self._take_calls(wait=False)
        self._fail_all(ChatwheelError(SHUT_DOWN))

    def _take_calls(self, *, wait: bool) -> bool:
        while True:
            try:
                call = self._inbox.get(block=wait)
            except queue.Empty:
                return True
            if call is None:
                return False
            try:
                call()
            except RuntimeError:  # the caller's event loop is closed
                logger.debug("a caller is gone", exc_info=True)
            wait = False

    def _fail_all(self, error: Exception) -> None:
        for request_id in self._listeners:
            self._engine.cancel(request_id)
        _deliver([(listener, error) for listener in self._listeners.values()])
        self._listeners.clear()


def _deliver(items: Iterable[tuple[_Listener, Item]]) -> None:
    """Hands out what there is, to each event loop all at once: waking one takes longer than choosing a token."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[_Listener, Item]]] = defaultdict(list)
    for listener, item in items:
        if listener.loop is None:
            listener.put(item)
        else:
            by_loop[listener.loop].append((listener, item))
    for loop, waiting in by_loop.items():
        try:
            loop.call_soon_threadsafe(_put_all, waiting)
        except RuntimeError:  # the callers' event loop is closed
            logger.debug("%d pieces: nobody is there to tell", len(waiting))


def _put_all(items: Iterable[tuple[_Listener, Item]]) -> None:
    for listener, item in items:
        listener.put(item)
