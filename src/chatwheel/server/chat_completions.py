"""The request and the answer of POST /v1/chat/completions, field by field as OpenAI has them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from chatwheel.data.records import Message
from chatwheel.engine.requests import CallDelta, Completion, Delta, SamplingParams
from chatwheel.engine.structured import json_object, json_schema
from chatwheel.engine.tools import ToolUse
from chatwheel.errors import ContextLengthError, InputError
from chatwheel.server.tools import AssistantCall, NamedChoice, Tool, check_calls, tool_use

Json = dict[str, Any]
MAX_SEED = 2**63

# Fields of OpenAI's that Chatwheel does not act on yet, with the values that ask for nothing.
NEUTRAL_FIELDS: dict[str, tuple[Any, ...]] = {
    "logprobs": (False,),
    "top_logprobs": (0,),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "store": (False,),
    "service_tier": ("auto", "default"),
    "audio": (),
    "prediction": (),
    "reasoning_effort": (),
    "verbosity": (),
    "web_search_options": (),
}
NEUTRAL_MESSAGE_FIELDS: dict[str, tuple[Any, ...]] = {
    "refusal": (),
    "function_call": (),
    "audio": (),
    "annotations": ([],),
}


class TextPart(BaseModel):
    """A piece of a message. Pictures and sound are not understood yet."""

    model_config = ConfigDict(strict=True, extra="forbid")
    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    """A turn as clients send it; also as the openai library returns an answer, so that it can be sent back."""

    model_config = ConfigDict(strict=True, extra="forbid")
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    name: str | None = None
    tool_calls: list[AssistantCall] | None = None
    tool_call_id: str | None = None
    refusal: Any = None
    function_call: Any = None
    audio: Any = None
    annotations: Any = None

    def text(self) -> str:
        """The content as one string."""
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""

    def to_record(self) -> Message:
        """The turn as the assistant takes it; `developer` is the newer name of `system`."""
        return Message(
            role="system" if self.role == "developer" else self.role,
            content=self.text(),
            tool_calls=[call.to_record() for call in self.tool_calls] if self.tool_calls else None,
            tool_call_id=self.tool_call_id,
        )


class TextFormat(BaseModel):
    """Anything."""

    model_config = ConfigDict(strict=True, extra="forbid")
    type: Literal["text"]

    def grammar(self) -> str | None:
        """None: the answer is free."""
        return None


class JsonObjectFormat(BaseModel):
    """Some JSON object."""

    model_config = ConfigDict(strict=True, extra="forbid")
    type: Literal["json_object"]

    def grammar(self) -> str:
        """As the engine takes it."""
        return json_object()


class NamedSchema(BaseModel):
    """A JSON schema. strict: always done."""

    model_config = ConfigDict(strict=True, extra="forbid", populate_by_name=True)
    name: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")
    description: str | None = None
    body: Json = Field(default_factory=dict, alias="schema")
    strict: bool | None = None


class JsonSchemaFormat(BaseModel):
    """JSON that a schema admits."""

    model_config = ConfigDict(strict=True, extra="forbid")
    type: Literal["json_schema"]
    json_schema: NamedSchema

    def grammar(self) -> str:
        """As the engine takes it. Raises InputError for a schema that is none."""
        return json_schema(self.json_schema.body)


class StreamOptions(BaseModel):
    """include_usage: a last chunk with the token counts. include_obfuscation: accepted, never done."""

    model_config = ConfigDict(strict=True, extra="forbid")
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class ChatRequest(BaseModel):
    """The body. Unknown fields are refused, as OpenAI does, rather than silently not acted on."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    messages: list[ChatMessage] = Field(min_length=1)
    model: str = Field(min_length=1, max_length=1000)
    max_completion_tokens: int | None = Field(None, ge=1)
    max_tokens: int | None = Field(None, ge=1, description="Deprecated by OpenAI, still common.")
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(
        None, ge=0, le=2**31 - 1, description="Not OpenAI's: keep the k likeliest tokens; 0 is off."
    )
    n: int | None = Field(None, ge=1, le=128)
    stop: str | list[Annotated[str, Field(min_length=1)]] | None = None
    seed: int | None = Field(None, ge=-MAX_SEED, lt=MAX_SEED)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    ignore_eos: bool | None = Field(None, description="Not OpenAI's: go on past the end of the turn (benchmarks).")
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    metadata: dict[str, str] | None = None

    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None
    response_format: TextFormat | JsonObjectFormat | JsonSchemaFormat | None = Field(None, discriminator="type")
    min_p: float | None = Field(None, ge=0, le=1, description="Not OpenAI's: the least share of the likeliest token.")
    repetition_penalty: float | None = Field(None, gt=0, le=10, description="Not OpenAI's: 1 is off.")

    tools: list[Tool] | None = None
    tool_choice: str | NamedChoice | None = None
    parallel_tool_calls: bool | None = None

    logprobs: Any = None
    top_logprobs: Any = None
    functions: Any = None
    function_call: Any = None
    modalities: Any = None
    store: Any = None
    service_tier: Any = None
    audio: Any = None
    prediction: Any = None
    reasoning_effort: Any = None
    verbosity: Any = None
    web_search_options: Any = None

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

    def check(self) -> None:
        """What no single field can tell. Raises InputError that names the field."""
        _refuse_unless_neutral(self, NEUTRAL_FIELDS)
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise InputError("Set max_completion_tokens or max_tokens, not both.", param="max_tokens")
        if self.stream_options is not None and not self.stream:
            raise InputError("stream_options is only allowed when stream is true.", param="stream_options")
        for place, message in enumerate(self.messages):
            _refuse_unless_neutral(message, NEUTRAL_MESSAGE_FIELDS, f"messages[{place}].")
            if message.content is None and message.role != "assistant":
                name = f"messages[{place}].content"
                raise InputError(f"Invalid value for '{name}': expected text, got null.", param=name)
        check_calls(self.messages)

    def tool_use(self) -> ToolUse | None:
        """What the answer may call. Raises InputError that names the field."""
        return tool_use(self.tools, self.tool_choice, self.parallel_tool_calls)

    def records(self) -> list[Message]:
        """The messages as the assistant takes them."""
        return [message.to_record() for message in self.messages]

    def sampling(self, choice: int = 0) -> SamplingParams:
        """How to choose the tokens of one of the `n` choices; with a seed, each choice has its own."""
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return SamplingParams(
            temperature=1.0 if self.temperature is None else self.temperature,
            # top_p 0 keeps the one likeliest token, which every positive value this small does too
            top_p=1.0 if self.top_p is None else max(self.top_p, 1e-9),
            top_k=self.top_k or 0,
            max_tokens=self.max_completion_tokens or self.max_tokens,
            seed=None if self.seed is None else (self.seed + choice) % MAX_SEED,
            stop=tuple(text for text in stop if text),
            min_p=self.min_p or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            presence_penalty=self.presence_penalty or 0.0,
            repetition_penalty=self.repetition_penalty or 1.0,
            logit_bias={int(token): bias for token, bias in (self.logit_bias or {}).items()},
            grammar=None if self.response_format is None else self.response_format.grammar(),
            ignore_eos=bool(self.ignore_eos),
        )


def check_context(prompt_tokens: int, max_tokens: int | None, context_length: int) -> None:
    """Raises ContextLengthError, in OpenAI's words, if the prompt and the room asked for do not fit."""
    limit = f"This model's maximum context length is {context_length} tokens."
    code, advice = "context_length_exceeded", "Please reduce the length of the messages"
    if prompt_tokens >= context_length:
        found = f"However, your messages resulted in {prompt_tokens} tokens"
        raise ContextLengthError(f"{limit} {found}. {advice}.", code=code, param="messages")
    if max_tokens is not None and prompt_tokens + max_tokens > context_length:
        asked = f"{prompt_tokens + max_tokens} tokens ({prompt_tokens} in the messages, {max_tokens} in the completion)"
        raise ContextLengthError(
            f"{limit} However, you requested {asked}. {advice} or completion.", code=code, param="messages"
        )


@dataclass(frozen=True)
class AnswerFormat:
    """What all objects of one answer share."""

    model: str
    fingerprint: str
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(14)}")
    created: int = field(default_factory=lambda: int(time.time()))

    def completion(self, choices: Sequence[Completion]) -> Json:
        """The answer in one piece."""
        return self._object("chat.completion") | {
            "choices": [
                {
                    "index": index,
                    "message": message(choice),
                    "logprobs": None,
                    "finish_reason": finish_reason(choice),
                }
                for index, choice in enumerate(choices)
            ],
            "usage": usage(choices),
        }

    def chunk(self, index: int, delta: Json, reason: str | None = None, *, with_usage: bool = False) -> Json:
        """A piece of a choice."""
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
        extra: Json = {"usage": None} if with_usage else {}
        return self._object("chat.completion.chunk") | {"choices": [choice]} | extra

    def usage_chunk(self, choices: Sequence[Completion]) -> Json:
        """The last chunk when `include_usage` was asked for."""
        return self._object("chat.completion.chunk") | {"choices": [], "usage": usage(choices)}

    def _object(self, kind: str) -> Json:
        shared = {"id": self.id, "object": kind, "created": self.created, "model": self.model}
        return shared | {"system_fingerprint": self.fingerprint, "service_tier": "default"}


def message(completion: Completion) -> Json:
    """The answer's turn. With calls and without words its content is null."""
    calls = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in completion.calls
    ]
    content = completion.text or (None if calls else "")
    turn: Json = {"role": "assistant", "content": content, "refusal": None, "annotations": []}
    return turn | ({"tool_calls": calls} if calls else {})


def first_delta(delta: Delta) -> Json:
    """What a choice begins with: who speaks. Its content is null if calls come first."""
    return {"role": "assistant", "content": None if delta.calls and not delta.text else "", "refusal": None}


def call_delta(piece: CallDelta) -> Json:
    """A piece of a call: the first has its id and the name, the others are of its arguments."""
    if piece.id is None:
        return {"tool_calls": [{"index": piece.index, "function": {"arguments": piece.arguments}}]}
    function = {"name": piece.name, "arguments": piece.arguments}
    return {"tool_calls": [{"index": piece.index, "id": piece.id, "type": "function", "function": function}]}


def finish_reason(completion: Completion) -> str:
    """OpenAI's word for why the answer ended."""
    if completion.finish_reason == "length":
        return "length"
    return "tool_calls" if completion.calls else "stop"


def usage(choices: Sequence[Completion]) -> Json:
    """Token counts; the prompt counts once however many choices it got."""
    prompt = choices[0].prompt_tokens if choices else 0
    completion = sum(len(choice.token_ids) for choice in choices)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": choices[0].cached_tokens if choices else 0},
    }


def _refuse_unless_neutral(body: BaseModel, fields: dict[str, tuple[Any, ...]], prefix: str = "") -> None:
    for name, neutral in fields.items():
        value = getattr(body, name)
        # `True == 1` in Python: a bool is only as neutral as a bool in the list
        same = any(value == other and isinstance(value, bool) == isinstance(other, bool) for other in neutral)
        if value is not None and not same:
            param = prefix + name
            raise InputError(f"'{param}' is not supported by this server yet; leave it out.", param=param)
