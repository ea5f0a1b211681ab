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

from chatwheel.engine.requests import Completion
from chatwheel.training.advantages import of_groups
from chatwheel.training.kl_control import KLConfig
from chatwheel.training.loop import Metrics
from chatwheel.training.policy_gradient import PolicyGradientConfig, PolicyGradientObjective, learn
from chatwheel.training.rewards import Question
from chatwheel.training.rollouts import Rollout


class GRPOConfig(PolicyGradientConfig):
    """How to run GRPO; what is not said here, `PolicyGradientConfig` says.

    scale: what an advantage is divided by, see `of_groups`. aggregation: "answers" counts each answer the same, however
    long (GRPO); "tokens" each token (DAPO); "constant" sums and divides by answers x max_tokens, so that an answer's
    length changes nothing (Dr. GRPO). resample: how often prompts whose answers all have the same score, from which
    nothing is learnt, are replaced by others (DAPO's dynamic sampling); KL and entropy then are of the answers that
    stay. overlong: of max_tokens, the last so many in
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
        idle = all_equal(rollout.scores, config.samples_per_prompt)
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

    def sample(self, number: int) -> tuple[list[Question], list[Completion], Tensor, float]:
        """Groups that are worth nothing make room for those of other prompts, as long as `resample` permits."""
        config, size = self.config, self.config.samples_per_prompt
        questions, completions, scores, judging = super().sample(number)
        for again in range(config.resample):
            idle = all_equal(scores, size)
            if not idle.any():
                break
            places = idle.nonzero()[:, 0].tolist()
            # The next of the endless order, which no rollout begins with; their answers have seeds of their own.
            other = config.rollouts + number * config.resample + again
            theirs = self._answer(self.order.batch(other).tolist()[: len(places)], other)
            judging += theirs[3]
            for place, group in zip(places, range(len(places)), strict=True):
                there, here = (slice(i * size, (i + 1) * size) for i in (place, group))
                questions[there], completions[there] = theirs[0][here], theirs[1][here]
                scores[there] = theirs[2][here]
        return questions, completions, scores, judging


def all_equal(scores_A: Tensor, size: int) -> Tensor:
    """For each group of so many answers, whether all have the same score."""
    groups = scores_A.view(-1, size)
    return (groups == groups[:, :1]).all(1)


grpo = partial(learn, GRPOObjective)
"""See `learn`."""
