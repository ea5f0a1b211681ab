"""The models that are served: found in the registry, loaded when first asked, kept while there is room."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import anyio.to_thread

from chatwheel.errors import InputError, ModelNotFoundError, OverloadedError
from chatwheel.store.registry import ModelEntry, Registry

if TYPE_CHECKING:
    from chatwheel.assistant.orchestrator import Assistant, Backend
    from chatwheel.engine.engine import Counts
    from chatwheel.engine.metrics import Metrics

LOAD_WAIT_SECONDS = 60.0
Loader = Callable[[Path], "Assistant"]
Stamp = tuple[tuple[str, int, int], ...]


@dataclass(eq=False)
class _Slot:
    """A model in memory. `stamp` tells whether its files have been replaced since; `users` are using it now."""

    stamp: Stamp
    loading: asyncio.Task[Assistant]
    users: int = 0
    last_used: float = field(default_factory=time.monotonic)

    def failed(self) -> bool:
        """Whether loading has ended without a model."""
        return self.loading.done() and (self.loading.cancelled() or self.loading.exception() is not None)

    def dead(self) -> bool:
        """Whether its model has been loaded and answers nothing any more."""
        return self.loading.done() and not self.failed() and self.loading.result().dead


class ModelPool:
    """Names to assistants.

    names: what to serve; none means every model of the registry, those that appear later too.
    capacity: how many models stay in memory; the least recently used idle one makes room.
    """

    def __init__(
        self,
        registry: Registry,
        names: Sequence[str] = (),
        capacity: int = 4,
        load: Loader | None = None,
    ) -> None:
        self._registry = registry
        self._names = tuple(names)
        self._capacity = capacity
        self._load = load or load_assistant
        self._slots: dict[str, _Slot] = {}
        self._retired: list[_Slot] = []
        self._closing: set[asyncio.Task[None]] = set()
        self._released = asyncio.Event()

    def entries(self) -> list[ModelEntry]:
        """The served models, by name. Blocks (reads files)."""
        if not self._names:
            return self._registry.list()
        return sorted((self._registry.entry(name) for name in self._names), key=lambda entry: entry.name)

    def entry(self, name: str) -> ModelEntry:
        """One served model. Blocks. A client's name is only ever compared, never used as a path."""
        entries = self.entries()
        for entry in entries:
            if entry.name == name:
                return entry
        known = ", ".join(entry.name for entry in entries) or "none"
        message = f"The model {name!r} does not exist here (models: {known})."
        raise ModelNotFoundError(message, code="model_not_found", param="model")

    def answering_entry(self, name: str) -> ModelEntry:
        """One served model that can answer. Blocks. Raises InputError for a reward model."""
        entry = self.entry(name)
        if entry.kind == "reward":
            message = f"The model {name!r} is a reward model: it scores answers and cannot write them."
            raise InputError(message, code="model_cannot_answer", param="model")
        return entry

    @asynccontextmanager
    async def use(self, entry: ModelEntry) -> AsyncIterator[Assistant]:
        """The model, loaded; it stays in memory until the block ends. Raises OverloadedError."""
        slot = await self._take(entry)
        try:
            yield await asyncio.shield(slot.loading)
        finally:
            self._release(entry.name, slot)

    def metrics(self) -> dict[str, tuple[Counts, Metrics]]:
        """Of the models that are in memory, by name."""
        loaded = {name: slot.loading for name, slot in self._slots.items() if slot.loading.done() and not slot.failed()}
        return {name: loading.result().metrics for name, loading in loaded.items()}

    async def close(self) -> None:
        """Closes all models."""
        for name in list(self._slots):
            self._retire(name)
        for slot in list(self._retired):
            slot.users = 0
            self._close_if_idle(slot)
        if self._closing:
            await asyncio.wait(self._closing)

    async def _take(self, entry: ModelEntry) -> _Slot:
        stamp = await anyio.to_thread.run_sync(_stamp, entry.directory)
        try:
            async with asyncio.timeout(LOAD_WAIT_SECONDS):
                while (slot := self._find_or_start(entry, stamp)) is None:
                    await self._released.wait()
        except TimeoutError:
            message = "All models in memory are busy; try again in a moment."
            raise OverloadedError(message, code="overloaded") from None
        slot.users += 1
        return slot

    def _find_or_start(self, entry: ModelEntry, stamp: Stamp) -> _Slot | None:
        """None when there is no room. A model whose files were replaced is loaded again."""
        slot = self._slots.get(entry.name)
        if slot and (slot.stamp != stamp or slot.dead()):
            self._retire(entry.name)
            slot = None
        if slot is None and self._make_room():
            loading = asyncio.create_task(self._open(entry.directory))
            self._slots[entry.name] = slot = _Slot(stamp, loading)
        return slot

    async def _open(self, directory: Path) -> Assistant:
        while self._closing:  # those that give their memory back
            await asyncio.wait(self._closing)
        return await anyio.to_thread.run_sync(self._load, directory)

    def _make_room(self) -> bool:
        if len(self._slots) < self._capacity:
            return True
        idle = [name for name, slot in self._slots.items() if not slot.users]
        if idle:
            self._retire(min(idle, key=lambda name: self._slots[name].last_used))
        return bool(idle)

    def _release(self, name: str, slot: _Slot) -> None:
        slot.users -= 1
        slot.last_used = time.monotonic()
        if slot.failed() and self._slots.get(name) is slot:
            del self._slots[name]  # so that the next request tries again
        self._close_if_idle(slot)
        self._released.set()
        self._released = asyncio.Event()

    def _retire(self, name: str) -> None:
        """Takes no new users; who uses it now keeps it to the end."""
        slot = self._slots.pop(name)
        self._retired.append(slot)
        self._close_if_idle(slot)

    def _close_if_idle(self, slot: _Slot) -> None:
        if slot in self._retired and not slot.users:
            self._retired.remove(slot)
            task = asyncio.create_task(_close(slot))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)


async def _close(slot: _Slot) -> None:
    await asyncio.wait([slot.loading])
    if not slot.failed():
        await anyio.to_thread.run_sync(slot.loading.result().close)


def load_assistant(
    directory: Path,
    weights: str | None = None,
    speculate: int = 0,
    draft: Path | None = None,
    backend: Backend = "chatwheel",
) -> Assistant:
    """See `Assistant.load`."""
    # Imported here: PyTorch takes seconds, and the page should be up before.
    from chatwheel.assistant.orchestrator import Assistant

    return Assistant.load(directory, weights, speculate=speculate, draft=draft, backend=backend)


def _stamp(directory: Path) -> Stamp:
    """Changes when the model's files are replaced."""
    files = [*sorted(directory.glob("*.safetensors")), directory / "config.json", directory / "tokenizer.json"]
    found = [(file.name, file.stat()) for file in files if file.exists()]
    return tuple((name, stat.st_mtime_ns, stat.st_size) for name, stat in found)
