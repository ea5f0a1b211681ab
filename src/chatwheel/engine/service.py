"""The engine in a thread of its own, for callers on an event loop: the loop never waits for a matrix."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import AsyncIterator, Callable

from chatwheel.engine.engine import Engine
from chatwheel.engine.requests import Completion, Delta, Request
from chatwheel.errors import ChatwheelError

logger = logging.getLogger(__name__)
Deliver = Callable[[Delta | Exception], None]
SHUT_DOWN = "the engine has been shut down"


class EngineService:
    """Runs one engine. `stream` may be called from any event loop, many times at once: all share the batch."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._deliver: dict[int, Deliver] = {}
        self._closing = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    async def stream(self, request: Request) -> AsyncIterator[Delta]:
        """The answer in pieces. Closing the iterator early cancels the request within a step."""
        loop, inbox = asyncio.get_running_loop(), asyncio.Queue[Delta | Exception]()
        ids: list[int] = []

        def deliver(item: Delta | Exception) -> None:
            loop.call_soon_threadsafe(inbox.put_nowait, item)

        def submit() -> None:
            try:
                ids.append(self._engine.submit(request))
                self._deliver[ids[0]] = deliver
            except Exception as error:
                deliver(error)

        self._post(submit)
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

    def generate(self, request: Request) -> Completion:
        """The whole answer; blocks the calling thread."""
        done: queue.SimpleQueue[Delta | Exception] = queue.SimpleQueue()

        def submit() -> None:
            try:
                self._deliver[self._engine.submit(request)] = done.put
            except Exception as error:
                done.put(error)

        self._post(submit)
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

    def _post(self, call: Callable[[], None]) -> None:
        with self._closing:
            if self._closed:
                raise ChatwheelError(SHUT_DOWN)
            self._inbox.put(call)

    def _cancel(self, ids: list[int]) -> None:
        for request_id in ids:
            self._deliver.pop(request_id, None)
            self._engine.cancel(request_id)

    def _run(self) -> None:
        while self._take_calls(wait=self._engine.idle):
            if self._engine.idle:
                continue
            try:
                for request_id, delta in self._engine.step():
                    self._send(request_id, delta)
                    if delta.completion is not None:
                        self._deliver.pop(request_id, None)
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
        for request_id in list(self._deliver):
            self._engine.cancel(request_id)
            self._send(request_id, error)
        self._deliver.clear()

    def _send(self, request_id: int, item: Delta | Exception) -> None:
        try:
            if request_id in self._deliver:
                self._deliver[request_id](item)
        except RuntimeError:  # the caller's event loop is closed: nobody is there to tell
            logger.debug("request %d: its caller is gone", request_id)
