"""The record formats of Chatwheel: one JSON object a line, the same for people, importers and the world.

    documents        {"text", "source"?, "language"?}
    conversations    {"messages": [{"role", "content"}, ...], "tools"?, "source"?, "id"?, ...}
    prompts          a conversation that ends with a user's message
    rankings         {"messages": [...prompt...], "answers": [str, ...], "ranks": [int, ...], "scores"?: [number, ...],
                      "labeller"?, "weight"?, "source"?}
    ratings          {"messages": [...prompt...], "answer": str, "rating": 1 or -1, "source"?}

`ranks[i]` is the place of `answers[i]`: 1 is best, equal places are ties. `scores[i]` says how good it is, on any scale
on which more is better: a grade of how much better one of two answers is, is {"scores": [grade, 0]}. A rating is a
thumb: up or down.
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from chatwheel.atomic import write_atomically
from chatwheel.errors import InputError

Role = Literal["system", "user", "assistant", "tool"]
Json = dict[str, Any]


class FunctionCall(BaseModel):
    """arguments: a JSON object as text."""

    model_config = ConfigDict(frozen=True)
    name: str = Field(min_length=1)
    arguments: str

    @field_validator("arguments")
    @classmethod
    def _an_object(cls, arguments: str) -> str:
        try:
            found = json.loads(arguments) if arguments.strip() else {}
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise ValueError("expected a JSON object as text")
        return arguments


class ToolCall(BaseModel):
    """A call of a function, in an assistant's turn."""

    model_config = ConfigDict(frozen=True)
    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


class Message(BaseModel):
    """One turn. `weight` 0 keeps an assistant's turn out of the loss (OpenAI's fine-tuning format).

    tool_calls: functions that an assistant's turn calls; its content may be empty then. tool_call_id: of a turn of the
    role `tool`, the call whose result it is.
    """

    model_config = ConfigDict(frozen=True)
    role: Role
    content: str
    weight: Literal[0, 1] | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _no_content_beside_calls(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and values.get("content") is None and values.get("tool_calls"):
            return {**values, "content": ""}
        return values

    @model_validator(mode="after")
    def _calls_go_together(self) -> Message:
        if self.tool_calls and self.role != "assistant":
            raise ValueError("only the assistant has tool_calls")
        if self.role == "tool" and self.tool_call_id is None:
            raise ValueError("a message of the role tool needs the tool_call_id of its call")
        return self


class Record(BaseModel):
    """What every record may carry; unknown fields are kept, so that nothing is lost on the way."""

    model_config = ConfigDict(frozen=True, extra="allow")
    id: str | None = None
    source: str | None = None
    language: str | None = None


class Document(Record):
    """Text for pretraining."""

    text: str = Field(min_length=1)


class Conversation(Record):
    """A demonstration: the assistant's turns are what SFT imitates. tools: definitions of the functions that it may
    call, as OpenAI has them. reference: what a right answer is compared with by rules that judge; a demonstration's own
    answer unless given."""

    messages: list[Message] = Field(min_length=1)
    tools: list[Json] | None = None
    reference: str | None = None

    @field_validator("tools")
    @classmethod
    def _functions(cls, tools: list[Json] | None) -> list[Json] | None:
        for tool in tools or []:
            function = tool.get("function")
            if not isinstance(function, dict) or not isinstance(function.get("name"), str):
                raise ValueError('expected {"type": "function", "function": {"name", "description", "parameters"}}')
        return tools

    @model_validator(mode="after")
    def _turns_alternate(self) -> Conversation:
        if any(m.role == "system" for m in self.messages[1:]):
            raise ValueError("a system message may only come first")
        turns = [m.role for m in self.without_calls() if m.role != "system"]
        if not turns or any(role != ("user", "assistant")[i % 2] for i, role in enumerate(turns)):
            raise ValueError("turns must alternate user, assistant, ... starting with user")
        return self

    @property
    def uses_functions(self) -> bool:
        return bool(self.tools) or any(m.tool_calls for m in self.messages)

    def without_calls(self) -> list[Message]:
        """The turns without those of the assistant that call functions and have their results behind them, and without
        the results. Raises ValueError for a call without a result or a result without its call."""
        plain: list[Message] = []
        waiting: list[str] = []
        for message in self.messages:
            if message.role == "tool":
                if message.tool_call_id not in waiting:
                    raise ValueError(f"tool_call_id {message.tool_call_id!r}: no call before it waits for a result")
                waiting.remove(message.tool_call_id)
                if not waiting:
                    plain.pop()  # the turn that called: another one of the assistant's follows
                continue
            if waiting:
                raise ValueError(f"the call {waiting[0]!r} has no result; add a message of the role tool")
            waiting = [call.id for call in message.tool_calls or []]
            plain.append(message)
        if waiting and self.messages[-1].role == "tool":
            raise ValueError(f"the call {waiting[0]!r} has no result; add a message of the role tool")
        return plain


class Demonstration(Conversation):
    """A conversation with something to learn: it ends with the assistant's turn."""

    @model_validator(mode="after")
    def _ends_with_answer(self) -> Demonstration:
        if self.messages[-1].role != "assistant":
            raise ValueError("the last message must be the assistant's")
        return self


class Prompt(Conversation):
    """A conversation that waits for an answer: its last message is the user's."""

    @model_validator(mode="after")
    def _waits_for_answer(self) -> Prompt:
        if self.messages[-1].role != "user":
            raise ValueError("the last message must be the user's")
        if self.uses_functions:
            raise ValueError("functions are for demonstrations; prompts and rankings can't have them yet")
        return self


class Ranking(Prompt):
    """K answers to one prompt and their places, 1 = best, equal places tie. scores: how good each is, for margins; they
    follow the places. labeller: who ranked. weight: how much the ranking counts when a reward model learns from it, 1
    unless given."""

    answers: list[str] = Field(min_length=2)
    ranks: list[int]
    scores: list[float] | None = None
    labeller: str | None = None
    weight: float | None = Field(default=None, ge=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _one_rank_an_answer(self) -> Ranking:
        if len(self.ranks) != len(self.answers):
            raise ValueError(f"{len(self.answers)} answers but {len(self.ranks)} ranks")
        return self

    @model_validator(mode="after")
    def _scores_follow_the_ranks(self) -> Ranking:
        if self.scores is None:
            return self
        if len(self.scores) != len(self.answers):
            raise ValueError(f"{len(self.answers)} answers but {len(self.scores)} scores")
        if not all(map(math.isfinite, self.scores)):
            raise ValueError("scores must be finite numbers")
        for better, worse in self.pairs():
            if self.scores[better] < self.scores[worse]:
                raise ValueError(f"answer {better + 1} is placed before answer {worse + 1}, but its score is lower")
        return self

    def pairs(self) -> list[tuple[int, int]]:
        """All (better, worse) index pairs; ties give none."""
        places = range(len(self.ranks))
        return [(i, j) for i in places for j in places if self.ranks[i] < self.ranks[j]]


class Rating(Prompt):
    """An answer to a prompt and a person's thumb: 1 is up, -1 is down."""

    answer: str
    rating: Literal[-1, 1]


RecordT = TypeVar("RecordT", bound=Record)


def read_jsonl(path: Path) -> Iterator[Json]:
    """The objects of a .jsonl or .jsonl.gz file. Raises InputError naming the file, the line and the fault."""
    opener = gzip.open if path.name.endswith(".gz") else open
    number = 0
    try:
        with opener(path, "rb") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                value = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
                if not isinstance(value, dict):
                    raise InputError(f"{path}, line {number}: expected a JSON object, found {type(value).__name__}")
                yield value
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a directory, expected a file") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}, line {number}: not valid UTF-8 at byte {error.start}; convert the file") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, line {number}: not JSON ({error.msg} at column {error.colno})") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path}: damaged gzip file after line {number} ({error})") from None


def read_records(path: Path, kind: type[RecordT]) -> Iterator[RecordT]:
    """The records of a file, each validated. Raises InputError naming the file, the line and the field."""
    for number, value in enumerate(read_jsonl(path), start=1):
        try:
            yield kind.model_validate(value)
        except ValidationError as error:
            raise InputError(f"{path}, record {number}: {describe(error)}") from None


def describe(error: ValidationError) -> str:
    """The first fault of a pydantic error in one line: `field: what is wrong`."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" if where else message


def write_jsonl(path: Path, records: Iterable[Record | Json], mode: int = 0o644) -> int:
    """Writes all records or nothing (temporary file, fsync, rename); returns how many. Empty fields are left out.
    mode: who may read the file."""

    return write_atomically(path, map(json_line, records), mode)


def json_line(record: Record | Json) -> bytes:
    """A record as a line of a file; empty fields are left out."""
    value = record.model_dump(exclude_none=True) if isinstance(record, BaseModel) else record
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"
