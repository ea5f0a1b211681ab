"""llama.cpp by its own library's functions (`llama_cpp`), on weights written as GGUF. Keys and values stay in fp16, its
default and its best: in fp32, as ours are beside fp32 weights, it is half as fast."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from chatwheel.model.transformer import CausalLM, Layer

if TYPE_CHECKING:
    from chatwheel.benchmarks.serving import Settings

BATCH = 512
"""Tokens that it computes at a time: its server's default is 2048 in pieces of 512."""


class LlamaCpp:
    """A model and its cache of several sequences."""

    def __init__(self, path: Path, settings: Settings, longest: int) -> None:
        import llama_cpp

        self._api = llama_cpp
        llama_cpp.llama_backend_init()
        # Its log goes to standard error, line by line.
        self._silent = llama_cpp.llama_log_callback(lambda *_: None)
        llama_cpp.llama_log_set(self._silent, None)
        self._model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = longest * settings.concurrency + 256
        params.n_batch = params.n_ubatch = BATCH
        params.n_seq_max = settings.concurrency
        params.n_threads = params.n_threads_batch = settings.threads
        params.kv_unified = True
        self._context = llama_cpp.llama_init_from_model(self._model, params)
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))
        self._batch = batch = llama_cpp.llama_batch_init(BATCH, 0, 1)
        # Its arrays as numpy's: filling them token by token would be charged to llama.cpp.
        arrays = (batch.token, batch.pos, batch.n_seq_id, batch.logits)
        self._tokens, self._positions, counts, self._wanted = (np.ctypeslib.as_array(a, (BATCH,)) for a in arrays)
        counts[:] = 1
        self._sequences = np.zeros(BATCH, np.int32)
        first = self._sequences.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        for i in range(BATCH):
            batch.seq_id[i] = ctypes.cast(ctypes.addressof(first.contents) + 4 * i, ctypes.POINTER(ctypes.c_int32))

    def step(self, entries: Sequence[tuple[int, list[int], int]]) -> list[int]:
        """(sequence, tokens, position of the first) of each: the likeliest next tokens."""
        chosen: list[int] = []
        sizes = np.array([len(ids) for _, ids, _ in entries])
        tokens = np.concatenate([np.array(ids, np.int32) for _, ids, _ in entries])
        positions = np.concatenate([np.arange(at, at + len(ids)) for _, ids, at in entries])
        sequences = np.repeat([number for number, _, _ in entries], sizes)
        last = np.zeros(len(tokens), np.int8)
        last[np.cumsum(sizes) - 1] = 1
        for first in range(0, len(tokens), BATCH):
            some = slice(first, min(first + BATCH, len(tokens)))
            count = some.stop - first
            self._batch.n_tokens = count
            self._tokens[:count], self._positions[:count] = tokens[some], positions[some]
            self._sequences[:count], self._wanted[:count] = sequences[some], last[some]
            code = self._api.llama_decode(self._context, self._batch)
            assert code == 0, f"llama_decode gave {code}"
            for i in np.flatnonzero(last[some]).tolist():
                row = self._api.llama_get_logits_ith(self._context, i)
                chosen.append(int(np.ctypeslib.as_array(row, (self._vocab,)).argmax()))
        return chosen

    def forget(self, number: int) -> None:
        """Frees a sequence's cache."""
        self._api.llama_memory_seq_rm(self._memory, number, -1, -1)


def write_gguf(model: CausalLM, path: Path, precision: str) -> None:
    """The weights as llama.cpp reads them, without a vocabulary."""
    import gguf

    kinds = gguf.GGMLQuantizationType
    kind = {"float32": kinds.F32, "bfloat16": kinds.BF16, "int8": kinds.Q8_0, "int4": kinds.Q4_0}[precision]
    outer = kinds.Q8_0 if precision == "int4" else kind  # as ours
    config, writer = model.config, gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(config.max_positions)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_heads)
    writer.add_head_count_kv(config.num_kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("no_vocab")

    def add(name: str, tensor: Tensor, kind: Any = kind) -> None:
        array = tensor.detach().float().numpy()
        plain = array.ndim == 1 or kind == kinds.F32
        data: Any = array if plain else gguf.quants.quantize(array, kind)
        writer.add_tensor(name, data, raw_dtype=kinds.F32 if plain else kind)

    add("token_embd.weight", model.model.embed_tokens.weight, outer)
    add("output_norm.weight", model.model.norm.weight)
    for number, module in enumerate(model.model.layers):
        assert isinstance(module, Layer)
        attention, mlp, prefix = module.self_attn, module.mlp, f"blk.{number}"
        add(f"{prefix}.attn_norm.weight", module.input_layernorm.weight)
        add(f"{prefix}.ffn_norm.weight", module.post_attention_layernorm.weight)
        add(f"{prefix}.attn_q.weight", _interleaved(attention.q_proj.weight, config.num_heads))
        add(f"{prefix}.attn_k.weight", _interleaved(attention.k_proj.weight, config.num_kv_heads))
        add(f"{prefix}.attn_v.weight", attention.v_proj.weight)
        add(f"{prefix}.attn_output.weight", attention.o_proj.weight)
        add(f"{prefix}.ffn_gate.weight", mlp.gate_proj.weight)
        add(f"{prefix}.ffn_up.weight", mlp.up_proj.weight)
        add(f"{prefix}.ffn_down.weight", mlp.down_proj.weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _interleaved(weight: Tensor, heads: int) -> Tensor:
    """Rows in the order of llama.cpp's RoPE, which turns neighbours where Hugging Face's turns halves."""
    return weight.view(heads, 2, -1, weight.shape[1]).transpose(1, 2).reshape(weight.shape)
