"""Advantages against the sums of their definition, written out."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from chatwheel.training.advantages import generalised_advantages, whiten


def by_definition(rewards: list[float], values: list[float], gamma: float, lam: float) -> list[float]:
    """Schulman et al. (2016), eq. 11-16: A_t = sum over l of (gamma lam)^l (r_{t+l} + gamma V_{t+l+1} - V_{t+l})."""
    end = len(rewards)
    later = [*values, 0.0]
    surprise = [rewards[t] + gamma * later[t + 1] - values[t] for t in range(end)]
    return [sum((gamma * lam) ** (k - t) * surprise[k] for k in range(t, end)) for t in range(end)]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 20), min_size=1, max_size=6),
    st.sampled_from([1.0, 0.99, 0.5]),
    st.sampled_from([0.0, 0.95, 1.0]),
    st.integers(0, 1000),
)
def test_they_are_what_the_definition_says(lengths: list[int], gamma: float, lam: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rewards, values = torch.randn(2, sum(lengths), generator=generator)
    advantages, returns = generalised_advantages(rewards, values, lengths, gamma=gamma, lam=lam)
    expected: list[float] = []
    first = 0
    for n in lengths:
        part = slice(first, first + n)
        expected += by_definition(rewards[part].tolist(), values[part].tolist(), gamma, lam)
        first += n
    torch.testing.assert_close(advantages, torch.tensor(expected), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(returns, advantages + values)


def test_without_discount_a_return_is_what_is_still_to_come() -> None:
    rewards = torch.tensor([0.0, 0.0, 1.0, -0.5, 2.0])
    values = torch.randn(5, generator=torch.Generator().manual_seed(0))
    _, returns = generalised_advantages(rewards, values, [3, 2], gamma=1.0, lam=1.0)
    torch.testing.assert_close(returns, torch.tensor([1.0, 1.0, 1.0, 1.5, 2.0]))


def test_an_answer_does_not_know_of_the_next() -> None:
    rewards, values = torch.zeros(6), torch.zeros(6)
    rewards[3:] = 100.0
    advantages, _ = generalised_advantages(rewards, values, [3, 3], gamma=1.0, lam=1.0)
    assert advantages[:3].tolist() == [0.0, 0.0, 0.0]


def test_whitening() -> None:
    x = torch.randn(5000, generator=torch.Generator().manual_seed(1)) * 7 - 30
    y = whiten(x)
    assert abs(float(y.mean())) < 1e-5
    assert abs(float(y.std(correction=0)) - 1) < 1e-5
    assert torch.equal(x.argsort(), y.argsort())


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 7.7, -1e6])
@pytest.mark.parametrize("count", [1, 3, 1000, 4097])
def test_equal_advantages_say_nothing(value: float, count: int) -> None:
    assert whiten(torch.full((count,), value)).abs().max() < 1e-3
