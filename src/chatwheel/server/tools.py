"""Functions in a chat request: `tools`, `tool_choice`, an assistant's `tool_calls`, messages of the role `tool`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from chatwheel.data.records import FunctionCall, ToolCall
from chatwheel.engine.tools import Function, ToolUse
from chatwheel.errors import InputError

MAX_TOOLS = 128
CHOICES = ("none", "auto", "required")


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class FunctionDefinition(_Body):
    """What may be called. strict: a schema that cannot be followed to the letter is refused."""

    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None

    def function(self) -> Function:
        """As the engine takes it."""
        return Function(
            name=self.name, description=self.description, parameters=self.parameters, strict=bool(self.strict)
        )


class Tool(_Body):
    """A function; OpenAI's other kinds are not understood."""

    type: Literal["function"]
    function: FunctionDefinition


class FunctionName(_Body):
    """Which function."""

    name: str


class NamedChoice(_Body):
    """The one function that must be called."""

    type: Literal["function"]
    function: FunctionName


class CalledFunction(_Body):
    """arguments: JSON as text."""

    name: str = Field(min_length=1)
    arguments: str


class AssistantCall(_Body):
    """A call in a conversation. index: from a stream's pieces that were put together; it says nothing here."""

    id: str
    type: Literal["function"]
    function: CalledFunction
    index: int | None = None

    def to_record(self) -> ToolCall:
        """As the assistant takes it."""
        return ToolCall(id=self.id, function=FunctionCall(name=self.function.name, arguments=self.function.arguments))


class Turn(Protocol):
    """What is asked of a message here."""

    role: Any
    tool_calls: list[AssistantCall] | None
    tool_call_id: str | None


def tool_use(
    tools: Sequence[Tool] | None, choice: str | NamedChoice | None, parallel: bool | None
) -> ToolUse | None:  # fmt: skip
    """What the answer may call; None without tools. Raises InputError that names the field."""
    if isinstance(choice, str) and choice not in CHOICES:
        allowed = ", ".join(map(repr, CHOICES))
        raise InputError(
            f"Invalid value for 'tool_choice': expected {allowed} or a function, got {json.dumps(choice)}.",
            param="tool_choice",
        )
    if not tools:
        if choice not in (None, "none", "auto"):
            raise InputError("'tool_choice' is only allowed when 'tools' are specified.", param="tool_choice")
        return None
    functions = _functions(tools)
    if isinstance(choice, NamedChoice):
        name = choice.function.name
        if name not in {function.name for function in functions}:
            raise InputError(
                f"Invalid value for 'tool_choice.function.name': no function {json.dumps(name)} in 'tools'.",
                param="tool_choice.function.name",
            )
        return ToolUse(functions=functions, choice="required", only=name, parallel=False)
    allowed_choice: Any = choice or "auto"
    return ToolUse(functions=functions, choice=allowed_choice, parallel=parallel is not False)


def _functions(tools: Sequence[Tool]) -> list[Function]:
    if len(tools) > MAX_TOOLS:
        raise InputError(f"Invalid 'tools': at most {MAX_TOOLS}, got {len(tools)}.", param="tools")
    functions = [tool.function.function() for tool in tools]
    seen: set[str] = set()
    for i, function in enumerate(functions):
        if function.name in seen:
            name = f"tools[{i}].function.name"
            raise InputError(f"Invalid value for '{name}': {json.dumps(function.name)} is there twice.", param=name)
        seen.add(function.name)
        try:
            function.schema  # noqa: B018 (compiled to see whether it is one)
        except InputError as error:
            name = f"tools[{i}].function.parameters"
            message = f"Invalid schema for function {json.dumps(function.name)} in '{name}': {error.message}"
            raise InputError(message, code="invalid_function_parameters", param=name) from None
    return functions


def check_calls(messages: Sequence[Turn]) -> None:
    """Each call has a result and each result a call, as OpenAI wants it. Raises InputError that names the field."""
    waiting: list[str] = []
    for i, message in enumerate(messages):
        name = f"messages[{i}]"
        if message.role == "tool":
            if message.tool_call_id is None:
                raise InputError(f"Missing required parameter: '{name}.tool_call_id'.", param=f"{name}.tool_call_id")
            if message.tool_call_id not in waiting:
                raise InputError(
                    f"Invalid value for '{name}.tool_call_id': no call {json.dumps(message.tool_call_id)} in the "
                    "assistant's message before waits for an answer.",
                    param=f"{name}.tool_call_id",
                )
            waiting.remove(message.tool_call_id)
            continue
        if waiting:
            break
        if message.tool_call_id is not None:
            raise InputError(f"'{name}.tool_call_id' is for messages of the role 'tool'.", param=f"{name}.tool_call_id")
        if message.tool_calls and message.role != "assistant":
            raise InputError(f"'{name}.tool_calls' is for the assistant's messages.", param=f"{name}.tool_calls")
        waiting = _ids(message.tool_calls or [], name)
    if waiting:
        raise InputError(
            "An assistant message with 'tool_calls' must be followed by a message of the role 'tool' for each of them; "
            f"{json.dumps(waiting[0])} has none.",
            param="messages",
        )


def _ids(calls: Sequence[AssistantCall], message: str) -> list[str]:
    ids: list[str] = []
    for j, call in enumerate(calls):
        name = f"{message}.tool_calls[{j}]"
        if call.id in ids:
            raise InputError(
                f"Invalid value for '{name}.id': {json.dumps(call.id)} is there twice.", param=f"{name}.id"
            )
        ids.append(call.id)
        try:
            is_object = not call.function.arguments.strip() or isinstance(json.loads(call.function.arguments), dict)
        except (ValueError, RecursionError):
            is_object = False
        if not is_object:
            name = f"{name}.function.arguments"
            raise InputError(f"Invalid value for '{name}': expected a JSON object as text.", param=name)
    return ids
