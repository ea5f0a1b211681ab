"""Best of n: the assistant imitates the best of its own answers (rejection sampling: Touvron et al., 2023, Llama 2,
section 3.2.3; RAFT: Dong et al., 2023).

prompts -> n answers to each -> scores -> the best one of each, if it is good enough -> the next-token loss on those ->
loop. With one rollout of many prompts it is best-of-n sampling and then SFT, with several it is done again and again
by what has become better.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from pydantic import Field, model_validator
from torch import Tensor

from chatwheel.training.loop import Metrics
from chatwheel.training.policy_gradient import Demonstrated, Minibatch, PolicyGradientObjective, learn
from chatwheel.training.policy_gradient_config import PolicyGradientConfig
from chatwheel.training.rollouts import Rollout


class BestOfNConfig(PolicyGradientConfig):
    """How to imitate the best answers; what is not said here, `PolicyGradientConfig` says.

    samples_per_prompt: n. step_kl: as everywhere, but far: to imitate is to move. least: the reward below which an
    answer is not imitated, even the best of its prompt.
    """

    samples_per_prompt: int = Field(default=8, ge=2)
    prompts_per_rollout: int = Field(default=64, ge=1)
    least: float | None = None
    step_kl: float = Field(default=10.0, gt=0)

    @model_validator(mode="after")
    def _has_no_loss_for_the_kl(self) -> BestOfNConfig:
        if self.kl.place == "loss":
            raise ValueError("best_of_n imitates, and has no loss that the KL could be in; take kl.place reward")
        return self


class BestOfNObjective(PolicyGradientObjective):
    """Keeps the best and imitates them."""

    name = "best_of_n"

    def __init__(self, config: BestOfNConfig, *arguments: Any, **more: Any) -> None:
        super().__init__(config, *arguments, **more)
        self.config = config

    def credit(self, rollout: Rollout) -> tuple[Rollout, dict[str, Tensor], Metrics]:
        """The best answer of each prompt is worth to be said, the others are forgotten."""
        size = self.config.samples_per_prompt
        rewards_A = self.answer_rewards(rollout)
        best = rewards_A.view(-1, size).argmax(1) + torch.arange(0, len(rewards_A), size, device=self.device)
        least = -float("inf") if self.config.least is None else self.config.least
        chosen = [i for i in best.tolist() if float(rewards_A[i]) >= least]
        learnt = rollout.only(chosen)
        numbers = {"kept": len(chosen) / len(best), "best_reward": float(rollout.scores[best].mean())}
        return learnt, {"advantages": torch.ones_like(learnt.per_token["log_probs"])}, numbers

    def loss(self, batch: Minibatch | Demonstrated) -> tuple[Tensor, Metrics]:
        """-log p of the tokens of the best answers."""
        if isinstance(batch, Demonstrated):
            return self.demonstrated_loss(batch)
        log_probs_N = batch.answers.log_probs(self.policy.model, self.dtype)
        loss = -(log_probs_N * batch.per_token["weights"]).sum()
        return loss, self._moves(batch, log_probs_N.detach() - batch.per_token["log_probs"])


best_of_n = partial(learn, BestOfNObjective)
"""See `learn`."""
