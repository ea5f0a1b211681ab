"""What goes into the engine and what comes out: plain values, no tensors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

FinishReason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How to choose tokens.

    temperature: 0 is greedy. top_p: nucleus in (0, 1]. top_k: 0 is off.
    max_tokens: None means as many as the context holds. seed: the answer depends on it and the prompt alone;
    None draws a fresh one. stop: strings that end the answer and are not part of it.
    ignore_eos: go on past the end-of-turn token (benchmarks).
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_tokens: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False


@dataclass(frozen=True, kw_only=True)
class Request:
    """A prompt as token ids, and how to go on from it."""

    prompt_ids: tuple[int, ...]
    params: SamplingParams = field(default_factory=SamplingParams)


@dataclass(frozen=True, kw_only=True)
class Completion:
    """An answer. `token_ids` include the end-of-turn token if it came; `text` never does.

    logprobs: of each token under the model's own distribution (temperature 1, no truncation), natural log.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    finish_reason: FinishReason
    prompt_tokens: int


@dataclass(frozen=True, kw_only=True)
class Delta:
    """A piece of a streamed answer. The last one has `completion`; its `text` may be empty."""

    text: str
    completion: Completion | None = None
