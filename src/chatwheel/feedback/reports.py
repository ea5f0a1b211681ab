"""Answers that an admin should look at."""

from __future__ import annotations

import time
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from chatwheel.feedback.ratings import answer_of
from chatwheel.store.conversations import RowNotFoundError, without_nul
from chatwheel.store.database import upsert
from chatwheel.store.tables import ConversationRow, MessageRow, ReportReason, ReportRow


def report(
    session: Session, user_id: str, message_id: str, reason: ReportReason, comment: str | None = None
) -> ReportRow:
    """Reports an answer of the user's; once more for the same reason replaces. Raises RowNotFoundError, InputError."""
    answer_of(session, user_id, message_id)
    said = {"comment": without_nul(comment or "").strip() or None, "created_at": time.time()}
    return upsert(
        session,
        ReportRow,
        {"message_id": message_id, "reason": reason},
        said | {"handled_at": None, "handled_by": None},
    )


def list_reports(
    session: Session, *, handled: bool = False, limit: int = 100, offset: int = 0
) -> Sequence[tuple[ReportRow, MessageRow]]:
    """Those that nobody has handled yet, the oldest first, or the others, the last handled first; with the answers."""
    query = select(ReportRow, MessageRow).join(MessageRow, MessageRow.id == ReportRow.message_id)
    query = query.join(ConversationRow, ConversationRow.id == MessageRow.conversation_id)
    query = query.where(ConversationRow.deleted_at.is_(None))
    if handled:
        query = query.where(ReportRow.handled_at.is_not(None)).order_by(ReportRow.handled_at.desc())
    else:
        query = query.where(ReportRow.handled_at.is_(None)).order_by(ReportRow.created_at)
    query = query.order_by(ReportRow.message_id, ReportRow.reason).limit(limit).offset(offset)
    return [(report, answer) for report, answer in session.execute(query)]


def handle(session: Session, message_id: str, reason: str, by: str) -> ReportRow:
    """Somebody has looked at it. Raises RowNotFoundError."""
    row = session.get(ReportRow, (message_id, reason))
    if row is None:
        raise RowNotFoundError("there is no such report; its conversation may have been deleted")
    row.handled_at, row.handled_by = time.time(), by
    session.flush()
    return row
