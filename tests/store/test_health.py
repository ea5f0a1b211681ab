"""What the database tells of an installation's health, on both databases, at a given time."""

from __future__ import annotations

from sqlalchemy.orm import Session

from chatwheel.store import fine_tuning, health, metering
from chatwheel.store.health import Requests
from chatwheel.store.prices import Tokens
from chatwheel.store.tables import AuditRow
from tests.store.test_metering import NOW, begin, somebody


def test_the_database_says_what_it_is(session: Session) -> None:
    state = health.database_state(session)
    assert state.kind == session.get_bind().dialect.name
    assert state.schema is not None
    assert state.version[0].isdigit()
    assert state.bytes > 100_000


def test_requests_of_the_last_hour_are_counted_by_how_they_ended(session: Session) -> None:
    assert health.requests(session, NOW) == Requests(0, 0, 0, 0)
    assert health.requests(session, NOW).error_rate is None
    for age, status in ((10, "completed"), (20, "completed"), (30, "completed"), (40, "failed"), (3601, "failed")):
        number = begin(session, somebody(), NOW - age)
        metering.finish(session, number, status, Tokens(1, 0, 1), now=NOW)  # type: ignore[arg-type]
    begin(session, somebody(), NOW - 7200)
    metering.record(
        session, request_id="job", who=somebody(), endpoint="fine_tuning", model="m", tokens=Tokens(9), cost=0, now=NOW
    )
    found = health.requests(session, NOW)
    assert found == Requests(running=1, completed=3, cancelled=0, failed=1)
    assert found.error_rate == 0.25


def test_who_is_up_in_order(session: Session) -> None:
    for name, kind, at in (("inst-3", "worker", 1.0), ("inst-2", "server", 3.0), ("inst-1", "server", 2.0)):
        metering.seen(session, name, kind, "host:1", NOW + at)
    assert [row.id for row in health.instances(session)] == ["inst-1", "inst-2", "inst-3"]


def test_jobs_that_have_ended_are_not_told(session: Session) -> None:
    from chatwheel.store.accounts import local_principal
    from chatwheel.store.tables import FineTuningJobRow

    who = local_principal(session)
    for place, status in enumerate(("succeeded", "running", "queued", "failed", "paused", "cancelled")):
        session.add(
            FineTuningJobRow(
                id=f"ftjob-{place}", project_id=who.project_id, user_id=who.user_id, created_at=NOW - place, model="m",
                status=status, training_file="file-1", seed=1, method={"type": "supervised"},
            )
        )  # fmt: skip
    session.flush()
    assert [row.id for row in health.open_jobs(session)] == ["ftjob-4", "ftjob-2", "ftjob-1"]
    assert fine_tuning.claim(session, "inst-1", NOW) is not None


def test_the_last_backup_is_the_newest_that_was_noted(session: Session) -> None:
    assert health.last_backup(session) is None
    for name in ("monday.zip", "tuesday.zip"):
        health.note_backup(session, name, rows=3, files=1)
    session.add(AuditRow(action="user.added", target="user-1", details={}))
    session.flush()
    found = health.last_backup(session)
    assert found is not None
    assert (found.target, found.details) == ("tuesday.zip", {"rows": 3, "files": 1})
