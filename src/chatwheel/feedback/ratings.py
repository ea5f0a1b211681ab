"""Thumbs: one current rating an answer, and a way to read them out with what was asked and answered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from pydantic import ValidationError
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from chatwheel.data.records import Rating
from chatwheel.errors import InputError
from chatwheel.store.conversations import get_message, thread
from chatwheel.store.tables import MessageRow, RatingRow

RatingValue = Literal[-1, 0, 1]


@dataclass(frozen=True)
class RatedAnswer:
    """A rating with its context. `prompt` is the conversation up to the user's message, as (role, content)."""

    rating: RatingRow
    answer: MessageRow
    prompt: tuple[tuple[str, str], ...]


def rate(
    session: Session, user_id: str, message_id: str, value: RatingValue, comment: str | None = None
) -> RatingRow | None:
    """Replaces the rating of an answer of the user's; 0 takes it back. Raises RowNotFoundError, InputError."""
    message = get_message(session, user_id, message_id)
    if message.role != "assistant":
        raise InputError(f"message {message_id!r} is the {message.role}'s; only an assistant's answer can be rated")
    session.execute(delete(RatingRow).where(RatingRow.message_id == message_id))
    if value == 0:
        return None
    row = RatingRow(message_id=message_id, value=value, comment=(comment or "").strip() or None)
    session.add(row)
    session.flush()
    return row


def ratings_of(session: Session, conversation_id: str) -> Sequence[RatingRow]:
    """The ratings of a conversation's answers."""
    query = select(RatingRow).join(MessageRow, MessageRow.id == RatingRow.message_id)
    return session.scalars(query.where(MessageRow.conversation_id == conversation_id).order_by(RatingRow.id)).all()


def read_ratings(session: Session) -> Iterator[RatedAnswer]:
    """Every rating with its answer and prompt, the oldest first."""
    query = select(RatingRow, MessageRow).join(MessageRow, MessageRow.id == RatingRow.message_id)
    for rating, answer in session.execute(query.order_by(RatingRow.created_at, RatingRow.id)):
        before = thread(session, answer)[:-1]
        yield RatedAnswer(rating=rating, answer=answer, prompt=tuple((m.role, m.content) for m in before))


def rating_records(session: Session) -> Iterator[Rating]:
    """The ratings as records to learn from (KTO), the oldest first: of whole answers, to what a person asked."""
    for rated in read_ratings(session):
        if rated.answer.status != "complete" or not rated.answer.content.strip():
            continue
        values = {
            "id": rated.answer.id,
            "source": f"ratings of {rated.answer.model}" if rated.answer.model else "ratings",
            "messages": [{"role": role, "content": content} for role, content in rated.prompt],
            "answer": rated.answer.content,
            "rating": rated.rating.value,
        }
        with suppress(ValidationError):  # a conversation that a failed model left without an answer in the middle
            yield Rating.model_validate(values)
