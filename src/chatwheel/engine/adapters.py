"""Adapters over one base, side by side in a batch: loaded when first asked for, in bounded memory, the one that was not
used for longest forgotten first."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from chatwheel.engine.batch import Runner
from chatwheel.errors import InputError, OverloadedError
from chatwheel.model.config import ModelConfig
from chatwheel.model.layout import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from chatwheel.model.lora import LoRA, adapters_of, load_adapter
from chatwheel.model.transformer import CausalLM, Linear

MEMORY = 512 * 2**20
Find = Callable[[str], Path | Mapping[str, LoRA]]
"""Where an adapter of a name is, or the adapter itself, by the names of its matrices."""


def version_of(directory: Path) -> str:
    """A name for an adapter as its files are now. Once they are replaced it is another one, so that who speaks through
    the old one goes on with it. Raises InputError if there is none."""
    try:
        times = [(directory / name).stat().st_mtime_ns for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS)]
    except FileNotFoundError as error:
        raise InputError(f"{error.filename}: missing; copy the adapter again") from None
    return f"{directory}@{max(times)}"


def place_of(version: str) -> Path:
    """The directory of what `version_of` named."""
    return Path(version.rpartition("@")[0])


def changes_layers_only(directory: Path) -> bool:
    """Whether an adapter is nothing but factors for matrices of layers, which is what is computed beside others. Raises
    InputError for damage."""
    path = directory / ADAPTER_WEIGHTS
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: damaged ({error}); copy the adapter again") from None
    return all(".layers." in name and ".lora_" in name for name in names)


@dataclass(kw_only=True)
class Loaded:
    """An adapter that is here. number: its own in batches. scope: keeps the cache's blocks of different ones apart, and
    those of one that was loaded again. users: requests that speak through it."""

    number: int
    scope: bytes
    size: int
    users: int = 0


class Adapters:
    """The adapters of one engine. find: raises ChatwheelErrors. memory: in bytes."""

    def __init__(self, config: ModelConfig, find: Find, memory: int = MEMORY) -> None:
        with torch.device("meta"):  # names and shapes of its matrices are all that is needed of the base
            self._base = CausalLM(config)
        self._find, self._memory = find, memory
        self._loaded: OrderedDict[str, Loaded] = OrderedDict()
        self._generations = itertools.count()

    def acquire(self, name: str, runner: Runner) -> Loaded:
        """The adapter, for one more user.

        Raises InputError if it is damaged or for another model, and OverloadedError if those in use leave no room.
        """
        found = self._loaded.get(name)
        if found is None:
            found = self._load(name, runner)
        self._loaded.move_to_end(name)
        found.users += 1
        return found

    def release(self, name: str) -> None:
        """One user less; it stays until the room is needed."""
        self._loaded[name].users -= 1

    def clear(self) -> None:
        """Forgets all; nobody uses any."""
        self._loaded.clear()

    def __len__(self) -> int:
        return len(self._loaded)

    def _load(self, name: str, runner: Runner) -> Loaded:
        found = self._find(name)
        matrices = self._read(found) if isinstance(found, Path) else found
        size = sum(4 * (a.lora_A.numel() + a.lora_B.numel()) for a in matrices.values())
        self._make_room(name, size, runner)
        taken = {loaded.number for loaded in self._loaded.values()}
        number = next(i for i in itertools.count() if i not in taken)
        runner.set_adapter(number, matrices)
        scope = f"{name}\x00{next(self._generations)}".encode()
        self._loaded[name] = Loaded(number=number, scope=scope, size=size)
        return self._loaded[name]

    def _read(self, directory: Path) -> dict[str, LoRA]:
        try:
            load_adapter(self._base, directory)
            return adapters_of(self._base)
        finally:
            for module in self._base.modules():
                if isinstance(module, Linear):
                    module.adapter = None

    def _make_room(self, name: str, size: int, runner: Runner) -> None:
        total = size + sum(loaded.size for loaded in self._loaded.values())
        for old in [old for old, loaded in self._loaded.items() if not loaded.users]:
            if total <= self._memory:
                return
            gone = self._loaded.pop(old)
            runner.set_adapter(gone.number, None)
            total -= gone.size
        if total > self._memory:
            raise OverloadedError(
                f"there is no room for the adapter {name} ({size / 2**20:.0f} MB) beside those in use; try again in a "
                "moment",
                code="adapter_memory",
            )
