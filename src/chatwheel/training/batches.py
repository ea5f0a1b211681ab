"""Packed rows as tensors, in an order that depends on the seed and the step alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from chatwheel.data.packing import Packed
from chatwheel.model.transformer import Trunk, packed_mask


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Packed rows as tensors, all BT; `segments` 0 is padding."""

    tokens: Tensor
    positions: Tensor
    segments: Tensor
    supervised: Tensor
    branches: Tensor | None = None

    @staticmethod
    def of(packed: Packed, device: torch.device | None = None) -> Rows:
        """The same rows as tensors, where the model is."""

        def tensor(array: NDArray[Any]) -> Tensor:
            return torch.from_numpy(array).to(device)

        return Rows(
            tokens=tensor(packed.tokens).long(),
            positions=tensor(packed.positions).long(),
            segments=tensor(packed.segments),
            supervised=tensor(packed.supervised),
            branches=tensor(packed.branches) if packed.branches is not None else None,
        )

    def hidden(self, trunk: Trunk, dtype: torch.dtype) -> Tensor:
        """The trunk's hidden states BTD, sequences kept apart."""
        mask = packed_mask(self.segments, dtype, self.branches)
        return trunk(self.tokens, positions_BT=self.positions, mask=mask, dtype=dtype)  # type: ignore[no-any-return]


class RowOrder:
    """Endless epochs of shuffled rows; batch `step` is the same however often one asks, or resumes."""

    def __init__(self, num_rows: int, rows_per_step: int, seed: int) -> None:
        self.num_rows, self.rows_per_step, self.seed = num_rows, rows_per_step, seed
        self._epochs: dict[int, np.ndarray[tuple[int], np.dtype[np.int64]]] = {}

    def batch(self, step: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Indices of the rows of a step."""
        first = step * self.rows_per_step
        return np.array([self._row(i) for i in range(first, first + self.rows_per_step)], np.int64)

    def _row(self, i: int) -> int:
        epoch, place = divmod(i, self.num_rows)
        if epoch not in self._epochs:
            self._epochs = {k: v for k, v in self._epochs.items() if k >= epoch - 1}
            self._epochs[epoch] = np.random.default_rng((self.seed, epoch)).permutation(self.num_rows)
        return int(self._epochs[epoch][place])
