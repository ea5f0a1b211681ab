"""A model whose batches are computed by the kernels."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Mapping
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from chatwheel.engine.batch import Batch, Choice, Chosen, FloatArray, pointer
from chatwheel.engine.blocks import BLOCK_SIZE
from chatwheel.engine.native import bindings as native
from chatwheel.errors import ChatwheelError, InputError
from chatwheel.model.lora import LoRA
from chatwheel.model.rope import rope_tables
from chatwheel.model.transformer import CausalLM, Layer, Linear, RMSNorm, ScalarModel

KINDS = {"float32": 0, "bfloat16": 1, "int8": 2, "int4": 3}
TILE_KINDS = {"bfloat16": 4, "int8": 5, "int4": 6}


class NativeRunner:
    """Computes batches on the CPU, in fp32, from weights of that or a smaller type.

    weights: "float32" reads the model's own memory, so that a trainer that moves them moves the runner too; the other
    types ("bfloat16"; "int8": symmetric, a scale a row; "int4": the same, a scale for 64 numbers of a row, but for the
    embeddings and the output, which stay int8) are copies, made anew by `refresh`, and with them keys and values are
    kept in bfloat16; where the processor multiplies tiles of bfloat16 (Intel AMX), what is multiplied is of it too, and
    sums are fp32. release: the model gives up each matrix that has been copied; it is then of no other use.
    """

    def __init__(
        self,
        kernels: ctypes.CDLL,
        model: CausalLM | ScalarModel,
        *,
        num_blocks: int,
        weights: str = "float32",
        threads: int = 1,
        release: bool = False,
    ) -> None:
        self._release = release and weights != "float32"
        config = model.config
        self._kernels, self._model, self._weights, self._threads = kernels, model, weights, threads
        self._config = config
        self._tiles = weights != "float32" and native.has_tiles(kernels)
        depth = kernels.chatwheel_tile_depth() if self._tiles else 1
        size = config.num_kv_heads * -(-config.head_dim // depth) * depth * BLOCK_SIZE * num_blocks
        # Pages of zeros take no memory before they are written.
        self._short = weights != "float32"
        self._outer = "int8" if weights == "int4" else weights
        kind = np.uint16 if self._short else np.float32
        self._keys, self._values = np.zeros((config.num_layers, size), kind), np.zeros((config.num_layers, size), kind)
        self._cos = self._sin = np.zeros((0, config.head_dim), np.float32)
        self._adapters: dict[int, _Adapter] = {}
        self._adapter_table = (ctypes.c_void_p * 0)()
        self._kept: list[Tensor] = []
        self._finalizer: weakref.finalize[[int], NativeRunner] | None = None
        self.refresh()

    def refresh(self) -> None:
        """Reads the model's weights again: where they are, and what they are."""
        assert not self._release or self._finalizer is None, "the model has given up its weights"
        before, self._kept = self._kept, []  # tensors that the kernels point to
        try:
            struct = self._model_struct()
        except BaseException:
            self._kept = before  # the old ones are still in use
            raise
        self._struct = struct
        handle = self._kernels.chatwheel_create(ctypes.byref(struct), self._threads)
        _require(handle)
        if self._finalizer is not None:
            self._finalizer()
        self._finalizer = weakref.finalize(self, self._kernels.chatwheel_destroy, handle)
        self._finalizer.atexit = False  # a service's thread may still be in a step then
        self._handle = handle

    def _model_struct(self) -> native.Model:
        config = self._config
        layers = (native.Layer * config.num_layers)()
        for i, layer in enumerate(self._model.model.layers):
            layers[i] = self._layer(cast(Layer, layer), config.window(i))
        embedding = self._weight(self._model.model.embed_tokens.weight, None, self._outer)
        head = embedding
        if isinstance(self._model, CausalLM) and not config.tied_embeddings:
            head = self._weight(self._model.lm_head.weight, self._model.lm_head.bias, self._outer)
        return native.Model(
            *(config.num_layers, config.hidden_size, config.num_heads, config.num_kv_heads, config.head_dim),
            *(
                config.intermediate_size,
                config.vocab_size,
                config.norm_eps,
                self._vector(self._model.model.norm.weight),
            ),
            *(embedding, head, layers),
        )

    def set_adapter(self, number: int, adapters: Mapping[str, LoRA] | None) -> None:
        """See `batch.Runner`."""
        self._adapters.pop(number, None)
        if adapters is not None:
            self._adapters[number] = _Adapter(adapters, self._config.num_layers)
        size = max(self._adapters, default=-1) + 1
        layers = (self._adapters[i].address if i in self._adapters else None for i in range(size))
        self._adapter_table = (ctypes.c_void_p * size)(*layers)

    def forward(self, batch: Batch) -> tuple[FloatArray, FloatArray]:
        """See `batch.Runner`."""
        self._reserve_positions(int(batch.positions.max()) + 1)
        hidden = np.empty((len(batch.out), self._config.hidden_size), np.float32)
        scores = np.empty((batch.scored, self._config.vocab_size), np.float32)
        arrays = (batch.tokens, batch.positions, batch.sequences, batch.tables, batch.out)
        step = native.Step(
            *(len(batch.tokens), len(batch.out), batch.scored, batch.tables.shape[1]),
            *(pointer(array) for array in (*arrays, self._cos, self._sin, self._keys, self._values)),
            *(self._keys.shape[1], self._short),
            *(pointer(hidden), pointer(scores)),
            *((pointer(batch.adapters), ctypes.addressof(self._adapter_table)) if self._adapters else (None, None)),
            max((adapter.rank for adapter in self._adapters.values()), default=0),
        )
        _require(not self._kernels.chatwheel_forward(self._handle, ctypes.byref(step)))
        return hidden, scores

    def choose(self, choice: Choice) -> Chosen:
        """See `batch.Runner`."""
        rows, vocab = choice.scores.shape
        tokens = np.empty(rows, np.int32)
        logprobs, normalisers = np.empty(rows, np.float32), np.empty(rows, np.float32)
        arrays = (
            choice.scores,
            choice.raw,
            choice.temperature,
            choice.top_p,
            choice.min_p,
            choice.top_k,
            choice.uniform,
        )
        struct = native.Choice(rows, vocab, *(pointer(a) for a in (*arrays, tokens, logprobs, normalisers)))
        _require(not self._kernels.chatwheel_choose(self._handle, ctypes.byref(struct)))
        return Chosen(tokens=tokens, logprobs=logprobs, normalisers=normalisers)

    def _reserve_positions(self, count: int) -> None:
        if count > len(self._cos):
            size = min(max(count, 2 * len(self._cos), 256), max(count, self._config.max_positions))
            cos, sin = rope_tables(torch.arange(size)[None], self._config, torch.float32)
            self._cos, self._sin = (np.ascontiguousarray(table[0, 0].numpy()) for table in (cos, sin))

    def _layer(self, layer: Layer, window: int | None) -> native.Layer:
        attention, mlp = layer.self_attn, layer.mlp
        matrices: tuple[Linear, ...] = (
            *(attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj),
            *(mlp.gate_proj, mlp.up_proj, mlp.down_proj),
        )
        norms: tuple[nn.Module, ...] = (
            *(layer.input_layernorm, layer.post_attention_layernorm),
            *(attention.q_norm, attention.k_norm),
        )
        vectors = (self._vector(norm.weight) if isinstance(norm, RMSNorm) else None for norm in norms)
        return native.Layer(*vectors, *map(self._matrix, matrices), window or 0)

    def _matrix(self, linear: Linear) -> native.Matrix:
        return self._weight(linear.weight, linear.bias, self._weights)

    def _weight(self, weight: Tensor, bias: Tensor | None, kind: str) -> native.Matrix:
        width, group, shape = self._kernels.chatwheel_panel(), self._kernels.chatwheel_group(), weight.shape
        how = (IN_TILES if self._tiles else STORED)[kind]
        stored, scale = how(weight.detach(), width, group)
        if self._release:
            weight.data = torch.empty(0)
        pointers = (self._at(tensor) if tensor is not None else None for tensor in (stored, scale))
        number = (TILE_KINDS if self._tiles else KINDS)[kind]
        return native.Matrix(*pointers, self._vector(bias) if bias is not None else None, *shape, number)

    def _vector(self, vector: Tensor) -> int:
        return self._at(vector.detach().float().contiguous())

    def _at(self, tensor: Tensor) -> int:
        self._kept.append(tensor)
        return tensor.data_ptr()


class _Adapter:
    """An adapter's factors as the kernels read them. address: of its layers. rank: the largest."""

    def __init__(self, adapters: Mapping[str, LoRA], num_layers: int) -> None:
        self._kept: list[Tensor] = []
        self._layers = (native.AdaptedLayer * num_layers)()
        self.rank = 0
        for name, adapter in adapters.items():
            match name.split("."):
                case ["model", "layers", number, _, matrix]:
                    setattr(self._layers[int(number)], matrix.removesuffix("_proj"), self._factors(adapter))
                case _:
                    raise InputError(f"an adapter of {name} can't be used beside others; merge it into its model")
        self.address = ctypes.addressof(self._layers)

    def _factors(self, adapter: LoRA) -> native.Factors:
        a = adapter.lora_A.detach().float().contiguous()
        b_t = (adapter.lora_B.detach().float() * adapter.scale).T.contiguous()
        self._kept += [a, b_t]
        self.rank = max(self.rank, len(a))
        return native.Factors(a.data_ptr(), b_t.data_ptr(), len(a))


def _require(done: object) -> None:
    if not done:
        raise ChatwheelError("there is no memory, or no thread, left for the engine; give it fewer requests at a time")


def _panels(weight: Tensor, width: int) -> Tensor:
    """A matrix as the kernels read it: `width` rows at a time, side by side; the last ones filled up."""
    filled = torch.nn.functional.pad(weight, (0, 0, 0, -len(weight) % width))
    return filled.view(-1, width, weight.shape[1]).transpose(1, 2).contiguous()


def _float32(weight: Tensor, _width: int, _group: int) -> tuple[Tensor, None]:
    return weight.float().contiguous(), None


def _bfloat16(weight: Tensor, width: int, _group: int) -> tuple[Tensor, None]:
    return _panels(weight.bfloat16(), width), None


def _to_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """The largest number of each row becomes 127."""
    scale = weight.float().abs().amax(1).clamp_min(1e-12) / 127
    return (weight.float() / scale[:, None]).round().to(torch.int8), scale.contiguous()


def _int8(weight: Tensor, width: int, _group: int) -> tuple[Tensor, Tensor]:
    numbers, scale = _to_int8(weight)
    return _panels(numbers, width), scale


def _to_int4(weight: Tensor, group: int) -> tuple[Tensor, Tensor]:
    """The largest number of each group becomes -8, whatever its sign: the one number more than on the other side is
    used (as in llama.cpp's Q4_0). Numbers, and scales [row][group]."""
    rows, columns = weight.shape
    grouped = torch.nn.functional.pad(weight.float(), (0, -columns % group)).view(rows, -1, group)
    largest = grouped.gather(-1, grouped.abs().argmax(-1, keepdim=True))
    scale = largest / -8
    scale = torch.where(scale.abs() < 1e-12, 1e-12, scale)
    numbers = (grouped / scale).round().clamp(-8, 7).to(torch.int8).view(rows, -1)[:, :columns]
    return numbers, scale[..., 0]


def _int4(weight: Tensor, width: int, group: int) -> tuple[Tensor, Tensor]:
    numbers, scale = _to_int4(weight, group)
    panels = _panels(numbers, width)
    low, high = panels[..., : width // 2], panels[..., width // 2 :]
    return ((low & 15) | (high << 4)).contiguous(), _panels(scale, width)


def _tiles(weight: Tensor, *, pairs_inside: bool) -> Tensor:
    """A matrix as `tiles.h` reads it: [n / 32][k / 32][2] tiles of 16 outputs at 32 k, filled up with zeros. In a tile
    the two numbers of a pair of k stand beside each other for each output, or one row of outputs behind the other."""
    rows, columns = weight.shape
    filled = torch.nn.functional.pad(weight, (0, -columns % 32, 0, -rows % 32))
    split = filled.view(-1, 2, 16, filled.shape[1] // 32, 16, 2)  # panel, half, output, depth, pair, k of it
    order = (0, 3, 1, 4, 2, 5) if pairs_inside else (0, 3, 1, 4, 5, 2)
    return split.permute(order).contiguous()


def _bfloat16_tiles(weight: Tensor, _width: int, _group: int) -> tuple[Tensor, None]:
    return _tiles(weight.bfloat16(), pairs_inside=True), None


def _int8_tiles(weight: Tensor, _width: int, _group: int) -> tuple[Tensor, Tensor]:
    numbers, scale = _to_int8(weight)
    return _tiles(numbers, pairs_inside=False), scale


def _int4_tiles(weight: Tensor, width: int, group: int) -> tuple[Tensor, Tensor]:
    """A byte holds a pair of k: the even one low, the odd one high."""
    numbers, scale = _to_int4(weight, group)
    tiles = _tiles(numbers, pairs_inside=True)
    return ((tiles[..., 0] & 15) | (tiles[..., 1] << 4)).contiguous(), _panels(scale, width)


STORED: dict[str, Callable[[Tensor, int, int], tuple[Tensor, Tensor | None]]] = {
    "float32": _float32,
    "bfloat16": _bfloat16,
    "int8": _int8,
    "int4": _int4,
}
"""Numbers and scales of a matrix, from it, the width of a panel and the size of a group."""

IN_TILES: dict[str, Callable[[Tensor, int, int], tuple[Tensor, Tensor | None]]] = {
    "bfloat16": _bfloat16_tiles,
    "int8": _int8_tiles,
    "int4": _int4_tiles,
}
"""The same for tiles."""
