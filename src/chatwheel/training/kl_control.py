"""The coefficient of the KL penalty, fixed or steered towards a target (Ziegler et al., 2019, section 2.2)."""

from __future__ import annotations

import math

from pydantic import BaseModel, ConfigDict, Field


class KLConfig(BaseModel):
    """coefficient: where it starts. target: nats an answer to hold, None keeps the coefficient fixed.
    horizon: answers over which a lasting error changes it about e-fold. stop: nats an answer at which the run ends."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    coefficient: float = Field(default=0.05, ge=0)
    target: float | None = Field(default=6.0, gt=0)
    horizon: int = Field(default=2000, ge=1)
    stop: float = Field(default=30.0, gt=0)


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
