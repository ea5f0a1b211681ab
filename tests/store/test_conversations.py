"""Conversations as rows."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from chatwheel.errors import InputError
from chatwheel.store import conversations as store
from chatwheel.store.accounts import local_principal
from chatwheel.store.conversations import RowNotFoundError
from chatwheel.store.database import Database


def me(session: Session) -> str:
    return local_principal(session).user_id


def test_a_thread_is_the_way_to_one_branch(session: Session) -> None:
    conversation = store.create_conversation(session, me(session), "m")
    first = store.add_user_message(session, conversation, "first", None)
    answer = store.add_answer(session, first, "m")
    other = store.add_answer(session, first, "m")
    second = store.add_user_message(session, conversation, "second", other.id)
    assert [row.id for row in store.thread(session, second)] == [first.id, other.id, second.id]
    assert [row.id for row in store.list_messages(session, conversation.id)] == [
        first.id,
        answer.id,
        other.id,
        second.id,
    ]


def test_an_answer_is_partial_until_it_is_saved(session: Session) -> None:
    question = store.add_user_message(session, store.create_conversation(session, me(session), "m"), "hi", None)
    answer = store.add_answer(session, question, "m")
    assert (answer.status, answer.content) == ("partial", "")
    store.save_answer(session, answer.id, "hello", "complete")
    session.refresh(answer)
    assert (answer.status, answer.content) == ("complete", "hello")


def test_the_first_message_names_the_conversation(session: Session) -> None:
    conversation = store.create_conversation(session, me(session), "m")
    question = store.add_user_message(session, conversation, "a\n  long " + "word " * 40, None)
    assert conversation.title.startswith("a long word")
    assert len(conversation.title) <= 60
    answer = store.add_answer(session, question, "m")
    store.add_user_message(session, conversation, "another", answer.id)
    assert conversation.title.startswith("a long word")


def test_deleting_takes_messages_and_ratings_along(session: Session) -> None:
    conversation = store.create_conversation(session, me(session), "m")
    answer = store.add_answer(session, store.add_user_message(session, conversation, "hi", None), "m")
    insert = "INSERT INTO ratings (message_id, value, created_at) VALUES (:id, 1, 0)"
    session.execute(text(insert), {"id": answer.id})
    store.delete_conversation(session, me(session), conversation.id)
    store.purge(session, time.time() + 1)
    for table in ("conversations", "messages", "ratings"):
        assert session.scalar(text(f"SELECT count(*) FROM {table}")) == 0
    store.save_answer(session, answer.id, "too late", "complete")  # no error


def test_what_was_deleted_is_restored_for_a_while_and_then_gone(session: Session) -> None:
    conversation = store.create_conversation(session, me(session), "m")
    question = store.add_user_message(session, conversation, "hi", None)
    kept = store.create_conversation(session, me(session), "m", "kept")
    with pytest.raises(RowNotFoundError):
        store.restore_conversation(session, me(session), kept.id)  # it was never deleted
    store.delete_conversation(session, me(session), conversation.id)
    for find in (store.get_conversation, store.rename_conversation, store.delete_conversation):
        with pytest.raises(RowNotFoundError):
            find(session, me(session), conversation.id, *(["new"] if find is store.rename_conversation else []))
    with pytest.raises(RowNotFoundError):
        store.get_message(session, me(session), question.id)
    assert [row.id for row in store.list_conversations(session, me(session))] == [kept.id]
    assert store.restore_conversation(session, me(session), conversation.id) is conversation
    assert store.get_message(session, me(session), question.id) is question
    store.delete_conversation(session, me(session), conversation.id)
    assert not store.has_deleted(session, time.time() - store.UNDO_SECONDS)
    conversation.deleted_at = time.time() - store.UNDO_SECONDS - 1
    session.flush()
    with pytest.raises(RowNotFoundError, match="for good"):
        store.restore_conversation(session, me(session), conversation.id)
    assert store.has_deleted(session, time.time() - store.UNDO_SECONDS)
    store.purge(session, time.time() - store.UNDO_SECONDS)
    assert session.scalars(text("SELECT id FROM conversations")).all() == [kept.id]


def test_a_message_follows_an_answer_of_its_own_conversation(session: Session) -> None:
    conversation, other = (
        store.create_conversation(session, me(session), "m"),
        store.create_conversation(session, me(session), "m"),
    )
    question = store.add_user_message(session, conversation, "hi", None)
    answer = store.add_answer(session, question, "m")
    with pytest.raises(InputError, match="parent_id"):
        store.add_user_message(session, other, "hi", answer.id)
    with pytest.raises(InputError, match="parent_id"):
        store.add_user_message(session, conversation, "hi", question.id)
    with pytest.raises(InputError, match="parent_id"):
        store.add_user_message(session, conversation, "hi", "msg-none")


def test_the_newest_conversation_comes_first(session: Session) -> None:
    old, new = (store.create_conversation(session, me(session), "m", title) for title in ("old", "new"))
    assert store.list_conversations(session, me(session))[0] is new
    store.add_user_message(session, old, "hi", None)
    assert [row.title for row in store.list_conversations(session, me(session))] == ["old", "new"]
    assert [row.title for row in store.list_conversations(session, me(session), before=old.updated_at)] == ["new"]


def test_a_nul_goes_into_no_row(session: Session) -> None:
    conversation = store.create_conversation(session, me(session), "m")
    question = store.add_user_message(session, conversation, "hi\x00there", None)
    assert (question.content, conversation.title) == ("hi\ufffdthere", "hi\ufffdthere")


def test_a_long_chat_goes_for_good(database: Database) -> None:
    """Each message hangs on the one before: SQLite deletes what hangs together no deeper than a thousand."""
    with database.write() as session:
        user = local_principal(session).user_id
        conversation = store.create_conversation(session, user, "m")
        parent = None
        for number in range(1500):
            parent = store.add_user_message(session, conversation, f"{number}", None).id
        rows = store.list_messages(session, conversation.id)
        for before, row in pairwise(rows):
            row.parent_id = before.id
        conversation.deleted_at = 1.0
        assert parent is not None
    with database.write() as session:
        store.purge(session, 2.0)
    with database.read() as session:
        assert store.list_messages(session, conversation.id) == []
