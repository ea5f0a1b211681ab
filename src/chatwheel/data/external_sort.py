"""Sorting more than memory holds: sorted runs on disk, merged (Knuth, The Art of Computer Programming, vol. 3, 5.4)."""

from __future__ import annotations

import heapq
import struct
from collections.abc import Iterable, Iterator
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from chatwheel.errors import StorageError

MEMORY = 64 * 2**20
"""Bytes that wait in memory before they go to disk."""

MOST_RUNS = 64
"""Files that are open at once; more are merged into one."""

_ENTRY_OVERHEAD = 200  # what Python itself needs for an entry: a tuple and two byte strings
_LENGTHS = struct.Struct("<II")


class ExternalSort:
    """Byte strings by their keys; equal keys stay in the order in which they came.

    directory: where the runs go, once there are more than `memory` bytes; it must be the caller's own. `close`, or
    leaving the `with`, removes them.
    """

    def __init__(self, directory: Path, name: str, memory: int = MEMORY) -> None:
        self._directory, self._name, self._memory = directory, name, memory
        self._waiting: list[tuple[bytes, bytes]] = []
        self._size = self._count = 0
        self._runs: list[Path] = []
        self._num_written = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __len__(self) -> int:
        return self._count

    def add(self, key: bytes, value: bytes) -> None:
        """One more. Raises StorageError where a run cannot be written."""
        self._waiting.append((key, value))
        self._count += 1
        self._size += len(key) + len(value) + _ENTRY_OVERHEAD
        if self._size > self._memory:
            self._spill()

    def sorted(self) -> Iterator[bytes]:
        """All values by their keys; may be asked for again."""
        self._waiting.sort(key=itemgetter(0))
        runs = [_entries(path) for path in self._runs]
        for _, value in heapq.merge(*runs, self._waiting, key=itemgetter(0)):
            yield value

    def close(self) -> None:
        """Forgets everything."""
        for path in self._runs:
            path.unlink(missing_ok=True)
        self._runs, self._waiting, self._size, self._count = [], [], 0, 0

    def _spill(self) -> None:
        self._waiting.sort(key=itemgetter(0))
        self._write(self._waiting)
        self._waiting, self._size = [], 0
        if len(self._runs) >= MOST_RUNS:
            merged, self._runs = self._runs, []
            self._write(heapq.merge(*map(_entries, merged), key=itemgetter(0)))
            for path in merged:
                path.unlink()

    def _write(self, entries: Iterable[tuple[bytes, bytes]]) -> None:
        path = self._directory / f"{self._name}-{self._num_written:05}.run"
        self._num_written += 1
        self._runs.append(path)
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            with path.open("wb", buffering=2**20) as file:
                for key, value in entries:
                    file.write(_LENGTHS.pack(len(key), len(value)))
                    file.write(key)
                    file.write(value)
        except OSError as error:
            raise StorageError(
                f"{path}: could not write ({error.strerror}); sorting needs up to twice as much room as the text"
            ) from error


def _entries(path: Path) -> Iterator[tuple[bytes, bytes]]:
    with path.open("rb", buffering=2**18) as file:
        while head := file.read(_LENGTHS.size):
            key, value = _LENGTHS.unpack(head)
            yield _exactly(file, key), _exactly(file, value)


def _exactly(file: BinaryIO, size: int) -> bytes:
    content = file.read(size)
    if len(content) < size:
        raise StorageError(f"{file.name}: shorter than it was written; begin again")
    return content
