"""The latest model: promoted to a part, to all, and rolled back."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy.orm import Session

from chatwheel.errors import InputError
from chatwheel.store.accounts import ConflictError
from chatwheel.store.database import Database
from chatwheel.store.deployments import deployed, history, promote, rollback


def names(session: Session) -> tuple[str | None, str | None]:
    now = deployed(session)
    return now.current and now.current.model, now.candidate and now.candidate.model


def test_promoted_to_a_part_to_all_and_back(session: Session) -> None:
    assert names(session) == (None, None)
    assert deployed(session).pick("somebody") is None
    promote(session, "a")
    promote(session, "b", share=0.05, note={"gate": "better"})
    assert names(session) == ("a", "b")
    promote(session, "b")
    assert names(session) == ("b", None)
    promote(session, "c", share=0.5)
    assert names(session) == ("b", "c")
    rollback(session, note={"why": "ratings"})  # the candidate first
    assert names(session) == ("b", None)
    rollback(session)
    assert names(session) == ("a", None)
    with pytest.raises(ConflictError, match="no model was deployed before 'a'"):
        rollback(session)
    rows = history(session)
    assert [(row.model, row.outcome) for row in rows] == [
        ("a", None),
        ("c", "rolled_back"),
        ("b", "rolled_back"),
        ("b", "promoted"),
        ("a", "replaced"),
    ]
    assert rows[1].note == {"why": "ratings"}
    assert rows[3].note == {"gate": "better"}


def test_what_makes_no_sense_is_refused(session: Session) -> None:
    with pytest.raises(ConflictError, match="no model is deployed"):
        rollback(session)
    with pytest.raises(ConflictError, match="no other model is deployed for the rest"):
        promote(session, "a", share=0.5)
    for share in (0.0, -1.0, 1.5, float("nan")):
        with pytest.raises(InputError, match="share"):
            promote(session, "a", share=share)
    promote(session, "a")
    for share in (0.5, 1.0):
        with pytest.raises(ConflictError, match="answers everybody already"):
            promote(session, "a", share=share)


def test_a_larger_share_keeps_those_who_have_it(session: Session) -> None:
    promote(session, "a")
    chosen: list[set[int]] = []
    for share in (0.05, 0.2, 0.6):
        promote(session, "b", share=share)
        now = deployed(session)
        chosen.append({n for n in range(4000) if now.pick(f"conv-{n}") == "b"})
        assert abs(len(chosen[-1]) / 4000 - share) < 4 * (share * (1 - share) / 4000) ** 0.5
    assert chosen[0] < chosen[1] < chosen[2]


def test_many_at_a_time_leave_one_current(database: Database) -> None:
    def work(name: str) -> None:
        database.transact(lambda session: promote(session, name))

    threads = [threading.Thread(target=work, args=(f"m{n}",)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.read() as session:
        rows = history(session)
        assert len(rows) == 12
        assert [row.ended_at is None for row in rows] == [True] + [False] * 11
