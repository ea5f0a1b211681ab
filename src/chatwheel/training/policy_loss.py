"""The loss of a policy whose answers turned out better or worse than expected, token by token (N)."""

from __future__ import annotations

import torch
from torch import Tensor

from chatwheel.training.kl_control import FARTHEST  # no ratio overflows; the clip has cut such ones long before


def clipped_losses(
    log_ratio_N: Tensor, advantages_N: Tensor, *, low: float, high: float, dual: float | None = None
) -> Tensor:
    """The clipped surrogate, negative, N (Schulman et al., 2017, eq. 7).

    log_ratio_N: log p - log p_old. low, high: how far below and above 1 the ratio counts; DAPO lets it rise further
    than fall (Yu et al., 2025, section 3.1). dual: where an answer is worse than expected, the loss is at most so many
    times the advantage, however likely it has become (Ye et al., 2020, dual-clip PPO).
    """
    ratio_N = log_ratio_N.clamp(-FARTHEST, FARTHEST).exp()
    gain_N = torch.minimum(advantages_N * ratio_N, advantages_N * ratio_N.clamp(1 - low, 1 + high))
    if dual is not None:
        gain_N = torch.where(advantages_N < 0, torch.maximum(gain_N, dual * advantages_N), gain_N)
    return -gain_N


def importance(log_probs_N: Tensor, sampled_N: Tensor, most: float) -> Tensor:
    """How much likelier a token is to the policy that learns than to the one that sampled it, at most `most`: truncated
    importance weights (Espeholt et al., 2018, IMPALA, section 4.1), for samples that are a little old, or were made
    with other rounding."""
    return (log_probs_N - sampled_N).clamp(-FARTHEST, FARTHEST).exp().clamp(max=most)
