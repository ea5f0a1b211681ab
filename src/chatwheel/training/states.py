"""The state of a run on disk: tensors and a few JSON values.

One process writes one file of whole tensors. Several write a file each with their own shards, by PyTorch's distributed
checkpoints in safetensors, so that none holds what is another's. Any number of processes reads either.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load as load_shards
from torch.distributed.checkpoint.state_dict_saver import save as save_shards

from chatwheel.errors import InputError, StorageError
from chatwheel.model.checkpoint import (
    load_state,
    recover_directory,
    replace_directory,
    save_json,
    save_state,
    unfinished,
)
from chatwheel.training.distributed import ranks, wait_for_all


def save(directory: Path, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    """Replaces what was there at once; all processes must take part, and see the same disk."""
    if ranks().size == 1:
        save_state(directory, tensors, values)
        return

    def write(place: Path) -> None:
        wait_for_all()  # the directory is there
        try:
            save_shards(dict(tensors), storage_writer=HuggingFaceStorageWriter(str(place), save_distributed=True))
        except CheckpointException as error:  # in all of them, whichever could not write
            reason = next(iter(error.failures.values()))[0]
            raise StorageError(f"{directory}: could not write ({reason}); the last save is unharmed") from None

    def fill(place: Path) -> None:
        write(place)
        save_json(place / "state.json", values)

    if ranks().first:
        replace_directory(directory, fill)
    else:
        write(unfinished(directory))
    wait_for_all()


def load(directory: Path, like: Callable[[str], Tensor]) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """What `save` wrote, or None if nothing was saved yet.

    like: a tensor by a saved one's name; the saved one comes in its shards if it has its shape, else whole.
    Raises InputError for damage.
    """
    if ranks().first:
        recover_directory(directory)
    wait_for_all()
    if not (directory / "state.json").is_file():
        return None
    if ranks().size == 1 and (directory / "state.safetensors").is_file():
        return load_state(directory)
    reader = HuggingFaceStorageReader(str(directory))
    tensors: dict[str, Tensor] = {}
    try:
        for name, saved in reader.read_metadata().state_dict_metadata.items():
            assert isinstance(saved, TensorStorageMetadata)
            example, dtype = like(name).detach(), saved.properties.dtype
            if not _is_whole(saved, example.shape):
                raise _damaged(directory, f"parts of {name} are missing")
            same = example.shape == saved.size
            tensors[name] = torch.empty_like(example, dtype=dtype) if same else torch.empty(saved.size, dtype=dtype)
        with warnings.catch_warnings():  # that it is one process is no news
            warnings.filterwarnings("ignore", "torch.distributed is disabled")
            load_shards(tensors, storage_reader=reader, no_dist=ranks().size == 1)
    except (SafetensorError, CheckpointException) as error:
        raise _damaged(directory, error) from None
    return tensors, json.loads((directory / "state.json").read_text())


def _is_whole(saved: TensorStorageMetadata, shape: torch.Size) -> bool:
    """Whether all parts of a tensor are there, which has the shape of its parameter or is a number beside it. PyTorch
    takes for whole what it finds, and leaves in memory what was there before where nothing is."""
    parts = {(chunk.offsets, chunk.sizes) for chunk in saved.chunks}
    return saved.size in (shape, torch.Size()) and sum(sizes.numel() for _, sizes in parts) == saved.size.numel()


def _damaged(directory: Path, reason: object) -> InputError:
    return InputError(f"{directory}: damaged ({reason}); remove it, and the stage begins again")
