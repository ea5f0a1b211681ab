"""A tokenizer and models so small that a test makes its own in milliseconds."""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar

import torch

from chatwheel.model.config import ModelConfig
from chatwheel.model.tokenizer import Tokenizer
from chatwheel.model.transformer import CausalLM, ScalarModel

ModelT = TypeVar("ModelT", CausalLM, ScalarModel)
VOCAB = 400
TEXT = [
    "The capital of France is Paris, and the capital of Italy is Rome.",
    "I don't know that; we'll see what they've found in the 1990s.",
    "What is two plus two? It is four, of course!\n\nThank you.",
    "法国的首都是巴黎,意大利的首都是罗马。",
    "我不知道这个问题的答案,请告诉我更多。谢谢你!",
    "一个很小的模型也能回答简单的问题吗?当然可以。",
    "Ein schöner Tag: naïve café, 東京, 🙂🙃, e\u0301, \t tabs  and   spaces.",
]


@cache
def tokenizer() -> Tokenizer:
    """Trained on a few bilingual lines."""
    return Tokenizer.train(TEXT * 3, VOCAB)


def config(**changes: Any) -> ModelConfig:
    """Two layers, four heads that share two key heads."""
    values: dict[str, Any] = {
        "vocab_size": VOCAB,
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 4,
        "num_kv_heads": 2,
        "head_dim": 8,
        "intermediate_size": 48,
        "max_positions": 256,
    }
    return ModelConfig(**(values | changes))


def causal(seed: int = 0, **changes: Any) -> CausalLM:
    """Random weights, none of them accidentally 0 or 1, with distributions that are neither flat nor certain."""
    return _random(CausalLM(config(**changes)), seed).eval()


def scalar(seed: int = 0, **changes: Any) -> ScalarModel:
    """As `causal`."""
    return _random(ScalarModel(config(**changes)), seed).eval()


def tokens(*shape: int, seed: int = 0, low: int = 10) -> torch.Tensor:
    """Random ordinary tokens."""
    return torch.randint(low, VOCAB, shape, generator=torch.Generator().manual_seed(seed))


def _random(model: ModelT, seed: int) -> ModelT:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.uniform_(0.5, 1.5, generator=generator)
            elif "embed_tokens" in name or "lm_head" in name or "score" in name:
                parameter.normal_(0.0, 0.4, generator=generator)
            else:
                parameter.normal_(0.0, 1.3 * parameter.shape[1] ** -0.5, generator=generator)
    return model
