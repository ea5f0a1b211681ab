"""Workers that sample on the machines of a Ray cluster: an actor each, which Ray starts again when it dies.

Weights go through Ray's object store, prompts and answers with the calls. This process is the learner; it has joined
the cluster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from torch import Tensor

from chatwheel.errors import ChatwheelError, InputError
from chatwheel.model.transformer import CausalLM
from chatwheel.training.rollout_workers import (
    DEATHS,
    Answered,
    Assignment,
    Blueprint,
    Failure,
    RolloutWorker,
    died,
    weights_of,
)


class RayRolloutWorkers:
    """So many actors, which divide the cluster's processors among them. threads: of each, where the cluster is one
    machine, which the learner shares with them. Raises InputError if there are fewer processors than workers."""

    def __init__(self, blueprint: Blueprint, model: CausalLM, *, number: int, threads: int) -> None:
        import ray

        self._ray, self.number = ray, number
        machines = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
        processors = [int(cpus) for cpus in machines if cpus]
        if number > sum(processors):
            raise InputError(
                f"{number} workers are to sample, and the Ray cluster has {sum(processors)} processors; take fewer"
            )
        self.here = len(machines) == 1
        each = max(1, min(sum(processors) // number, *processors))
        actor = ray.remote(_Actor).options(
            num_cpus=each,
            scheduling_strategy="SPREAD",
            max_restarts=-1,
            max_task_retries=DEATHS - 1,
        )
        # Referred to here, or it would be gone when an actor is started again.
        self._frozen = self.hold(weights_of(model, trained=False))
        self._workers = [actor.remote(blueprint, self._frozen, threads if self.here else each) for _ in range(number)]

    def hold(self, tensors: Mapping[str, Tensor]) -> Any:
        """See `Workers`."""
        return self._ray.put({name: tensor.cpu().numpy() for name, tensor in tensors.items()})

    def drop(self, held: Any) -> None:
        """See `Workers`. Ray itself sees that nobody refers to it any more."""

    def answer(self, held: Any, parts: Sequence[Assignment]) -> list[Future[Answered]]:
        """See `Workers`."""
        name = held.hex()
        return [
            _unwrapped(worker.answer.remote(name, held, part).future())
            for worker, part in zip(self._workers, parts, strict=False)
        ]

    def close(self) -> None:
        """See `Workers`."""
        for worker in self._workers:
            self._ray.kill(worker)
        self._workers = []


class _Actor:
    """A worker as Ray calls it. Weights come as arrays that Ray shares among the processes of a machine."""

    def __init__(self, blueprint: Blueprint, frozen: Mapping[str, Any], threads: int) -> None:
        self._worker = RolloutWorker(blueprint, frozen, threads)

    def answer(self, name: str, weights: Mapping[str, Any], assignment: Assignment) -> Answered | Failure:
        """See `RolloutWorker`."""
        try:
            return self._worker.answer(name, lambda: weights, assignment)
        except Exception as error:
            return Failure.of(error)


def _unwrapped(theirs: Future[Answered | Failure]) -> Future[Answered]:
    """The same with the errors that this process raises."""
    ours: Future[Answered] = Future()

    def take(done: Future[Answered | Failure]) -> None:
        error = done.exception()
        if error is not None:
            ours.set_exception(_explained(error))
            return
        reply = done.result()
        if isinstance(reply, Failure):
            ours.set_exception(reply.error())
        else:
            ours.set_result(reply)

    theirs.add_done_callback(take)
    return ours


def _explained(error: BaseException) -> BaseException:
    from ray.exceptions import RayActorError, RayError

    if isinstance(error, RayActorError):
        return died()
    if isinstance(error, RayError):
        line = str(error).strip().splitlines()[-1]
        explained = ChatwheelError(f"Ray lost a process that samples: {line}; run the same command again")
        explained.__cause__ = error
        return explained
    return error
