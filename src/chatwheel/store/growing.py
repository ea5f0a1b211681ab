"""Files of lines that grow while they are looked at: what was read once is not read again."""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from chatwheel.store.curves import READ_BYTES, Json, parse_object

KEPT = 64
"""Files of which something is kept in memory."""


class Growing(ABC):
    """What is known from a file's whole lines. It may be asked by several threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = threading.Lock()
        self._inode: int | None = None
        self._offset, self._last = 0, b""

    @abstractmethod
    def forget(self) -> None:
        """The file was replaced: nothing of it is known."""

    @abstractmethod
    def add(self, offset: int, line: bytes) -> None:
        """A new line, and where it begins."""

    def follow(self) -> None:
        """Reads what is new; all of a file that is another one, or does not say any more what it said last. The caller
        holds the lock."""
        try:
            with self.path.open("rb") as file:
                self._follow(file)
        except OSError:
            self._begin_with(None)

    def _follow(self, file: BinaryIO) -> None:
        inode = os.fstat(file.fileno()).st_ino
        file.seek(self._offset - len(self._last))
        if inode != self._inode or file.read(len(self._last)) != self._last:
            self._begin_with(inode)
        file.seek(self._offset)
        # A line without an end is half written; one that is too long is damage, and passed over.
        while (line := file.readline(READ_BYTES)).endswith(b"\n") or len(line) == READ_BYTES:
            self.add(self._offset, line)
            self._offset, self._last = self._offset + len(line), line

    def _begin_with(self, inode: int | None) -> None:
        self._inode, self._offset, self._last = inode, 0, b""
        self.forget()


class RolloutIndex(Growing):
    """A `rollouts.jsonl`: the steps with which rollouts begin, and where their lines are."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._steps: list[int] = []
        self._offsets: list[int] = []

    def forget(self) -> None:
        self._steps, self._offsets = [], []

    def add(self, offset: int, line: bytes) -> None:
        value = parse_object(line)
        if value is not None and type(value.get("step")) is int:
            self._steps.append(value["step"])
            self._offsets.append(offset)

    def look(self, step: int | None) -> tuple[list[int], Json | None]:
        """All steps, and the line of the last rollout that begins with this one or before; of the last unless given."""
        with self.lock:
            self.follow()
            steps = list(self._steps)
            places = [i for i, begins in enumerate(steps) if step is None or begins <= step]
            return steps, self._line(self._offsets[places[-1]]) if places else None

    def _line(self, offset: int) -> Json | None:
        try:
            with self.path.open("rb") as file:
                file.seek(offset)
                return parse_object(file.readline(READ_BYTES))
        except OSError:
            return None


@lru_cache(maxsize=KEPT)
def rollout_index(path: Path) -> RolloutIndex:
    """Of a file, the same each time."""
    return RolloutIndex(path)
