"""Games so small that their best policies are known: all answers are counted, none is sampled to judge a policy by.

A policy can say eight tokens only, two of which end its turn. In the bandit it says one, in the game up to two: fifty
answers, each with its reward in a table.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from chatwheel.model.transformer import CausalLM
from chatwheel.training.answers import PromptedAnswer
from chatwheel.training.best_of_n import BestOfNConfig, best_of_n
from chatwheel.training.dpo import DPOConfig, dpo
from chatwheel.training.grpo import GRPOConfig, grpo
from chatwheel.training.optimizers import OptimizerConfig
from chatwheel.training.ppo import PPOConfig, ppo
from chatwheel.training.preferences import EncodedPreferences
from chatwheel.training.rewards import Question
from chatwheel.training.rloo import RLOOConfig, rloo
from tests.tiny import causal, tokenizer
from tests.training.test_ppo import fresh_critic

STOPS = (tokenizer().end_of_text_id, tokenizer().end_id)
OTHERS = tuple(i for i in range(8) if i not in STOPS)
PROMPT = (5, 7, 6)
Answer = tuple[int, ...]


def taciturn() -> CausalLM:
    """Knows the first eight tokens only, two of which end an answer; which are likely chance has said."""
    model = causal(tied_embeddings=False, vocab_size=8)
    with torch.no_grad():
        model.lm_head.weight.mul_(0.5)
    return model


def answers(longest: int) -> list[Answer]:
    """All that can be said."""
    ended = [(*said, end) for n in range(longest) for said in itertools.product(OTHERS, repeat=n) for end in STOPS]
    return ended + list(itertools.product(OTHERS, repeat=longest))


@torch.no_grad()
def chances(model: CausalLM, longest: int) -> Tensor:
    """Of each of `answers`; they are all there are."""
    every = answers(longest)
    whole = [[*PROMPT, *said] for said in every]
    padded = torch.tensor([ids + [0] * (len(PROMPT) + longest - len(ids)) for ids in whole])
    log_probs = model(padded).double().log_softmax(-1)
    found = torch.stack(
        [
            sum(log_probs[i, len(PROMPT) - 1 + t, token] for t, token in enumerate(said)).exp()  # type: ignore[union-attr]
            for i, said in enumerate(every)
        ]
    )
    assert float(found.sum()) == pytest.approx(1, abs=1e-5)
    return found


@cache
def table(longest: int) -> dict[Answer, float]:
    """Each answer's reward, up to a half, and 1 for the best, which is rare at first."""
    every = answers(longest)
    rewards = torch.rand(len(every), generator=torch.Generator().manual_seed(longest)) / 2
    rewards[chances(taciturn(), longest).argsort(descending=True)[len(every) // 5]] = 1.0
    return dict(zip(every, rewards.tolist(), strict=True))


def distance(p: Tensor, q: Tensor) -> float:
    """Total variation."""
    return float((p - q).abs().sum() / 2)


COMMON: dict[str, Any] = {
    "row_length": 64,
    "missing_end_penalty": 0.0,
    "epochs": 1,
    "minibatches": 1,
    "step_kl": 1e9,
    "precision": "float32",
}
METHODS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "ppo": (PPOConfig, ppo, {"samples_per_prompt": 1, "epochs": 2, "lam": 1.0}),
    "ppo, head": (PPOConfig, ppo, {"samples_per_prompt": 1, "critic": "head", "critic_warmup": 2, "epochs": 2}),
    "grpo": (GRPOConfig, grpo, {}),
    "dr_grpo": (GRPOConfig, grpo, {"scale": "none", "aggregation": "constant"}),
    "dapo": (GRPOConfig, grpo, {"aggregation": "tokens", "clip_high": 0.28, "resample": 2, "epochs": 2}),
    "rloo": (RLOOConfig, rloo, {}),
    "best_of_n": (BestOfNConfig, best_of_n, {}),
}
NO_KL = {"coefficient": 0.0, "target": None, "stop": None}


def play(method: str, longest: int, directory: Path, *, rate: float = 3e-3, num: int = 128, **changes: Any) -> CausalLM:
    """The policy after it has learnt."""
    kind, learn, settings = METHODS[method]
    rewards = table(longest)
    values = COMMON | {"samples_per_prompt": 8, "max_tokens": longest} | settings | changes
    values["prompts_per_rollout"] = num // values["samples_per_prompt"]
    optimizer = OptimizerConfig(learning_rate=rate, matrices="adamw", warmup=0.0, decay=0.8, weight_decay=0.0)
    config = kind.model_validate({"optimizer": optimizer} | values)

    def judge(_: Any, said: Sequence[Any]) -> Tensor:
        return torch.tensor([rewards[answer.token_ids] for answer in said])

    critic: list[Any] = []
    if kind is PPOConfig:
        critic = [fresh_critic() if config.critic == "own" else None]
    model = taciturn()
    learn(config, model, *critic, judge, tokenizer(), [Question(PROMPT)], directory=directory, seed=0)
    return model


def test_the_games_are_what_they_are_said_to_be() -> None:
    for longest, number in ((1, 8), (2, 50)):
        assert len(set(answers(longest))) == number
        before = chances(taciturn(), longest)
        assert before.max() < 0.6
        assert before.min() > 1e-4


# -- without a penalty: the best answer


@pytest.mark.parametrize("method", METHODS)
def test_the_best_arm_is_found(method: str, tmp_path: Path) -> None:
    model = play(method, 1, tmp_path, rollouts=30, kl=NO_KL, rate=5e-3, num=64)
    rewards = torch.tensor(list(table(1).values()))
    assert chances(taciturn(), 1)[rewards.argmax()] < 0.6
    assert chances(model, 1)[rewards.argmax()] > 0.95


@pytest.mark.parametrize("method", ["grpo", *(pytest.param(m, marks=pytest.mark.slow) for m in METHODS if m != "grpo")])
def test_the_best_answer_is_found(method: str, tmp_path: Path) -> None:
    model = play(method, 2, tmp_path, rollouts=50, kl=NO_KL, rate=2e-3)
    rewards = torch.tensor(list(table(2).values()))
    assert chances(taciturn(), 2)[rewards.argmax()] < 0.1
    assert chances(model, 2)[rewards.argmax()] > 0.9


def test_dpo_on_pairs_from_the_table_finds_the_best_answer(tmp_path: Path) -> None:
    rewards = table(2)
    said = [PromptedAnswer([*PROMPT, *answer], len(PROMPT)) for answer in rewards]
    worth = list(rewards.values())
    pairs = [(i, j) for i, j in itertools.permutations(range(len(worth)), 2) if worth[i] > worth[j]]
    config = DPOConfig(
        beta=0.1,
        epochs=250,
        rankings_per_step=1,
        rankings_at_once=1,
        row_length=128,
        precision="float32",
        optimizer=OptimizerConfig(learning_rate=1e-2, matrices="adamw", weight_decay=0.0),
    )
    model, _ = dpo(config, taciturn(), [EncodedPreferences(said, pairs)], directory=tmp_path, seed=0)
    assert model is not None
    best = worth.index(1.0)
    assert chances(model, 2)[best] > 0.9
    assert chances(taciturn(), 2)[best] < 0.1


# -- with a penalty: the reference, tilted by the rewards

BETA = 0.4


def tilted(longest: int, beta: float = BETA) -> Tensor:
    """pi_ref exp(r / beta), which is best where KL(pi || pi_ref) costs beta."""
    weights = chances(taciturn(), longest) * (torch.tensor(list(table(longest).values())).double() / beta).exp()
    return weights / weights.sum()


def pulled(longest: int, beta: float) -> Tensor:
    """The best policy where KL(pi_ref || pi) costs beta: d/d pi (r pi + beta pi_ref log pi) is the same everywhere, so
    pi = beta pi_ref / (c - r), with the c for which they sum to 1."""
    reference, rewards = chances(taciturn(), longest), torch.tensor(list(table(longest).values())).double()
    low, high = float(rewards.max()), float(rewards.max()) + beta
    for _ in range(200):
        middle = (low + high) / 2
        too_many = float((beta * reference / (middle - rewards)).sum()) > 1
        low, high = (middle, high) if too_many else (low, middle)
    return beta * reference / (high - rewards)


def in_the_reward(beta: float = BETA) -> dict[str, Any]:
    return {"coefficient": beta, "target": None, "stop": None}


def in_the_loss(estimator: str, beta: float = BETA) -> dict[str, Any]:
    return in_the_reward(beta) | {"place": "loss", "estimator": estimator}


def check(model: CausalLM, longest: int, best: Tensor) -> None:
    before, after = distance(chances(taciturn(), longest), best), distance(chances(model, longest), best)
    assert after < 0.05, f"total variation {after:.3f}, at first {before:.3f}"
    assert before > 0.15


@pytest.mark.parametrize("method", ["ppo", *(pytest.param(m, marks=pytest.mark.slow) for m in ("ppo, head", "rloo"))])
def test_a_bandit_ends_with_the_tilted_policy(method: str, tmp_path: Path) -> None:
    model = play(method, 1, tmp_path, rollouts=40, kl=in_the_reward())
    check(model, 1, tilted(1))


@pytest.mark.parametrize(
    ("method", "estimator"), [("rloo", "k2"), ("dr_grpo", "k2"), ("rloo", "k3"), ("dr_grpo", "k3")]
)
def test_a_bandit_with_the_kl_in_the_loss_ends_where_the_estimator_s_gradient_says(
    method: str, estimator: str, tmp_path: Path
) -> None:
    """k2's gradient is that of KL(pi || pi_ref), k3's that of KL(pi_ref || pi). The mean of n answers that GRPO
    compares with holds the answer itself, which makes rewards (n - 1) / n as large, and the penalty dearer."""
    model = play(method, 1, tmp_path, rollouts=60, kl=in_the_loss(estimator, 0.15))
    beta = 0.15 * 8 / 7 if method == "dr_grpo" else 0.15
    assert distance(tilted(1, beta), pulled(1, beta)) > 0.1  # they are told apart
    check(model, 1, tilted(1, beta) if estimator == "k2" else pulled(1, beta))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ppo", "ppo, head", "rloo"])
def test_a_game_ends_with_the_tilted_policy(method: str, tmp_path: Path) -> None:
    model = play(method, 2, tmp_path, rollouts=60, kl=in_the_reward(), num=256)
    check(model, 2, tilted(2))
