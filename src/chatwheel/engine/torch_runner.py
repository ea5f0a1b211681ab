"""A model whose batches are computed by PyTorch: on GPUs, and on CPUs where the kernels can't be compiled.

Shapes: B sequences, T new tokens of each, G key/value heads, S positions, K head size; P blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from chatwheel.engine.batch import Batch, Choice, Chosen, FloatArray
from chatwheel.engine.blocks import BLOCK_SIZE
from chatwheel.engine.sampling import choose
from chatwheel.errors import InputError
from chatwheel.model.lora import LoRA
from chatwheel.model.transformer import CausalLM, ScalarModel


class TorchRunner:
    """Reads the model's own weights at every step. dtype: of the activations and the cache."""

    def __init__(self, model: CausalLM | ScalarModel, *, num_blocks: int, dtype: torch.dtype = torch.float32) -> None:
        self._model, self._dtype = model, dtype
        self._device = model.model.embed_tokens.weight.device
        config = model.config
        shape = (num_blocks, BLOCK_SIZE, config.num_kv_heads, config.head_dim)
        # Zeros, not garbage: what lies beyond a sequence's end is masked, but NaN x 0 would still be NaN.
        self._keys, self._values = (
            [torch.zeros(shape, dtype=dtype, device=self._device) for _ in range(config.num_layers)] for _ in range(2)
        )

    def refresh(self) -> None:
        """Nothing to do: the weights are read where they are."""

    def set_adapter(self, number: int, adapters: Mapping[str, LoRA] | None) -> None:  # noqa: ARG002
        """Not by PyTorch."""
        raise InputError("adapters in one batch need the kernels: a CPU, and a C++ compiler; merge this one instead")

    @torch.no_grad()
    def forward(self, batch: Batch) -> tuple[FloatArray, FloatArray]:
        """See `batch.Runner`. Sequences of about as many new tokens go together, in order: a later one may read what an
        earlier one writes, also of the same group, where a layer writes all keys before any is read."""
        begins = np.flatnonzero(np.diff(batch.sequences, prepend=-1))
        sizes = np.diff(begins, append=len(batch.sequences))
        hidden_TD = torch.empty(
            len(batch.tokens), self._model.config.hidden_size, dtype=self._dtype, device=self._device
        )
        for rows_BT in _grouped(begins, sizes):
            hidden_TD[torch.from_numpy(rows_BT).to(self._device)] = self._run(batch, rows_BT)
        chosen_MD = hidden_TD[torch.from_numpy(batch.out).to(self._device).long()]
        scores = torch.empty(0, self._model.config.vocab_size)
        if isinstance(self._model, CausalLM) and batch.scored:
            scores = self._model.logits(chosen_MD[: batch.scored]).float()
        return chosen_MD.float().cpu().numpy(), scores.cpu().numpy()

    def choose(self, choice: Choice) -> Chosen:
        """See `batch.Runner`."""
        return choose(choice)

    def _run(self, batch: Batch, rows_BT: NDArray[Any]) -> Tensor:
        def of(values: NDArray[Any]) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(values)).to(self._device).long()

        positions_BT = of(batch.positions[rows_BT])
        tables_BP = of(batch.tables[batch.sequences[rows_BT[:, 0]]])
        span = int(positions_BT.max()) + 1
        tables_BP = tables_BP[:, : -(-span // BLOCK_SIZE)]
        places_BT = tables_BP.gather(1, positions_BT // BLOCK_SIZE) * BLOCK_SIZE + positions_BT % BLOCK_SIZE
        beyond_BTS = torch.arange(span, device=self._device) > positions_BT[:, :, None]
        mask = torch.zeros(beyond_BTS.shape, dtype=self._dtype, device=self._device)
        mask = mask.masked_fill_(beyond_BTS, -torch.inf)[:, None]
        caches = [
            _PagedCache(keys, values, places_BT, tables_BP, span)
            for keys, values in zip(self._keys, self._values, strict=True)
        ]
        return self._model.model(  # type: ignore[no-any-return]
            of(batch.tokens[rows_BT]), positions_BT=positions_BT, mask=mask, caches=caches, dtype=self._dtype
        )


MOST_PADDING = 1.5
"""Of a group's own tokens, what it may have with its padding."""


def _grouped(begins: NDArray[Any], sizes: NDArray[Any]) -> list[NDArray[Any]]:
    """Places BT in the batch of sequences that are computed together. A shorter one repeats its last token, which then
    is computed and written again as it was."""
    groups: list[list[int]] = []
    own = longest = 0  # tokens of the last group, and of its longest
    for i, size in enumerate(sizes.tolist()):
        if groups and max(size, longest) * (len(groups[-1]) + 1) <= MOST_PADDING * (own + size):
            groups[-1].append(i)
            own, longest = own + size, max(size, longest)
        else:
            groups.append([i])
            own = longest = size
    places = []
    for members in groups:
        offsets = np.arange(int(sizes[members].max()))
        places.append(begins[members, None] + np.minimum(offsets[None], sizes[members, None] - 1))
    return places


class _PagedCache:
    """One layer's blocks, for some sequences: see `transformer.LayerCache`."""

    def __init__(self, keys: Tensor, values: Tensor, places_BT: Tensor, tables_BP: Tensor, span: int) -> None:
        self._keys, self._values, self._places, self._tables, self._span = keys, values, places_BT, tables_BP, span

    def extend(self, k_BGTK: Tensor, v_BGTK: Tensor) -> tuple[Tensor, Tensor]:
        """Writes the new ones to their places, and gathers all that are there."""
        found = []
        for store, new in ((self._keys, k_BGTK), (self._values, v_BGTK)):
            store.view(-1, *store.shape[2:])[self._places] = new.transpose(1, 2)
            found.append(store[self._tables].flatten(1, 2)[:, : self._span].transpose(1, 2))
        return found[0], found[1]
