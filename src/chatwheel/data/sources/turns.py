"""Turns as people publish them -> the alternating messages of a conversation."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from chatwheel.data.records import Conversation, Demonstration, Json, Message, Prompt, Role
from chatwheel.data.sources.fields import Skip, WrongFieldError

_ROLES: dict[str, Role] = {
    **dict.fromkeys(("user", "human", "prompter", "question", "customer"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bot", "model", "bard", "bing", "answer", "agent"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
}
_TOOLS = frozenset({"tool", "function", "observation", "function_call", "tool_call"})
_CALCULATION = re.compile(r"<<[^<>\n]*>>")
_FINAL_ANSWER = re.compile(r"\n*^####\s*(.+?)\s*\Z", re.MULTILINE)
_HH_TURN = re.compile(r"(?:\A|\n\n)(Human|Assistant):")


def role_of(name: object) -> Role:
    """Our role for a published one (`human`, `gpt`, `prompter`, ...)."""
    known = str(name).strip().lower()
    if known in _TOOLS:
        raise Skip("it calls tools")
    if known not in _ROLES:
        raise WrongFieldError(f"unknown role {name!r}; expected one of {', '.join(_ROLES)}")
    return _ROLES[known]


def content_of(content: Any) -> str:
    """A message's text: a string, or OpenAI's list of parts, of which only text can be learned."""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(isinstance(part, dict) for part in content):
        if any(part.get("type") != "text" for part in content):
            raise Skip("it holds more than text")
        return "".join(str(part.get("text", "")) for part in content)
    raise WrongFieldError(f"a message's content should be a string, found {type(content).__name__}")


def turns_of(value: Any, role: str) -> list[Message]:
    """A list of messages, or a text that `role` says."""
    if isinstance(value, list) and all(isinstance(m, dict) for m in value):
        return [Message(role=role_of(m.get("role")), content=content_of(m.get("content"))) for m in value]
    return [Message(role=role_of(role), content=content_of(value))]


def conversation(turns: Iterable[Message], more: Json | None = None) -> Conversation:
    """Joins neighbours of one role by an empty line, and checks that there is something to learn; `more` goes along.

    Raises Skip for an empty turn, a first turn by the assistant, or a system message in the middle.
    """
    messages: list[Message] = []
    for turn in turns:
        if not turn.content.strip() and not turn.tool_calls and turn.role != "tool":
            raise Skip("an empty turn")
        plain = turn.role != "tool" and not turn.tool_calls
        if plain and messages and messages[-1].role == turn.role and not messages[-1].tool_calls:
            messages[-1] = _joined(messages[-1], turn)
        else:
            messages.append(turn)
    roles = [m.role for m in messages]
    if "user" not in roles:
        raise Skip("no user's turn")
    if "system" in roles[1:]:
        raise Skip("a system message in the middle")
    if roles[0] == "assistant" or roles[:2] == ["system", "assistant"]:
        raise Skip("the assistant speaks first")
    return Conversation.model_validate({**(more or {}), "messages": messages})


def exchange(question: str, answer: str, more: Json) -> Conversation:
    """One question and its answer."""
    return conversation([Message(role="user", content=question), Message(role="assistant", content=answer)], more)


def demonstration(source: Conversation) -> Demonstration:
    """Up to the last answer. Raises Skip where there is none."""
    messages = source.messages
    while messages and messages[-1].role != "assistant":
        messages = messages[:-1]
    if not messages:
        raise Skip("no answer")
    return Demonstration.model_validate({**_rest(source), "messages": messages})


def prompt(source: Conversation) -> Prompt:
    """Up to the last question. Raises Skip for one with functions, which only demonstrations have."""
    if source.uses_functions:
        raise Skip("it calls functions")
    messages = source.messages[:-1] if source.messages[-1].role == "assistant" else source.messages
    return Prompt.model_validate({**_rest(source), "messages": messages})


def task(instruction: str, given: str) -> str:
    """Instruction and input as a person would send them: one message, the input below."""
    return f"{instruction.strip()}\n\n{given.strip()}" if given.strip() else instruction


def without_calculator(answer: str) -> str:
    """GSM8K's answers as prose: `<<48/2=24>>` goes, the last line `#### 72` becomes `The answer is 72.`"""
    return _FINAL_ANSWER.sub(r"\nThe answer is \1.", _CALCULATION.sub("", answer)).strip()


def hh_messages(dialogue: str) -> list[Message]:
    """hh-rlhf's text: turns that begin with two newlines and `Human:` or `Assistant:`."""
    parts = _HH_TURN.split(dialogue)
    if len(parts) < 3 or parts[0].strip():
        raise WrongFieldError("hh-rlhf text should begin with '\\n\\nHuman: '")
    return [
        Message(role=role_of(name), content=said.strip()) for name, said in zip(parts[1::2], parts[2::2], strict=True)
    ]


def _joined(first: Message, second: Message) -> Message:
    # A turn kept out of the loss must stay out, so the stricter weight holds for both.
    weights = {first.weight, second.weight}
    weight = first.weight if len(weights) == 1 else (0 if 0 in weights else None)
    return Message(role=first.role, content=f"{first.content}\n\n{second.content}", weight=weight)


def _rest(source: Conversation) -> Json:
    return source.model_dump(exclude={"messages", "answers", "ranks", "answer", "rating"}, exclude_none=True)
