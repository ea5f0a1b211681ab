"""What is measured: models with random weights, and rows and conversations of random tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch

from chatwheel.model.config import ModelConfig

# 5.7 million parameters: the size at which two cores train in minutes.
NANO = ModelConfig(
    vocab_size=4096,
    hidden_size=256,
    num_layers=6,
    num_heads=4,
    num_kv_heads=4,
    head_dim=64,
    intermediate_size=672,
    max_positions=512,
    qk_norm=False,
)
# 222 million: weights that no cache holds.
MID = replace(
    NANO,
    vocab_size=32768,
    hidden_size=1024,
    num_layers=16,
    num_heads=16,
    num_kv_heads=8,
    intermediate_size=2816,
)
SHORTEST, MEDIAN, LONGEST = 8, 80, 256
SPREAD = 0.7
"""Of the log-normal lengths of conversations: two thirds lie between 40 and 160 tokens."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """rows, row_length: of a step. steps: timed ones (pretraining). conversations: of an epoch (SFT). device: "cpu" or
    "cuda"."""

    rows: int = 16
    row_length: int = 256
    steps: int = 8
    warmup: int = 3
    conversations: int = 192
    precision: str = "auto"
    learning_rate: float = 1e-4
    device: str = "cpu"

    @property
    def dtype(self) -> torch.dtype:
        """The activations' type."""
        from chatwheel.training.precision import compute_dtype

        return compute_dtype(self.precision, self.device)  # type: ignore[arg-type]


def rows(settings: Settings, count: int) -> list[list[int]]:
    """Sequences that fill a row each."""
    generator = np.random.default_rng(0)
    tokens: list[list[int]] = generator.integers(10, NANO.vocab_size, (count, settings.row_length)).tolist()
    return tokens


def conversations(settings: Settings) -> list[list[int]]:
    """Token ids of conversations whose lengths are log-normal, cut to what fits."""
    generator = np.random.default_rng(1)
    lengths = np.exp(generator.normal(math.log(MEDIAN), SPREAD, settings.conversations))
    lengths = lengths.clip(SHORTEST, LONGEST).astype(int)
    return [generator.integers(10, NANO.vocab_size, length).tolist() for length in lengths]
