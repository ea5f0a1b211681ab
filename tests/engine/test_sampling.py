"""Choosing tokens: the frequencies of many draws against the probabilities they are meant to have."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from chatwheel.engine.batch import Choice, Chosen
from chatwheel.engine.native.bindings import load_kernels
from chatwheel.engine.native.runner import NativeRunner
from chatwheel.engine.requests import SamplingParams
from chatwheel.engine.sampling import Rows, adjust, adjusts, choose, uniforms
from tests.engine.compiled import needs_kernels
from tests.tiny import causal

DRAWS = 40_000
V = 12


def kernels(choice: Choice) -> Chosen:
    """Choosing as the kernels do it."""
    return runner().choose(choice)


@cache
def runner() -> NativeRunner:
    loaded = load_kernels()
    assert loaded is not None, "the tests need a C++ compiler"
    return NativeRunner(loaded, causal(), num_blocks=1, threads=2)


class Sampler:
    """Rows of a batch and who draws from them: PyTorch, or the kernels."""

    how: Callable[[Choice], Chosen] = staticmethod(choose)

    def __init__(self, params: Sequence[SamplingParams], seeds: Sequence[int]) -> None:
        self.rows = Rows(params, seeds)

    def choose(self, logits_NV: Tensor, positions: Sequence[int]) -> tuple[Tensor, Tensor]:
        logits = np.ascontiguousarray(logits_NV.numpy())
        chosen = self.how(self.rows.choice(logits, logits, positions))
        return torch.from_numpy(chosen.tokens).long(), torch.from_numpy(chosen.logprobs)


@pytest.fixture(
    autouse=True, params=[choose, pytest.param(kernels, marks=needs_kernels)], ids=["torch", "kernels"], scope="module"
)
def who_draws(request: pytest.FixtureRequest) -> None:
    Sampler.how = staticmethod(request.param)


def some_logits(seed: int = 0) -> Tensor:
    return torch.randn(V, generator=torch.Generator().manual_seed(seed)) * 1.5


def draw(logits_V: Tensor, params: SamplingParams, *, seed: int = 7) -> Tensor:
    """The tokens of DRAWS positions of one answer."""
    chosen = []
    for first in range(0, DRAWS, 4000):
        n = min(4000, DRAWS - first)
        # Rows of a batch are requests; here they stand for the positions of one.
        sampler = Sampler([params] * n, [seed] * n)
        chosen.append(sampler.choose(logits_V.expand(n, -1), range(first, first + n))[0])
    return torch.cat(chosen)


def assert_frequencies(tokens_N: Tensor, expected_V: Tensor) -> None:
    """Pearson's chi-square, and no token of probability 0."""
    counts = torch.bincount(tokens_N, minlength=len(expected_V)).double()
    assert counts[expected_V == 0].sum() == 0
    kept = expected_V > 0
    means = expected_V[kept] * len(tokens_N)
    chi_square = float(((counts[kept] - means) ** 2 / means).sum())
    degrees = int(kept.sum()) - 1
    # Wilson-Hilferty: beyond 4.5 standard deviations a fair sampler gets once in 300,000 tests.
    z = ((chi_square / max(1, degrees)) ** (1 / 3) - (1 - 2 / (9 * max(1, degrees)))) / math.sqrt(
        2 / (9 * max(1, degrees))
    )
    assert degrees == 0 or z < 4.5, (chi_square, degrees)


PARAMS = {
    "plain": SamplingParams(),
    "hot": SamplingParams(temperature=1.7),
    "cold": SamplingParams(temperature=0.4),
    "top-k": SamplingParams(top_k=3),
    "top-k 1": SamplingParams(top_k=1),
    "top-k beyond the vocabulary": SamplingParams(top_k=100),
    "top-p": SamplingParams(top_p=0.8),
    "tiny top-p": SamplingParams(top_p=1e-6),
    "min-p": SamplingParams(min_p=0.2),
    "min-p 1": SamplingParams(min_p=1.0),
    "all": SamplingParams(temperature=1.3, top_k=6, top_p=0.9, min_p=0.3),
}


@pytest.mark.parametrize("params", PARAMS.values(), ids=PARAMS.keys())
def test_frequencies_are_those_of_transformers_warpers(params: SamplingParams) -> None:
    logits = some_logits()
    warpers = LogitsProcessorList([TemperatureLogitsWarper(params.temperature)])
    if params.top_k:
        warpers.append(TopKLogitsWarper(params.top_k))
    if params.top_p < 1:
        warpers.append(TopPLogitsWarper(params.top_p))
    if params.min_p:
        warpers.append(MinPLogitsWarper(params.min_p))
    expected = warpers(torch.zeros(1, 1, dtype=torch.long), logits[None])[0].double().softmax(-1)
    assert_frequencies(draw(logits, params), expected)


def test_draws_at_one_position_over_many_seeds_are_fair_too() -> None:
    logits = some_logits(1)
    sampler = Sampler([SamplingParams()] * DRAWS, range(DRAWS))  # neighbouring seeds, as callers use them
    tokens, _ = sampler.choose(logits.expand(DRAWS, -1), [3] * DRAWS)
    assert_frequencies(tokens, logits.double().softmax(-1))


def test_consecutive_draws_are_independent() -> None:
    logits = torch.zeros(4)
    tokens = draw(logits, SamplingParams())
    pairs = tokens[:-1] * 4 + tokens[1:]
    assert_frequencies(pairs, torch.full((16,), 1 / 16, dtype=torch.double))
    # Answers with neighbouring seeds are not shifted copies of each other.
    other = draw(logits, SamplingParams(), seed=8)
    for shift in (0, 1, -1):
        assert 0.2 < float((tokens == other.roll(shift)).float().mean()) < 0.3


def test_greedy_takes_the_first_best() -> None:
    logits = torch.tensor([[0.0, 5.0, 5.0, 1.0], [9.0, 0.0, 0.0, 0.0]])
    tokens, _ = Sampler([SamplingParams(temperature=0, top_p=0.1, top_k=3)] * 2, [1, 2]).choose(logits, [0, 0])
    assert tokens.tolist() == [1, 0]


def test_log_probs_are_of_the_plain_distribution_whatever_the_parameters() -> None:
    params = [*PARAMS.values(), SamplingParams(temperature=0)]
    logits = torch.stack([some_logits(i) for i in range(len(params))])
    tokens, log_probs = Sampler(params, range(len(params))).choose(logits, [0] * len(params))
    expected = logits.double().log_softmax(-1)[torch.arange(len(params)), tokens]
    torch.testing.assert_close(log_probs.double(), expected, atol=1e-5, rtol=0)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([*PARAMS.values(), SamplingParams(temperature=0)]), min_size=2, max_size=12), st.data())
def test_a_row_is_chosen_the_same_alone_and_among_others(params: list[SamplingParams], data: st.DataObject) -> None:
    n = len(params)
    seeds = data.draw(st.lists(st.integers(-(2**63), 2**63), min_size=n, max_size=n))
    positions = data.draw(st.lists(st.integers(0, 10_000), min_size=n, max_size=n))
    logits = torch.stack([some_logits(i) for i in range(n)])
    together, _ = Sampler(params, seeds).choose(logits, positions)
    for i in range(n):
        alone, _ = Sampler([params[i]], [seeds[i]]).choose(logits[i : i + 1], [positions[i]])
        assert alone.item() == together[i].item()


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**64 - 1), st.integers(0, 2**32))
def test_uniforms_lie_in_the_unit_interval(seed: int, position: int) -> None:
    (u,) = uniforms(np.array([seed], np.uint64), np.array([position], np.uint64))
    assert 0.0 <= u < 1.0
    (again,) = uniforms(np.array([seed], np.uint64), np.array([position], np.uint64))
    assert u == again


def test_uniforms_fill_the_interval_evenly() -> None:
    for seeds, positions in ((np.zeros(100_000), np.arange(100_000)), (np.arange(100_000), np.zeros(100_000))):
        u = uniforms(seeds.astype(np.uint64), positions.astype(np.uint64))
        counts, _ = np.histogram(u, bins=100, range=(0, 1))
        assert abs(u.mean() - 0.5) < 4.5 / math.sqrt(12 * len(u))
        assert float(((counts - 1000) ** 2 / 1000).sum()) < 99 + 5 * math.sqrt(2 * 99)
        assert len(np.unique(u)) == len(u)


def test_very_certain_and_very_cold_distributions_stay_finite() -> None:
    logits = torch.tensor([[80.0, -80.0, 0.0], [1e-3, 0.0, -1e-3]])
    tokens, log_probs = Sampler([SamplingParams(temperature=1e-6)] * 2, [1, 2]).choose(logits, [0, 0])
    assert tokens.tolist() == [0, 0]
    assert log_probs.isfinite().all()


@needs_kernels
def test_both_draw_the_same_tokens_from_a_large_vocabulary() -> None:
    generator = torch.Generator().manual_seed(0)
    params = [*PARAMS.values(), SamplingParams(top_p=0.95), SamplingParams(top_p=0.999, top_k=3000)] * 20
    logits = torch.randn(len(params), 5000, generator=generator).numpy() * 2
    choice = Rows(params, range(len(params))).choice(logits, logits, range(len(params)))
    ours, reference = kernels(choice), choose(choice)
    # Their sums differ in the last bits, which decides a draw that falls on a border.
    assert (ours.tokens == reference.tokens).mean() > 0.99
    np.testing.assert_allclose(ours.normalisers, reference.normalisers, atol=1e-5)
    same = ours.tokens == reference.tokens
    np.testing.assert_allclose(ours.logprobs[same], reference.logprobs[same], atol=1e-5)


def test_penalties_are_those_of_transformers_and_openai() -> None:
    logits = some_logits(3).numpy()
    prompt, answer = [1, 2, 2], [4, 4, 5]
    found = logits.copy()
    adjust(found, SamplingParams(repetition_penalty=1.3), prompt, answer, [0])
    theirs = RepetitionPenaltyLogitsProcessor(1.3)(torch.tensor([[*prompt, *answer]]), torch.from_numpy(logits)[None])
    np.testing.assert_allclose(found, theirs[0].numpy(), rtol=1e-6)
    found = logits.copy()
    adjust(found, SamplingParams(presence_penalty=0.5, frequency_penalty=0.25), prompt, answer, [0])
    expected = logits.copy()
    expected[4] -= 0.5 + 2 * 0.25
    expected[5] -= 0.5 + 0.25
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_bias_and_a_least_length() -> None:
    logits = some_logits(4).numpy()
    found = logits.copy()
    adjust(found, SamplingParams(logit_bias={3: 100.0, 7: -100.0}, min_tokens=3), [1], [5, 5], [0, 2])
    assert int(found.argmax()) == 3
    assert found[7] == pytest.approx(logits[7] - 100)
    assert np.isneginf(found[[0, 2]]).all()
    adjust(after := logits.copy(), SamplingParams(min_tokens=3), [1], [5, 5, 5], [0, 2])
    assert np.array_equal(after, logits)
    assert not adjusts(SamplingParams(temperature=0.3, top_p=0.5, top_k=4, min_p=0.1))
