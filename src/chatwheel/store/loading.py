"""Opening a model, whole or as an adapter on another one."""

from __future__ import annotations

from pathlib import Path

import torch

from chatwheel.model.checkpoint import ModelT, load_model
from chatwheel.model.layout import is_adapter, read_object
from chatwheel.model.lora import load_adapter, merge
from chatwheel.model.tokenizer import Tokenizer
from chatwheel.model.transformer import CausalLM, ScalarModel
from chatwheel.store.hub import fetch_base


def open_model(directory: Path, kind: type[ModelT]) -> tuple[ModelT, Tokenizer]:
    """A model directory as CausalLM or ScalarModel. An adapter's base is opened from where its `adapter_config.json`
    says (a directory, or the Hub's cache: `Registry.resolve` has downloaded it) and the adapter merged into it. Raises
    InputError."""
    if not is_adapter(directory):
        return load_model(directory, kind)
    model, tokenizer = _base(fetch_base(directory, download=False), kind)
    load_adapter(model, directory)
    merge(model)
    return model, Tokenizer.load(directory) if (directory / "tokenizer.json").is_file() else tokenizer


def _base(directory: Path, kind: type[ModelT]) -> tuple[ModelT, Tokenizer]:
    """A reward model's adapter brings the head and may have a language model as its base."""
    named = read_object(directory / "config.json").get("architectures") or []
    if kind is CausalLM or any("SequenceClassification" in str(name) for name in named):
        return load_model(directory, kind)
    causal, tokenizer = load_model(directory, CausalLM)
    with torch.device("meta"):
        model = kind(causal.config)
    model.model = causal.model
    if isinstance(model, ScalarModel):
        model.score.to_empty(device="cpu")
        torch.nn.init.zeros_(model.score.weight)
    return model.eval(), tokenizer
