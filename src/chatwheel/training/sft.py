"""Stage 2, supervised fine-tuning: the base model imitates demonstrations.

data: conversations -> model: the base's weights -> loss: next_token on the assistant's tokens only -> loop.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from chatwheel.data.packing import Packed, pack
from chatwheel.data.records import Demonstration
from chatwheel.errors import InputError
from chatwheel.model.lora import LoRAConfig
from chatwheel.model.tokenizer import Tokenizer
from chatwheel.model.transformer import CausalLM
from chatwheel.training.compilation import Compilation, worth_compiling
from chatwheel.training.improving import adapt, improve
from chatwheel.training.loop import Metrics, OnProgress
from chatwheel.training.next_token import NextTokenObjective
from chatwheel.training.optimizers import OptimizerConfig
from chatwheel.training.precision import Precision, compute_dtype
from chatwheel.training.samples import Watch


class SFTConfig(BaseModel):
    """How to fine-tune. epochs: passes over the demonstrations. lora: train an adapter only, not the whole model.
    recompute: keep fewer activations and compute them again: less memory, more time."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    epochs: float = Field(default=2.0, gt=0)
    rows_per_step: int = Field(default=16, ge=1)
    rows_at_once: int = Field(default=16, ge=1)
    row_length: int = Field(default=256, ge=2)
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=1e-3)
    precision: Precision = "auto"
    compilation: Compilation = "auto"
    recompute: bool = False
    lora: LoRAConfig | None = None

    def steps(self, num_rows: int) -> int:
        """Optimizer steps for so many packed rows."""
        return max(1, round(self.epochs * num_rows / self.rows_per_step))


def pack_demonstrations(
    demonstrations: Iterable[Demonstration], tokenizer: Tokenizer, row_length: int
) -> tuple[Packed, int]:
    """Packed conversations and how many were dropped for being longer than a row.

    Raises InputError if none is left.
    """
    sequences: list[NDArray[np.int32]] = []
    masks: list[NDArray[np.bool_]] = []
    dropped = 0
    conversations = (demonstration.model_dump(include={"messages", "tools"}) for demonstration in demonstrations)
    for ids, mask in tokenizer.encode_conversations(conversations):
        if len(ids) > row_length:
            dropped += 1
            continue
        sequences.append(ids)
        masks.append(mask)
    if not sequences:
        raise InputError(
            f"SFT: no demonstration of at most {row_length} tokens ({dropped} were longer); "
            "check data.demonstrations or raise sft.row_length"
        )
    return pack(sequences, row_length, masks=masks, pad=tokenizer.end_of_text_id), dropped


def sft(
    config: SFTConfig,
    model: CausalLM,
    packed: Packed,
    *,
    directory: Path,
    seed: int,
    tensor_parallel: int = 1,
    accuracy: bool = False,
    on_progress: OnProgress = lambda _: None,
    watch: Watch = Watch(),
) -> tuple[CausalLM | None, Metrics]:
    """Fine-tunes `model` (in place), or an adapter that it gets, on packed demonstrations, in `directory`, going on
    from its last save. Of several processes the first one gets the model; so many divide each matrix
    (`tensor_parallel`). accuracy: see `NextTokenObjective`."""

    adapt(model, config.lora, seed)
    objective = NextTokenObjective(
        model,
        packed,
        rows_per_step=config.rows_per_step,
        rows_at_once=config.rows_at_once,
        seed=seed,
        dtype=compute_dtype(config.precision, model.model.device.type),
        tensor_parallel=tensor_parallel,
        accuracy=accuracy,
    )
    steps = config.steps(len(packed))
    return improve(
        model,
        objective,
        lora=config.lora,
        recompute=config.recompute,
        optimizer=config.optimizer,
        steps=steps,
        dtype=objective.dtype,
        directory=directory,
        seed=seed,
        tensor_parallel=tensor_parallel,
        on_progress=on_progress,
        watch=watch,
        compile_layers=worth_compiling(config.compilation, steps),
    )
