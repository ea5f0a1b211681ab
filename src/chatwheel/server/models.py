"""The models that are served: found in the registry, loaded when first asked, kept while there is room. Adapters of one
base speak through it, side by side: only the base takes room."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import anyio.to_thread

from chatwheel.errors import InputError, ModelNotFoundError, OverloadedError
from chatwheel.model.layout import ADAPTER_CONFIG, is_adapter
from chatwheel.server.fresh import Fresh
from chatwheel.store.hub import fetch_bases
from chatwheel.store.registry import ModelEntry, Registry

if TYPE_CHECKING:
    from chatwheel.assistant.orchestrator import Assistant, Backend
    from chatwheel.engine.engine import Counts
    from chatwheel.engine.metrics import Metrics

LOAD_WAIT_SECONDS = 60.0
FRESH_SECONDS = 0.25
"""How old a look at a model's files may be: with many requests a second, not each looks again."""
Loader = Callable[[Path], "Assistant"]
Stamp = tuple[tuple[str, int, int], ...]


@dataclass(eq=False)
class _Slot:
    """A model in memory. `stamp` tells whether its files have been replaced since; `users` are using it now. `adapted`:
    those who speak through it, by the directories of their adapters."""

    name: str
    stamp: Stamp
    loading: asyncio.Task[Assistant]
    adapted: dict[Path, tuple[Stamp, Assistant]] = field(default_factory=dict)
    users: int = 0
    last_used: float = field(default_factory=time.monotonic)

    def failed(self) -> bool:
        """Whether loading has ended without a model."""
        return self.loading.done() and (self.loading.cancelled() or self.loading.exception() is not None)

    def dead(self) -> bool:
        """Whether its model has been loaded and answers nothing any more."""
        return self.loading.done() and not self.failed() and self.loading.result().dead


@dataclass(frozen=True)
class _Seen:
    """A model's files as they are now. base: through which it speaks, if it shares one. place: of what has to be in
    memory for that; whole: tells whether any of its files have been replaced."""

    stamp: Stamp
    base: Path | None
    place: Path
    whole: Stamp

    @staticmethod
    def of(directory: Path, stamp: Stamp, base: Path | None = None) -> _Seen:
        """Blocks. Raises InputError for an adapter whose base is gone."""
        place = (base or directory).resolve()  # two ways to one model are no two models
        return _Seen(stamp, base, place, _whole_stamp(place))


class ModelPool:
    """Names to assistants.

    names: what to serve; none means every model of the registry, those that appear later too.
    capacity: how many models stay in memory; the least recently used idle one makes room.
    share: whether adapters speak through their base where they can, rather than as merged models.
    """

    def __init__(
        self,
        registry: Registry,
        names: Sequence[str] = (),
        capacity: int = 4,
        load: Loader | None = None,
        *,
        share: bool = True,
    ) -> None:
        self._registry = registry
        self._names = tuple(names)
        self._capacity = capacity
        self._load = load or load_assistant
        self._share = share
        self._places: dict[str, Path] = {}  # of served models, as they were listed last
        self._entries = Fresh[str, ModelEntry](FRESH_SECONDS)
        self._seen = Fresh[Path, _Seen](FRESH_SECONDS)
        self._bases: dict[Path, tuple[Stamp, Path | None]] = {}  # of adapters; None for one that can't share it
        self._slots: dict[Path, _Slot] = {}
        self._retired: list[_Slot] = []
        self._closing: set[asyncio.Task[None]] = set()
        self._released = asyncio.Event()

    def entries(self) -> list[ModelEntry]:
        """The served models, by name. Blocks (reads files)."""
        if not self._names:
            return self._registry.list()
        return sorted((self._registry.entry(name) for name in self._names), key=lambda entry: entry.name)

    def fresh_entry(self, name: str) -> ModelEntry | None:
        """One served model, if it was looked at a moment ago: does not block."""
        return self._entries.get(name)

    def entry(self, name: str, told: Callable[[str], bool] = lambda _: True) -> ModelEntry:
        """One served model. Blocks. A client's name is only ever compared, never used as a path. told: which names an
        error may tell of."""
        found = self._find(name, told)
        self._entries.put(name, found)
        return found

    def _find(self, name: str, told: Callable[[str], bool]) -> ModelEntry:
        # One that was there a moment ago is looked at alone: a listing reads all.
        known = self._places.get(name)
        if known is not None and (found := self._registry.at(known)) is not None:
            return found
        entries = self.entries()
        self._places = {entry.name: entry.directory for entry in entries}
        for entry in entries:
            if entry.name == name:
                return entry
        names = ", ".join(entry.name for entry in entries if told(entry.name)) or "none"
        message = f"The model {name!r} does not exist here (models: {names})."
        raise ModelNotFoundError(message, code="model_not_found", param="model")

    @asynccontextmanager
    async def use(self, entry: ModelEntry) -> AsyncIterator[Assistant]:
        """The model, loaded; it stays in memory until the block ends. Raises OverloadedError, and ModelNotFoundError
        for one that was deleted after it was looked up."""
        with _known(entry):
            seen = self._seen.get(entry.directory)
            if seen is None:
                seen = await anyio.to_thread.run_sync(self._look, entry.directory)
                self._seen.put(entry.directory, seen)
            if seen.base is not None:
                async with self._held(self._registry.name_of(seen.base), seen) as slot:
                    adapted = await self._through(slot, entry.directory, seen.stamp)
                    if adapted is not None:
                        yield adapted
                        return
                seen = await anyio.to_thread.run_sync(_Seen.of, entry.directory, seen.stamp)
            async with self._held(entry.name, seen) as slot:
                yield slot.loading.result()

    def _look(self, directory: Path) -> _Seen:
        """A model's files as they are now. Blocks."""
        stamp, base = self._stamp_and_base(directory)
        return _Seen.of(directory, stamp, base)

    def _stamp_and_base(self, directory: Path) -> tuple[Stamp, Path | None]:
        """Of a model; the base if it shares one."""
        stamp = _stamp(directory)
        if not self._share or not is_adapter(directory):
            return stamp, None
        known = self._bases.get(directory)
        if known is None or known[0] != stamp:
            # Imported here: PyTorch takes seconds, and the page should be up before.
            from chatwheel.store.loading import shared_base

            known = self._bases[directory] = stamp, shared_base(directory)
        return known

    async def _through(self, slot: _Slot, adapter: Path, stamp: Stamp) -> Assistant | None:
        """Who speaks through a model that is in memory. One whose files were replaced is loaded again, and the old one
        speaks on to the end of its requests."""
        known = slot.adapted.get(adapter)
        if known is not None and known[0] == stamp:
            return known[1]
        adapted = await anyio.to_thread.run_sync(slot.loading.result().through, adapter)
        if adapted is None:
            self._bases[adapter] = stamp, None
        else:
            slot.adapted[adapter] = stamp, adapted
        return adapted

    @asynccontextmanager
    async def _held(self, name: str, seen: _Seen) -> AsyncIterator[_Slot]:
        """A model in memory, for the length of the block."""
        slot = await self._take(name, seen)
        try:
            await asyncio.shield(slot.loading)
            yield slot
        finally:
            self._release(seen.place, slot)

    def metrics(self) -> dict[str, tuple[Counts, Metrics]]:
        """Of the models that are in memory, by name."""
        loaded = [slot for slot in self._slots.values() if slot.loading.done() and not slot.failed()]
        return {slot.name: slot.loading.result().metrics for slot in loaded}

    async def close(self) -> None:
        """Closes all models."""
        for place in list(self._slots):
            self._retire(place)
        for slot in list(self._retired):
            slot.users = 0
            self._close_if_idle(slot)
        if self._closing:
            await asyncio.wait(self._closing)

    async def _take(self, name: str, seen: _Seen) -> _Slot:
        try:
            async with asyncio.timeout(LOAD_WAIT_SECONDS):
                while (slot := self._find_or_start(name, seen.place, seen.whole)) is None:
                    await self._released.wait()
        except TimeoutError:
            message = "All models in memory are busy; try again in a moment."
            raise OverloadedError(message, code="overloaded") from None
        slot.users += 1
        return slot

    def _find_or_start(self, name: str, place: Path, stamp: Stamp) -> _Slot | None:
        """None when there is no room. A model whose files were replaced is loaded again."""
        slot = self._slots.get(place)
        if slot and (slot.stamp != stamp or slot.dead()):
            self._retire(place)
            slot = None
        if slot is None and self._make_room():
            loading = asyncio.create_task(self._open(place))
            self._slots[place] = slot = _Slot(name, stamp, loading)
        return slot

    async def _open(self, directory: Path) -> Assistant:
        while self._closing:  # those that give their memory back
            await asyncio.wait(self._closing)
        return await anyio.to_thread.run_sync(self._load, directory)

    def _make_room(self) -> bool:
        if len(self._slots) < self._capacity:
            return True
        idle = [place for place, slot in self._slots.items() if not slot.users]
        if idle:
            self._retire(min(idle, key=lambda place: self._slots[place].last_used))
        return bool(idle)

    def _release(self, place: Path, slot: _Slot) -> None:
        slot.users -= 1
        slot.last_used = time.monotonic()
        if slot.failed() and self._slots.get(place) is slot:
            del self._slots[place]  # so that the next request tries again
        self._close_if_idle(slot)
        self._released.set()
        self._released = asyncio.Event()

    def _retire(self, place: Path) -> None:
        """Takes no new users; who uses it now keeps it to the end."""
        slot = self._slots.pop(place)
        self._retired.append(slot)
        self._close_if_idle(slot)

    def _close_if_idle(self, slot: _Slot) -> None:
        if slot in self._retired and not slot.users:
            self._retired.remove(slot)
            task = asyncio.create_task(_close(slot))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)


@contextmanager
def _known(entry: ModelEntry) -> Iterator[None]:
    """What is said of a model's files when they are gone is said of the model: their place is nobody's business."""
    try:
        yield
    except InputError:
        if entry.directory.exists():
            raise
        message = f"The model {entry.name!r} does not exist here: it was just deleted."
        raise ModelNotFoundError(message, code="model_not_found", param="model") from None


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

    assistant = Assistant.load(directory, weights, speculate=speculate, draft=draft, backend=backend)
    _ = assistant.tokenizer.written  # with which adapters' are compared; the first one should not wait for it
    return assistant


def _stamp(directory: Path) -> Stamp:
    """Changes when the model's files are replaced."""
    names = ("config.json", ADAPTER_CONFIG, "tokenizer.json", "tokenizer_config.json", "generation_config.json")
    files = [*sorted(directory.glob("*.safetensors")), *(directory / name for name in names)]
    found = [(file.name, file.stat()) for file in files if file.exists()]
    return tuple((name, stat.st_mtime_ns, stat.st_size) for name, stat in found)


def _whole_stamp(directory: Path) -> Stamp:
    """The same of a model and of all that it is merged with. Raises InputError for an adapter whose base is gone."""
    below = fetch_bases(directory, download=False) if is_adapter(directory) else []
    return tuple(part for place in (directory, *below) for part in _stamp(place))
