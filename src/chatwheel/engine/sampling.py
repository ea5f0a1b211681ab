"""Choosing tokens. Each choice uses one uniform number made from (seed, position), and depends on nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from chatwheel.engine.requests import SamplingParams


def uniforms(seeds: NDArray[np.uint64], positions: NDArray[np.uint64]) -> NDArray[np.float64]:
    """A number in [0, 1) for each (seed, position): two rounds of splitmix64 (Steele et al., 2014)."""
    with np.errstate(over="ignore"):
        return (_mix(_mix(seeds) + positions) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


class Sampler:
    """The sampling parameters of a batch, row by row, ready to choose."""

    def __init__(self, params: Sequence[SamplingParams], seeds: Sequence[int]) -> None:
        self.temperature = torch.tensor([p.temperature for p in params])
        self.top_p = torch.tensor([p.top_p for p in params])
        self.top_k = torch.tensor([p.top_k for p in params])
        self.seeds = np.array([s & (2**64 - 1) for s in seeds], np.uint64)
        self.truncates = any(p.top_p < 1 or p.top_k > 0 for p in params)
        self.greedy = all(p.temperature == 0 for p in params)

    def choose(self, logits_NV: Tensor, positions: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Token ids N, and their log-probs N under softmax(logits): temperature and truncation do not enter those.

        positions: how many tokens each answer has already, which makes its draws independent.
        """
        logits_NV = logits_NV.float()
        best_N = logits_NV.argmax(-1)
        chosen_N = best_N
        if not self.greedy:
            drawn_N = self._draw(logits_NV, np.array(positions, np.uint64))
            chosen_N = torch.where(self.temperature == 0, best_N, drawn_N)
        return chosen_N, logits_NV.log_softmax(-1).gather(-1, chosen_N[:, None])[:, 0]

    def _draw(self, logits_NV: Tensor, positions: NDArray[np.uint64]) -> Tensor:
        scaled_NV = logits_NV / self.temperature.clamp_min(1e-4)[:, None]
        probabilities_NV = scaled_NV.double().softmax(-1)
        if self.truncates:
            probabilities_NV = self._truncate(probabilities_NV)
        # Inverse transform: the first token at which the cumulated probability passes u.
        cumulated_NV = probabilities_NV.cumsum(-1)
        u_N = torch.from_numpy(uniforms(self.seeds, positions))
        target_N1 = (u_N * cumulated_NV[:, -1])[:, None]
        return torch.searchsorted(cumulated_NV, target_N1, right=True)[:, 0].clamp_max(logits_NV.shape[-1] - 1)

    def _truncate(self, probabilities_NV: Tensor) -> Tensor:
        """Keeps the top-k tokens and of those the smallest set with at least top-p of the probability."""
        ordered_NV, order_NV = probabilities_NV.sort(dim=-1, descending=True, stable=True)
        rank_V = torch.arange(probabilities_NV.shape[-1])
        k_N1 = torch.where(self.top_k > 0, self.top_k, probabilities_NV.shape[-1])[:, None]
        ordered_NV = ordered_NV.masked_fill(rank_V >= k_N1, 0.0)
        ordered_NV = ordered_NV / ordered_NV.sum(-1, keepdim=True)
        before_NV = ordered_NV.cumsum(-1) - ordered_NV
        ordered_NV = ordered_NV.masked_fill(before_NV >= self.top_p[:, None], 0.0)
        return torch.zeros_like(probabilities_NV).scatter(-1, order_NV, ordered_NV)
