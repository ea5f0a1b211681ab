"""Choosing tokens. Each choice uses one uniform number made from (seed, position), and depends on nothing else.

`Rows` prepares what a batch is sampled from; who draws is the runner: the kernels, or `choose` here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from chatwheel.engine.batch import Choice, Chosen, FloatArray
from chatwheel.engine.requests import SamplingParams


def uniforms(seeds: NDArray[np.uint64], positions: NDArray[np.uint64]) -> NDArray[np.float64]:
    """A number in [0, 1) for each (seed, position): two rounds of splitmix64 (Steele et al., 2014)."""
    return _drawn(_mix(seeds), positions)


def _drawn(mixed: NDArray[np.uint64], positions: NDArray[np.uint64]) -> NDArray[np.float64]:
    return (_mix(mixed + positions) >> _SHIFTS[3]).astype(np.float64) * 2.0**-53


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = x + _STEP
    x = (x ^ (x >> _SHIFTS[0])) * _FACTORS[0]
    x = (x ^ (x >> _SHIFTS[1])) * _FACTORS[1]
    return x ^ (x >> _SHIFTS[2])


_STEP = np.uint64(0x9E3779B97F4A7C15)
_FACTORS = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_SHIFTS = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)


class Rows:
    """The sampling parameters of a batch, row by row; kept while the batch stays as it is."""

    def __init__(self, params: Sequence[SamplingParams], seeds: Sequence[int]) -> None:
        self.temperature = np.array([p.temperature for p in params], np.float32)
        self.top_k = np.array([min(p.top_k, 2**31 - 1) for p in params], np.int32)
        self.top_p = np.array([p.top_p for p in params], np.float32)
        self.min_p = np.array([p.min_p for p in params], np.float32)
        self._draws = bool(self.temperature.any())
        self._mixed = _mix(np.array([s & (2**64 - 1) for s in seeds], np.uint64))
        self._nothing = np.zeros(len(params))

    def choice(self, scores: FloatArray, raw: FloatArray, positions: Sequence[int]) -> Choice:
        """What to choose from. positions: how many tokens each answer has already: its draws are independent."""
        return Choice(
            scores=scores,
            raw=raw,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            min_p=self.min_p,
            uniform=_drawn(self._mixed, np.array(positions, np.uint64)) if self._draws else self._nothing,
        )


def adjusts(params: SamplingParams) -> bool:
    """Whether `adjust` would do anything."""
    p = params
    return bool(
        p.repetition_penalty != 1
        or p.presence_penalty
        or p.frequency_penalty
        or p.logit_bias
        or p.min_tokens
        or p.grammar is not None
    )


def adjust(
    scores_V: FloatArray, params: SamplingParams, prompt: Sequence[int], answer: Sequence[int], stops: Sequence[int]
) -> None:
    """Penalties, bias and what must not come yet, in place. stops: the tokens that end an answer."""
    if params.repetition_penalty != 1:
        seen = np.array(list({*prompt, *answer}))
        found = scores_V[seen]
        scores_V[seen] = np.where(found > 0, found / params.repetition_penalty, found * params.repetition_penalty)
    if answer and (params.presence_penalty or params.frequency_penalty):
        counts = Counter(answer)
        tokens, times = np.array(list(counts)), np.array(list(counts.values()), np.float32)
        scores_V[tokens] -= params.presence_penalty + params.frequency_penalty * times
    for token, bias in params.logit_bias.items():
        scores_V[token] += bias
    if len(answer) < params.min_tokens:
        scores_V[list(stops)] = -np.inf


def choose(choice: Choice) -> Chosen:
    """Token ids, and their log-probs under softmax(raw): temperature and truncation do not enter those."""
    scores_NV, raw_NV = torch.from_numpy(choice.scores), torch.from_numpy(choice.raw)
    chosen_N = scores_NV.argmax(-1)
    if choice.temperature.any():
        chosen_N = torch.where(torch.from_numpy(choice.temperature) == 0, chosen_N, _draw(scores_NV, choice))
    normalisers_N = raw_NV.logsumexp(-1)
    logprobs_N = raw_NV.gather(-1, chosen_N[:, None])[:, 0] - normalisers_N
    return Chosen(
        tokens=chosen_N.numpy().astype(np.int32), logprobs=logprobs_N.numpy(), normalisers=normalisers_N.numpy()
    )


def _draw(scores_NV: Tensor, choice: Choice) -> Tensor:
    temperature = torch.from_numpy(choice.temperature).clamp_min(1e-4)
    probabilities_NV = (scores_NV / temperature[:, None]).double().softmax(-1)
    if choice.top_k.any() or (choice.top_p < 1).any():
        probabilities_NV = _truncate(probabilities_NV, choice)
    if choice.min_p.any():
        least_N1 = torch.from_numpy(choice.min_p)[:, None] * probabilities_NV.amax(-1, keepdim=True)
        probabilities_NV = probabilities_NV.masked_fill(probabilities_NV < least_N1, 0.0)
    # Inverse transform: the first token at which the cumulated probability passes u.
    cumulated_NV = probabilities_NV.cumsum(-1)
    target_N1 = (torch.from_numpy(choice.uniform) * cumulated_NV[:, -1])[:, None]
    return torch.searchsorted(cumulated_NV, target_N1, right=True)[:, 0].clamp_max(scores_NV.shape[-1] - 1)


def _truncate(probabilities_NV: Tensor, choice: Choice) -> Tensor:
    """Keeps the top-k tokens and of those the smallest set with at least top-p of the probability."""
    top_k, top_p = torch.from_numpy(choice.top_k), torch.from_numpy(choice.top_p)
    ordered_NV, order_NV = probabilities_NV.sort(dim=-1, descending=True, stable=True)
    rank_V = torch.arange(probabilities_NV.shape[-1])
    k_N1 = torch.where(top_k > 0, top_k, probabilities_NV.shape[-1])[:, None]
    ordered_NV = ordered_NV.masked_fill(rank_V >= k_N1, 0.0)
    ordered_NV = ordered_NV / ordered_NV.sum(-1, keepdim=True)
    before_NV = ordered_NV.cumsum(-1) - ordered_NV
    ordered_NV = ordered_NV.masked_fill(before_NV >= top_p[:, None], 0.0)
    return torch.zeros_like(probabilities_NV).scatter(-1, order_NV, ordered_NV)
