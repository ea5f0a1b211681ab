"""Small real runs that learn from their own answers, healthy or spoilt in one way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from chatwheel.engine.requests import Completion
from chatwheel.model.transformer import CausalLM, ScalarModel
from chatwheel.training.best_of_n import BestOfNConfig, best_of_n
from chatwheel.training.grpo import GRPOConfig, grpo
from chatwheel.training.loop import read_metrics
from chatwheel.training.ppo import PPOConfig, ppo
from chatwheel.training.rewards import Question
from chatwheel.training.rloo import RLOOConfig, rloo
from tests.tiny import causal, scalar, tokenizer, tokens

REFERENCES = ["the capital is paris", "it is four", "thank you", "of course", "we know that", "and the capital is rome"]
QUESTIONS = [Question(tuple(tokens(3 + 2 * i, seed=i).tolist()), (), text) for i, text in enumerate(REFERENCES)]
"""Prompts with people's own answers."""
ANSWERS = 48
RATE = 2e-3

Judge = Callable[[Sequence[Question], Sequence[Completion]], Tensor]
Rows = list[dict[str, float]]


def letters(_: Sequence[Question], answers: Sequence[Completion]) -> Tensor:
    """The share of an answer's characters that are small letters or spaces: of all references, 1."""
    return torch.tensor([sum("a" <= c <= "z" or c == " " for c in a.text) / max(1, len(a.text)) for a in answers])


def policy(ending: float = 1.5) -> CausalLM:
    """Ends an answer after some eight tokens."""
    model = causal(tied_embeddings=False)
    with torch.no_grad():
        model.lm_head.weight[tokenizer().end_id] = 0.0
        model.lm_head.weight *= 0.6
        # A token whose logit is always about the same: what all hidden states have in common.
        hidden_D = torch.cat([model.model(torch.tensor([q.ids]))[0] for q in QUESTIONS]).mean(0)
        model.lm_head.weight[tokenizer().end_id] = ending * 2 * hidden_D / hidden_D.square().sum()
    return model


def critic() -> ScalarModel:
    """Expects nothing yet."""
    model = scalar(seed=5)
    torch.nn.init.zeros_(model.score.weight)
    return model


def settings(**changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "rollouts": 12,
        "max_tokens": 24,
        "row_length": 64,
        "missing_end_penalty": 0.2,
        "kl": {"coefficient": 0.02, "target": None, "stop": None},
        "optimizer": {"learning_rate": RATE, "warmup": 0.0, "decay": 0.5, "matrices": "adamw"},
        "precision": "float32",
        "compile": "never",
    }
    return values | changes


def run_ppo(
    directory: Path, judge: Judge = letters, model: CausalLM | None = None, seed: int = 0, **changes: Any
) -> Rows:
    """PPO's metrics."""
    config = PPOConfig.model_validate(settings(prompts_per_rollout=ANSWERS) | changes)
    own = critic() if config.critic == "own" else None
    ppo(config, model or policy(), own, judge, tokenizer(), QUESTIONS, directory=directory, seed=seed)
    return read_metrics(directory)


def run_grpo(directory: Path, judge: Judge = letters, seed: int = 0, **changes: Any) -> Rows:
    kl = {"coefficient": 0.04, "target": None, "place": "loss", "estimator": "k3", "stop": None}
    group = {"prompts_per_rollout": ANSWERS // 8, "samples_per_prompt": 8, "kl": kl}
    config = GRPOConfig.model_validate(settings(**group) | changes)
    grpo(config, policy(), judge, tokenizer(), QUESTIONS, directory=directory, seed=seed)
    return read_metrics(directory)


def run_rloo(directory: Path, judge: Judge = letters, seed: int = 0, **changes: Any) -> Rows:
    group = {"prompts_per_rollout": ANSWERS // 4, "samples_per_prompt": 4}
    config = RLOOConfig.model_validate(settings(**group) | changes)
    rloo(config, policy(), judge, tokenizer(), QUESTIONS, directory=directory, seed=seed)
    return read_metrics(directory)


def run_best_of_n(directory: Path, judge: Judge = letters, seed: int = 0, **changes: Any) -> Rows:
    group = {"prompts_per_rollout": ANSWERS // 4, "samples_per_prompt": 4}
    config = BestOfNConfig.model_validate(settings(**group) | changes)
    best_of_n(config, policy(), judge, tokenizer(), QUESTIONS, directory=directory, seed=seed)
    return read_metrics(directory)
