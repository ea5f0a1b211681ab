"""The lines of a fine-tuning file in OpenAI's shapes, as the records that the trainers read.

    supervised      {"messages", "tools"?, "parallel_tool_calls"?} -> Demonstration; assistants' messages may have a
                    "weight" of 0 (context only) or 1
    preference      {"input": {"messages", ...}, "preferred_output": [message], "non_preferred_output": [message]}
                    -> Ranking of two answers
    reinforcement   {"messages", ...fields that graders read...} -> Prompt, whose `reference` is the whole line as JSON

Shapes are pydantic's, read straight from bytes; what they cannot say (whose turn it is) is said here, with the place.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NotRequired

from pydantic import ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from chatwheel.data.records import Demonstration, Json, Prompt, Ranking
from chatwheel.jobs.fine_tuning.lines import Line

Kind = Literal["supervised", "preference", "reinforcement"]
KINDS: tuple[Kind, ...] = ("supervised", "preference", "reinforcement")
ROLES = ("system", "developer", "user", "assistant", "tool")
_MOST_A_LINE = 5
"""Faults that are told of one line: one of junk should not hide the others."""


@dataclass(frozen=True)
class Fault:
    """line: from 1; 0 if the file as a whole is meant. field: its path, as `messages[2].role`; empty if the line as a
    whole is meant. message: a sentence."""

    line: int
    field: str
    message: str

    def __str__(self) -> str:
        return f"line {self.line}{self.field and f', {self.field}'}: {self.message}" if self.line else self.message


class _Closed(TypedDict):
    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)  # type: ignore[misc]


class _Part(_Closed):
    type: Literal["text"]
    text: str


_Content = str | list[_Part]


class _Function(_Closed):
    name: Annotated[str, StringConstraints(min_length=1)]
    arguments: str


class _Call(_Closed):
    id: str
    type: Literal["function"]
    function: _Function


class _System(_Closed):
    role: Literal["system", "developer"]
    content: _Content
    name: NotRequired[str | None]


class _User(_Closed):
    role: Literal["user"]
    content: _Content
    name: NotRequired[str | None]


class _Assistant(_Closed):
    role: Literal["assistant"]
    content: NotRequired[_Content | None]
    name: NotRequired[str | None]
    refusal: NotRequired[None]
    tool_calls: NotRequired[list[_Call] | None]
    weight: NotRequired[Literal[0, 1] | None]


class _Answer(_Closed):
    role: Literal["assistant"]
    content: _Content
    name: NotRequired[str | None]


class _Tool(_Closed):
    role: Literal["tool"]
    content: _Content
    tool_call_id: str
    name: NotRequired[str | None]


_Messages = Annotated[
    list[Annotated[_System | _User | _Assistant | _Tool, Field(discriminator="role")]], Field(min_length=1)
]


class _Definition(_Closed):
    name: Annotated[str, StringConstraints(min_length=1)]
    description: NotRequired[str | None]
    parameters: NotRequired[dict[str, Any] | None]
    strict: NotRequired[bool | None]


class _ToolDefinition(_Closed):
    type: Literal["function"]
    function: _Definition


class _Supervised(_Closed):
    messages: _Messages
    tools: NotRequired[list[_ToolDefinition] | None]
    parallel_tool_calls: NotRequired[bool | None]


class _Preference(_Closed):
    input: _Supervised
    preferred_output: Annotated[list[_Answer], Field(min_length=1, max_length=1)]
    non_preferred_output: Annotated[list[_Answer], Field(min_length=1, max_length=1)]


class _Reinforcement(TypedDict):
    __pydantic_config__ = ConfigDict(extra="allow", strict=True)  # type: ignore[misc]
    messages: _Messages
    tools: NotRequired[list[_ToolDefinition] | None]
    parallel_tool_calls: NotRequired[bool | None]


_SHAPES: dict[Kind, TypeAdapter[Any]] = {
    "supervised": TypeAdapter(_Supervised),
    "preference": TypeAdapter(_Preference),
    "reinforcement": TypeAdapter(_Reinforcement),
}
_Problem = tuple[str, str]


def read_line(line: Line, kind: Kind) -> Json | list[Fault]:
    """The object of a line in its shape, or what is wrong with it: at least one fault, of a line full of them the first
    few."""
    if line.problem is not None:
        return [Fault(line.number, "", line.problem)]
    try:
        value: Json = _SHAPES[kind].validate_json(line.content)
    except ValidationError as error:
        found = _broken_text(line) or _misshapen(error, kind)
    else:
        found = list(_RULES[kind](value))
    return [Fault(line.number, *problem) for problem in found[:_MOST_A_LINE]] if found else value


def to_record(value: Json, kind: Kind) -> Demonstration | Ranking | Prompt:
    """What the trainers read. value: of a line that `read_line` has no complaint about."""
    if kind == "supervised":
        return Demonstration.model_validate(_conversation(value))
    if kind == "preference":
        outputs = [value[name][0]["content"] for name in ("preferred_output", "non_preferred_output")]
        return Ranking.model_validate(
            {**_conversation(value["input"]), "answers": [_text(output) for output in outputs], "ranks": [1, 2]}
        )
    return Prompt.model_validate({**_conversation(value), "reference": json.dumps(value, ensure_ascii=False)})


def kind_of(line: Line) -> Kind:
    """What a file is for, told from its first line: "input" is only in preferences, and demonstrations end with the
    assistant. Supervised where that cannot be told, so that the check says what is missing."""
    try:
        value = json.loads(line.content)
        if "input" in value or "preferred_output" in value:
            return "preference"
        return "reinforcement" if value["messages"][-1]["role"] in ("user", "tool") else "supervised"
    except (ValueError, TypeError, KeyError, IndexError, RecursionError):
        return "supervised"


def _conversation(value: Json) -> Json:
    messages = [_message(m) for m in value["messages"]]
    return {"messages": messages} | ({"tools": value["tools"]} if value.get("tools") else {})


def _message(message: Mapping[str, Any]) -> Json:
    role = message["role"]
    clean: Json = {"role": "system" if role == "developer" else role, "content": _text(message.get("content"))}
    for name in ("weight", "tool_calls", "tool_call_id"):
        if message.get(name) not in (None, []):
            clean[name] = message[name]
    return clean


def _text(content: Any) -> str:
    return "".join(part["text"] for part in content) if isinstance(content, list) else content or ""


# What shapes cannot say.


def _supervised_rules(value: Json) -> Iterator[_Problem]:
    messages = value["messages"]
    if problem := _turns(messages, "messages"):
        yield problem
    if messages[-1]["role"] != "assistant":
        yield f"messages[{len(messages) - 1}].role", "the last message must be the assistant's, which is what is learnt"
    elif all(m.get("weight") == 0 for m in messages if m["role"] == "assistant"):
        yield "messages", "every answer has weight 0, so there is nothing to learn"
    if value.get("tools") and not _all_finite(value["tools"]):
        yield from _not_finite(value["tools"], "tools")


def _preference_rules(value: Json) -> Iterator[_Problem]:
    yield from _prompt_rules(value["input"], "input.")


def _reinforcement_rules(value: Json) -> Iterator[_Problem]:
    yield from _prompt_rules(value, "")
    for name, field in value.items():
        if name not in ("messages", "tools"):
            yield from _not_finite(field, name)


def _prompt_rules(value: Json, where: str) -> Iterator[_Problem]:
    messages = value["messages"]
    if problem := _turns(messages, f"{where}messages"):
        yield problem
    if messages[-1]["role"] != "user":
        last = f"{where}messages[{len(messages) - 1}].role"
        yield last, "the last message must be the user's, which is what is answered"
    if value.get("tools"):
        yield f"{where}tools", "functions are learnt from supervised examples only; take them out"
    for i, message in enumerate(messages):
        if message.get("tool_calls"):
            yield f"{where}messages[{i}].tool_calls", "functions are learnt from supervised examples only; take it out"
        elif message.get("weight") is not None:
            yield f"{where}messages[{i}].weight", "only supervised examples have weights; take it out"


_RULES: dict[Kind, Callable[[Json], Iterator[_Problem]]] = {
    "supervised": _supervised_rules,
    "preference": _preference_rules,
    "reinforcement": _reinforcement_rules,
}


def _turns(messages: Sequence[Mapping[str, Any]], where: str) -> _Problem | None:
    """The first turn that is out of place, as `Conversation` has it: perhaps a system message, then user and assistant
    by turns; results follow the calls they belong to, and the assistant speaks on after the last of them."""
    waiting: list[str] = []
    turn = "user"
    for i, message in enumerate(messages):
        role = message["role"]
        if role == "tool":
            if message["tool_call_id"] not in waiting:
                return f"{where}[{i}].tool_call_id", "no call before it waits for this result"
            waiting.remove(message["tool_call_id"])
            turn = "assistant"
            continue
        if waiting:
            return f"{where}[{i}].role", f"the call {waiting[0]!r} needs its result first, a message of the role tool"
        if role in ("system", "developer"):
            if i:
                return f"{where}[{i}].role", "a system message may only come first"
            continue
        if role != turn:
            return f"{where}[{i}].role", f"expected the {turn}'s turn, found the {role}'s; join neighbours of one role"
        turn = "assistant" if role == "user" else "user"
        if role == "assistant":
            calls = message.get("tool_calls")
            if calls:
                for number, call in enumerate(calls):
                    if not _is_object(call["function"]["arguments"]):
                        place = f"{where}[{i}].tool_calls[{number}].function.arguments"
                        return place, "expected a JSON object as text"
                waiting = [call["id"] for call in calls]
            elif message.get("content") is None:
                return f"{where}[{i}].content", "is missing; only a message with tool_calls can do without"
    if waiting and messages[-1]["role"] == "tool":
        return where, f"the call {waiting[0]!r} has no result; add a message of the role tool"
    if all(m["role"] in ("system", "developer") for m in messages):
        return where, "there is no user's message"
    return None


def _is_object(text: str) -> bool:
    try:
        return not text.strip() or isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _all_finite(value: Any) -> bool:
    """Whether `_not_finite` would find nothing, in a third of its time."""
    if isinstance(value, dict):
        return all(map(_all_finite, value.values()))
    if isinstance(value, list):
        return all(map(_all_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def _not_finite(value: Any, where: str) -> Iterator[_Problem]:
    """Numbers that JSON does not have, as NaN, or that no computer holds, as 1e400."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _not_finite(item, f"{where}.{name}")
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from _not_finite(item, f"{where}[{i}]")
    elif isinstance(value, float) and not math.isfinite(value):
        yield where, "the number is not finite (NaN, Infinity or beyond 1.8e308)"


# What pydantic says, in the file's words.


def _broken_text(line: Line) -> list[_Problem]:
    try:
        line.content.decode()
    except UnicodeDecodeError as error:
        where = f"byte {error.start + 1} of the line, {line.offset + error.start} of the file"
        return [("", f"not valid UTF-8 (at {where}); save the file as UTF-8")]
    return []


_WORDS = {
    "missing": "is missing",
    "string_type": "expected text",
    "string_too_short": "is empty",
    "list_type": "expected a list",
    "dict_type": "expected an object",
    "bool_type": "expected true or false",
    "none_required": "must be null or left out",
}
_OLD = {
    "functions": "is the old form; say it with tools",
    "function_call": "is the old form; say it with tool_calls",
    "weight": "only assistant messages of supervised examples have a weight",
    "tool_calls": "cannot be here; functions are the assistant's to call, in supervised examples",
    "prompt": 'is of the old completions; write {"messages": [{"role": "user", ...}, {"role": "assistant", ...}]}',
    "completion": "is of the old completions; see prompt",
}


def _misshapen(error: ValidationError, kind: Kind) -> list[_Problem]:
    problems: dict[str, str] = {}
    for one in error.errors(include_url=False, include_context=True):
        if isinstance(one["input"], list) and one["loc"][-2:] == ("content", "str"):
            continue  # it is meant to be a list of parts
        where = _path(one["loc"])
        if one["type"] == "json_invalid":
            said = str(one["ctx"]["error"]).replace(" at line 1 column ", " at column ")
            return [("", f"not JSON ({said}); write one object a line")]
        if not where and one["type"] == "dict_type":
            return [("", f"expected an object, found {_kind_name(one['input'])}")]
        if one["type"] in ("union_tag_invalid", "union_tag_not_found"):
            where += ".role"
        problems.setdefault(where, _sentence(one))
    if kind != "preference" and "input" in problems:
        problems["input"] = "is a field of preferences; is this file meant for another method?"
    return list(problems.items())


def _sentence(one: Mapping[str, Any]) -> str:
    kind, found = one["type"], one["input"]
    if kind == "extra_forbidden":
        return _OLD.get(str(one["loc"][-1]), "is not known here; take it out")
    if kind == "union_tag_invalid":
        return f"{_shown(one['ctx']['tag'])} is no role; roles are {', '.join(ROLES)}"
    if kind == "union_tag_not_found":
        return "is missing"
    if kind == "literal_error":
        if one["loc"][-1] == "type" and isinstance(found, str):
            return f"expected {one['ctx']['expected']}, found {_shown(found)}; only text can be learnt here"
        return f"expected {one['ctx']['expected']}, found {_shown(found)}"
    if kind in ("too_short", "too_long"):
        return f"expected {'one message' if 'output' in str(one['loc'][-1]) else 'messages'}, found {len(found)}"
    said = _WORDS.get(kind, str(one["msg"]).removeprefix("Input should be ").lower())
    return f"{said}, found {_kind_name(found)}" if said.startswith("expected") else said


def _path(parts: Sequence[int | str]) -> str:
    """As one writes it: the names of a union's branches, which pydantic puts between, are left out."""
    path = ""
    for before, part in zip(("", *parts), parts, strict=False):
        if isinstance(part, int):
            path += f"[{part}]"
        elif (isinstance(before, int) and part in ROLES) or (before == "content" and part.startswith(("str", "list["))):
            continue
        else:
            path += f".{part}" if path else part
    return path


def _kind_name(value: Any) -> str:
    if value is None:
        return "null"
    names = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return names.get(type(value), "something else")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
