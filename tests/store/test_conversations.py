"""Conversations as rows."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from chatwheel.errors import InputError
from chatwheel.store import conversations as store
from chatwheel.store.accounts import local_principal


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
    for table in ("conversations", "messages", "ratings"):
        assert session.scalar(text(f"SELECT count(*) FROM {table}")) == 0
    store.save_answer(session, answer.id, "too late", "complete")  # no error


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
