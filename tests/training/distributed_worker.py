"""Runs SFT under torchrun for test_distributed.py: python distributed_worker.py DIRECTORY STEPS OUTPUT [lora]."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from chatwheel.data.packing import pack
from chatwheel.model.lora import LoRAConfig
from chatwheel.training import sft as module
from chatwheel.training.distributed import processes
from chatwheel.training.loop import Loop
from chatwheel.training.optimizers import OptimizerConfig
from tests.tiny import causal, tokens


def main() -> None:
    directory, steps, output = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    sequences = [tokens(n, seed=n).tolist() for n in range(5, 29)] * 3
    packed = pack(sequences, 32)
    config = module.SFTConfig(
        epochs=1,
        rows_per_step=8,
        rows_at_once=3,
        row_length=32,
        precision="float32",
        optimizer=OptimizerConfig(learning_rate=5e-3, matrices="adamw", warmup=0, decay=0),
        lora=LoRAConfig(rank=4) if "lora" in sys.argv else None,
    )
    Loop.__init__.__kwdefaults__["save_seconds"] = -1.0
    with processes() as ranks:
        plan = module.SFTConfig.steps
        module.SFTConfig.steps = lambda *_: steps  # type: ignore[method-assign]  # how far this time
        model, metrics = module.sft(config, causal().train(), packed, directory=directory, seed=0)
        module.SFTConfig.steps = plan  # type: ignore[method-assign]
        if ranks.first:
            tensors = {name: p.detach().clone() for name, p in model.named_parameters()}
            save_file(tensors, output, metadata={"loss": str(metrics["loss"])})


if __name__ == "__main__":
    main()
