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
    @property
    def dead(self) -> bool: ...
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

    @property
    def dead(self) -> bool:
        """Whether nothing will be answered any more."""
        return self._engine.dead or not self._thread.is_alive()

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
            self.metrics.finished["refused"] += 1
            _deliver([(listener, error)])
            return []
        self._listeners[request_id] = listener
        return [request_id]

    def _cancel(self, ids: list[int]) -> None:
        for request_id in ids:
            self._listeners.pop(request_id, None)
            if (completion := self._engine.cancel(request_id)) is not None:
                self.metrics.observe(completion, time.monotonic())

    def _taken(self, deltas: Iterable[tuple[int, Delta]]) -> list[tuple[_Listener, Item]]:
        """Who is to be told what. Who has ended is counted before anybody is told."""
        items: list[tuple[_Listener, Item]] = []
        for request_id, delta in deltas:
            ends = delta.completion is not None or delta.error is not None
            listener = self._listeners.pop(request_id, None) if ends else self._listeners.get(request_id)
            if delta.completion is not None:
                self.metrics.observe(delta.completion, time.monotonic())
            if delta.error is not None:
                self.metrics.finished["error"] += 1
            if listener is not None:
                items.append((listener, delta.error or delta))
        return items

    def _run(self) -> None:
        try:
            self._serve()
        finally:
            with self._closing:
                self._closed = True
            # What was posted before that is still answered, if only with an error.
            self._take_calls(wait=False)
            self._fail_all(ChatwheelError(SHUT_DOWN))

    def _serve(self) -> None:
        while self._take_calls(wait=self._engine.idle):
            if self._engine.idle:
                continue
            try:
                _deliver(self._taken(self._engine.step()))
            except Exception as error:
                # A step that fails ends the requests in it, not the server.
                logger.exception("the engine's step failed")
                self._fail_all(error)

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
            except Exception:  # one caller's trouble is not the others'
                logger.exception("a request could not be taken or cancelled")
            wait = False

    def _fail_all(self, error: Exception) -> None:
        listeners = dict(self._listeners)
        self._listeners.clear()
        if listeners:
            self.metrics.finished["error"] += len(listeners)
        _deliver([(listener, error) for listener in listeners.values()])
        for request_id in listeners:
            try:
                self._engine.cancel(request_id)
            except Exception:
                logger.exception("request %d could not be cancelled", request_id)


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
