"""Returns and advantages of answers, as flat vectors over all answer tokens (N), answer after answer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def generalised_advantages(
    rewards_N: Tensor, values_N: Tensor, lengths: Sequence[int], *, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Advantages and returns, N each (Schulman et al., 2016, eq. 16).

    values_N: of the state before each token. An answer ends its episode: the value after its last token is 0.
    """
    num, longest, device = len(lengths), max(lengths), rewards_N.device
    inside_AT = torch.arange(longest, device=device)[None] < torch.tensor(lengths, device=device)[:, None]
    rewards_AT, values_AT = (torch.zeros(num, length, device=device) for length in (longest, longest + 1))
    rewards_AT[inside_AT] = rewards_N
    values_AT[:, :longest][inside_AT] = values_N
    advantages_AT, later_A = torch.zeros_like(rewards_AT), torch.zeros(num, device=device)
    for t in reversed(range(longest)):
        surprise_A = rewards_AT[:, t] + gamma * values_AT[:, t + 1] - values_AT[:, t]
        later_A = (surprise_A + gamma * lam * later_A) * inside_AT[:, t]
        advantages_AT[:, t] = later_A
    advantages_N = advantages_AT[inside_AT]
    return advantages_N, advantages_N + values_N


def whiten(x_N: Tensor) -> Tensor:
    """Mean 0, standard deviation 1, over the whole rollout batch; all 0 if they are all equal."""
    x = x_N.double()  # in fp32 the rounding of the mean of equal numbers would be blown up to size 1
    return ((x - x.mean()) / (x.std(correction=0) + 1e-8)).to(x_N.dtype)
