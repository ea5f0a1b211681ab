"""Whether models may learn from somebody's chats: they say so themselves, and until then the answer is no."""

from __future__ import annotations

import time

from sqlalchemy import update
from sqlalchemy.orm import Session

from chatwheel.feedback.room.reading import CHATS
from chatwheel.store.accounts import get_user
from chatwheel.store.tables import LabellingTaskRow, UserRow


def set_consent(session: Session, user_id: str, improve: bool) -> UserRow:
    """From now on, or no more: then nothing of theirs is in any later export, what they said while they agreed
    included, nor in one of everybody who has not refused. Raises NotFoundError."""
    row = get_user(session, user_id)
    now = time.time()
    if improve:
        row.improve_since, row.refused_at = row.improve_since or now, None
    else:
        row.improve_since, row.refused_at = None, row.refused_at or now
        # What was asked in their chats goes out of the labelling room too.
        theirs = (LabellingTaskRow.author_id == user_id, LabellingTaskRow.source == CHATS)
        session.execute(update(LabellingTaskRow).where(*theirs).values(state="withdrawn"))
    session.flush()
    return row
