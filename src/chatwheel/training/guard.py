"""The guard against over-optimisation: a judge that nothing is learnt from looks at the policy now and then.

As a policy moves away from where it began, what it is trained to please rises and rises; what is truly good rises with
the square root of the KL and then falls (Gao et al., 2022, "Scaling laws for reward model overoptimization"). So
answers to prompts that are never trained on are judged along the run; it stops behind the judge's peak, and the weights
of the peak are its result.

The answers are sampled as a rollout's are, since it is that distribution that learns, and always with the same seeds:
what differs between two looks is the policy, not the luck. Nothing here changes what training reads: until it stops, a
run has the same weights, bit for bit, as without it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor

from chatwheel.atomic import write_atomically
from chatwheel.engine.requests import Completion
from chatwheel.errors import ChatwheelError
from chatwheel.training.answers import Answers, PromptedAnswer
from chatwheel.training.averaging import WeightAverage
from chatwheel.training.policy import Policy
from chatwheel.training.rewards import Question, Reward, RewardSource, checked
from chatwheel.training.samples import at_rest

GOLD = "gold"
"""The name by which a recipe means the judge that marks the world's answers."""
SEEDS = 1 << 47
"""Where the seeds of its answers begin: beyond those of a run's rollouts, and the same in every run."""
FILE = "held_out.jsonl"
SEEN = ("peak_rollouts", "peak_held_out_reward", "last_held_out_reward", "stopped_behind_peak")
"""What is said of a run at its end: see `Guard.summary`."""


class GuardConfig(BaseModel):
    """How to watch for over-optimisation.

    judge: who looks: "gold" (the world's), or a `RewardSource`, as in `rewards`; a name alone is a reward model's.
    every: rollouts from one look to the next. prompts: how many held-out ones are answered at each. patience: looks in
    a row without a new peak after which the run stops; null never stops it. keep: the weights that are the result, of
    the best look or of the last step.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    judge: RewardSource
    every: int = Field(default=4, ge=1)
    prompts: int = Field(default=128, ge=2)
    patience: int | None = Field(default=3, ge=1)
    keep: Literal["best", "last"] = "best"

    @field_validator("judge", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return {"model": value} if isinstance(value, str) else value

    @property
    def gold(self) -> bool:
        """Whether it is the world's judge."""
        return self.judge.model == GOLD


@dataclass(frozen=True)
class HeldOut:
    """Who looks, and at answers to what: prompts that are never trained on."""

    judge: Reward
    questions: Sequence[Question]


@dataclass(frozen=True)
class Look:
    """What was seen after so many rollouts. reward: the judge's mean. error: its standard error. kl: from the
    reference, in nats an answer, where there is one. seconds: that it took."""

    rollouts: int
    reward: float
    error: float
    kl: float | None
    seconds: float


class Guard:
    """Looks at a policy, remembers, and keeps the weights of the peak: one more copy of what is trained.

    rollouts: of the whole run. row_length, answers_at_once: of what the reference reads. average: the mean of weights
    that is the run's result, which is what is looked at then. directory: where `held_out.jsonl` is written.
    """

    def __init__(
        self,
        config: GuardConfig,
        held_out: HeldOut,
        policy: Policy,
        *,
        rollouts: int,
        max_tokens: int,
        row_length: int,
        answers_at_once: int | None = None,
        average: WeightAverage | None = None,
        directory: Path | None = None,
    ) -> None:
        self.config, self.looks = config, list[Look]()
        self._judge, self._questions = held_out.judge, held_out.questions[: config.prompts]
        self._policy, self._average, self._rollouts = policy, average, rollouts
        self._max_tokens, self._row_length, self._at_once = max_tokens, row_length, answers_at_once
        self._path = directory / FILE if directory is not None else None
        self._trained = {name: p for name, p in policy.model.named_parameters() if p.requires_grad}
        self._kept = {name: p.detach().clone() for name, p in self._trained.items()}

    @property
    def peak(self) -> int:
        """Which look was the best, the first of equals."""
        return max(range(len(self.looks)), key=lambda i: self.looks[i].reward)

    @property
    def stopped(self) -> bool:
        """Whether the run is behind its peak."""
        patience = self.config.patience
        return patience is not None and bool(self.looks) and len(self.looks) - 1 - self.peak >= patience

    @torch.no_grad()
    def look(self, rollouts: int, *, last: bool = False) -> dict[str, float]:
        """Looks, if it is time to after so many rollouts, or they are the last, and gives numbers to log. A policy that
        has not moved from its peak (where only a critic learns) is not looked at again."""
        if rollouts % self.config.every and rollouts != self._rollouts and not last:
            return {}
        began = time.monotonic()
        with at_rest(self._policy.model), self._as_result():
            if self.looks and all(torch.equal(p, self._kept[name]) for name, p in self._trained.items()):
                return {}
            seen = self._seen(rollouts, began)
            if not self.looks or seen.reward > self.looks[self.peak].reward:
                for name, parameter in self._trained.items():
                    self._kept[name].copy_(parameter)
        self.looks.append(seen)
        self._write()
        kl = {} if seen.kl is None else {"held_out_kl": seen.kl}
        return {"held_out_reward": seen.reward, "held_out_error": seen.error, **kl, "guard_seconds": seen.seconds}

    def _seen(self, rollouts: int, began: float) -> Look:
        questions = self._questions
        completions = self._policy.sample(
            [q.ids for q in questions],
            max_tokens=self._max_tokens,
            seeds=[SEEDS + i for i in range(len(questions))],
        )
        scores = checked(self._judge(questions, completions), len(questions), self.config.judge.name).double()
        return Look(
            rollouts=rollouts,
            reward=float(scores.mean()),
            error=float(scores.std() / len(scores) ** 0.5),
            kl=self._kl(questions, completions),
            seconds=time.monotonic() - began,
        )

    def _kl(self, questions: Sequence[Question], completions: Sequence[Completion]) -> float | None:
        """The mean over answers of log p - log p_reference; None without a reference."""
        policy = self._policy
        if policy.reference is None:
            return None
        whole = [
            PromptedAnswer([*q.ids, *c.token_ids], len(q.ids)) for q, c in zip(questions, completions, strict=True)
        ]
        size = self._at_once or len(whole)
        parts = [Answers.of(whole[i : i + size], self._row_length, policy.device) for i in range(0, len(whole), size)]
        if policy.samples_as_it_is_read:
            log_probs_N = torch.tensor([p for c in completions for p in c.logprobs], device=policy.device)
        else:
            log_probs_N = policy.log_probs(parts)
        return float((log_probs_N - policy.reference_log_probs(parts)).double().sum() / len(whole))

    @contextmanager
    def _as_result(self) -> Iterator[None]:
        """With the averaged weights in the model's place, where they are the run's result."""
        if self._average is None:
            yield
            return
        own = {name: p.detach().clone() for name, p in self._trained.items()}
        self._average.take()
        try:
            yield
        finally:
            self._put(own)

    def take(self) -> None:
        """Puts what is to be the result in the model's place, at the end."""
        if self.config.keep == "best" and self.looks:
            self._put(self._kept)

    @torch.no_grad()
    def _put(self, weights: Mapping[str, Tensor]) -> None:
        for name, parameter in self._trained.items():
            parameter.copy_(weights[name])

    def summary(self) -> dict[str, float]:
        """What it saw, in a few numbers: where the peak was, and what the end was like."""
        if not self.looks:
            return {}
        peak, last = self.looks[self.peak], self.looks[-1]
        values = (float(peak.rollouts), peak.reward, last.reward, float(self.stopped))
        return dict(zip(SEEN, values, strict=True))

    def state(self) -> dict[str, Any]:
        """JSON values of what was seen."""
        return {"looks": [vars(look) for look in self.looks]}

    def load_state(self, values: Mapping[str, Any]) -> None:
        """What `state` gave; the weights of `tensors` are restored in place."""
        self.looks = [Look(**look) for look in values["looks"]]

    def tensors(self) -> dict[str, Tensor]:
        """The weights of the peak, as they are saved with the run."""
        return {f"peak.{name}": kept for name, kept in self._kept.items()}

    def _write(self) -> None:
        """Whole each time: they are few, and the state has them too. What cannot be written is not worth a run."""
        if self._path is not None:
            with suppress(ChatwheelError, OSError):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(self._path, (json.dumps(vars(look)).encode() + b"\n" for look in self.looks))


def read_looks(directory: Path) -> list[dict[str, Any]]:
    """What the guard of a stage saw, look after look; nothing where there was none."""
    path = directory / FILE
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError):
        return []
