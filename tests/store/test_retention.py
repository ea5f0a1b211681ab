"""How long things are kept, on both databases, with a clock that is given."""

from __future__ import annotations

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from chatwheel.errors import InputError
from chatwheel.store import conversations, health, metering, retention
from chatwheel.store.accounts import local_principal
from chatwheel.store.database import Database
from chatwheel.store.prices import Tokens
from chatwheel.store.retention import DAY, Due, Retention
from chatwheel.store.tables import (
    AuditRow,
    CorrectionRow,
    LabellingQueueRow,
    LabellingTaskRow,
    MessageRow,
    RatingRow,
    SearchTextRow,
    UsageRow,
)
from tests.store.test_metering import NOW, begin, somebody


def chat(session: Session, name: str, days: float) -> None:
    """A rated and corrected chat whose last turn was so many days ago."""
    row = conversations.create_conversation(session, local_principal(session).user_id, "m", name, conversation_id=name)
    question = conversations.add_user_message(session, row, "why?", None)
    answer = conversations.add_answer(session, question, "m")
    session.add(RatingRow(message_id=answer.id, value=1))
    session.add(CorrectionRow(message_id=answer.id, content="better"))
    row.updated_at = NOW - days * DAY
    session.flush()


def titles(session: Session) -> list[str]:
    rows = conversations.list_conversations(session, local_principal(session).user_id)
    return [row.title for row in rows]


def line(session: Session, days: float) -> None:
    session.add(AuditRow(action="price.set", target=f"{days:g}", details={}, created_at=NOW - days * DAY))
    session.flush()


def count(session: Session, kind: type) -> int:
    return session.scalar(select(func.count()).select_from(kind)) or 0


def test_what_comes_from_a_file_is_not_deleted_at_once(session: Session) -> None:
    old, young = NOW - 400 * DAY, NOW - 2 * DAY
    assert retention.touched_at(session, old, NOW) == old  # nothing is deleted
    retention.set_retention(session, Retention(chat_days=30), NOW)
    assert retention.touched_at(session, old, NOW) == NOW
    assert retention.touched_at(session, young, NOW) == young


def test_nothing_is_deleted_unless_somebody_said_so(session: Session) -> None:
    chat(session, "ancient", 10_000)
    line(session, 10_000)
    assert retention.retention(session) == Retention()
    assert retention.due(session, Retention(), NOW) == Due(0, 0)
    assert not retention.apply(session, NOW)
    assert titles(session) == ["ancient"]


def test_what_nobody_touched_goes_with_all_that_hangs_on_it(session: Session) -> None:
    for name, days in (("new", 0), ("29 days", 29.9), ("30 days", 30.1), ("old", 400)):
        chat(session, name, days)
    rule = Retention(chat_days=30)
    assert retention.due(session, rule, NOW) == Due(2, 0)
    assert titles(session) == ["new", "29 days", "30 days", "old"]  # to count is not to delete
    retention.set_retention(session, rule, NOW)
    assert retention.apply(session, NOW) == Due(2, 0)
    assert retention.apply(session, NOW) == Due(0, 0)
    session.expire_all()
    assert titles(session) == ["new", "29 days"]
    assert [count(session, kind) for kind in (MessageRow, RatingRow, CorrectionRow)] == [4, 2, 2]
    assert count(session, SearchTextRow) == 6
    assert retention.apply(session, NOW + DAY) == Due(1, 0)


def test_usage_and_what_labellers_were_given_stay(session: Session) -> None:
    chat(session, "old", 400)
    who = local_principal(session)
    session.add(LabellingQueueRow(id="queue-1", project_id=who.project_id, name="q", kind="reply"))
    session.flush()
    messages = [{"role": "user", "content": "why?"}]
    session.add(LabellingTaskRow(queue_id="queue-1", place=1, messages=messages, digest="d"))
    metering.finish(session, begin(session, somebody(), NOW - 400 * DAY), "completed", Tokens(1, 0, 1), now=NOW)
    retention.set_retention(session, Retention(chat_days=1, audit_days=30), NOW)
    assert retention.apply(session, NOW).chats == 1
    assert (count(session, UsageRow), count(session, LabellingTaskRow)) == (1, 1)


def test_it_goes_in_small_batches_the_oldest_first(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "CHATS_TOGETHER", 2)
    monkeypatch.setattr(retention, "LINES_TOGETHER", 3)
    for days in (41, 44, 42, 43, 45):
        chat(session, str(days), days)
        line(session, days)
    retention.set_retention(session, Retention(chat_days=40, audit_days=40), NOW)
    assert retention.apply(session, NOW) == Due(2, 3)
    session.expire_all()
    assert titles(session) == ["41", "42", "43"]
    assert retention.apply(session, NOW) == Due(2, 2)
    assert retention.apply(session, NOW) == Due(1, 0)
    assert not retention.apply(session, NOW)


def test_the_audit_log_keeps_the_last_backup(session: Session) -> None:
    for _ in range(2):
        health.note_backup(session, "b.zip", rows=1, files=0)
    for row in session.scalars(select(AuditRow)):
        row.created_at = NOW - 60 * DAY
    line(session, 29.9)
    line(session, 30.1)
    retention.set_retention(session, Retention(audit_days=30), NOW)
    assert retention.due(session, retention.retention(session), NOW) == Due(0, 2)
    assert retention.apply(session, NOW) == Due(0, 2)
    left = session.scalars(select(AuditRow.target).order_by(AuditRow.id)).all()
    assert left == ["b.zip", "29.9"]


def test_a_rule_that_was_taken_back_deletes_no_more(database: Database) -> None:
    with database.write() as session:
        chat(session, "old", 400)
        retention.set_retention(session, Retention(chat_days=30), NOW)
    with database.write() as session:
        retention.set_retention(session, Retention(), NOW)
    assert database.transact(lambda session: retention.apply(session, NOW)) == Due(0, 0)


@pytest.mark.parametrize(("name", "days"), [("chat_days", 0), ("audit_days", 29), ("chat_days", 10**9)])
def test_days_out_of_bounds_are_one_clear_line(name: str, days: int) -> None:
    with pytest.raises(InputError, match=rf"{name}: {days} is not from") as caught:
        Retention(**{name: days})
    assert caught.value.param == name
