"""What goes into the engine and what comes out: plain values, no tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from chatwheel.errors import ContextLengthError, InputError

FinishReason = Literal["stop", "length", "cancelled"]
Task = Literal["generate", "mean", "last", "score"]


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How to choose tokens.

    temperature: 0 is greedy. top_k: 0 is off. top_p: nucleus in (0, 1] (Holtzman et al., 2020). min_p: the least
    probability, as a share of the largest one (Nguyen et al., 2024). In this order.
    repetition_penalty: divides the logits of tokens of prompt and answer if they are positive, and multiplies them if
    not (Keskar et al., 2019); 1 is off. presence_penalty, frequency_penalty: subtracted from the logits of the answer's
    tokens, once and for each time (OpenAI). logit_bias: added, by token.
    max_tokens: None means as many as the context holds. min_tokens: before so many nothing ends the answer.
    seed: the answer depends on it and the prompt alone; None draws a fresh one.
    stop: strings that end the answer and are not part of it. stop_token_ids: tokens that do, and are its last.
    ignore_eos: go on past the end-of-turn token (benchmarks).
    logprobs: a streamed piece has its tokens, and the whole answer too, with where each begins. top_logprobs: how many
    of the likeliest tokens are given at each place. prompt_logprobs: the same of the prompt.
    grammar: what the answer must be, as `structured.json_schema` and its sisters describe it.
    shown_tokens: special tokens that are part of the answer's text, with how they are written there.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    max_tokens: int | None = None
    min_tokens: int = 0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    logprobs: bool = False
    top_logprobs: int = 0
    prompt_logprobs: bool = False
    grammar: str | None = None
    shown_tokens: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises InputError for a value that means nothing."""
        for name, value, wanted, fits in (
            ("temperature", self.temperature, "at least 0", 0 <= self.temperature < math.inf),
            ("top_p", self.top_p, "above 0 and at most 1", 0 < self.top_p <= 1),
            ("top_k", self.top_k, "at least 0", self.top_k >= 0),
            ("min_p", self.min_p, "from 0 to 1", 0 <= self.min_p <= 1),
            ("repetition_penalty", self.repetition_penalty, "above 0", 0 < self.repetition_penalty < math.inf),
            ("presence_penalty", self.presence_penalty, "a number", math.isfinite(self.presence_penalty)),
            ("frequency_penalty", self.frequency_penalty, "a number", math.isfinite(self.frequency_penalty)),
            ("max_tokens", self.max_tokens, "at least 1", self.max_tokens is None or self.max_tokens >= 1),
            ("min_tokens", self.min_tokens, "at least 0", self.min_tokens >= 0),
            ("top_logprobs", self.top_logprobs, "at least 0", self.top_logprobs >= 0),
        ):
            if not fits:
                raise InputError(f"{name} is {value}; it must be {wanted}", param=name)


@dataclass(frozen=True, kw_only=True)
class Request:
    """A prompt as token ids, and how to go on from it.

    task: "generate" an answer; or only read the prompt: its hidden states' "mean", or the "last" of them, as a vector
    of length 1 (an embedding); or a reward model's "score" of it.
    adapter: the name of the adapter that speaks. key: whose request it is: the engine is shared fairly between keys.
    priority: higher comes first. timeout: seconds after which it is given up.
    """

    prompt_ids: tuple[int, ...]
    params: SamplingParams = field(default_factory=SamplingParams)
    task: Task = "generate"
    adapter: str | None = None
    key: str = ""
    priority: int = 0
    timeout: float | None = None


def check(request: Request, vocab_size: int, context_length: int) -> None:
    """Raises InputError for tokens that a model does not have, ContextLengthError for a prompt without room."""
    params, prompt = request.params, len(request.prompt_ids)
    if prompt == 0:
        raise InputError("the prompt is empty; give at least one token", param="messages")
    if not 0 <= min(request.prompt_ids) <= max(request.prompt_ids) < vocab_size:
        raise InputError(f"the prompt has a token that is not among the model's {vocab_size}", param="prompt")
    for name, tokens in (("logit_bias", params.logit_bias), ("stop_token_ids", params.stop_token_ids)):
        outside = [t for t in tokens if not 0 <= t < vocab_size]
        if outside:
            raise InputError(f"{name}: the model has no token {outside[0]}", param=name)
    if context_length - prompt < (request.task == "generate"):
        raise ContextLengthError(
            f"this model's context is {context_length} tokens, the messages have {prompt}; shorten them",
            code="context_length_exceeded",
            param="messages",
        )


@dataclass(frozen=True, kw_only=True)
class TokenLogprobs:
    """One place of a text: the token there, its log-prob, and the likeliest tokens with theirs, the likeliest first.

    Natural logs under the model's own distribution: temperature 1, no truncation, no penalties. begin: of an answer's
    token, the character of the text at which it begins; for one inside a character, that character.
    """

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()
    begin: int = 0


@dataclass(frozen=True, kw_only=True)
class Timing:
    """When things happened, in seconds of one clock. began: when the first step had it, None if it never ran. tokens:
    when each token of the answer was there."""

    submitted: float
    began: float | None = None
    tokens: tuple[float, ...]

    @property
    def first_token(self) -> float | None:
        """Seconds to the first token (TTFT)."""
        return self.tokens[0] - self.submitted if self.tokens else None

    @property
    def per_token(self) -> float | None:
        """Seconds a token after the first (TPOT)."""
        return (self.tokens[-1] - self.tokens[0]) / (len(self.tokens) - 1) if len(self.tokens) > 1 else None


@dataclass(frozen=True, kw_only=True)
class Call:
    """A function that the answer calls. arguments: JSON, as the model wrote it."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, kw_only=True)
class CallDelta:
    """A piece of a call, the answer's `index`th. The first one has its id and name; the others are of its arguments."""

    index: int
    arguments: str = ""
    id: str | None = None
    name: str | None = None


@dataclass(frozen=True, kw_only=True)
class Completion:
    """An answer. `token_ids` include the end-of-turn token if it came; `text` never does.

    logprobs: of each token under the model's own distribution (temperature 1, no truncation), natural log.
    top: at each place the likeliest tokens, if they were asked for. tokens: all of them, with where in the text they
    begin, if that was asked for; the first `shown` of them are what the text is made of (an end of turn is not, nor is
    a stop string). prompt: of each token of the prompt but the first, if that was asked for. embedding, score: of a
    prompt that was only read. cached_tokens: of the prompt, that were computed for an earlier request. timing: of two
    equal answers it may differ. calls: of functions, which are not in `text` then.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    finish_reason: FinishReason
    prompt_tokens: int
    top: tuple[tuple[tuple[int, float], ...], ...] = ()
    tokens: tuple[TokenLogprobs, ...] = ()
    shown: int = 0
    prompt: tuple[TokenLogprobs, ...] = ()
    embedding: tuple[float, ...] | None = None
    score: float | None = None
    cached_tokens: int = field(default=0, compare=False)
    timing: Timing | None = field(default=None, compare=False)
    calls: tuple[Call, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Delta:
    """A piece of a streamed answer. The last one has `completion`, or `error` if it alone failed; its `text` may be
    empty.

    tokens: those that begin in `text`, if they were asked for: of all pieces they are the completion's `shown` ones.
    prompt: with the first piece, the prompt's tokens, if they were asked for. num_tokens: that the answer has by now.
    """

    text: str
    tokens: tuple[TokenLogprobs, ...] = ()
    prompt: tuple[TokenLogprobs, ...] = ()
    num_tokens: int = 0
    completion: Completion | None = None
    error: Exception | None = None
    calls: tuple[CallDelta, ...] = ()
