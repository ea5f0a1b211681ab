"""Where a model directory keeps its weights: Hugging Face's layout, readable without PyTorch."""

from __future__ import annotations

import json
from pathlib import Path

from chatwheel.errors import InputError

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


def has_weights(directory: Path) -> bool:
    """Whether the directory has a model's weights, whole or in shards."""
    return (directory / WEIGHTS).is_file() or (directory / INDEX).is_file()


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files of a model directory: one, or the shards that its index names. Raises InputError if the
    index is damaged or a shard is missing."""
    index = directory / INDEX
    if not index.is_file():
        return [directory / WEIGHTS]
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
