"""What /v1/chat/completions and /v1/completions ask for alike: how to choose tokens, how many answers, in what way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from chatwheel.engine.requests import SamplingParams
from chatwheel.errors import ContextLengthError, InputError

MAX_SEED = 2**63
TokenId = Annotated[int, Field(ge=0, lt=2**31)]


class StreamOptions(BaseModel):
    """include_usage: a last chunk with the token counts. include_obfuscation: accepted, never done."""

    model_config = ConfigDict(strict=True, extra="forbid")
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class SamplingFields(BaseModel):
    """The shared part of a body. Unknown fields are refused, as OpenAI does, rather than silently not acted on."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    model: str = Field(min_length=1, max_length=1000)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(
        None, ge=0, le=2**31 - 1, description="Not OpenAI's: keep the k likeliest tokens; 0 is off."
    )
    min_p: float | None = Field(None, ge=0, le=1, description="Not OpenAI's: the least share of the likeliest token.")
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    repetition_penalty: float | None = Field(None, gt=0, le=10, description="Not OpenAI's: 1 is off.")
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None
    n: int | None = Field(None, ge=1, le=128)
    stop: str | list[Annotated[str, Field(min_length=1)]] | None = None
    seed: int | None = Field(None, ge=-MAX_SEED, lt=MAX_SEED)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    ignore_eos: bool | None = Field(None, description="Not OpenAI's: go on past the end of the turn (benchmarks).")
    user: str | None = None

    @field_validator("logit_bias")
    @classmethod
    def _by_token(cls, bias: dict[str, float] | None) -> dict[str, float] | None:
        for token in bias or {}:
            if not token.isdecimal() or len(token) > 10:
                raise ValueError(f"the keys must be token ids, found {token!r}")
        return bias

    @field_validator("stop")
    @classmethod
    def _at_most_four(cls, stop: str | list[str] | None) -> str | list[str] | None:
        if isinstance(stop, list) and len(stop) > 4:
            raise ValueError("at most 4 stop strings")
        return stop

    @property
    def with_usage(self) -> bool:
        """Whether a stream ends with the token counts."""
        return bool(self.stream_options and self.stream_options.include_usage)

    def check_stream(self) -> None:
        """Raises InputError for options of a stream where there is none."""
        if self.stream_options is not None and not self.stream:
            raise InputError("stream_options is only allowed when stream is true.", param="stream_options")

    def params(self, choice: int, **more: Any) -> SamplingParams:
        """How to choose the tokens of one of the choices; with a seed, each has its own. more: what the route knows."""
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return SamplingParams(
            temperature=1.0 if self.temperature is None else self.temperature,
            # top_p 0 keeps the one likeliest token, which every positive value this small does too
            top_p=1.0 if self.top_p is None else max(self.top_p, 1e-9),
            top_k=self.top_k or 0,
            min_p=self.min_p or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            presence_penalty=self.presence_penalty or 0.0,
            repetition_penalty=self.repetition_penalty or 1.0,
            logit_bias={int(token): bias for token, bias in (self.logit_bias or {}).items()},
            seed=None if self.seed is None else (self.seed + choice) % MAX_SEED,
            stop=tuple(text for text in stop if text),
            ignore_eos=bool(self.ignore_eos),
            **more,
        )


def check_context(prompt_tokens: int, max_tokens: int | None, context_length: int, param: str = "messages") -> None:
    """Raises ContextLengthError, in OpenAI's words, if the prompt and the room asked for do not fit. param: the field
    that holds the prompt."""
    limit = f"This model's maximum context length is {context_length} tokens."
    code, advice = "context_length_exceeded", f"Please reduce the length of the {param}"
    if prompt_tokens >= context_length:
        found = f"However, your {param} resulted in {prompt_tokens} tokens"
        raise ContextLengthError(f"{limit} {found}. {advice}.", code=code, param=param)
    if max_tokens is not None and prompt_tokens + max_tokens > context_length:
        asked = f"{prompt_tokens + max_tokens} tokens ({prompt_tokens} in the {param}, {max_tokens} in the completion)"
        raise ContextLengthError(
            f"{limit} However, you requested {asked}. {advice} or completion.", code=code, param=param
        )


def check_readable(texts: Sequence[Sequence[int]], context_length: int, param: str) -> None:
    """Raises ContextLengthError if one of the texts, which are only read, is longer than a model's context."""
    longest = max(map(len, texts))
    if longest > context_length:
        message = (
            f"This model's maximum context length is {context_length} tokens. However, your {param} has {longest}."
        )
        raise ContextLengthError(f"{message} Please reduce its length.", code="context_length_exceeded", param=param)
