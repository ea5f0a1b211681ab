"""RLOO: REINFORCE with the mean of an answer's siblings as its baseline (Kool et al., 2019; Ahmadian et al., 2024,
"Back to basics").

prompts -> several answers to each -> reward: the score, less the KL from the reference -> advantage: the reward less
the other answers' mean -> the log-prob of the whole answer, times that -> loop. There is no critic, and where each
rollout is learnt from once, no clip either.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from pydantic import Field
from torch import Tensor

from chatwheel.training.advantages import leave_one_out
from chatwheel.training.loop import Metrics
from chatwheel.training.policy_gradient import PolicyGradientObjective, learn
from chatwheel.training.policy_gradient_config import PolicyGradientConfig
from chatwheel.training.rollouts import Rollout


class RLOOConfig(PolicyGradientConfig):
    """How to run RLOO; what is not said here, `PolicyGradientConfig` says. normalise: divide the advantages by their
    deviation over the rollout."""

    samples_per_prompt: int = Field(default=4, ge=2)
    prompts_per_rollout: int = Field(default=32, ge=1)
    normalise: bool = False


class RLOOObjective(PolicyGradientObjective):
    """Answers against their siblings."""

    name = "rloo"

    def credit(self, rollout: Rollout) -> tuple[Rollout, dict[str, Tensor], Metrics]:
        """All tokens of an answer are worth what the answer is."""
        assert isinstance(self.settings, RLOOConfig)
        advantages_A = leave_one_out(self.answer_rewards(rollout), self.settings.samples_per_prompt)
        if self.settings.normalise:
            advantages_A = advantages_A / (advantages_A.std() + 1e-8)
        lengths = torch.tensor(rollout.lengths, device=self.device)
        return rollout, {"advantages": advantages_A.repeat_interleave(lengths)}, {}

    def weights(self, lengths: Sequence[int]) -> Tensor:
        """The log-prob of an answer is the sum over its tokens; the loss is the mean over answers."""
        return torch.full((sum(lengths),), 1 / len(lengths), device=self.device)


rloo = partial(learn, RLOOObjective)
"""See `learn`."""
