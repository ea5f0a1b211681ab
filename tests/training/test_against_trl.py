"""Losses, their gradients and advantages against what TRL's trainers made of the same inputs: see `trl_numbers`."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from chatwheel.training.advantages import generalised_advantages, leave_one_out, of_groups, whiten
from chatwheel.training.answers import Answers, PromptedAnswer
from chatwheel.training.dpo import DPOConfig, pair_losses
from chatwheel.training.grpo import GRPOConfig, GRPOObjective
from chatwheel.training.kto import answer_losses
from chatwheel.training.policy_gradient import Minibatch, PolicyGradientObjective
from chatwheel.training.ppo import PPOConfig, PPOObjective
from chatwheel.training.rewards import Question
from chatwheel.training.rloo import RLOOConfig, RLOOObjective
from tests.tiny import causal, tokenizer, tokens
from tests.training import trl_numbers as theirs

NUMBERS: dict[str, Any] = json.loads(theirs.NUMBERS.read_text(encoding="utf-8"))
COMMON: dict[str, Any] = {"rollouts": 1, "max_tokens": theirs.MAX_TOKENS, "row_length": 32, "precision": "float32"}
QUESTIONS = [Question(tuple(tokens(4, seed=i).tolist())) for i in range(2)]


def nothing(*_: Any) -> Tensor:
    raise AssertionError("nobody is judged here")


def made(kind: Any, config: Any) -> Any:
    critic = (None,) if kind is PPOObjective else ()
    return kind(config, causal(), *critic, nothing, tokenizer(), QUESTIONS, 0)


def batch(objective: PolicyGradientObjective, advantages_N: Tensor, **more: Tensor) -> Minibatch:
    """The answers' tokens, as a rollout would hand them over."""
    given, n = theirs.tokens_of_answers(), sum(theirs.LENGTHS)
    answers = [PromptedAnswer(tokens(2 + k, seed=k).tolist(), 2) for k in theirs.LENGTHS]
    vectors = {
        "log_probs": given["old"],
        "reference": given["reference"],
        "advantages": advantages_N,
        "weights": objective.weights(theirs.LENGTHS),
        "share": torch.full((n,), 1 / n),
    }
    return Minibatch(answers=Answers.of(answers, 32), per_token=vectors | more)


def by_token(vector_A: Tensor) -> Tensor:
    return vector_A.repeat_interleave(torch.tensor(theirs.LENGTHS))


def compare(compute: Callable[[Tensor], Tensor], at: Tensor, expected: dict[str, Any], *, value: bool = True) -> None:
    leaf = at.clone().requires_grad_()
    loss = compute(leaf)
    loss.backward()
    if value:
        assert float(loss.detach()) == pytest.approx(expected["loss"], rel=1e-6)
    assert leaf.grad is not None
    torch.testing.assert_close(leaf.grad, torch.tensor(expected["gradient"]).double(), rtol=1e-5, atol=1e-7)


OURS: dict[str, dict[str, Any]] = {
    "grpo": {},
    "grpo, high clip": {"clip_high": 0.28},
    "grpo, kl": {"kl": {"coefficient": 0.1, "target": None, "place": "loss", "estimator": "k3"}},
    "grpo, two-sided": {"dual_clip": 1.5},
    "dr_grpo": {"aggregation": "constant"},
    "dapo": {"aggregation": "tokens", "clip_high": 0.28},
    "bnpo": {"aggregation": "tokens"},
}
NO_KL = {"coefficient": 0.0, "target": None, "stop": None}


@pytest.mark.parametrize("name", theirs.GRPO)
def test_grpo_and_its_variants(name: str) -> None:
    settings = {"kl": NO_KL, **OURS[name]}
    subject = made(GRPOObjective, GRPOConfig.model_validate(COMMON | settings))
    given = theirs.tokens_of_answers()
    one = batch(subject, by_token(given["advantages"]))
    compare(lambda now: subject.policy_loss(one, now)[0], given["now"], NUMBERS["grpo"][name])


def test_rloo_s_gradient() -> None:
    """The value differs: theirs is of the answer's ratio, ours the sum of its tokens', both 1 where it was sampled."""
    subject = made(RLOOObjective, RLOOConfig.model_validate(COMMON | {"kl": NO_KL}))
    given = theirs.tokens_of_answers()
    one = batch(subject, by_token(given["advantages"]), log_probs=given["now"])
    compare(lambda now: subject.policy_loss(one, now)[0], given["now"], NUMBERS["rloo"], value=False)


def test_ppo_s_losses_and_advantages() -> None:
    names, expected = theirs.PPO, NUMBERS["ppo"]
    config = PPOConfig.model_validate(
        COMMON
        | {"clip": names["cliprange"], "value_clip": names["cliprange_value"], "value_weight": names["vf_coef"]}
        | {"gamma": names["gamma"], "lam": names["lam"], "kl": NO_KL, "critic": "head"}
    )
    given, known = theirs.tokens_of_answers(), theirs.states()
    advantages, returns = generalised_advantages(
        known["rewards"].float(), known["values"].float(), theirs.LENGTHS, gamma=config.gamma, lam=config.lam
    )
    torch.testing.assert_close(returns, torch.tensor(expected["returns"]), rtol=1e-5, atol=1e-6)
    n = len(advantages)
    corrected = whiten(advantages) * ((n - 1) / n) ** 0.5  # they divide by the deviation of a sample
    torch.testing.assert_close(corrected, torch.tensor(expected["advantages"]), rtol=1e-5, atol=1e-6)

    subject = made(PPOObjective, config)
    one = batch(
        subject,
        torch.tensor(expected["advantages"]).double(),
        values=known["values"],
        returns=torch.tensor(expected["returns"]).double(),
    )

    def loss(now: Tensor, values_now: Tensor) -> Tensor:
        return subject.policy_loss(one, now)[0] + config.value_weight * subject.value_loss(one, values_now)

    assert torch.autograd.gradcheck(
        lambda values: subject.value_loss(one, values), known["values_now"].requires_grad_()
    )
    compare(lambda now: loss(now, known["values_now"].detach()), given["now"], expected["policy"])
    compare(lambda values: loss(given["now"], values), known["values_now"].detach(), expected["value"])


def gains(better: Tensor, average: bool) -> Tensor:
    """How much more than the worse answer the better one has gained on the reference."""
    given = theirs.pairs()
    found = better - given["reference_better"], given["worse"] - given["reference_worse"]
    if average:
        found = found[0] / given["lengths_better"], found[1] / given["lengths_worse"]
    return found[0] - found[1]


@pytest.mark.parametrize(
    ("name", "settings", "average"),
    [
        ("sigmoid", {}, False),
        ("ipo", {"loss": "ipo"}, True),  # theirs is of means over tokens; ours where `average` says so
        ("sigmoid_norm", {}, True),
    ],
)
def test_dpo(name: str, settings: dict[str, Any], average: bool) -> None:
    config = DPOConfig(beta=theirs.BETA, average=average, **settings)
    compare(
        lambda better: pair_losses(gains(better, average), config).mean(),
        theirs.pairs()["better"],
        NUMBERS["dpo"][name],
    )


def test_dpo_s_label_smoothing() -> None:
    """TRL has only the unbiased loss, R = ((1 - e) L(m) - e L(-m)) / (1 - 2 e), from which with L(m) follows ours:
    (1 - e) L(m) + e L(-m) = 2 (1 - e) L(m) - (1 - 2 e) R."""
    wrong = theirs.DPO["robust"]["label_smoothing"]
    plain, robust = NUMBERS["dpo"]["sigmoid"], NUMBERS["dpo"]["robust"]

    def ours(of_plain: float, of_robust: float) -> float:
        return 2 * (1 - wrong) * of_plain - (1 - 2 * wrong) * of_robust

    expected = {
        "loss": ours(plain["loss"], robust["loss"]),
        "gradient": [ours(a, b) for a, b in zip(plain["gradient"], robust["gradient"], strict=True)],
    }
    config = DPOConfig(beta=theirs.BETA, label_smoothing=wrong)
    compare(lambda x: pair_losses(gains(x, False), config).mean(), theirs.pairs()["better"], expected)


@pytest.mark.parametrize("name", theirs.KTO)
def test_kto(name: str) -> None:
    given, others = theirs.pairs(), theirs.strangers()
    z0 = max(0.0, float((others["now"] - others["reference"]).mean()))
    assert z0 > 1
    weights = theirs.KTO[name]
    signs = torch.tensor([1.0 if label else -1.0 for label in theirs.LABELS])
    lambdas = torch.where(signs > 0, weights["desirable_weight"], weights["undesirable_weight"])
    compare(
        lambda now: answer_losses(now - given["reference_better"], signs, lambdas, z0, theirs.BETA).mean(),
        given["better"],
        NUMBERS["kto"][name],
    )


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_advantages_within_groups(scale: Any) -> None:
    found = of_groups(torch.tensor(theirs.REWARDS), 4, scale)
    torch.testing.assert_close(found, torch.tensor(NUMBERS["advantages"][scale]), rtol=1e-5, atol=1e-6)


def test_advantages_against_siblings() -> None:
    found = leave_one_out(torch.tensor(theirs.REWARDS), 4)
    torch.testing.assert_close(found, torch.tensor(NUMBERS["advantages"]["rloo"]), rtol=1e-5, atol=1e-6)
    normalised = torch.tensor(NUMBERS["advantages"]["rloo, normalised"])
    torch.testing.assert_close(found / found.std(), normalised, rtol=1e-3, atol=0)  # but for their 1e-4
