"""The controller of the KL penalty."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from chatwheel.training.kl_control import KLConfig, KLController


def test_without_a_target_the_coefficient_stays() -> None:
    controller = KLController(KLConfig(coefficient=0.07, target=None))
    for kl in (0.0, 100.0, 3.0):
        controller.update(kl, 1000)
    assert controller.coefficient == 0.07


def test_one_update_is_the_formula_of_the_paper() -> None:
    """Ziegler et al. (2019), section 2.2: beta times 1 + K e, e = clip((kl - target) / target, +-0.2)."""
    for kl, error in ((6.6, 0.1), (5.4, -0.1), (60.0, 0.2), (0.0, -0.2)):
        controller = KLController(KLConfig(coefficient=0.05, target=6.0, horizon=1000))
        controller.update(kl, 100)
        assert controller.coefficient == pytest.approx(0.05 * (1 + error * 100 / 1000), rel=3e-4)


def test_it_brings_a_simulated_policy_to_the_target() -> None:
    controller = KLController(KLConfig(coefficient=5.0, target=6.0, horizon=500))
    for _ in range(2000):
        kl = 3.0 / controller.coefficient  # the more it costs, the less the policy spends
        controller.update(kl, 64)
    assert 3.0 / controller.coefficient == pytest.approx(6.0, rel=0.02)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(-5, 1000), min_size=1, max_size=20), st.integers(1, 5000), st.integers(1, 2000))
def test_the_coefficient_never_turns_into_a_reward(kls: list[float], horizon: int, answers: int) -> None:
    controller = KLController(KLConfig(coefficient=0.05, target=6.0, horizon=horizon))
    for kl in kls:
        before = controller.coefficient
        controller.update(kl, answers)
        assert controller.coefficient > 0
        assert (controller.coefficient - before) * (kl - 6.0) >= 0


@pytest.mark.parametrize("wrong", [{"coefficient": -1}, {"target": 0}, {"horizon": 0}, {"stop": 0}, {"kl": 1}])
def test_impossible_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        KLConfig.model_validate(wrong)
