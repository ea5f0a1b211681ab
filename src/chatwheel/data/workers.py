"""One function over many chunks in several processes: results in the order of the chunks, few of them in memory."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import Self, TypeVar

from chatwheel.errors import ChatwheelError

ChunkT = TypeVar("ChunkT")
ResultT = TypeVar("ResultT")

AHEAD = 2  # chunks that wait for each worker: enough that none idles while this process reads


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Workers:
    """So many processes, from the first use to the end of the `with`; with one, or none, nothing is started."""

    def __init__(self, number: int) -> None:
        self.number = max(1, number)
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def in_order(self, function: Callable[[ChunkT], ResultT], chunks: Iterable[ChunkT]) -> Iterator[ResultT]:
        """`function` of each chunk, as `map` gives it.

        function: importable by name, like its arguments and results. A ChatwheelError of its arrives here as it is.
        """
        if self.number == 1:
            yield from map(function, chunks)
            return
        waiting: deque[Future[ResultT]] = deque()
        try:
            for chunk in chunks:
                waiting.append(self._submit(function, chunk))
                if len(waiting) > AHEAD * self.number:
                    yield self._result(waiting.popleft())
            while waiting:
                yield self._result(waiting.popleft())
        finally:
            for future in waiting:
                future.cancel()

    def _submit(self, function: Callable[[ChunkT], ResultT], chunk: ChunkT) -> Future[ResultT]:
        if self._pool is None:
            # Not forked: this process may run threads of PyTorch, which a fork does not copy.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.number, mp_context=context, initializer=leave_with_parent)
        return self._pool.submit(function, chunk)

    def _result(self, future: Future[ResultT]) -> ResultT:
        try:
            return future.result()
        except BrokenProcessPool:
            raise killed() from None


def killed() -> ChatwheelError:
    """What is said of a worker's end."""
    return ChatwheelError(
        "a process that treats the data was killed, perhaps for want of memory; run the same command again"
    )


def leave_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
