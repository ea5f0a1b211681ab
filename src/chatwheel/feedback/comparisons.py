"""Which of two answers is better: shown side by side, in an order drawn by chance, without saying whose they are."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from chatwheel.errors import InputError
from chatwheel.feedback.ratings import answer_of
from chatwheel.store.conversations import RowNotFoundError, get_message
from chatwheel.store.tables import Choice, ComparisonRow, MessageRow


def compare(session: Session, user_id: str, one_id: str, other_id: str) -> ComparisonRow:
    """Puts two answers of the user's to the same question beside each other. Raises RowNotFoundError, InputError."""
    one, other = (answer_of(session, user_id, message_id, whole=False) for message_id in (one_id, other_id))
    if one.id == other.id or one.parent_id is None or one.parent_id != other.parent_id:
        raise InputError("only two different answers to the same question can be compared")
    first, second = (one, other) if secrets.randbits(1) else (other, one)
    row = ComparisonRow(user_id=user_id, first_id=first.id, second_id=second.id)
    session.add(row)
    session.flush()
    return row


def choose(session: Session, user_id: str, comparison_id: str, choice: Choice) -> ComparisonRow:
    """Says which one is better; later choices replace. Raises RowNotFoundError; InputError while an answer is still
    being written, or did not come."""
    row = session.get(ComparisonRow, comparison_id)
    if row is None or row.user_id != user_id:
        raise RowNotFoundError(f"comparison {comparison_id!r} not found; its conversation may have been deleted")
    for message_id in (row.first_id, row.second_id):
        answer = get_message(session, user_id, message_id)
        if answer.writer is not None or not answer.content:
            raise InputError("one of the two answers is not there yet; choose when both are")
    row.choice, row.chosen_at = choice, time.time()
    session.flush()
    return row


def models_of(session: Session, comparison: ComparisonRow) -> list[str | None]:
    """Of the first and the second answer: for who has chosen."""
    return [session.get_one(MessageRow, one).model for one in (comparison.first_id, comparison.second_id)]


def comparisons_of(session: Session, conversation_id: str) -> Sequence[ComparisonRow]:
    """Those of a conversation, the oldest first."""
    query = select(ComparisonRow).join(
        MessageRow, or_(MessageRow.id == ComparisonRow.first_id, MessageRow.id == ComparisonRow.second_id)
    )
    query = query.where(MessageRow.conversation_id == conversation_id).distinct()
    return session.scalars(query.order_by(ComparisonRow.created_at, ComparisonRow.id)).all()
