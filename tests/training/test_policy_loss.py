"""What a token's loss is made of, against enumeration, plain loops and finite differences."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from chatwheel.training.advantages import leave_one_out, of_groups
from chatwheel.training.kl_control import Estimator, kl_estimate
from chatwheel.training.policy_loss import FARTHEST, clipped_losses, importance

# -- KL: small distributions, whose expectations are sums


def logits(seed: int, size: int = 7) -> Tensor:
    return torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def expectation(policy_V: Tensor, estimator: Estimator, reference_V: Tensor) -> Tensor:
    """Of an estimate, over all that the policy could have said."""
    log_p, log_q = policy_V.log_softmax(-1), reference_V.log_softmax(-1)
    return (log_p.exp() * kl_estimate(log_p - log_q, estimator)).sum()


def divergence(policy_V: Tensor, reference_V: Tensor) -> Tensor:
    p, q = (torch.distributions.Categorical(logits=x) for x in (policy_V, reference_V))
    return torch.distributions.kl_divergence(p, q)


@pytest.mark.parametrize("seed", range(5))
def test_k1_and_k3_are_unbiased_and_k2_is_nearly_so_where_both_are_near(seed: int) -> None:
    policy, reference = logits(seed), logits(seed + 100)
    exact = divergence(policy, reference)
    for estimator in ("k1", "k3"):
        torch.testing.assert_close(expectation(policy, estimator, reference), exact)
    near = policy + 0.01 * reference
    torch.testing.assert_close(expectation(near, "k2", policy), divergence(near, policy), rtol=0.05, atol=0)
    assert (kl_estimate(policy.log_softmax(-1) - reference.log_softmax(-1), "k3") >= 0).all()
    assert (kl_estimate(policy.log_softmax(-1) - reference.log_softmax(-1), "k2") >= 0).all()


def in_the_loss(policy_V: Tensor, estimator: Estimator, reference_V: Tensor) -> Tensor:
    """The expected gradient of an estimate of samples, which do not move with the policy."""
    policy_V = policy_V.clone().requires_grad_()
    log_p, log_q = policy_V.log_softmax(-1), reference_V.log_softmax(-1)
    (log_p.detach().exp() * kl_estimate(log_p - log_q, estimator)).sum().backward()
    assert policy_V.grad is not None
    return policy_V.grad


@pytest.mark.parametrize("seed", range(5))
def test_what_each_estimator_does_in_the_loss(seed: int) -> None:
    """k1 nothing at all; k2 the KL's own gradient; k3 that of the KL the other way round (Tang & Munos, 2025)."""
    policy, reference = logits(seed), logits(seed + 100)

    def gradient_of(kl: Any) -> Tensor:
        leaf = policy.clone().requires_grad_()
        kl(leaf).backward()
        assert leaf.grad is not None
        return leaf.grad

    torch.testing.assert_close(in_the_loss(policy, "k1", reference), torch.zeros(7, dtype=torch.float64))
    torch.testing.assert_close(in_the_loss(policy, "k2", reference), gradient_of(lambda x: divergence(x, reference)))
    torch.testing.assert_close(in_the_loss(policy, "k3", reference), gradient_of(lambda x: divergence(reference, x)))


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_the_gradient_of_an_estimate_is_its_finite_difference(estimator: Estimator) -> None:
    ratios = torch.tensor([-3.0, -0.4, 0.1, 0.9, 2.5], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda r: kl_estimate(r, estimator), ratios)


# -- the clip


def clipped(ratio: float, advantage: float, low: float, high: float, dual: float | None) -> float:
    """Schulman et al. (2017), eq. 7, and Ye et al. (2020), eq. 4, one token at a time."""
    inside = min(max(ratio, 1 - low), 1 + high)
    gain = min(ratio * advantage, inside * advantage)
    if dual is not None and advantage < 0:
        gain = max(gain, dual * advantage)
    return -gain


LOG_RATIOS = [-25.0, -5.0, -0.5, -0.2, -0.05, 0.0, 0.05, 0.2, 0.26, 0.5, 1.2, 5.0, 19.0]
ADVANTAGES = [-3.0, -0.1, 0.0, 0.1, 2.0]


@pytest.mark.parametrize(("low", "high"), [(0.2, 0.2), (0.2, 0.28), (0.1, 4.0)])
@pytest.mark.parametrize("dual", [None, 1.5, 3.0])
def test_clipped_losses_token_by_token(low: float, high: float, dual: float | None) -> None:
    grid = list(itertools.product(LOG_RATIOS, ADVANTAGES))
    log_ratios, advantages = torch.tensor(grid, dtype=torch.float64).unbind(1)
    found = clipped_losses(log_ratios, advantages, low=low, high=high, dual=dual)
    expected = [clipped(math.exp(max(r, -FARTHEST)), a, low, high, dual) for r, a in grid]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    # Away from the corners, finite differences.
    smooth = [(r, a) for r, a in grid if -FARTHEST < r < 3]
    log_ratios, advantages = torch.tensor(smooth, dtype=torch.float64).unbind(1)
    assert torch.autograd.gradcheck(
        lambda r: clipped_losses(r, advantages, low=low, high=high, dual=dual), log_ratios.requires_grad_()
    )


def test_the_dual_clip_lets_go_of_a_bad_answer_that_has_become_far_too_likely() -> None:
    log_ratio = torch.tensor([math.log(10.0)], requires_grad=True)
    bad = torch.tensor([-1.0])
    assert float(clipped_losses(log_ratio, bad, low=0.2, high=0.2).detach()) == pytest.approx(10)
    loss = clipped_losses(log_ratio, bad, low=0.2, high=0.2, dual=3.0)
    assert float(loss.detach()) == pytest.approx(3)
    loss.sum().backward()
    assert float(log_ratio.grad) == 0


def test_no_ratio_overflows() -> None:
    log_ratio = torch.tensor([1e4, -1e4], requires_grad=True)
    loss = clipped_losses(log_ratio, torch.tensor([-1.0, 1.0]), low=0.2, high=0.2).sum()
    loss.backward()
    assert loss.isfinite()
    assert log_ratio.grad is not None
    assert log_ratio.grad.isfinite().all()


def test_importance_is_the_ratio_up_to_a_limit() -> None:
    ours, theirs = torch.tensor([-1.0, -1.0, -1.0, -0.1]), torch.tensor([-1.0, -0.5, -2.5, -300.0])
    expected = torch.tensor([1.0, math.exp(-0.5), 2.0, 2.0])
    torch.testing.assert_close(importance(ours, theirs, 2.0), expected)


# -- groups


def spread(values: list[float]) -> float:
    """The deviation of a sample."""
    middle = sum(values) / len(values)
    return math.sqrt(sum((v - middle) ** 2 for v in values) / (len(values) - 1))


GROUPS = st.integers(2, 5).flatmap(
    lambda size: st.lists(
        st.lists(st.floats(-100, 100, width=32), min_size=size, max_size=size), min_size=1, max_size=4
    )
)


@settings(max_examples=100, deadline=None)
@given(GROUPS)
def test_advantages_of_groups_are_the_formulas(groups: list[list[float]]) -> None:
    flat, size = [r for group in groups for r in group], len(groups[0])
    rewards = torch.tensor(flat, dtype=torch.float64)
    expected: dict[str, list[float]] = {"group": [], "batch": [], "none": [], "others": []}
    for group in groups:
        for i, reward in enumerate(group):
            difference = reward - sum(group) / size
            expected["none"].append(difference)
            expected["group"].append(difference / (spread(group) + 1e-4))
            expected["batch"].append(difference / (spread(flat) + 1e-4))
            expected["others"].append(reward - sum(r for j, r in enumerate(group) if j != i) / (size - 1))
    for scale in ("group", "batch", "none"):
        found = of_groups(rewards, size, scale)  # type: ignore[arg-type]
        torch.testing.assert_close(found, torch.tensor(expected[scale], dtype=torch.float64), rtol=1e-6, atol=1e-6)
    found = leave_one_out(rewards, size)
    torch.testing.assert_close(found, torch.tensor(expected["others"], dtype=torch.float64), rtol=1e-9, atol=1e-9)


def test_the_baselines_have_the_expectations_that_are_claimed() -> None:
    """Over all pairs of samples of a policy: the leave-one-out gradient is the reward's, GRPO's unscaled one (n - 1)
    / n of it, since its mean holds the answer itself (Liu et al., 2025, appendix A)."""
    policy, rewards = logits(3, 4), torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
    p = policy.softmax(-1)
    exact = torch.autograd.functional.jacobian(lambda x: (x.softmax(-1) * rewards).sum(), policy)
    found = {"others": torch.zeros(4, dtype=torch.float64), "none": torch.zeros(4, dtype=torch.float64)}
    score = torch.eye(4, dtype=torch.float64) - p  # d log p(a) / d logits
    for pair in itertools.product(range(4), repeat=2):
        chance, chosen = float(p[list(pair)].prod()), torch.stack([rewards[i] for i in pair])
        for name, advantages in (("others", leave_one_out(chosen, 2)), ("none", of_groups(chosen, 2, "none"))):
            found[name] += chance * (advantages[:, None] * score[list(pair)]).mean(0)
    torch.testing.assert_close(found["others"], exact)
    torch.testing.assert_close(found["none"], exact / 2)
