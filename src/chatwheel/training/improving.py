"""What SFT, DPO and KTO share: a model, whole or by an adapter, that a loop improves, in one process or several."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from chatwheel.model.lora import LoRAConfig, add_lora
from chatwheel.model.transformer import CausalLM
from chatwheel.training.compilation import compiled
from chatwheel.training.distributed import gathered, ranks, shard
from chatwheel.training.loop import Loop, Metrics, Objective, OnProgress
from chatwheel.training.optimizers import OptimizerConfig
from chatwheel.training.samples import Watch


def adapt(model: CausalLM, lora: LoRAConfig | None, seed: int) -> None:
    """Gives the model an adapter, where one is to be trained."""
    if lora is not None:
        add_lora(model, lora, torch.Generator().manual_seed(seed))
        model.to(model.model.device)  # the adapter is made on the processor
        model.train(lora.dropout > 0)


def improve(
    model: CausalLM,
    objective: Objective[Any],
    *,
    lora: LoRAConfig | None,
    recompute: bool,
    optimizer: OptimizerConfig,
    steps: int,
    dtype: torch.dtype,
    directory: Path,
    seed: int,
    tensor_parallel: int,
    on_progress: OnProgress,
    watch: Watch,
    compile_layers: bool = False,
) -> tuple[CausalLM | None, Metrics]:
    """Improves `model` (in place), which `adapt` has seen, going on from the last save. Of several processes the first
    one gets the model, whole; so many divide each matrix (`tensor_parallel`)."""

    def plain() -> CausalLM:
        result = CausalLM(model.config)
        if lora is not None:
            add_lora(result, lora, torch.Generator())
        return result

    model.model.recompute = recompute
    if ranks().size > 1:
        shard(model, tensor_parallel)
    loop = Loop(
        directory=directory,
        modules={"model": model},
        optimizer=optimizer,
        steps=steps,
        seed=seed,
        on_progress=on_progress,
        peak=watch.peak,
        sampler=watch.sampler(model, dtype),
    )
    with compiled(model.model.layers, compile_layers and ranks().size == 1):
        metrics = loop.run(objective)
    return gathered(model, plain), metrics
