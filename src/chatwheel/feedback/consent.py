"""Whether models may learn from somebody's chats: they say so themselves, and until then the answer is no."""

from __future__ import annotations

import time

from sqlalchemy.orm import Session

from chatwheel.store.accounts import get_user
from chatwheel.store.tables import UserRow


def set_consent(session: Session, user_id: str, improve: bool) -> UserRow:
    """From now on, or no more: then nothing of theirs is in any later export, what they said while they agreed
    included. Raises NotFoundError."""
    row = get_user(session, user_id)
    if improve != (row.improve_since is not None):
        row.improve_since = time.time() if improve else None
    session.flush()
    return row
