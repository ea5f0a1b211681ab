"""How fast a step is, beside what the machine could do: the share of its peak ("model FLOPs utilisation" in Chowdhery
et al., 2022, PaLM, appendix B)."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from chatwheel.data.packing import Packed
from chatwheel.model.config import ModelConfig
from chatwheel.model.transformer import CausalLM, Linear, ScalarModel


def matrix_peak(dtype: torch.dtype, *, size: int = 1536, seconds: float = 0.4, device: str = "cpu") -> float:
    """The best rate at which this process's threads, or its GPU, multiply square matrices, in FLOP/s: of up to eight
    products, as many as are done in so many seconds."""
    size = size if device == "cpu" else 8192
    generator = torch.Generator().manual_seed(0)  # the global one may be a dropout's
    a, b = (torch.randn(size, size, generator=generator).to(device, dtype) for _ in range(2))
    best, until = float("inf"), time.perf_counter() + seconds
    for _ in range(8):
        began = time.perf_counter()
        a @ b
        if device != "cpu":
            torch.cuda.synchronize()
        ended = time.perf_counter()
        best = min(best, ended - began)
        if ended > until:
            break
    return 2 * size**3 / best


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a model goes through. tokens: without padding. seen: the positions that attention lets each of them see, its
    own included, summed, in a layer on average (`positions_seen`). predicted: tokens whose logits are made."""

    tokens: float
    seen: float
    predicted: float = 0.0

    @staticmethod
    def of(rows: Packed, config: ModelConfig) -> Work:
        """Packed rows; what is supervised is predicted."""
        real = rows.segments > 0
        seen = positions_seen(rows.positions[real], config)
        return Work(tokens=int(real.sum()), seen=seen, predicted=int(rows.supervised.sum()))

    @staticmethod
    def of_answers(prompts: Iterable[Sequence[int]], answers: Iterable[Sequence[int]], config: ModelConfig) -> Work:
        """Prompts with answers, whose tokens are predicted."""
        lengths = [(len(p) + len(a), len(a)) for p, a in zip(prompts, answers, strict=True)]
        return Work(
            tokens=sum(n for n, _ in lengths),
            seen=sum(positions_seen(np.arange(n), config) for n, _ in lengths),
            predicted=sum(n for _, n in lengths),
        )


def positions_seen(positions: NDArray[Any], config: ModelConfig) -> float:
    """The positions that tokens at these see, their own included, summed: all before them, or those in the layer's
    window. The mean over the layers."""
    before = positions.astype(np.int64) + 1
    windows = Counter(config.window(layer) for layer in range(config.num_layers))
    seen = {w: int((before if w is None else np.minimum(before, w)).sum()) for w in windows}
    return sum(number * seen[w] for w, number in windows.items()) / config.num_layers


def forward_flops(model: CausalLM | ScalarModel, work: Work) -> float:
    """Of reading only: 2 a weight that multiplies, and 4 H K a layer and position seen (scores, then values)."""
    layers, head = _weights(model)
    return 2 * (sum(layers) * work.tokens + sum(head) * work.predicted) + _attention(model, work)


def training_flops(model: CausalLM | ScalarModel, work: Work) -> float:
    """Forwards and backwards: 6 a weight that multiplies and is trained, 4 one that is frozen (its own gradient is
    never computed: LoRA), and 12 H K a layer and position seen (PaLM, appendix B).

    PaLM takes all T positions of a row as seen; here only those are counted that the mask lets through, which is half
    of it or less. Nothing else counts: not the embedding (a look-up), norms, padding, nor what is computed again to
    save memory.
    """
    layers, head = _weights(model)
    trained, frozen = (2 * layers[i] * work.tokens + 2 * head[i] * work.predicted for i in range(2))
    return 3 * trained + 2 * frozen + 3 * _attention(model, work)


def _weights(model: CausalLM | ScalarModel) -> tuple[tuple[int, int], tuple[int, int]]:
    """(trained, frozen) weights that multiply: of the layers, and of the head that makes logits or values."""
    layers = _matrices(model.model.layers)
    head = _matrices(model.lm_head) if isinstance(model, CausalLM) else (0, 0)
    return layers, head


def _matrices(module: nn.Module) -> tuple[int, int]:
    count = [0, 0]
    for part in module.modules():
        if isinstance(part, Linear):
            count[not part.weight.requires_grad] += part.weight.numel()
            if part.adapter is not None:
                count[0] += sum(p.numel() for p in part.adapter.parameters())
    return count[0], count[1]


def _attention(model: CausalLM | ScalarModel, work: Work) -> float:
    c = model.config
    return 4.0 * c.num_layers * c.num_heads * c.head_dim * work.seen
