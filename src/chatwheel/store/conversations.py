"""Conversations and their messages: what the page keeps. Each function works inside the caller's transaction."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session, aliased

from chatwheel.data.records import Message
from chatwheel.errors import ChatwheelError, InputError
from chatwheel.store.search import index_answer, index_message, index_title
from chatwheel.store.tables import (
    ComparisonRow,
    ConversationRow,
    InstanceRow,
    MessageRole,
    MessageRow,
    MessageStatus,
    new_id,
)

TITLE_LENGTH = 60
UNDO_SECONDS = 30.0
"""That a deleted conversation can be restored, before it goes with all that is in it."""


class RowNotFoundError(ChatwheelError):
    """No conversation or message has that id (any more)."""

    status = 404


def create_conversation(
    session: Session,
    user_id: str,
    model: str,
    title: str = "",
    language: str | None = None,
    conversation_id: str | None = None,
) -> ConversationRow:
    """An empty conversation of a user's. conversation_id: a new one unless given."""
    row = ConversationRow(
        id=conversation_id or new_id("conv"), user_id=user_id, model=model, title=title, language=language
    )
    session.add(row)
    session.flush()
    if title:
        index_title(session, row)
    return row


def list_conversations(
    session: Session, user_id: str, limit: int = 200, before: float | None = None
) -> Sequence[ConversationRow]:
    """A user's, the newest first; `before` (an `updated_at`) goes on where the last list ended."""
    query = select(ConversationRow).where(ConversationRow.user_id == user_id, ConversationRow.deleted_at.is_(None))
    query = query.order_by(ConversationRow.updated_at.desc(), ConversationRow.id).limit(limit)
    if before is not None:
        query = query.where(ConversationRow.updated_at < before)
    return session.scalars(query).all()


def get_conversation(session: Session, user_id: str, conversation_id: str) -> ConversationRow:
    """A user's own. Raises RowNotFoundError."""
    row = session.get(ConversationRow, conversation_id)
    if row is None or row.user_id != user_id or row.deleted_at is not None:
        raise RowNotFoundError(f"conversation {conversation_id!r} not found; it may have been deleted")
    return row


def rename_conversation(session: Session, user_id: str, conversation_id: str, title: str) -> ConversationRow:
    """Raises RowNotFoundError."""
    row = get_conversation(session, user_id, conversation_id)
    row.title = without_nul(title)
    index_title(session, row)
    return row


def delete_conversation(session: Session, user_id: str, conversation_id: str) -> None:
    """Nobody finds it any more; `purge` takes it away, with its messages and their ratings. Raises RowNotFoundError."""
    get_conversation(session, user_id, conversation_id).deleted_at = time.time()
    session.flush()


def restore_conversation(session: Session, user_id: str, conversation_id: str) -> ConversationRow:
    """As if it had not been deleted. Raises RowNotFoundError where it is too late."""
    row = session.get(ConversationRow, conversation_id)
    if row is None or row.user_id != user_id or row.deleted_at is None or row.deleted_at < time.time() - UNDO_SECONDS:
        raise RowNotFoundError(f"conversation {conversation_id!r} not found; it may have been deleted for good")
    row.deleted_at = None
    session.flush()
    return row


def has_deleted(session: Session, before: float) -> bool:
    """Whether a conversation that was deleted before then is still there."""
    query = select(ConversationRow.id).where(ConversationRow.deleted_at < before).limit(1)
    return session.scalar(query) is not None


def purge(session: Session, before: float) -> None:
    """Takes away what was deleted before then."""
    gone = session.scalars(select(ConversationRow.id).where(ConversationRow.deleted_at < before)).all()
    untie(session, gone)
    session.execute(delete(ConversationRow).where(ConversationRow.id.in_(gone)))


def untie(session: Session, conversations: Sequence[str]) -> None:
    """Before they go: messages that hang on each other would go one inside the other, and SQLite goes no further than
    a thousand deep."""
    session.execute(update(MessageRow).where(MessageRow.conversation_id.in_(conversations)).values(parent_id=None))


def list_messages(session: Session, conversation_id: str) -> Sequence[MessageRow]:
    """All messages of a conversation, branches too, the oldest first."""
    query = select(MessageRow).where(MessageRow.conversation_id == conversation_id)
    return session.scalars(query.order_by(MessageRow.created_at, MessageRow.id)).all()


def get_message(session: Session, user_id: str, message_id: str) -> MessageRow:
    """One in a conversation of the user's own. Raises RowNotFoundError."""
    row = session.scalar(
        select(MessageRow)
        .join(ConversationRow, ConversationRow.id == MessageRow.conversation_id)
        .where(MessageRow.id == message_id, ConversationRow.user_id == user_id, ConversationRow.deleted_at.is_(None))
    )
    if row is None:
        raise RowNotFoundError(f"message {message_id!r} not found; its conversation may have been deleted")
    return row


@dataclass(frozen=True)
class Turn:
    """A message from a file; `id` and `parent_id` are the file's own."""

    id: str
    parent_id: str | None
    role: MessageRole
    content: str
    model: str | None
    status: MessageStatus
    created_at: float
    attachments: Sequence[Mapping[str, str]] | None = None


def import_conversation(session: Session, conversation: ConversationRow, turns: Sequence[Turn]) -> ConversationRow:
    """Adds a conversation with these messages, parents first, under ids of their own."""
    conversation.title = without_nul(conversation.title)
    session.add(conversation)
    session.flush()
    index_title(session, conversation)
    ids: dict[str, str] = {}
    for turn in turns:
        row = MessageRow(
            id=ids.setdefault(turn.id, new_id("msg")),
            conversation_id=conversation.id,
            parent_id=None if turn.parent_id is None else ids[turn.parent_id],
            role=turn.role,
            content=without_nul(turn.content),
            model=turn.model,
            status=turn.status,
            attachments=_kept(turn.attachments),
            created_at=turn.created_at,
        )
        session.add(row)
        session.flush()
        index_message(session, row)
    return conversation


def latest_leaf(session: Session, conversation_id: str) -> MessageRow | None:
    """The newest message, which is where a turn without a named parent goes on: of two that were compared the better
    one, and as long as nobody has said which that is, the older one."""
    query = select(MessageRow).where(
        MessageRow.conversation_id == conversation_id, MessageRow.id.not_in(_set_aside(session, conversation_id))
    )
    return session.scalars(query.order_by(MessageRow.created_at.desc(), MessageRow.id.desc()).limit(1)).first()


def _set_aside(session: Session, conversation_id: str) -> list[str]:
    one, other = aliased(MessageRow), aliased(MessageRow)
    query = (
        select(ComparisonRow.choice, one.id, one.created_at, other.id, other.created_at)
        .join(one, one.id == ComparisonRow.first_id)
        .join(other, other.id == ComparisonRow.second_id)
        .where(one.conversation_id == conversation_id)
    )
    aside = []
    for choice, first, first_at, second, second_at in session.execute(query):
        newer = first if first_at > second_at else second
        aside.append({"first": second, "second": first}.get(choice or "", newer))
    return aside


def add_user_message(
    session: Session,
    conversation: ConversationRow,
    content: str,
    parent_id: str | None,
    attachments: Sequence[Mapping[str, str]] | None = None,
) -> MessageRow:
    """What the user said. The first one names the conversation. attachments: texts beside it, each with a name and
    content. Raises InputError."""
    check_parent(session, conversation, parent_id)
    row = MessageRow(
        conversation_id=conversation.id,
        parent_id=parent_id,
        role="user",
        content=without_nul(content),
        attachments=_kept(attachments),
    )
    session.add(row)
    unnamed = not conversation.title
    conversation.title = conversation.title or title_of(row.content)
    conversation.updated_at = time.time()
    session.flush()
    if unnamed:
        index_title(session, conversation)
    index_message(session, row)
    return row


def check_parent(session: Session, conversation: ConversationRow, parent_id: str | None) -> None:
    """Whether a question may come after that message: an answer in this conversation, or none. Raises InputError."""
    if parent_id is None:
        return
    parent = session.get(MessageRow, parent_id)
    if parent is None or parent.conversation_id != conversation.id or parent.role != "assistant":
        reason = f"parent_id: message {parent_id!r} is not an answer in this conversation"
        raise InputError(reason, param="parent_id")


def add_answer(
    session: Session,
    question: MessageRow,
    model: str,
    message_id: str | None = None,
    writer: str | None = None,
    *,
    sampling: dict[str, Any] | None = None,
    fingerprint: str | None = None,
    beside: bool = False,
) -> MessageRow:
    """A place for the answer to `question`, partial until `save_answer` says otherwise. message_id: a new one unless
    given. writer: the server that writes it, until it has ended. beside: it is only to be compared with another one;
    the conversation's model stays."""
    row = MessageRow(
        id=message_id or new_id("msg"),
        conversation_id=question.conversation_id,
        parent_id=question.id,
        role="assistant",
        content="",
        model=model,
        status="partial",
        writer=writer,
        sampling=sampling,
        fingerprint=fingerprint,
    )
    session.add(row)
    conversation = session.get_one(ConversationRow, question.conversation_id)
    if not beside:
        conversation.model = model
    conversation.updated_at = time.time()
    session.flush()
    index_message(session, row)
    return row


def save_answer(session: Session, message_id: str, content: str, status: MessageStatus, *, ended: bool = True) -> None:
    """What has been written so far. ended: nobody writes it any more. No error if the conversation was deleted
    meanwhile."""
    values: dict[str, object] = {"content": without_nul(content), "status": status}
    if ended:
        values["writer"] = None
    session.execute(update(MessageRow).where(MessageRow.id == message_id).values(values))
    index_answer(session, message_id, content)


def ask_to_stop(session: Session, message_id: str, me: str, alive_since: float) -> bool:
    """Has the server that writes an answer stop it, which looks now and then (`to_be_stopped`); False if no other one
    than `me` that has been seen since then does."""
    alive = select(InstanceRow.id).where(InstanceRow.seen_at > alive_since, InstanceRow.id != me)
    asked = update(MessageRow).where(MessageRow.id == message_id, MessageRow.writer.in_(alive)).values(stop_wanted=True)
    return session.execute(asked.returning(MessageRow.id)).first() is not None


def to_be_stopped(session: Session, message_ids: Collection[str]) -> frozenset[str]:
    """Those of these answers that somebody wants stopped."""
    wanted = select(MessageRow.id).where(MessageRow.id.in_(message_ids), MessageRow.stop_wanted.is_(True))
    return frozenset(session.scalars(wanted))


def is_written(session: Session, message_id: str) -> bool:
    """Whether some server still writes an answer."""
    return session.scalar(select(MessageRow.writer).where(MessageRow.id == message_id)) is not None


def forget_writers(session: Session, alive_since: float) -> int:
    """What servers that have not been seen since then were writing, nobody writes any more: it stays partial, as it is.
    How many answers. It reads all messages: for when a server has gone, not for every day."""
    alive = select(InstanceRow.id).where(InstanceRow.seen_at > alive_since)
    left = update(MessageRow).where(MessageRow.writer.is_not(None), MessageRow.writer.not_in(alive))
    return len(session.scalars(left.values(writer=None).returning(MessageRow.id)).all())


def without_nul(text: str) -> str:
    """PostgreSQL keeps no character 0; what stands in its place shows that there was one."""
    return text.replace("\x00", "\ufffd")


def thread(session: Session, message: MessageRow) -> list[MessageRow]:
    """The way from the conversation's first message to this one, both included."""
    rows = {row.id: row for row in list_messages(session, message.conversation_id)}
    path = [message]
    while (parent_id := path[-1].parent_id) is not None:
        path.append(rows[parent_id])
    return path[::-1]


def _kept(attachments: Sequence[Mapping[str, str]] | None) -> list[dict[str, str]] | None:
    return [{name: without_nul(one[name]) for name in ("name", "content")} for one in attachments or ()] or None


def with_attachments(content: str, attachments: Sequence[Mapping[str, str]] | None) -> str:
    """A question as a model sees it: the texts first, each between marks with its name."""
    texts = [f"[File: {one['name']}]\n{one['content'].strip()}\n[End of file]" for one in attachments or ()]
    return "\n\n".join([*texts, content])


def prompt_of(thread: Sequence[MessageRow]) -> list[Message]:
    """The turns a model sees: an answer that never came is left out, with the question it did not answer."""
    turns: list[Message] = []
    for message in thread:
        if message.role == "assistant" and not message.content:
            turns.pop()
        else:
            content = with_attachments(message.content, message.attachments)
            turns.append(Message.model_validate({"role": message.role, "content": content}))
    return turns


def branch(session: Session, conversation_id: str, leaf: str | None) -> list[MessageRow]:
    """The messages down to `leaf`, or else to the newest one. Raises RowNotFoundError for another conversation's."""
    last = latest_leaf(session, conversation_id) if leaf is None else session.get(MessageRow, leaf)
    if last is not None and last.conversation_id == conversation_id:
        return thread(session, last)
    if leaf is not None:
        raise RowNotFoundError(f"message {leaf!r} not found in this conversation")
    return []


def title_of(content: str) -> str:
    """The first line of the first message, short enough for a sidebar."""
    line = " ".join(content.split())
    return line if len(line) <= TITLE_LENGTH else line[: TITLE_LENGTH - 1].rstrip() + "…"
