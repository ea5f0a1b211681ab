"""GRPO: the assistant learns from how its answers to one prompt compare, without a critic (Shao et al., 2024, section
4.1).

prompts -> several answers to each -> scores -> advantage: how much better than its siblings an answer is -> clipped
policy loss, with the KL from the reference in it -> loop. By options it is Dr. GRPO (Liu et al., 2025) or DAPO (Yu et
al., 2025).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from chatwheel.training.advantages import of_groups
from chatwheel.training.kl_control import KLConfig
from chatwheel.training.loop import Metrics
from chatwheel.training.policy_gradient import JudgedAnswers, PolicyGradientObjective, learn
from chatwheel.training.policy_gradient_config import PolicyGradientConfig
from chatwheel.training.rollouts import Rollout


class GRPOConfig(PolicyGradientConfig):
    """How to run GRPO; what is not said here, `PolicyGradientConfig` says.

    scale: what an advantage is divided by, see `of_groups`. aggregation: "answers" counts each answer the same, however
    long (GRPO); "tokens" each token (DAPO); "constant" sums and divides by answers x max_tokens, so that an answer's
    length changes nothing (Dr. GRPO). resample: how often prompts whose answers all have the same score, whatever
    the penalties, are replaced by others (DAPO's dynamic sampling); all metrics then are of the answers that stay.
    overlong: of max_tokens, the last so many in
    which an answer's reward falls, by 1 up to the end (DAPO's soft overlong punishment, eq. 13).

    Dr. GRPO is scale none, aggregation constant. DAPO: aggregation tokens, clip_high 0.28, resample 3, overlong
    with missing_end_penalty 0, kl {coefficient: 0, stop: null}.
    """

    samples_per_prompt: int = Field(default=8, ge=2)
    prompts_per_rollout: int = Field(default=16, ge=1)
    scale: Literal["group", "batch", "none"] = "group"
    aggregation: Literal["answers", "tokens", "constant"] = "answers"
    resample: int = Field(default=0, ge=0)
    overlong: int = Field(default=0, ge=0)
    kl: KLConfig = KLConfig(coefficient=0.04, target=None, place="loss", estimator="k3")

    @model_validator(mode="after")
    def _overlong_fits(self) -> GRPOConfig:
        if self.overlong > self.max_tokens:
            raise ValueError(f"overlong ({self.overlong}) is more than max_tokens ({self.max_tokens})")
        return self


class GRPOObjective(PolicyGradientObjective):
    """Advantages within the group."""

    name = "grpo"

    def __init__(self, config: GRPOConfig, *arguments: Any, **more: Any) -> None:
        super().__init__(config, *arguments, **more)
        self.config = config

    @property
    def chooses(self) -> bool:
        """With `resample`."""
        return self.config.resample > 0

    def credit(self, rollout: Rollout) -> tuple[Rollout, dict[str, Tensor], Metrics]:
        """All tokens of an answer are worth what the answer is."""
        config = self.config
        lengths = torch.tensor(rollout.lengths, device=self.device)
        rewards_A = self.answer_rewards(rollout)
        if config.overlong:
            too_long = (lengths - (config.max_tokens - config.overlong)).clamp(min=0) / config.overlong
            rewards_A = rewards_A - too_long
        advantages_A = of_groups(rewards_A, config.samples_per_prompt, config.scale)
        idle = all_equal(rewards_A, config.samples_per_prompt)
        return (
            rollout,
            {"advantages": advantages_A.repeat_interleave(lengths)},
            {"idle_groups": float(idle.float().mean())},
        )

    def weights(self, lengths: Sequence[int]) -> Tensor:
        """By `aggregation`."""
        if self.config.aggregation == "tokens":
            return super().weights(lengths)
        lengths_A = torch.tensor(lengths, device=self.device)
        each = (
            1 / lengths_A
            if self.config.aggregation == "answers"
            else torch.full_like(lengths_A, 1 / self.config.max_tokens, dtype=torch.float32)
        )
        return (each / len(lengths)).repeat_interleave(lengths_A)

    def sample(self, number: int) -> JudgedAnswers:
        """Groups that are worth nothing make room for those of other prompts, as long as `resample` permits."""
        config, size = self.config, self.config.samples_per_prompt
        judged = super().sample(number)
        for again in range(config.resample):
            idle = all_equal(judged.scores, size)
            if not idle.any():
                break
            places = idle.nonzero()[:, 0].tolist()
            # The next of the endless order, which no rollout begins with; their answers have seeds of their own.
            other = config.rollouts + number * config.resample + again
            theirs = self._answer(self.order.batch(other).tolist()[: len(places)], other)
            judged = _with_others(judged, places, theirs, size)
        return judged


def _with_others(judged: JudgedAnswers, places: Sequence[int], others: JudgedAnswers, size: int) -> JudgedAnswers:
    """Other groups of so many answers in the places of some."""
    chosen = torch.arange(len(judged.scores)).view(-1, size)
    chosen[list(places)] = len(judged.scores) + torch.arange(len(others.scores)).view(-1, size)
    chosen_A = chosen.flatten()
    questions, completions = judged.questions + others.questions, judged.completions + others.completions

    def put(mine_A: Tensor, theirs_A: Tensor) -> Tensor:
        return torch.cat([mine_A, theirs_A])[chosen_A.to(mine_A.device)]

    return JudgedAnswers(
        questions=[questions[i] for i in chosen_A.tolist()],
        completions=[completions[i] for i in chosen_A.tolist()],
        scores=put(judged.scores, others.scores),
        by_judge={name: put(values, others.by_judge[name]) for name, values in judged.by_judge.items()},
        seconds=judged.seconds + others.seconds,
    )


EQUAL = 1e-5
"""Rewards that differ by less are the same: what is left is rounding."""


def all_equal(rewards_A: Tensor, size: int) -> Tensor:
    """For each group of so many answers, whether all are worth the same."""
    groups = rewards_A.view(-1, size)
    return groups.amax(1) - groups.amin(1) < EQUAL


grpo = partial(learn, GRPOObjective)
"""See `learn`."""
