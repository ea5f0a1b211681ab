"""The loss of pretraining and SFT: the next token's cross-entropy, over the supervised tokens of packed rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from chatwheel.data.packing import Packed, RowSource
from chatwheel.model.transformer import CausalLM
from chatwheel.training.batches import RowOrder, Rows
from chatwheel.training.cross_entropy import cross_entropy_sum
from chatwheel.training.distributed import check_shares, ranks, shares
from chatwheel.training.loop import Metrics, PlainObjective
from chatwheel.training.throughput import Work, training_flops


def next_token_loss(model: CausalLM, rows: Rows, dtype: torch.dtype, hits: Tensor | None = None) -> Tensor:
    """Cross-entropy in nats, summed over the supervised tokens. Logits are made only where one is predicted, and never
    all at once. hits: see `cross_entropy_sum`."""

    def loss() -> Tensor:
        hidden_BTD = rows.hidden(model.model, dtype)
        b, t = rows.supervised[:, 1:].nonzero(as_tuple=True)
        return cross_entropy_sum(model.lm_head, hidden_BTD[b, t], rows.tokens[b, t + 1], hits)

    return model.computing(loss)


class NextTokenObjective(PlainObjective[tuple[Packed, float]]):
    """Batches of rows; the loss is the mean over the step's supervised tokens, however they fall into micro-batches.

    rows_per_step: rows of an optimizer step. rows_at_once: rows that are in memory together. primer: rows of their own
    for the first `primer_steps` steps, a curriculum (Bengio et al., 2009). tensor_parallel: how many processes see the
    same rows. accuracy: also log the share of tokens that were the likeliest.
    """

    def __init__(
        self,
        model: CausalLM,
        packed: RowSource,
        *,
        rows_per_step: int,
        rows_at_once: int,
        seed: int,
        dtype: torch.dtype,
        primer: RowSource | None = None,
        primer_steps: int = 0,
        tensor_parallel: int = 1,
        accuracy: bool = False,
    ) -> None:
        self.model, self.packed, self.dtype, self.accuracy = model, packed, dtype, accuracy
        self.rows_at_once, self.shares = rows_at_once, shares(tensor_parallel)
        check_shares("rows_per_step", rows_per_step, ranks().size, tensor_parallel)
        self.order = RowOrder(len(packed), rows_per_step, seed)
        self.primer = (primer, RowOrder(len(primer), rows_per_step, seed)) if primer is not None else None
        self.primer_steps = primer_steps if primer is not None else 0
        self._flops = 0.0

    def _rows(self, step: int) -> Packed:
        if self.primer is not None and step < self.primer_steps:
            rows, order = self.primer
            return rows.rows(order.batch(step))
        return self.packed.rows(self.order.batch(step - self.primer_steps))

    def batches(self, step: int) -> Sequence[tuple[Packed, float]]:
        rows = self._rows(step)
        # FSDP takes the mean of the processes' gradients, and each has the loss of its share of the rows.
        count = max(1, int(rows.supervised.sum())) / self.shares.size
        self._flops = training_flops(self.model, Work.of(rows, self.model.config))
        rows = rows.rows(np.arange(self.shares.rank, len(rows), self.shares.size))
        parts = range(0, len(rows), self.rows_at_once)
        return [(rows.rows(np.arange(i, min(i + self.rows_at_once, len(rows)))), count) for i in parts]

    def loss(self, batch: tuple[Packed, float]) -> tuple[Tensor, Metrics]:
        rows, count = batch
        hits = torch.zeros((), dtype=torch.long, device=self.model.model.device) if self.accuracy else None
        loss = next_token_loss(self.model, Rows.of(rows, self.model.model.device), self.dtype, hits) / count
        return loss, {} if hits is None else {"accuracy": int(hits) / count}

    def tokens(self, step: int) -> int:  # noqa: ARG002
        return int(self.order.rows_per_step * self.packed.row_length)

    def flops(self, step: int) -> float:  # noqa: ARG002
        return self._flops


@torch.no_grad()
def held_out_loss(model: CausalLM, packed: RowSource, *, rows_at_once: int, dtype: torch.dtype) -> dict[str, Any]:
    """The summed loss in nats, the number of tokens it is over, and how many of them were the likeliest ("hits")."""
    total, count = 0.0, 0
    hits = torch.zeros((), dtype=torch.long, device=model.model.device)
    for first in range(0, len(packed), rows_at_once):
        rows = packed.rows(np.arange(first, min(first + rows_at_once, len(packed))))
        total += float(next_token_loss(model, Rows.of(rows, model.model.device), dtype, hits))
        count += int(rows.supervised.sum())
    return {"nats": total, "tokens": count, "hits": int(hits)}
