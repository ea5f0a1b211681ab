"""Ratings: one an answer, read out with what was asked."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from chatwheel.errors import InputError
from chatwheel.feedback.ratings import rate, rating_records, ratings_of, read_ratings
from chatwheel.store import conversations as store
from chatwheel.store.accounts import local_principal
from chatwheel.store.database import Database
from chatwheel.store.tables import MessageRow, RatingRow


@pytest.fixture
def session(database_url: str) -> Iterator[Session]:
    database = Database.open(database_url)
    with database.write() as session:
        yield session
    database.close()


def me(session: Session) -> str:
    return local_principal(session).user_id


@pytest.fixture
def answer(session: Session) -> MessageRow:
    question = store.add_user_message(
        session, store.create_conversation(session, me(session), "m"), "What is 1 + 1?", None
    )
    answer = store.add_answer(session, question, "m")
    store.save_answer(session, answer.id, "Two.", "complete")
    session.refresh(answer)
    return answer


def test_rating_again_replaces(session: Session, answer: MessageRow) -> None:
    rate(session, me(session), answer.id, 1)
    rate(session, me(session), answer.id, -1, "  too short ")
    rows = session.scalars(select(RatingRow)).all()
    assert [(row.value, row.comment) for row in rows] == [(-1, "too short")]


def test_zero_takes_the_rating_back(session: Session, answer: MessageRow) -> None:
    rate(session, me(session), answer.id, 1)
    assert rate(session, me(session), answer.id, 0) is None
    assert session.scalar(select(func.count()).select_from(RatingRow)) == 0


def test_only_answers_can_be_rated(session: Session, answer: MessageRow) -> None:
    with pytest.raises(InputError, match="only an assistant's answer"):
        rate(session, me(session), answer.parent_id or "", 1)
    with pytest.raises(store.RowNotFoundError):
        rate(session, me(session), "msg-none", 1)


def test_ratings_are_read_with_prompt_and_answer(session: Session, answer: MessageRow) -> None:
    conversation = store.get_conversation(session, me(session), answer.conversation_id)
    second = store.add_answer(session, store.add_user_message(session, conversation, "And 2 + 2?", answer.id), "m")
    rate(session, me(session), second.id, -1, "wrong")
    rate(session, me(session), answer.id, 1)
    read = list(read_ratings(session))
    assert [(one.rating.value, one.answer.id) for one in read] == [(-1, second.id), (1, answer.id)]
    assert read[0].prompt == (("user", "What is 1 + 1?"), ("assistant", "Two."), ("user", "And 2 + 2?"))
    assert [row.value for row in ratings_of(session, conversation.id)] == [-1, 1]


def test_ratings_become_records_to_learn_from(session: Session, answer: MessageRow) -> None:
    conversation = store.get_conversation(session, me(session), answer.conversation_id)
    second = store.add_answer(session, store.add_user_message(session, conversation, "And 2 + 2?", answer.id), "m")
    store.save_answer(session, second.id, "Five.", "complete")
    half = store.add_answer(session, store.add_user_message(session, conversation, "3 + 3?", second.id), "m")
    store.save_answer(session, half.id, "Si", "partial")
    for row, value in ((answer, 1), (second, -1), (half, 1)):
        rate(session, me(session), row.id, value)  # type: ignore[arg-type]
        session.refresh(row)
    first, other = rating_records(session)  # what was stopped half-way was not judged whole
    assert (first.answer, first.rating, first.source) == ("Two.", 1, "ratings of m")
    assert [(m.role, m.content) for m in other.messages][-1] == ("user", "And 2 + 2?")
    assert (other.answer, other.rating) == ("Five.", -1)
