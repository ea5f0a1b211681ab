"""Thumbs: one current rating an answer, with reasons."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Literal

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from chatwheel.errors import InputError
from chatwheel.store.conversations import get_message, without_nul
from chatwheel.store.database import upsert
from chatwheel.store.tables import MessageRow, RatingReason, RatingRow

RatingValue = Literal[-1, 0, 1]
GOOD: tuple[RatingReason, ...] = ("right", "helpful", "clear", "well_written", "other")
BAD: tuple[RatingReason, ...] = (
    *("wrong", "made_up", "not_followed", "unclear", "too_long", "too_short"),
    *("language", "harmful", "refused", "other"),
)


def answer_of(session: Session, user_id: str, message_id: str, *, whole: bool = True) -> MessageRow:
    """An answer of the user's, to say something of. whole: not one that is still being written. Raises
    RowNotFoundError, InputError."""
    message = get_message(session, user_id, message_id)
    if message.role != "assistant":
        raise InputError(f"message {message_id!r} is the {message.role}'s; only an assistant's answer can be judged")
    if whole and message.writer is not None:
        raise InputError(f"message {message_id!r} is still being written; judge it when it is there")
    return message


def rate(
    session: Session,
    user_id: str,
    message_id: str,
    value: RatingValue,
    comment: str | None = None,
    reasons: Sequence[RatingReason] = (),
) -> RatingRow | None:
    """Replaces the rating of an answer of the user's; 0 takes it back. Raises RowNotFoundError, InputError."""
    answer_of(session, user_id, message_id)
    allowed = GOOD if value == 1 else BAD if value == -1 else ()
    for reason in reasons:
        if reason not in allowed:
            raise InputError(f"{reason!r} is no reason for that thumb; there are {', '.join(allowed) or 'none'}")
    if value == 0:
        session.execute(delete(RatingRow).where(RatingRow.message_id == message_id))
        return None
    said = {
        "value": value,
        "comment": without_nul(comment or "").strip() or None,
        "reasons": sorted(set(reasons)),
        "created_at": time.time(),
    }
    return upsert(session, RatingRow, {"message_id": message_id}, said)


def ratings_of(session: Session, conversation_id: str) -> Sequence[RatingRow]:
    """The ratings of a conversation's answers."""
    query = select(RatingRow).join(MessageRow, MessageRow.id == RatingRow.message_id)
    return session.scalars(query.where(MessageRow.conversation_id == conversation_id).order_by(RatingRow.id)).all()
