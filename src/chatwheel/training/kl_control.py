"""How far a policy may go from its reference: estimates of KL(policy || reference), and the coefficient of the penalty,
fixed or steered towards a target (Ziegler et al., 2019, section 2.2)."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

Estimator = Literal["k1", "k2", "k3"]
FARTHEST = 20.0
"""Log-ratios beyond it are taken as it where they are exponents."""


class KLConfig(BaseModel):
    """coefficient: where it starts. target: nats an answer to hold, None keeps the coefficient fixed.
    horizon: answers over which a lasting error changes it about e-fold. stop: nats an answer at which the run ends.
    With a coefficient of 0, no target and no stop, no reference is kept and no KL is known.

    place: "reward" takes the penalty off the reward of each token (Ouyang et al., 2022), "loss" adds it to the loss
    (Shao et al., 2024, GRPO). estimator: of the KL (Schulman, 2020), k1, k2 or k3; see `kl_estimate`. In the loss k2
    pulls towards KL(policy || reference), k3 towards KL(reference || policy) (Tang & Munos, 2025).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    coefficient: float = Field(default=0.05, ge=0)
    target: float | None = Field(default=6.0, gt=0)
    horizon: int = Field(default=2000, ge=1)
    stop: float | None = Field(default=30.0, gt=0)
    place: Literal["reward", "loss"] = "reward"
    estimator: Estimator = "k1"

    @model_validator(mode="after")
    def _pulls_back(self) -> KLConfig:
        if self.place == "loss" and self.estimator == "k1":
            # Its gradient is that of the log-probs, whose mean over the policy's own samples is 0 (Tang & Munos, 2025).
            raise ValueError("k1 in the loss does not pull back to the reference; take estimator k2 or k3")
        return self

    @property
    def needs_reference(self) -> bool:
        """Whether anything is made of the KL."""
        return self.coefficient > 0 or self.target is not None or self.stop is not None


def kl_estimate(log_ratio_N: Tensor, estimator: Estimator) -> Tensor:
    """Estimates of KL(p || q) from samples of p, where the log-ratio is log p - log q (Schulman, 2020, "Approximating
    KL divergence").

    k1: the log-ratio: unbiased, of either sign. k2: half its square: biased, but its gradient is the KL's. k3: unbiased
    and never negative.
    """
    if estimator == "k1":
        return log_ratio_N
    if estimator == "k2":
        return log_ratio_N**2 / 2
    # So that one token cannot be the whole gradient, nor overflow.
    return (-log_ratio_N.clamp(-FARTHEST, FARTHEST)).exp() - 1 + log_ratio_N


class KLController:
    """Holds the coefficient."""

    def __init__(self, config: KLConfig) -> None:
        self.config = config
        self.coefficient = config.coefficient

    def update(self, kl: float, num_answers: int) -> None:
        """Moves the coefficient after `num_answers` answers with a mean KL of `kl` nats."""
        if self.config.target is not None:
            error = min(0.2, max(-0.2, kl / self.config.target - 1))
            # exp(x), the paper's 1 + x for its small x, cannot turn the penalty into a reward when a batch is large.
            self.coefficient *= math.exp(min(1.0, max(-1.0, error * num_answers / self.config.horizon)))
