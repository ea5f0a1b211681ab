"""Data treated on all machines of the Ray cluster that runs a stage: the functions of `data.workers`, as Ray's tasks.

Tasks rather than Ray Data's datasets: the files that come out are the same bytes wherever the work is done, and for
that the chunks must come back in order, few of them in memory; what is compressed must be read from its beginning
anyway.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any

from chatwheel.data.workers import ChunkT, ResultT, Workers, killed


class RayWorkers(Workers):
    """Tasks of the cluster that this process has joined. number: how many run at a time."""

    def __init__(self, number: int) -> None:
        import ray

        super().__init__(max(2, number))  # with one this process would do the work itself
        # Without a claim on a processor: they all are the training processes', which wait for the data. Ray itself
        # starts a task again whose process or machine died.
        self._task = ray.remote(_apply).options(num_cpus=0, scheduling_strategy="SPREAD")
        self._running: set[Future[Any]] = set()

    def _submit(self, function: Callable[[ChunkT], ResultT], chunk: ChunkT) -> Future[ResultT]:
        # For tasks without a claim Ray would start a process each, at once.
        if len(self._running) == self.number:
            _, self._running = wait(self._running, return_when=FIRST_COMPLETED)
        future: Future[ResultT] = self._task.remote(function, chunk).future()
        self._running.add(future)
        return future

    def _result(self, future: Future[ResultT]) -> ResultT:
        from ray.exceptions import OutOfMemoryError, RayTaskError, WorkerCrashedError

        try:
            return future.result()
        except RayTaskError as error:
            raise error.cause from None
        except (WorkerCrashedError, OutOfMemoryError):  # the latter where Ray itself ended it
            raise killed() from None


def _apply(function: Callable[[ChunkT], ResultT], chunk: ChunkT) -> ResultT:
    return function(chunk)


def ray_processors() -> RayWorkers | None:
    """As many workers as the cluster has processors; None where Ray does not run this process."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return None
    return RayWorkers(int(ray.cluster_resources().get("CPU", 1)))
