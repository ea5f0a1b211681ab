"""Links to branches of conversations. Each function works inside the caller's transaction."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from chatwheel.store.conversations import RowNotFoundError, branch, get_conversation
from chatwheel.store.database import upsert
from chatwheel.store.tables import ConversationRow, MessageRow, ShareRow, UserRow


def share(session: Session, user_id: str, conversation_id: str, leaf: str | None) -> ShareRow:
    """Of the branch down to the message `leaf`, or else to the newest one; the same link for the same branch. Raises
    RowNotFoundError."""
    get_conversation(session, user_id, conversation_id)
    messages = branch(session, conversation_id, leaf)
    if not messages:
        raise RowNotFoundError("there is nothing to share yet; ask something first")
    return upsert(session, ShareRow, {"leaf_id": messages[-1].id}, {"conversation_id": conversation_id})


def list_shares(session: Session, user_id: str, conversation_id: str) -> Sequence[ShareRow]:
    """A conversation's, the newest first. Raises RowNotFoundError."""
    get_conversation(session, user_id, conversation_id)
    query = select(ShareRow).where(ShareRow.conversation_id == conversation_id)
    return session.scalars(query.order_by(ShareRow.created_at.desc(), ShareRow.id)).all()


def revoke(session: Session, user_id: str, share_id: str) -> None:
    """The link opens nothing any more. Raises RowNotFoundError."""
    row = session.get(ShareRow, share_id)
    missing = RowNotFoundError(f"share {share_id!r} not found; it may have been revoked")
    if row is None:
        raise missing
    try:
        get_conversation(session, user_id, row.conversation_id)
    except RowNotFoundError:
        raise missing from None
    session.delete(row)


def read(session: Session, token: str) -> tuple[ConversationRow, list[MessageRow]]:
    """What a link shows: not of a conversation that was deleted, nor of somebody who is disabled. Raises
    RowNotFoundError."""
    query = (
        select(ShareRow, ConversationRow)
        .join(ConversationRow, ConversationRow.id == ShareRow.conversation_id)
        .join(UserRow, UserRow.id == ConversationRow.user_id)
        .where(ShareRow.token == token, ConversationRow.deleted_at.is_(None), UserRow.disabled_at.is_(None))
    )
    found = session.execute(query).first()
    if found is None:
        raise RowNotFoundError("this link opens nothing; it may have been revoked, or its conversation deleted")
    row, conversation = found
    return conversation, branch(session, conversation.id, row.leaf_id)
