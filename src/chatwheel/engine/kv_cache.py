"""Keys and values of the running requests: a dense tensor a layer, a slot a request, grown as needed.

Shapes: N slots, G key/value heads, S positions, K head size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from chatwheel.model.config import ModelConfig


class KVCache:
    """The cache of all layers. `lengths[slot]` positions of a slot are filled."""

    def __init__(self, config: ModelConfig, num_slots: int, dtype: torch.dtype) -> None:
        self.config, self.dtype = config, dtype
        self.lengths = torch.zeros(num_slots, dtype=torch.long)
        self._keys = [self._empty(0, 0) for _ in range(config.num_layers)]
        self._values = [self._empty(0, 0) for _ in range(config.num_layers)]

    def reserve(self, num_slots: int, length: int) -> None:
        """Makes room for slots 0..num_slots-1 with `length` positions each, keeping what is there."""
        have_slots, _, have_length, _ = self._keys[0].shape
        if num_slots <= have_slots and length <= have_length:
            return
        # Doubling keeps the copies few.
        slots = max(have_slots, num_slots if num_slots <= have_slots else max(num_slots, 2 * have_slots))
        room = (
            have_length if length <= have_length else min(max(length, 2 * have_length, 64), self.config.max_positions)
        )
        for tensors in (self._keys, self._values):
            for layer, old in enumerate(tensors):
                new = self._empty(slots, max(room, length))
                new[:have_slots, :, :have_length] = old
                tensors[layer] = new

    def move(self, source: int, target: int) -> None:
        """Copies a slot's content to another slot."""
        length = int(self.lengths[source])
        for tensor in (*self._keys, *self._values):
            tensor[target, :, :length] = tensor[source, :, :length]
        self.lengths[target] = length

    def prefill(self, layer: int, slots: slice, prompt_of: Tensor) -> PrefillCache:
        """The layer's cache for fresh slots, to be filled from position 0; `prompt_of` says with which prompt each."""
        return PrefillCache(self._keys[layer][slots], self._values[layer][slots], prompt_of)

    def decode(self, layer: int, num_slots: int, span: int) -> DecodeCache:
        """The layer's cache for one more token in each of the first slots; `span` covers the longest of them."""
        keys, values = self._keys[layer][:num_slots], self._values[layer][:num_slots]
        return DecodeCache(keys, values, self.lengths[:num_slots], span)

    def _empty(self, slots: int, length: int) -> Tensor:
        # Zeros, not garbage: what lies beyond a slot's length is masked, but NaN x 0 would still be NaN.
        return torch.zeros(slots, self.config.num_kv_heads, length, self.config.head_dim, dtype=self.dtype)


class PrefillCache:
    """Keeps the keys and values of whole prompts, of one prompt perhaps in many slots; the queries see only them."""

    def __init__(self, keys: Tensor, values: Tensor, prompt_of: Tensor) -> None:
        self.keys, self.values, self.prompt_of = keys, values, prompt_of

    def extend(self, k_BGTK: Tensor, v_BGTK: Tensor) -> tuple[Tensor, Tensor]:
        """Stores them and gives them back."""
        self.keys[:, :, : k_BGTK.shape[2]] = k_BGTK[self.prompt_of]
        self.values[:, :, : v_BGTK.shape[2]] = v_BGTK[self.prompt_of]
        return k_BGTK, v_BGTK


class DecodeCache:
    """Adds one position to each slot, where its length says; the queries see the slot up to there."""

    def __init__(self, keys: Tensor, values: Tensor, lengths: Tensor, span: int) -> None:
        self.keys, self.values, self.lengths, self.span = keys, values, lengths, span
        self.slots = torch.arange(len(lengths))

    def extend(self, k_BG1K: Tensor, v_BG1K: Tensor) -> tuple[Tensor, Tensor]:
        """Stores them and gives back the first `span` positions."""
        self.keys[self.slots, :, self.lengths] = k_BG1K[:, :, 0]
        self.values[self.slots, :, self.lengths] = v_BG1K[:, :, 0]
        return self.keys[:, :, : self.span], self.values[:, :, : self.span]
