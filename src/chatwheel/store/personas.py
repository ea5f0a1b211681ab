"""Personas, custom instructions and prompts of users. Each function works inside the caller's transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from chatwheel.data.records import Message
from chatwheel.errors import InputError
from chatwheel.store.conversations import RowNotFoundError, without_nul
from chatwheel.store.database import upsert
from chatwheel.store.tables import BriefRow, InstructionRow, PersonaRow, PromptRow

MOST = 200
"""Of each kind that a user may keep."""
RowT = TypeVar("RowT", PersonaRow, PromptRow)
NOUNS = {PersonaRow: "persona", PromptRow: "prompt"}


def list_own(session: Session, kind: type[RowT], user_id: str) -> Sequence[RowT]:
    """A user's, the oldest first."""
    return session.scalars(select(kind).where(kind.user_id == user_id).order_by(kind.created_at, kind.id)).all()


def get_own(session: Session, kind: type[RowT], user_id: str, row_id: str) -> RowT:
    """Raises RowNotFoundError."""
    row = session.get(kind, row_id)
    if row is None or row.user_id != user_id:
        raise RowNotFoundError(f"{NOUNS[kind]} {row_id!r} not found; it may have been deleted")
    return row


def add(session: Session, kind: type[RowT], user_id: str, values: Mapping[str, Any]) -> RowT:
    """Raises InputError where there are too many."""
    count = session.scalar(select(func.count()).select_from(kind).where(kind.user_id == user_id)) or 0
    if count >= MOST:
        raise InputError(f"there are {count} already; delete a {NOUNS[kind]} first")
    row = kind(user_id=user_id, **_clean(values))
    session.add(row)
    session.flush()
    return row


def change(session: Session, kind: type[RowT], user_id: str, row_id: str, values: Mapping[str, Any]) -> RowT:
    """Conversations that began with it keep what they began with. Raises RowNotFoundError."""
    row = get_own(session, kind, user_id, row_id)
    for name, value in _clean(values).items():
        setattr(row, name, value)
    session.flush()
    return row


def remove(session: Session, kind: type[RowT], user_id: str, row_id: str) -> None:
    """Raises RowNotFoundError."""
    session.delete(get_own(session, kind, user_id, row_id))


def instruction_of(session: Session, user_id: str) -> str:
    """Empty where the user has none."""
    row = session.get(InstructionRow, user_id)
    return row.content if row else ""


def set_instruction(session: Session, user_id: str, content: str) -> str:
    """For conversations that begin from now on."""
    return upsert(session, InstructionRow, {"user_id": user_id}, {"content": without_nul(content).strip()}).content


def begin_with(session: Session, conversation_id: str, user_id: str, persona: PersonaRow | None) -> BriefRow | None:
    """Keeps with a new conversation what it begins with: the persona's prompt, then the user's instruction. None where
    there is neither."""
    parts = [persona.system_prompt if persona else "", instruction_of(session, user_id)]
    system = "\n\n".join(part for part in parts if part)
    if not system and persona is None:
        return None
    row = BriefRow(
        conversation_id=conversation_id,
        persona=persona.name if persona else None,
        system_prompt=system,
        temperature=persona.temperature if persona else None,
        max_tokens=persona.max_tokens if persona else None,
    )
    session.add(row)
    session.flush()
    return row


def keep_brief(session: Session, conversation_id: str, values: Mapping[str, Any]) -> None:
    """What a conversation from a file began with: the columns of a brief."""
    session.add(BriefRow(conversation_id=conversation_id, **_clean(values)))
    session.flush()


def brief_of(session: Session, conversation_id: str) -> BriefRow | None:
    """What a conversation began with, if with anything."""
    return session.get(BriefRow, conversation_id)


def system_turn(brief: BriefRow | None) -> list[Message]:
    """The turn that stands before all others, if there is one."""
    return [Message(role="system", content=brief.system_prompt)] if brief and brief.system_prompt else []


def _clean(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: without_nul(value) if isinstance(value, str) else value for name, value in values.items()}
