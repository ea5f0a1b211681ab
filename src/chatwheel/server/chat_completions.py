"""The request and the answer of POST /v1/chat/completions, field by field as OpenAI has them."""

from __future__ import annotations

import secrets
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from chatwheel.data.records import Message
from chatwheel.engine.requests import CallDelta, Completion, Delta, SamplingParams
from chatwheel.engine.structured import json_object, json_schema
from chatwheel.engine.tools import ToolUse
from chatwheel.errors import InputError
from chatwheel.server.sampling import SamplingFields
from chatwheel.server.tools import AssistantCall, NamedChoice, Tool, check_calls, tool_use

Json = dict[str, Any]
Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]], Field(max_length=16)
]

# Fields of OpenAI's that Chatwheel does not act on yet, with the values that ask for nothing.
NEUTRAL_FIELDS: dict[str, tuple[Any, ...]] = {
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
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


class ChatRequest(SamplingFields):
    """The body. store: accepted; nothing is stored, whatever it says."""

    messages: list[ChatMessage] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    max_tokens: int | None = Field(None, ge=1, description="Deprecated by OpenAI, still common.")
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    response_format: TextFormat | JsonObjectFormat | JsonSchemaFormat | None = Field(None, discriminator="type")
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    metadata: Metadata | None = None
    store: bool | None = None

    tools: list[Tool] | None = None
    tool_choice: str | NamedChoice | None = None
    parallel_tool_calls: bool | None = None

    functions: Any = None
    function_call: Any = None
    modalities: Any = None
    service_tier: Any = None
    audio: Any = None
    prediction: Any = None
    reasoning_effort: Any = None
    verbosity: Any = None
    web_search_options: Any = None

    def check(self) -> None:
        """What no single field can tell. Raises InputError that names the field."""
        _refuse_unless_neutral(self, NEUTRAL_FIELDS)
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise InputError("Set max_completion_tokens or max_tokens, not both.", param="max_tokens")
        if self.top_logprobs is not None and not self.logprobs:
            raise InputError("top_logprobs is only allowed when logprobs is true.", param="top_logprobs")
        self.check_stream()
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
        return self.params(
            choice,
            max_tokens=self.max_completion_tokens or self.max_tokens,
            grammar=None if self.response_format is None else self.response_format.grammar(),
            logprobs=bool(self.logprobs),
            top_logprobs=self.top_logprobs or 0,
        )


class Piece(NamedTuple):
    """A piece of one of the answers, and its tokens with their log-probs, if those were asked for."""

    choice: int
    delta: Delta
    logprobs: list[Json] | None


@dataclass(frozen=True)
class AnswerFormat:
    """What all objects of one answer share."""

    model: str
    fingerprint: str
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(14)}")
    created: int = field(default_factory=lambda: int(time.time()))

    def completion(self, pieces: Iterable[Piece], usage: Json) -> Json:
        """The answer in one piece, from all pieces of all choices."""
        choices: dict[int, Json] = {}
        logprobs: defaultdict[int, list[Json]] = defaultdict(list)
        for index, delta, tokens in pieces:
            logprobs[index] += tokens or []
            if (completion := delta.completion) is not None:
                choices[index] = {
                    "index": index,
                    "message": message(completion),
                    "logprobs": None if tokens is None else _logprobs(logprobs[index]),
                    "finish_reason": finish_reason(completion),
                }
        return self._object("chat.completion") | {"choices": [choices[i] for i in sorted(choices)], "usage": usage}

    def chunks(self, piece: Piece, *, first: bool, with_usage: bool) -> Iterator[Json]:
        """A piece of a choice, as its chunks. first: of this choice."""
        index, delta, tokens = piece
        parts: list[Json] = [{"content": delta.text}] if delta.text or tokens else []
        parts += [call_delta(call) for call in delta.calls]
        if first:
            yield self._chunk(index, first_delta(delta), with_usage=with_usage)
        for place, part in enumerate(parts):
            logprobs = _logprobs(tokens) if tokens and not place else None
            yield self._chunk(index, part, logprobs, with_usage=with_usage)
        if delta.completion:
            yield self._chunk(index, {}, reason=finish_reason(delta.completion), with_usage=with_usage)

    def usage_chunk(self, usage: Json) -> Json:
        """The last chunk when `include_usage` was asked for."""
        return self._object("chat.completion.chunk") | {"choices": [], "usage": usage}

    def _chunk(
        self, index: int, delta: Json, logprobs: Json | None = None, reason: str | None = None, *, with_usage: bool
    ) -> Json:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        extra: Json = {"usage": None} if with_usage else {}
        return self._object("chat.completion.chunk") | {"choices": [choice]} | extra

    def _object(self, kind: str) -> Json:
        shared = {"id": self.id, "object": kind, "created": self.created, "model": self.model}
        return shared | {"system_fingerprint": self.fingerprint, "service_tier": "default"}


def _logprobs(tokens: list[Json]) -> Json:
    return {"content": tokens, "refusal": None}


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


def _refuse_unless_neutral(body: BaseModel, fields: dict[str, tuple[Any, ...]], prefix: str = "") -> None:
    for name, neutral in fields.items():
        value = getattr(body, name)
        # `True == 1` in Python: a bool is only as neutral as a bool in the list
        same = any(value == other and isinstance(value, bool) == isinstance(other, bool) for other in neutral)
        if value is not None and not same:
            param = prefix + name
            raise InputError(f"'{param}' is not supported by this server yet; leave it out.", param=param)
