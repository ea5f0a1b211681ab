"""Processes that sample for a learner: each has a policy of its own, which is given the learner's weights.

A rollout's prompts are divided among them. An answer depends on the weights and its seed alone, never on its company,
so it does not matter how many there are, or who of them was killed and sampled again.
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from chatwheel.data.workers import leave_with_parent
from chatwheel.engine.requests import Completion
from chatwheel.errors import ChatwheelError, StorageError
from chatwheel.model.checkpoint import read_tensors
from chatwheel.model.config import ModelConfig
from chatwheel.model.lora import LoRAConfig
from chatwheel.model.tokenizer import Tokenizer
from chatwheel.model.transformer import CausalLM
from chatwheel.training.policy import Policy

DEATHS = 3
"""After so many of them over the same answers something else is wrong."""
READY = "ready"
"""What a worker says first: it has imported whatever there was to import."""
SECONDS_TO_END = 10.0
"""That a process has whose end of the connection is closed already."""


@dataclass(frozen=True, kw_only=True)
class Blueprint:
    """What a worker makes its policy of, beside the weights; see `Policy`. device: "cpu" or "cuda"."""

    config: ModelConfig
    tokenizer: Tokenizer
    dtype: torch.dtype
    max_running: int
    lora: LoRAConfig | None
    device: str


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """What is to be answered, an answer a prompt: token ids, and a seed for each."""

    prompts: Sequence[Sequence[int]]
    seeds: Sequence[int]
    max_tokens: int

    def divided(self, parts: int, group: int) -> list[Assignment]:
        """Among so many at most, nearly equal; so many neighbours, which answer the same prompt, stay together."""
        groups = len(self.prompts) // group
        borders = [group * (groups * i // parts) for i in range(parts + 1)]
        return [
            replace(self, prompts=self.prompts[begin:end], seeds=self.seeds[begin:end])
            for begin, end in pairwise(borders)
            if begin < end
        ]


@dataclass(frozen=True, kw_only=True)
class Answered:
    """The answers of an assignment, and the seconds that they took."""

    completions: list[Completion]
    seconds: float


class Workers(Protocol):
    """Who samples. Weights are held for them under a name, so that whoever is started again finds them."""

    number: int
    here: bool
    """Whether they are on this process's machine, and compute with its processors."""

    def hold(self, tensors: Mapping[str, Tensor]) -> Any:
        """Keeps a copy of the weights as they are now; the name of it."""
        ...

    def drop(self, held: Any) -> None:
        """Gives the copy back."""
        ...

    def answer(self, held: Any, parts: Sequence[Assignment]) -> list[Future[Answered]]:
        """Begins to answer with those weights, after all that was asked before. At most `number` parts."""
        ...

    def close(self) -> None:
        """Ends all of them."""
        ...


class RolloutWorker:
    """A policy that samples with the weights it is given. frozen: those that never change."""

    def __init__(self, blueprint: Blueprint, frozen: Mapping[str, Any], threads: int) -> None:
        torch.set_num_threads(threads)
        self._policy = Policy(
            CausalLM(blueprint.config).to(blueprint.device).eval(),
            blueprint.tokenizer,
            dtype=blueprint.dtype,
            max_running=blueprint.max_running,
            lora=blueprint.lora,
            with_reference=False,
        )
        self._load(frozen)
        self._holds: Any = None

    def answer(self, name: Any, weights: Callable[[], Mapping[str, Any]], assignment: Assignment) -> Answered:
        """weights: by the names of the parameters; asked for where they are others than the last ones."""
        if name != self._holds:
            self._holds = None
            self._load(weights())
            self._holds = name
        return answered(self._policy, assignment)

    @torch.no_grad()
    def _load(self, weights: Mapping[str, Any]) -> None:
        parameters = dict(self._policy.model.named_parameters())
        for name, values in weights.items():
            parameters[name].copy_(torch.as_tensor(values))


def answered(policy: Policy, assignment: Assignment) -> Answered:
    """What a policy answers, as it is now."""
    began = time.monotonic()
    completions = policy.sample(assignment.prompts, max_tokens=assignment.max_tokens, seeds=assignment.seeds)
    # Without the time of each token, which nobody reads.
    return Answered(completions=[replace(c, timing=None) for c in completions], seconds=time.monotonic() - began)


def weights_of(model: nn.Module, *, trained: bool) -> dict[str, Tensor]:
    """The parameters that are trained, or those that are not."""
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad == trained}


class LocalWorkers:
    """Processes on this machine, started when there is something to do, and again when one dies. directory: where
    weights are handed over, as files; `close` removes them. threads: of each.

    Files rather than shared memory: they stay in the page cache all the same, do not fill a container's /dev/shm, whose
    overflow is a crash, and what a killed learner leaves is in its run's directory.
    """

    here = True

    def __init__(self, blueprint: Blueprint, model: CausalLM, directory: Path, *, number: int, threads: int) -> None:
        if getattr(multiprocessing.current_process(), "_inheriting", False):
            # A worker that imports the script which started it has come here again, before anything was done twice.
            raise SystemExit(1)
        self.number, self._directory, self._held = number, directory, 0
        self._remove()
        frozen = self.hold(weights_of(model, trained=False))
        self._workers = [_LocalWorker(blueprint, frozen, threads) for _ in range(number)]

    def hold(self, tensors: Mapping[str, Tensor]) -> Path:
        """See `Workers`. Raises StorageError."""
        path = self._directory / f"{self._held}.safetensors"
        self._held += 1
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, path)
        except (OSError, SafetensorError) as error:
            raise StorageError(f"{path}: could not write ({error}); make room and run the same command again") from None
        return path

    def drop(self, held: Path) -> None:
        """See `Workers`."""
        with suppress(OSError):
            held.unlink()

    def answer(self, held: Path, parts: Sequence[Assignment]) -> list[Future[Answered]]:
        """See `Workers`."""
        return [worker.answer(held, part) for worker, part in zip(self._workers, parts, strict=False)]

    def close(self) -> None:
        """See `Workers`."""
        for worker in self._workers:
            worker.close()
        self._remove()

    @property
    def processes(self) -> list[int | None]:
        """Their ids; None of one that is not there."""
        return [worker.process_id for worker in self._workers]

    def _remove(self) -> None:
        for path in self._directory.glob("*.safetensors"):
            self.drop(path)
        with suppress(OSError):
            self._directory.rmdir()


class _LocalWorker:
    """A process, and the one thread of ours that speaks to it: what it is asked waits there."""

    def __init__(self, blueprint: Blueprint, frozen: Path, threads: int) -> None:
        self._given = (blueprint, frozen, threads)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rollout-worker")
        self._lock = threading.Lock()
        self._process: BaseProcess | None = None
        self._connection: Connection | None = None
        self._ready = self._closed = False

    def answer(self, held: Path, assignment: Assignment) -> Future[Answered]:
        return self._thread.submit(self._answer, held, assignment)

    @property
    def process_id(self) -> int | None:
        with self._lock:
            return self._process.pid if self._process is not None else None

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._process is not None:
                self._process.kill()  # it has nothing to lose, and a thread that waits for it wakes
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._forget()

    def _answer(self, held: Path, assignment: Assignment) -> Answered:
        for _ in range(DEATHS):
            try:
                connection = self._started()
                if not self._ready:
                    self._ready = connection.recv() == READY
                connection.send((held, assignment))
                reply: Answered | Failure = connection.recv()
            except (EOFError, OSError):
                if not self._ready and self._exit_code() == 1:  # an exception, and no signal
                    raise did_not_begin() from None
                self._forget()
                continue
            if isinstance(reply, Failure):
                raise reply.error()
            return reply
        raise died()

    def _started(self) -> Connection:
        with self._lock:
            if self._closed:
                raise ChatwheelError("sampling has ended")
            if self._connection is None:
                # Not forked: this process runs threads of PyTorch, which a fork does not copy.
                context = multiprocessing.get_context("spawn")
                ours, theirs = context.Pipe()
                process = context.Process(target=_serve, args=(theirs, *self._given), daemon=True)
                try:
                    process.start()
                finally:
                    theirs.close()  # so that its end is told when the process has ended
                self._process, self._connection = process, ours
            return self._connection

    def _exit_code(self) -> int | None:
        with self._lock:
            process = self._process
        if process is None:
            return None
        process.join(SECONDS_TO_END)
        return process.exitcode

    def _forget(self) -> None:
        self._ready = False
        with self._lock:
            if self._process is not None:
                self._process.kill()
                self._process.join()
            if self._connection is not None:
                self._connection.close()
            self._process = self._connection = None


def did_not_begin() -> ChatwheelError:
    """What is said of one that could not begin."""
    return ChatwheelError(
        "a process that samples ended before it began: each one imports the script that trains, which must do so below "
        '`if __name__ == "__main__":`; if it does, the error is above'
    )


def died() -> ChatwheelError:
    """What is said of a worker's last death."""
    return ChatwheelError(
        f"a process that samples died {DEATHS} times over the same answers, perhaps for want of memory; run the same "
        "command again with fewer workers, or with smaller rollouts"
    )


@dataclass(frozen=True, kw_only=True)
class Failure:
    """An exception in a worker: a line, and the traceback for those who look for the bug."""

    line: str
    trace: str

    @staticmethod
    def of(error: Exception) -> Failure:
        """What is told of it."""
        line = error.message if isinstance(error, ChatwheelError) else f"{type(error).__name__}: {error}"
        return Failure(line=" ".join(line.split()), trace="".join(traceback.format_exception(error)))

    def error(self) -> ChatwheelError:
        """What the learner raises."""
        error = ChatwheelError(f"a process that samples failed: {self.line}")
        error.__cause__ = RuntimeError(self.trace)
        return error


def _serve(connection: Connection, blueprint: Blueprint, frozen: Path, threads: int) -> None:
    """A worker's life: until the learner ends it, or ends itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to all; the learner decides
    leave_with_parent()
    connection.send(READY)
    worker: RolloutWorker | None = None
    while True:
        try:
            held, assignment = connection.recv()
        except EOFError:
            return
        reply: Answered | Failure
        try:
            worker = worker or RolloutWorker(blueprint, read_tensors(frozen), threads)
            reply = worker.answer(held, lambda held=held: read_tensors(held), assignment)  # type: ignore[misc]
        except Exception as error:
            reply = Failure.of(error)
        connection.send(reply)
