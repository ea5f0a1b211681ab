"""Ratings: one an answer, read out with what was asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from chatwheel.errors import InputError
from chatwheel.feedback.comparisons import choose, compare, comparisons_of
from chatwheel.feedback.corrections import correct, corrections_of
from chatwheel.feedback.export import Export
from chatwheel.feedback.ratings import rate, ratings_of
from chatwheel.feedback.reports import report
from chatwheel.store import conversations as store
from chatwheel.store.accounts import local_principal
from chatwheel.store.database import Database
from chatwheel.store.tables import Base, CorrectionRow, MessageRow, RatingRow, ReportRow, UserRow


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


def test_ratings_become_records_to_learn_from(session: Session, answer: MessageRow) -> None:
    conversation = store.get_conversation(session, me(session), answer.conversation_id)
    second = store.add_answer(session, store.add_user_message(session, conversation, "And 2 + 2?", answer.id), "m")
    store.save_answer(session, second.id, "Five.", "complete")
    half = store.add_answer(session, store.add_user_message(session, conversation, "3 + 3?", second.id), "m")
    store.save_answer(session, half.id, "Si", "partial")
    for row, value in ((answer, 1), (second, -1), (half, 1)):
        rate(session, me(session), row.id, value)  # type: ignore[arg-type]
        session.refresh(row)
    assert list(Export(session, "salt").ratings()) == []  # nobody has agreed
    first, other = Export(session, "salt", everybody=True).ratings()  # what was stopped half-way was not judged whole
    assert (first.answer, first.rating, first.model) == ("Two.", 1, "m")  # type: ignore[attr-defined]
    assert [row.value for row in ratings_of(session, conversation.id)] == [1, -1, 1]
    assert [(m.role, m.content) for m in other.messages][-1] == ("user", "And 2 + 2?")
    assert (other.answer, other.rating) == ("Five.", -1)


def test_choices_and_corrections_become_rankings_and_demonstrations(session: Session, answer: MessageRow) -> None:
    session.get_one(UserRow, me(session)).improve_since = 0.0
    question = session.get_one(MessageRow, answer.parent_id)
    other = store.add_answer(session, question, "n", sampling={"temperature": 1.0}, fingerprint="fp_1", writer="here")
    row = compare(session, me(session), answer.id, other.id)
    with pytest.raises(InputError, match="not there yet"):
        choose(session, me(session), row.id, "first")
    store.save_answer(session, other.id, "Three.", "complete")
    session.expire_all()
    assert list(Export(session, "salt").rankings()) == []  # nothing is chosen yet
    choose(session, me(session), row.id, "second")
    correct(session, me(session), other.id, "1 + 1 is 2.")
    choice, correction = Export(session, "salt").rankings()
    assert choice.pairs() == [(1, 0)]
    assert choice.answers == ["Two.", "Three."][:: 1 if row.first_id == answer.id else -1]
    assert (correction.answers, correction.ranks) == (["1 + 1 is 2.", "Three."], [1, 2])
    assert (correction.sampling, correction.fingerprint) == ({"temperature": 1.0}, "fp_1")  # type: ignore[attr-defined]
    (demonstration,) = Export(session, "salt").demonstrations()
    assert [m.content for m in demonstration.messages] == ["What is 1 + 1?", "1 + 1 is 2."]
    assert [one.id for one in comparisons_of(session, answer.conversation_id)] == [row.id]
    assert [one.message_id for one in corrections_of(session, answer.conversation_id)] == [other.id]
    (renamed, _) = Export(session, "other salt").rankings()
    assert renamed.labeller != choice.labeller


def test_answers_to_different_questions_are_not_compared(session: Session, answer: MessageRow) -> None:
    conversation = store.get_conversation(session, me(session), answer.conversation_id)
    second = store.add_answer(session, store.add_user_message(session, conversation, "And 2 + 2?", answer.id), "m")
    for other in (second.id, answer.id):
        with pytest.raises(InputError, match="same question"):
            compare(session, me(session), answer.id, other)


PRESSED: dict[type[Base], Callable[[Session, str, str, int], object]] = {
    RatingRow: lambda session, user, answer, number: rate(session, user, answer, 1 if number % 2 else -1),
    CorrectionRow: lambda session, user, answer, number: correct(session, user, answer, f"Two, said {number}."),
    ReportRow: lambda session, user, answer, number: report(session, user, answer, "spam", str(number)),
}


@pytest.mark.parametrize("kind", PRESSED)
def test_pressing_twice_at_once_is_no_error(database: Database, kind: type[Base]) -> None:
    """On PostgreSQL the transactions run beside each other."""
    with database.write() as session:
        owner = me(session)
        question = store.add_user_message(session, store.create_conversation(session, owner, "m"), "1 + 1?", None)
        answer = store.add_answer(session, question, "m").id
        store.save_answer(session, answer, "Three.", "complete")
    together = threading.Barrier(4)

    def press(number: int) -> None:
        together.wait(20)
        with database.write() as session:
            PRESSED[kind](session, owner, answer, number)
            time.sleep(0.1)  # the others are at it meanwhile

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(press, range(4)))
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(kind)) == 1
