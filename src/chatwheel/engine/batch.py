"""What a step computes, as flat arrays, and who can compute it."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from chatwheel.model.lora import LoRA

IntArray = NDArray[np.int32]
FloatArray = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """T tokens of S sequences.

    tokens, positions, sequences: T each; the tokens of a sequence stand together and in order. tables: S x W, the
    blocks of each sequence. out: M rows of the T whose hidden states are wanted, of the first `scored` the logits too.
    adapters: S, the number of the adapter that a sequence speaks through, -1 for none.
    """

    tokens: IntArray
    positions: IntArray
    sequences: IntArray
    tables: IntArray
    out: IntArray
    scored: int
    adapters: IntArray


class Runner(Protocol):
    """A model that computes batches; keys and values of earlier ones are in its cache."""

    def forward(self, batch: Batch) -> tuple[FloatArray, FloatArray]:
        """Hidden states M x D after the final norm, and logits of the first of them, `scored` x V."""
        ...

    def choose(self, choice: Choice) -> Chosen:
        """Samples a token of each row."""
        ...

    def set_adapter(self, number: int, adapters: Mapping[str, LoRA] | None) -> None:
        """Puts an adapter under a number, by the names of its matrices; None takes it away."""
        ...

    def refresh(self) -> None:
        """The model's weights have moved."""
        ...


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Rows to sample from. scores: N x V, what is sampled from; raw: the model's own logits, whose log-probs are given.
    uniform: a number in [0, 1) for each row. The rest: N each, as in SamplingParams."""

    scores: FloatArray
    raw: FloatArray
    temperature: FloatArray
    top_k: IntArray
    top_p: FloatArray
    min_p: FloatArray
    uniform: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """tokens, their logprobs under softmax(raw), and the log of its normaliser: N each."""

    tokens: IntArray
    logprobs: FloatArray
    normalisers: FloatArray


def pointer(array: NDArray[Any]) -> int:
    """Where a contiguous array, which may be written, is in memory."""
    return ctypes.addressof(_NOTHING.from_buffer(array.data))  # `array.ctypes` says it too, in six times the time


_NOTHING = ctypes.c_char * 0
