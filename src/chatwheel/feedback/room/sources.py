"""Where tasks come from beside files: what people asked in their chats, if they let models learn from these, and what
labellers wrote in another queue."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from chatwheel.data.records import Message
from chatwheel.errors import InputError
from chatwheel.feedback.room.outcome import written
from chatwheel.feedback.room.queues import MOST_ANSWERS, MOST_CHARACTERS, NewAnswer, NewTask
from chatwheel.feedback.room.reading import Judged, judged_tasks
from chatwheel.store.tables import ConversationRow, LabellingQueueRow, MessageRow, UserRow


def chat_prompts(session: Session, limit: int) -> list[NewTask]:
    """The first questions of conversations that were begun by people who had agreed to it, the newest first. They are
    theirs: nobody judges answers to their own question."""
    first = (
        select(MessageRow.conversation_id, func.min(MessageRow.created_at).label("at"))
        .where(MessageRow.role == "user", MessageRow.parent_id.is_(None))
        .group_by(MessageRow.conversation_id)
        .subquery()
    )
    query = (
        select(MessageRow, ConversationRow)
        .join(first, (first.c.conversation_id == MessageRow.conversation_id) & (first.c.at == MessageRow.created_at))
        .join(ConversationRow, ConversationRow.id == MessageRow.conversation_id)
        .join(UserRow, UserRow.id == ConversationRow.user_id)
        .where(
            MessageRow.role == "user",
            MessageRow.parent_id.is_(None),
            ConversationRow.deleted_at.is_(None),
            UserRow.improve_since.is_not(None),
            UserRow.improve_since <= ConversationRow.created_at,
            func.length(MessageRow.content) <= MOST_CHARACTERS,
        )
        .order_by(ConversationRow.created_at.desc(), MessageRow.id)
        .limit(limit)
    )
    return [
        NewTask(
            [Message(role="user", content=message.content)],
            author_id=conversation.user_id,
            source="chats",
            language=conversation.language,
        )
        for message, conversation in session.execute(query)
        if message.content.strip()
    ]


def tasks_of_queue(session: Session, source: LabellingQueueRow, kind: str) -> list[NewTask]:
    """What was written in a queue as tasks of another one, of that kind: prompts to reply to, replies to rank or to
    rate. Raises InputError where they do not fit."""
    judged = judged_tasks(session, source)
    if source.kind == "prompt" and kind == "reply":
        return [
            NewTask(
                [Message(role="user", content=text)], author_id=who, source=one.task.source, language=one.task.language
            )
            for one, who, text in written(judged)
        ]
    if source.kind == "reply" and kind in ("rank", "rate"):
        return list(_of_replies(judged, kind))
    raise InputError(
        f"what was done in a queue of the kind {source.kind!r} is no task for one of the kind {kind!r}; "
        "prompts become tasks to reply to, replies such to rank or to rate",
        param="from_queue",
    )


def _of_replies(judged: Sequence[Judged], kind: str) -> Iterator[NewTask]:
    for one in judged:
        replies = {text: who for _, who, text in reversed(written([one]))}
        answers = [NewAnswer(text, author_id=who) for text, who in reversed(replies.items())]
        about = {"author_id": one.task.author_id, "source": one.task.source, "language": one.task.language}
        if kind == "rate":
            for answer in answers:
                yield NewTask(one.prompt, [answer], **about)
        elif len(answers) >= 2:
            yield NewTask(one.prompt, answers[:MOST_ANSWERS], **about)
