"""What becomes of a text that is only read: one vector of its hidden states, or a reward model's score."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from chatwheel.engine.batch import FloatArray
from chatwheel.engine.requests import Task


class Pooling:
    """Gathers the hidden states of one text while they are computed, however it is cut."""

    def __init__(self, task: Task, length: int) -> None:
        self._next = 0 if task == "mean" else length - 1
        self._total_D: NDArray[Any] | None = None
        self._count = 0

    def wanted(self, begin: int, end: int) -> range:
        """The positions among [begin, end) whose hidden states matter. What is read again, after it gave way, does not
        matter twice."""
        return range(max(begin, self._next), max(end, self._next))

    def take(self, hidden_ND: FloatArray) -> None:
        """The hidden states of the wanted positions, in order."""
        for row_D in hidden_ND.astype(np.float64):  # one by one: the sum must not depend on how the text was cut
            self._total_D = row_D if self._total_D is None else self._total_D + row_D
        self._count += len(hidden_ND)
        self._next += len(hidden_ND)

    def embedding(self) -> FloatArray:
        """The mean, or the last hidden state, as a vector D of length 1."""
        vector_D = self._mean()
        norm = float(np.sqrt(np.square(vector_D).sum()))
        return (vector_D / max(norm, 1e-12)).astype(np.float32)

    def score(self, weight_D: FloatArray) -> float:
        """The last hidden state through a scalar head."""
        return float((self._mean() * weight_D).sum())

    def _mean(self) -> NDArray[Any]:
        assert self._total_D is not None
        return self._total_D / self._count
