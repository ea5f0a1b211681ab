"""Conversations as files: one's own (JSON with the whole tree, Markdown of a branch), and those of ChatGPT's export."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from chatwheel.errors import InputError
from chatwheel.store.conversations import Turn, title_of
from chatwheel.store.tables import BriefRow, ConversationRow, MessageRow, MessageStatus

FORMAT: Literal["chatwheel.conversation"] = "chatwheel.conversation"
MOST_CONVERSATIONS = 1000
MOST_MESSAGES = 20_000
"""Of a conversation."""
LONGEST_SYSTEM = 30_000
LATEST = 1e11
"""Seconds: beyond any clock."""


class SavedMessage(BaseModel):
    """parent_id: the message before, which stands before it in the file; null for a first question."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)
    id: str = Field(min_length=1, max_length=200)
    parent_id: str | None = Field(max_length=200)
    role: Literal["user", "assistant"]
    content: str
    model: str | None = Field(None, max_length=1000)
    status: MessageStatus = "complete"
    created_at: float = Field(ge=0, le=LATEST)


class SavedConversation(BaseModel):
    """A conversation as a file, with all its branches; without ratings and other feedback."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)
    format: Literal["chatwheel.conversation"] = FORMAT
    version: Literal[1] = 1
    title: str = Field(max_length=200)
    model: str = Field(max_length=1000)
    language: str | None = Field(None, max_length=16)
    created_at: float = Field(ge=0, le=LATEST)
    updated_at: float = Field(ge=0, le=LATEST)
    persona: str | None = Field(None, max_length=100)
    system_prompt: str = Field("", max_length=LONGEST_SYSTEM)
    temperature: float | None = Field(None, ge=0, le=2)
    max_tokens: int | None = Field(None, ge=1, le=1_000_000)
    messages: list[SavedMessage] = Field(max_length=MOST_MESSAGES)

    @staticmethod
    def of(
        conversation: ConversationRow, messages: Sequence[MessageRow], brief: BriefRow | None = None
    ) -> SavedConversation:
        """As it is now. messages: parents first."""
        return SavedConversation(
            title=conversation.title,
            model=conversation.model,
            language=conversation.language,
            created_at=conversation.created_at,
            updated_at=conversation.updated_at,
            persona=brief.persona if brief else None,
            system_prompt=brief.system_prompt if brief else "",
            temperature=brief.temperature if brief else None,
            max_tokens=brief.max_tokens if brief else None,
            messages=[
                SavedMessage.model_validate(
                    {name: getattr(row, name) for name in SavedMessage.model_fields}, strict=False
                )
                for row in messages
            ],
        )

    def turns(self) -> list[Turn]:
        """What is to be kept. Raises InputError where the messages are no tree of questions and answers."""
        roles: dict[str, str] = {}
        for place, message in enumerate(self.messages):
            where = f"messages[{place}]"
            if message.id in roles:
                raise InputError(f"{where}.id: {message.id!r} stands twice")
            if message.parent_id is not None and message.parent_id not in roles:
                raise InputError(f"{where}.parent_id: {message.parent_id!r} is no message before it")
            before = "assistant" if message.parent_id is None else roles[message.parent_id]
            if message.role == before:
                raise InputError(f"{where}.role: answers follow questions, and questions follow answers")
            roles[message.id] = message.role
        return [Turn(**message.model_dump()) for message in self.messages]


def markdown_of(title: str, branch: Sequence[MessageRow]) -> str:
    """A branch to be read."""
    parts = [f"# {' '.join(title.split())}"]
    for message in branch:
        name = "You" if message.role == "user" else f"Answer ({message.model})" if message.model else "Answer"
        parts.append(f"## {name}\n\n{message.content.strip()}")
    return "\n\n".join(parts) + "\n"


def parse(given: object) -> list[SavedConversation]:
    """What a file holds: one conversation or a list of them, our own or ChatGPT's. Raises InputError."""
    items = given if isinstance(given, list) else [given]
    if len(items) > MOST_CONVERSATIONS:
        raise InputError(f"The file has {len(items)} conversations; send at most {MOST_CONVERSATIONS} together.")
    found = []
    for place, item in enumerate(items):
        where = f"conversation {place + 1}: " if isinstance(given, list) else ""
        try:
            saved = _parse_one(item)
            saved.turns()
        except ValidationError as error:
            fault = error.errors(include_url=False)[0]
            field = ".".join(map(str, fault["loc"]))
            raise InputError(f"The file cannot be imported: {where}{field}: {fault['msg']}") from None
        except InputError as error:
            raise InputError(f"The file cannot be imported: {where}{error.message}") from None
        if saved.messages:
            found.append(saved)
    if not found:
        raise InputError("The file cannot be imported: there is no text in it")
    return found


def _parse_one(item: object) -> SavedConversation:
    if isinstance(item, dict) and isinstance(item.get("mapping"), dict):
        return _from_chatgpt(item)
    if isinstance(item, dict) and item.get("format") == FORMAT:
        return SavedConversation.model_validate(item)
    raise InputError("it is neither a conversation that was exported here nor one of ChatGPT's export")


@dataclass
class _Turn:
    """Parts of ChatGPT's that follow each other and are one turn: between them stood what is not text."""

    role: Literal["user", "assistant"]
    content: str
    model: str | None
    created_at: float
    parent: str | None
    id: str | None = None


def _from_chatgpt(item: Mapping[str, Any]) -> SavedConversation:
    """Its tree of nodes, of which those with text that people saw become messages. What answers nothing is left out."""
    nodes: Mapping[str, Any] = item["mapping"]
    begun = _time(item.get("create_time"), time.time())
    ended = _time(item.get("update_time"), begun)
    saved: list[SavedMessage] = []

    def keep(turn: _Turn) -> str:
        if turn.id is None:
            turn.id = str(len(saved))
            saved.append(
                SavedMessage(
                    id=turn.id,
                    parent_id=turn.parent,
                    role=turn.role,
                    content=turn.content,
                    model=turn.model,
                    created_at=turn.created_at,
                )
            )
        return turn.id

    roots = [name for name, node in nodes.items() if isinstance(node, dict) and node.get("parent") not in nodes]
    waiting: list[tuple[str, _Turn | None]] = [(name, None) for name in reversed(roots)]
    seen: set[str] = set()
    while waiting:
        name, before = waiting.pop()
        node = nodes.get(name)
        if name in seen or not isinstance(node, dict):
            continue
        seen.add(name)
        turn = _turn_of(node.get("message"), begun, before)
        if turn is not None:
            if before is not None and turn.role != before.role:
                turn.parent = keep(before)
            before = turn
        children = node.get("children")
        names = [child for child in children if isinstance(child, str)] if isinstance(children, list) else []
        if not names and before is not None:
            keep(before)
        waiting += [(child, before) for child in reversed(names)]
    title = item.get("title")
    named = " ".join(title.split())[:200] if isinstance(title, str) else ""
    model = item.get("default_model_slug")
    return SavedConversation(
        title=named or (title_of(saved[0].content) if saved else ""),
        model=model if isinstance(model, str) and len(model) <= 1000 else "",
        language=None,
        created_at=begun,
        updated_at=ended,
        persona=None,
        system_prompt="",
        temperature=None,
        max_tokens=None,
        messages=saved,
    )


def _turn_of(message: object, begun: float, before: _Turn | None) -> _Turn | None:
    """None for a node without text that a person saw."""
    if not isinstance(message, dict):
        return None
    author, content, about = (_object(message.get(name)) for name in ("author", "content", "metadata"))
    role = author.get("role")
    parts = content.get("parts")
    hidden = about.get("is_visually_hidden_from_conversation") is True
    if role not in ("user", "assistant") or hidden or not isinstance(parts, list):
        return None
    text = "\n\n".join(part for part in parts if isinstance(part, str) and part.strip())
    if not text or (role == "assistant" and before is None):
        return None
    model = about.get("model_slug")
    turn = _Turn(
        role=role,
        content=text,
        model=model if role == "assistant" and isinstance(model, str) and len(model) <= 1000 else None,
        created_at=_time(message.get("create_time"), before.created_at if before else begun),
        parent=None,
    )
    if before is not None and before.role == role:
        turn.content, turn.parent = f"{before.content}\n\n{text}", before.parent
    return turn


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _time(value: object, otherwise: float) -> float:
    known = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if known and 0 <= value <= LATEST else otherwise  # type: ignore[arg-type,operator]
