"""Adapters for the benchmark of many in one batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from chatwheel.model.lora import LoRAConfig, add_lora, save_adapter
from chatwheel.model.tokenizer import Tokenizer
from chatwheel.model.transformer import CausalLM

RANK = 8


def write_adapters(base: CausalLM, directory: Path, count: int) -> Callable[[str], Path] | None:
    """So many adapters of all matrices of all layers, beside the base; where each is."""
    if not count:
        return None
    tokenizer, config = Tokenizer.load(directory), LoRAConfig(rank=RANK)
    with torch.device("meta"):
        shell = CausalLM(base.config)
    for number in range(count):
        place = directory / f"a{number}"
        if not place.is_dir():
            generator = torch.Generator().manual_seed(number)
            add_lora(shell, config, generator)
            for module in shell.modules():
                if getattr(module, "adapter", None) is not None:
                    for parameter in module.adapter.parameters():  # type: ignore[union-attr]
                        torch.nn.init.normal_(parameter, 0.0, 0.02, generator=generator)
            save_adapter(place, shell, config, tokenizer, base=str(directory), lineage={})
            for module in shell.modules():
                if hasattr(module, "adapter"):
                    module.adapter = None  # type: ignore[assignment]
    return lambda name: directory / name
