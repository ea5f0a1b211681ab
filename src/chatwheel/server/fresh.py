"""What was looked up a moment ago, and need not be looked up again yet."""

from __future__ import annotations

import time
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")
MOST = 1024


class Fresh(Generic[K, V]):
    """Values that hold for so many seconds. Thread-safe, as long as an older value does no harm."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._values: dict[K, tuple[float, V]] = {}

    def get(self, key: K) -> V | None:
        """The value; None if there is none that is fresh."""
        found = self._values.get(key)
        return found[1] if found is not None and time.monotonic() - found[0] < self._seconds else None

    def put(self, key: K, value: V) -> None:
        """Holds from now on."""
        if len(self._values) >= MOST:
            self._values.clear()
        self._values[key] = time.monotonic(), value
