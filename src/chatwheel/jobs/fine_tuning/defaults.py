"""What "auto" means: epochs, batch and learning rate by the size of the data and the width of the model.

|                  | supervised                   | preference        | reinforcement     |
|------------------|------------------------------|-------------------|-------------------|
| n_epochs         | 1,000 / examples, 3 to 10;   | 300 / examples,   | 300 / examples,   |
|                  | 2 above 5,000, 1 above 20,000 | 1 to 3           | 1 to 5            |
| batch_size       | examples / 128 as a power of | the same, 4 to 64 | the same, 8 to 32 |
|                  | two, 4 to 64                 |                   |                   |
| rate at x 1      | 5e-4 x 1024 / width,         | a quarter of it   | a quarter of it   |
|                  | 5e-5 to 4e-3                 |                   |                   |
| rate multiplier  | 1                            | 1                 | 1                 |
| LoRA             | all matrices, alpha 32, rank 16; rank 32 above 2 million trained tokens  |

Why: a small file has to be seen more often, until it is learnt by heart. Few examples are few steps, and steps are what
is short, so batches are small. Wider models want smaller rates. Preferences and graded samples push far with little.
Alpha stays while the rank grows, so that the best rate stays about the same.

The rate falls as a cosine after a twentieth of the steps. The supervised column was measured against a small grid
(docs/LOG.md, "What auto means"); the rates of the others are those of the recipes `qwen-dpo` and `qwen-grpo`, scaled
alike, and were not. That the rate hardly depends on the rank but on the model: Schulman et al., 2025, "LoRA without
regret"; that a small batch suits LoRA, the same.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from chatwheel.jobs.fine_tuning.examples import Kind
from chatwheel.jobs.fine_tuning.file_check import TokenCount
from chatwheel.model.lora import LoRAConfig
from chatwheel.training.dpo import DPOConfig
from chatwheel.training.optimizers import OptimizerConfig
from chatwheel.training.sft import SFTConfig

Auto = Literal["auto"]


class Hyperparameters(BaseModel):
    """As clients send them: "auto", or a number. n_epochs: passes over the file. batch_size: examples a step.
    learning_rate_multiplier: times the rate of "auto"."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    n_epochs: Auto | Annotated[int, Field(ge=1, le=50)] = "auto"
    batch_size: Auto | Annotated[int, Field(ge=1, le=256)] = "auto"
    learning_rate_multiplier: Auto | Annotated[float, Field(gt=0)] = "auto"


class Settings(BaseModel):
    """The numbers that a job trains with; the first three are shown to clients in place of "auto"."""

    model_config = ConfigDict(frozen=True)
    n_epochs: int
    batch_size: int
    learning_rate_multiplier: float
    learning_rate: float
    lora: LoRAConfig

    def optimizer(self) -> OptimizerConfig:
        """A short rise, then a cosine to a twentieth."""
        return OptimizerConfig(
            learning_rate=self.learning_rate,
            warmup=0.05,
            decay=1.0,
            schedule="cosine",
            weight_decay=0.0,
            matrices="adamw",
        )

    def sft(self, examples: int, tokens: TokenCount, context: int) -> SFTConfig:
        """Rows are as long as the longest example that fits; a batch is the number of rows that so many examples of
        mean length fill, at least one."""
        length = row_length(tokens, context)
        mean = (tokens.prompt + tokens.trained) / examples
        rows = max(1, round(self.batch_size * min(mean, length) / length))
        return SFTConfig(
            epochs=self.n_epochs,
            rows_per_step=rows,
            rows_at_once=min(rows, rows_at_once(length)),
            row_length=length,
            optimizer=self.optimizer(),
            compilation="never",  # people wait: compiling takes longer than most jobs
            lora=self.lora,
        )

    def dpo(self, tokens: TokenCount, context: int, beta: float = 0.1) -> DPOConfig:
        """A row holds a prompt with both of its answers where they fit together."""
        length = min(context, 2 * row_length(tokens, context))
        return DPOConfig(
            epochs=self.n_epochs,
            beta=beta,
            rankings_per_step=self.batch_size,
            rankings_at_once=min(self.batch_size, rows_at_once(length)),
            row_length=length,
            optimizer=self.optimizer(),
            lora=self.lora,
        )


def resolve(
    hyperparameters: Hyperparameters, kind: Kind, *, examples: int, trained_tokens: int, hidden_size: int
) -> Settings:
    """Numbers for "auto", by the table above. trained_tokens: of one epoch. hidden_size: the base model's width."""
    asked = hyperparameters
    multiplier = 1.0 if asked.learning_rate_multiplier == "auto" else float(asked.learning_rate_multiplier)
    return Settings(
        n_epochs=epochs(kind, examples) if asked.n_epochs == "auto" else asked.n_epochs,
        batch_size=batch(kind, examples) if asked.batch_size == "auto" else min(asked.batch_size, examples),
        learning_rate_multiplier=multiplier,
        learning_rate=multiplier * rate(kind, hidden_size),
        lora=LoRAConfig(rank=32 if trained_tokens > 2_000_000 else 16, alpha=32.0),
    )


def epochs(kind: Kind, examples: int) -> int:
    """Passes over so many examples."""
    if kind == "preference":
        return min(3, math.ceil(300 / examples))
    if kind == "reinforcement":
        return min(5, math.ceil(300 / examples))
    if examples > 5_000:
        return 2 if examples <= 20_000 else 1
    return max(3, min(10, round(1_000 / examples)))


def batch(kind: Kind, examples: int) -> int:
    """Examples a step; no more than there are."""
    smallest, largest = (8, 32) if kind == "reinforcement" else (4, 64)
    power = 1 << round(math.log2(max(1.0, examples / 128)))
    return min(examples, max(smallest, min(largest, power)))


def rate(kind: Kind, hidden_size: int) -> float:
    """The learning rate of multiplier 1."""
    supervised = min(4e-3, max(5e-5, 5e-4 * 1024 / hidden_size))
    return float(f"{supervised if kind == 'supervised' else supervised / 4:.3g}")


def row_length(tokens: TokenCount, context: int) -> int:
    """The longest example, rounded up to eights, within the context."""
    return max(8, min(context, -(-tokens.longest // 8) * 8))


def rows_at_once(length: int) -> int:
    """Rows in memory together: about 4,096 tokens, of which a model of 0.6 billion weights needs some gigabytes."""
    return max(1, 4096 // length)
