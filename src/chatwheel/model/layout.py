"""Where a model directory keeps its weights: Hugging Face's layout, readable without PyTorch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from chatwheel.errors import InputError

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"


def has_weights(directory: Path) -> bool:
    """Whether the directory has weights: a model's, whole or in shards, or an adapter's."""
    return any((directory / name).is_file() for name in (WEIGHTS, INDEX, ADAPTER_WEIGHTS))


def is_adapter(directory: Path) -> bool:
    """Whether the directory holds an adapter rather than a whole model; its base's `config.json` may be with it."""
    whole = (directory / WEIGHTS).is_file() or (directory / INDEX).is_file()
    return (directory / ADAPTER_CONFIG).is_file() and not whole


def base_of(adapter: Path) -> str:
    """The model that an adapter is for, as its configuration names it: a directory, or a name on the Hub. Raises
    InputError."""
    return str(read_object(adapter / ADAPTER_CONFIG).get("base_model_name_or_path") or "")


def read_object(path: Path) -> dict[str, Any]:
    """A JSON file that must hold an object. Raises InputError."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path.parent}: no {path.name} there, so not a model directory") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: damaged ({error}); copy the model again") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected a JSON object; copy the model again")
    return value


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files of a directory: a model's one, the shards that its index names, or an adapter's. Raises
    InputError if the index is damaged or a shard is missing."""
    index = directory / INDEX
    if not index.is_file():
        return [directory / (ADAPTER_WEIGHTS if is_adapter(directory) else WEIGHTS)]
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{index}: damaged ({error}); copy the model again") from None
    if not all(isinstance(name, str) and name == Path(name).name for name in names):
        raise InputError(f"{index}: names files outside its directory; copy the model again")
    missing = [name for name in names if not (directory / name).is_file()]
    if missing:
        raise InputError(f"{directory}: {missing[0]} is missing ({len(missing)} of {len(names)}); copy the whole model")
    return [directory / name for name in names]
