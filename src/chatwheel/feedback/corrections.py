"""What an answer should have been: a person's own words, a demonstration and a comparison in one."""

from __future__ import annotations

import time
from collections.abc import Sequence

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from chatwheel.errors import InputError
from chatwheel.feedback.ratings import answer_of
from chatwheel.store.conversations import without_nul
from chatwheel.store.database import upsert
from chatwheel.store.tables import CorrectionRow, MessageRow


def correct(session: Session, user_id: str, message_id: str, content: str) -> CorrectionRow:
    """Replaces the correction of an answer of the user's. Raises RowNotFoundError; InputError for an empty one, or one
    that changes nothing."""
    answer = answer_of(session, user_id, message_id)
    content = without_nul(content).strip()
    if not content:
        raise InputError("the corrected answer is empty", param="content")
    if content == answer.content.strip():
        raise InputError("the corrected answer is the answer as it was; change it, or give a thumb", param="content")
    return upsert(session, CorrectionRow, {"message_id": message_id}, {"content": content, "created_at": time.time()})


def take_back(session: Session, user_id: str, message_id: str) -> None:
    """As if it had not been corrected. Raises RowNotFoundError, InputError."""
    answer_of(session, user_id, message_id)
    session.execute(delete(CorrectionRow).where(CorrectionRow.message_id == message_id))


def corrections_of(session: Session, conversation_id: str) -> Sequence[CorrectionRow]:
    """Those of a conversation's answers."""
    query = select(CorrectionRow).join(MessageRow, MessageRow.id == CorrectionRow.message_id)
    return session.scalars(query.where(MessageRow.conversation_id == conversation_id)).all()
