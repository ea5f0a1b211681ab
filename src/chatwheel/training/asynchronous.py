"""Rollouts that are sampled while earlier ones are learnt from.

With a staleness of s, rollout r is sampled by the policy as it was before rollout r - s was learnt from: by exactly so
old a policy, never by whatever was there at the time. So what comes out depends neither on the clock nor on how many
sample, and a run that goes on repeats one that was not interrupted. What differs between who sampled and who learns is
weighed: the log-probs of the policy that learns are the proximal ones (Hilton et al., 2022, Batch size-invariance for
policy optimization; Fu et al., 2025, AReaL), and tokens count by how much likelier they have become.
"""

from __future__ import annotations

import base64
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from chatwheel.engine.requests import Completion
from chatwheel.model.lora import LoRAConfig
from chatwheel.model.tokenizer import Tokenizer
from chatwheel.training.loop import Metrics
from chatwheel.training.policy import Policy
from chatwheel.training.rollout_workers import (
    Answered,
    Assignment,
    Blueprint,
    LocalWorkers,
    Workers,
    answered,
    weights_of,
)


class AsynchronousConfig(BaseModel):
    """How rollouts are sampled ahead.

    staleness: how many rollouts the policy that samples is behind the one that learns; 0 has it wait for the other.
    workers: processes that sample, which changes nothing of what comes out (on processors, where the kernels compute);
    with 0 the learner samples itself, just as stale, with nothing gained but to see what staleness does.
    threads: of each worker. Unless given, learner and workers have a half of this process's threads each.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    staleness: int = Field(default=1, ge=0)
    workers: int = Field(default=1, ge=0)
    threads: int | None = Field(default=None, ge=1)

    def shares(self, threads: int) -> tuple[int, int]:
        """Of so many threads, the learner's and each worker's. The learner's do not depend on the number of workers
        unless `threads` is given: its sums would."""
        if not self.workers:
            return threads, threads
        if not self.staleness:  # they never work at the same time
            return threads, self.threads or max(1, threads // self.workers)
        if self.threads is not None:
            return max(1, threads - self.workers * self.threads), self.threads
        return max(1, threads - threads // 2), max(1, threads // 2 // self.workers)


@dataclass
class Pending:
    """A rollout that is being sampled, or was and waits. version: the rollout with whose beginning's policy. held: that
    policy's weights, until the answers are there."""

    version: int
    parts: list[Future[Answered]]
    held: Any = None

    def result(self) -> Answered:
        """Waits. Raises what went wrong."""
        answered = [part.result() for part in self.parts]
        completions = [completion for part in answered for completion in part.completions]
        return Answered(completions=completions, seconds=max(part.seconds for part in answered))


class Ahead:
    """Has rollouts sampled ahead, and hands them out in their order.

    rollouts: how many there will be. assignment: what is asked in each. group: neighbours that answer one prompt.
    directory: for weights on their way to workers; one for temporary files unless given.
    """

    def __init__(
        self,
        config: AsynchronousConfig,
        policy: Policy,
        *,
        rollouts: int,
        assignment: Callable[[int], Assignment],
        group: int,
        max_running: int,
        tokenizer: Tokenizer,
        lora: LoRAConfig | None,
        directory: Path | None = None,
    ) -> None:
        self._config, self._policy, self._rollouts = config, policy, rollouts
        self._assignment, self._group, self._directory = assignment, group, directory
        self._blueprint = Blueprint(
            config=policy.model.config,
            tokenizer=tokenizer,
            dtype=policy.dtype,
            max_running=max_running,
            lora=lora,
            device=policy.device.type,
        )
        self._workers: Workers | None = None
        self._pending: dict[int, Pending] = {}
        self.staleness = 0
        """Of the rollout that was taken last."""
        self.metrics: Metrics = {}
        """Of the same: how stale it was, how long the learner waited for it, and how long it took to sample."""

    @contextmanager
    def at_work(self) -> Iterator[Workers]:
        """Inside, workers sample, and share this process's threads where they are on its machine; then they end."""
        threads = torch.get_num_threads()
        learner, each = self._config.shares(threads)
        self._workers = self._begun(each)
        if self._workers.here:
            torch.set_num_threads(learner)
        try:
            yield self._workers
        finally:
            torch.set_num_threads(threads)
            self._workers.close()
            self._workers = None

    def _begun(self, threads: int) -> Workers:
        number, model = self._config.workers, self._policy.model
        if not number:
            return Oneself(self._policy)
        ray = sys.modules.get("ray")
        if ray is not None and ray.is_initialized():  # this process has joined a cluster
            from chatwheel.training.ray_rollout_workers import RayRolloutWorkers

            return RayRolloutWorkers(self._blueprint, model, number=number, threads=threads)
        directory = self._directory or Path(tempfile.mkdtemp(prefix="chatwheel-"))
        return LocalWorkers(self._blueprint, model, directory, number=number, threads=threads)

    def take(self, number: int) -> list[Completion]:
        """A rollout's answers, waiting for them; called once for each, in order, with the policy as it is before that
        rollout is learnt from. Raises what went wrong in a worker."""
        began = time.monotonic()
        self._ask(number)
        pending = self._pending[number]
        answered = pending.result()
        del self._pending[number]
        if self._workers is not None and pending.held is not None and not self._needed(pending.version):
            self._workers.drop(pending.held)
        self.staleness = number - pending.version
        self.metrics = {
            "staleness": self.staleness,
            "waiting_seconds": time.monotonic() - began,
            "sampling_seconds": answered.seconds,
        }
        return answered.completions

    def _ask(self, number: int) -> None:
        """Has all rollouts sampled that are the policy's as it is now."""
        last = min(number + self._config.staleness, self._rollouts - 1)
        missing = [n for n in range(number, last + 1) if n not in self._pending]
        if not missing:
            return
        assert self._workers is not None, "rollouts are sampled inside `at_work`"
        held = self._workers.hold(weights_of(self._policy.model, trained=True))
        for n in missing:
            parts = self._assignment(n).divided(self._workers.number, self._group)
            self._pending[n] = Pending(number, self._workers.answer(held, parts), held)

    def _needed(self, version: int) -> bool:
        return any(pending.version == version for pending in self._pending.values())

    def state(self) -> dict[str, Any]:
        """The answers that wait to be learnt from, waiting for those that are being sampled: they are the past's, and
        a run that goes on could not sample them without its weights."""
        return {str(number): _packed(p.version, p.result().completions) for number, p in self._pending.items()}

    def load_state(self, values: Mapping[str, Any]) -> None:
        """What `state` gave."""
        self._pending = {int(number): _unpacked(packed) for number, packed in values.items()}


class Oneself:
    """The learner in the workers' place: it samples at once."""

    number, here = 1, True

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def hold(self, tensors: Mapping[str, Tensor]) -> None:
        """Nothing: they are used before they change."""

    def drop(self, held: None) -> None:
        """Nothing was held."""

    def answer(self, held: None, parts: Sequence[Assignment]) -> list[Future[Answered]]:  # noqa: ARG002
        """See `Workers`."""
        return [_done(answered(self._policy, part)) for part in parts]

    def close(self) -> None:
        """Nothing was begun."""


def _done(result: Answered) -> Future[Answered]:
    future: Future[Answered] = Future()
    future.set_result(result)
    return future


def _packed(version: int, completions: Sequence[Completion]) -> dict[str, Any]:
    """As JSON, the numbers in base64: a dozen characters a token."""
    return {
        "version": version,
        "lengths": [len(completion.token_ids) for completion in completions],
        "token_ids": _encoded([t for completion in completions for t in completion.token_ids], TOKEN),
        "logprobs": _encoded([p for completion in completions for p in completion.logprobs], LOGPROB),
        "texts": [completion.text for completion in completions],
        "finish_reasons": [completion.finish_reason for completion in completions],
        "prompt_tokens": [completion.prompt_tokens for completion in completions],
    }


def _unpacked(packed: Mapping[str, Any]) -> Pending:
    token_ids, logprobs = _decoded(packed["token_ids"], TOKEN), _decoded(packed["logprobs"], LOGPROB)
    completions, first = [], 0
    for length, text, reason, prompt_tokens in zip(
        packed["lengths"], packed["texts"], packed["finish_reasons"], packed["prompt_tokens"], strict=True
    ):
        here = slice(first, first := first + length)
        completions.append(
            Completion(
                token_ids=tuple(token_ids[here]),
                logprobs=tuple(logprobs[here]),
                text=text,
                finish_reason=reason,
                prompt_tokens=prompt_tokens,
            )
        )
    return Pending(packed["version"], [_done(Answered(completions=completions, seconds=0.0))])


TOKEN, LOGPROB = "<i4", "<f8"


def _encoded(numbers: Sequence[float], kind: str) -> str:
    return base64.b64encode(np.array(numbers, kind).tobytes()).decode()


def _decoded(text: str, kind: str) -> list[Any]:
    numbers: list[Any] = np.frombuffer(base64.b64decode(text), kind).tolist()
    return numbers
