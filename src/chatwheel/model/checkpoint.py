"""Models on disk in Hugging Face layout, and the state of a run. safetensors only, never pickle.

A directory appears whole or not at all: it is written beside its place under another name and renamed.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

import chatwheel
from chatwheel.errors import InputError, StorageError
from chatwheel.model.config import ModelConfig
from chatwheel.model.layout import ADAPTER_CONFIG, ADAPTER_WEIGHTS, INDEX, WEIGHTS, read_object, weight_files
from chatwheel.model.tokenizer import Tokenizer
from chatwheel.model.transformer import CausalLM, ScalarModel

ModelT = TypeVar("ModelT", CausalLM, ScalarModel)
SHARD_BYTES = 5 * 2**30  # transformers' own limit has been this one for years
_SAVED_TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def save_model(
    directory: Path, model: CausalLM | ScalarModel, tokenizer: Tokenizer, lineage: Mapping[str, Any]
) -> None:
    """Writes `config.json`, `model.safetensors` (in shards if it is large), the tokenizer, `generation_config.json` and
    `chatwheel.json`. Weights are written in the configuration's type: what came in bfloat16 goes out in bfloat16.

    lineage: stage, parents, data hashes, recipe, seed, metrics; code version and time are added.
    """
    causal = isinstance(model, CausalLM)
    config = model.config.to_hugging_face(
        head="CausalLM" if causal else "SequenceClassification",
        eos_token_id=tokenizer.end_id,
        pad_token_id=tokenizer.end_of_text_id,
    )
    if any(".adapter." in name for name, _ in model.named_parameters()):
        raise ValueError("a model with adapters is saved by lora.save_adapter, or merged first")

    def fill(place: Path) -> None:
        dtype = _SAVED_TYPES[model.config.dtype]
        _save_weights(place, {name: tensor.to(dtype) for name, tensor in _without_tied(model).items()})
        tokenizer.save(place, max_positions=model.config.max_positions)
        save_json(place / "config.json", config)
        if causal:
            save_json(place / "generation_config.json", _generation_config(tokenizer))
        save_json(place / "chatwheel.json", _dated(lineage))

    replace_directory(directory, fill)


def save_adapter_files(
    directory: Path,
    tensors: Mapping[str, Tensor],
    config: Mapping[str, Any],
    tokenizer: Tokenizer,
    max_positions: int,
    lineage: Mapping[str, Any],
) -> None:
    """Writes an adapter's directory (see lora.py), whole or not at all."""

    def fill(place: Path) -> None:
        _save_tensors(place / ADAPTER_WEIGHTS, {n: t.contiguous() for n, t in tensors.items()}, {"format": "pt"})
        save_json(place / ADAPTER_CONFIG, config)
        tokenizer.save(place, max_positions=max_positions)
        save_json(place / "generation_config.json", _generation_config(tokenizer))
        save_json(place / "chatwheel.json", _dated(lineage))

    replace_directory(directory, fill)


def _generation_config(tokenizer: Tokenizer) -> dict[str, Any]:
    ends = [tokenizer.end_id, *sorted(tokenizer.stop_ids - {tokenizer.end_id})]
    return {**tokenizer.generation_config, "eos_token_id": ends, "pad_token_id": tokenizer.end_of_text_id}


def _dated(lineage: Mapping[str, Any]) -> dict[str, Any]:
    return {**lineage, "chatwheel_version": chatwheel.__version__, "created": int(time.time())}


def load_model(directory: Path, kind: type[ModelT]) -> tuple[ModelT, Tokenizer]:
    """Opens a model directory as CausalLM or ScalarModel (evaluation mode). Raises InputError for damage, or if
    it holds the other kind."""
    path = directory / "config.json"
    raw = read_object(path)
    head = "CausalLM" if kind is CausalLM else "SequenceClassification"
    if not any(a.endswith(f"For{head}") for a in raw.get("architectures") or []):
        wanted = "a language model" if kind is CausalLM else "a reward model"
        raise InputError(f"{directory}: {raw.get('architectures')} is not {wanted}")
    config = ModelConfig.from_hugging_face(raw, where=str(path))
    with torch.device("meta"):
        model = kind(config)
    load_weights(model, directory)
    return model.eval(), load_tokenizer(directory, config)


def load_tokenizer(directory: Path, config: ModelConfig) -> Tokenizer:
    """A model's tokenizer. Raises InputError for damage, and where it makes ids that the embedding does not have; an
    embedding may have more (padding)."""
    tokenizer = Tokenizer.load(directory)
    if tokenizer.highest_id >= config.vocab_size:
        raise InputError(
            f"{directory}: the tokenizer's ids go up to {tokenizer.highest_id}, but the embedding has "
            f"{config.vocab_size} rows (vocab_size); copy the tokenizer that belongs to the model"
        )
    return tokenizer


def load_weights(model: CausalLM | ScalarModel, directory: Path) -> None:
    """Fills a model (which may be on the meta device) from a directory's safetensors files, in fp32."""
    path = directory / WEIGHTS
    tensors: dict[str, Tensor] = {}
    for path in weight_files(directory):
        tensors |= {n: t for n, t in _each_tensor(path) if not n.endswith("rotary_emb.inv_freq")}  # of old Llamas
    tied = isinstance(model, CausalLM) and model.config.tied_embeddings
    if tied and "model.embed_tokens.weight" in tensors:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    try:
        model.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        raise InputError(
            f"{path}: weights do not fit the configuration ({str(error).splitlines()[-1].strip()})"
        ) from None
    if isinstance(model, CausalLM) and model.config.tied_embeddings:
        model.lm_head.weight = model.model.embed_tokens.weight


def save_state(directory: Path, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    """Writes the state of a run: tensors and JSON values, replacing what was there at once."""

    def fill(place: Path) -> None:
        _save_tensors(place / "state.safetensors", tensors, None)
        save_json(place / "state.json", values)

    replace_directory(directory, fill)


def load_state(directory: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """What `save_state` wrote, or None if nothing was saved yet."""
    recover_directory(directory)
    if not (directory / "state.json").is_file():
        return None
    return read_tensors(directory / "state.safetensors"), json.loads((directory / "state.json").read_text())


MAPPED_BYTES = 64 * 2**20
"""Of a file, that are read before it is opened again: what is read of a mapped file counts as the process' memory."""


def _each_tensor(path: Path) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a safetensors file in fp32, one after the other, so that none is in memory twice but the last."""
    if not path.is_file():
        raise InputError(f"{path}: no weights there; train the model or copy it again")
    try:
        with safe_open(path, framework="pt") as file:
            names = deque(file.keys())
        while names:
            read = 0
            with safe_open(path, framework="pt") as file:
                while names and read < MAPPED_BYTES:
                    tensor = file.get_tensor(name := names.popleft())
                    read += tensor.nbytes
                    yield name, tensor.to(torch.float32, copy=True)
                    del tensor  # or the file stays mapped
    except SafetensorError as error:
        raise InputError(f"{path}: damaged ({error}); copy the model again") from None


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, copied into memory. Raises InputError if it is absent or damaged."""
    if not path.is_file():
        raise InputError(f"{path}: no weights there; train the model or copy it again")
    try:
        return {name: tensor.clone() for name, tensor in load_file(path).items()}
    except SafetensorError as error:
        raise InputError(f"{path}: damaged ({error}); copy the model again") from None


def replace_directory(directory: Path, fill: Callable[[Path], None]) -> None:
    """Makes `directory` what `fill` writes. A crash leaves the old one or the new one (see recover_directory)."""
    new, old = unfinished(directory), _beside(directory, "old")
    try:
        recover_directory(directory)
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        fill(new)
        _sync(new)
        shutil.rmtree(old, ignore_errors=True)
        if directory.exists():
            directory.rename(old)
        new.rename(directory)
        _sync(directory.parent)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException as error:
        # On a full disk, what was half written must make room again.
        shutil.rmtree(new, ignore_errors=True)
        recover_directory(directory)
        shutil.rmtree(old, ignore_errors=True)
        if not isinstance(error, OSError):
            raise
        raise StorageError(
            f"{directory}: could not write ({error.strerror or error}); the last save is unharmed"
        ) from error


def unfinished(directory: Path) -> Path:
    """Where `replace_directory` fills what will be `directory`."""
    return _beside(directory, "new")


def recover_directory(directory: Path) -> None:
    """Puts the old directory back if a crash fell between the two renames of replace_directory."""
    old = _beside(directory, "old")
    if old.is_dir() and not directory.exists():
        old.rename(directory)


def _beside(directory: Path, what: str) -> Path:
    return directory.parent / f".{directory.name}.{what}"


def _without_tied(model: CausalLM | ScalarModel) -> dict[str, Tensor]:
    tied = isinstance(model, CausalLM) and model.config.tied_embeddings
    return {n: t.detach().contiguous() for n, t in model.state_dict().items() if not (tied and n == "lm_head.weight")}


def _save_weights(directory: Path, tensors: Mapping[str, Tensor]) -> None:
    """One file, or shards of at most SHARD_BYTES with an index, as transformers writes and reads them."""
    shards: list[dict[str, Tensor]] = [{}]
    room = SHARD_BYTES
    for name, tensor in tensors.items():
        if tensor.nbytes > room and shards[-1]:
            shards.append({})
            room = SHARD_BYTES
        shards[-1][name] = tensor
        room -= tensor.nbytes
    if len(shards) == 1:
        _save_tensors(directory / WEIGHTS, shards[0], {"format": "pt"})
        return
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        _save_tensors(directory / file, shard, {"format": "pt"})
        places |= dict.fromkeys(shard, file)
    total = sum(tensor.nbytes for tensor in tensors.values())
    save_json(directory / INDEX, {"metadata": {"total_size": total}, "weight_map": places})


def _save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None) -> None:
    try:
        save_file(dict(tensors), path, metadata=metadata)
    except SafetensorError as error:  # the library's name for "No space left on device"
        raise OSError(None, str(error)) from error
    path.chmod(0o644)  # the library writes a temporary file, which is its owner's alone
    _sync(path)


def save_json(path: Path, value: Any) -> None:
    """Writes a file of a directory that is not yet in its place."""
    with path.open("w", encoding="utf-8") as file:
        json.dump(value, file, ensure_ascii=False, indent=2)
        file.flush()
        os.fsync(file.fileno())


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
