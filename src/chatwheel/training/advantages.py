"""Returns and advantages of answers, as flat vectors over all answer tokens (N), answer after answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

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


def of_groups(rewards_A: Tensor, size: int, scale: Literal["group", "batch", "none"] = "group") -> Tensor:
    """How much better each answer is than its siblings, A; `size` answers to a prompt stand side by side.

    The mean of the group is the baseline. scale: what the difference is divided by. "group": the deviation within the
    group (Shao et al., 2024, GRPO, section 4.1.2). "batch": of all answers. "none": nothing, which favours neither easy
    nor hard prompts (Liu et al., 2025, Dr. GRPO). Where all are equal, nothing is learnt: 0.
    """
    groups = rewards_A.double().view(-1, size)
    differences = groups - groups.mean(1, keepdim=True)
    if scale == "group":
        differences = differences / (groups.std(1, keepdim=True) + 1e-4)
    elif scale == "batch":
        differences = differences / (groups.std() + 1e-4)
    return differences.flatten().to(rewards_A.dtype)


def leave_one_out(rewards_A: Tensor, size: int) -> Tensor:
    """Each answer's reward less the mean of its siblings', A: an unbiased baseline (Ahmadian et al., 2024, RLOO, eq.
    6)."""
    groups = rewards_A.double().view(-1, size)
    others = (groups.sum(1, keepdim=True) - groups) / (size - 1)
    return (groups - others).flatten().to(rewards_A.dtype)
