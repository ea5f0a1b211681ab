"""Opening a model, whole or as an adapter on another one."""

from __future__ import annotations

from pathlib import Path

from chatwheel.errors import InputError
from chatwheel.model.checkpoint import ModelT, load_model
from chatwheel.model.layout import ADAPTER_CONFIG, is_adapter, read_object
from chatwheel.model.lora import load_adapter, merge
from chatwheel.model.tokenizer import Tokenizer
from chatwheel.store.hub import fetch, is_hub_name


def open_model(directory: Path, kind: type[ModelT]) -> tuple[ModelT, Tokenizer]:
    """A model directory as CausalLM or ScalarModel. An adapter's base is opened from where its `adapter_config.json`
    says (a directory, or a name on the Hub) and the adapter merged into it. Raises InputError."""
    if not is_adapter(directory):
        return load_model(directory, kind)
    base = str(read_object(directory / ADAPTER_CONFIG).get("base_model_name_or_path") or "")
    place = Path(base).expanduser()
    if not place.is_dir():
        if not is_hub_name(base):
            raise InputError(
                f"{directory}: the model that this adapter is for, {base!r}, is not there; put it back, or name its "
                f"directory as base_model_name_or_path in {ADAPTER_CONFIG}"
            )
        place = fetch(base)
    model, tokenizer = load_model(place, kind)
    load_adapter(model, directory)
    merge(model)
    own = directory / "tokenizer.json"
    return model, Tokenizer.load(directory) if own.is_file() else tokenizer
