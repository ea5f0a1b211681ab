"""What the database knows of an installation's health: who is up, what runs, what failed, when it was last saved.

Functions work in the caller's transaction; times are Unix seconds.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from chatwheel.store.accounts import record
from chatwheel.store.database import dialect_of, schema_version
from chatwheel.store.tables import AuditRow, FineTuningJobRow, InstanceRow, UsageRow

BACKED_UP = "database.backed_up"
"""What the audit log calls a backup."""
HOUR = 3600.0
OPEN = ("validating_files", "queued", "running", "paused")
"""A job that has not ended."""


@dataclass(frozen=True)
class DatabaseState:
    """kind: "sqlite" or "postgresql"; version: of its program; schema: of ours; bytes: that it takes on disk."""

    kind: str
    version: str
    schema: str | None
    bytes: int


@dataclass(frozen=True)
class Requests:
    """Of all servers. running: now; the rest began within the last hour and have ended."""

    running: int
    completed: int
    cancelled: int
    failed: int

    @property
    def ended(self) -> int:
        """How many."""
        return self.completed + self.cancelled + self.failed

    @property
    def error_rate(self) -> float | None:
        """Of those that ended the share that failed; None of none."""
        return self.failed / self.ended if self.ended else None


def database_state(session: Session) -> DatabaseState:
    """Which database it is, and how large."""
    kind = dialect_of(session)
    if kind == "postgresql":
        version = str(session.scalar(text("SHOW server_version"))).split(" ")[0]
        size = session.scalar(text("SELECT pg_database_size(current_database())"))
    else:
        version = sqlite3.sqlite_version
        pages, each = session.scalar(text("PRAGMA page_count")), session.scalar(text("PRAGMA page_size"))
        size = int(pages or 0) * int(each or 0)
    return DatabaseState(kind, version, schema_version(session.connection()), int(size or 0))


def instances(session: Session) -> Sequence[InstanceRow]:
    """Servers, then workers, the ones that are up longest first. Those that are gone are soon not among them."""
    return session.scalars(select(InstanceRow).order_by(InstanceRow.kind, InstanceRow.started_at, InstanceRow.id)).all()


def requests(session: Session, now: float | None = None) -> Requests:
    """What is answered, and how it went in the last hour. Trainings are none of them."""
    now = time.time() if now is None else now
    running = select(func.count()).select_from(UsageRow).where(UsageRow.status == "running")
    recent = select(UsageRow.status, func.count()).where(UsageRow.created_at > now - HOUR, UsageRow.instance != "")
    found: dict[str, int] = {row[0]: row[1] for row in session.execute(recent.group_by(UsageRow.status))}
    ended = (found.get(status, 0) for status in ("completed", "cancelled", "failed"))
    return Requests(session.scalar(running) or 0, *ended)


def open_jobs(session: Session, most: int = 50) -> Sequence[FineTuningJobRow]:
    """Fine-tuning jobs that have not ended, the first one first."""
    query = select(FineTuningJobRow).where(FineTuningJobRow.status.in_(OPEN))
    return session.scalars(query.order_by(FineTuningJobRow.created_at, FineTuningJobRow.id).limit(most)).all()


def note_backup(session: Session, file: str, rows: int, files: int) -> None:
    """A backup was made. file: its name, without the way to it."""
    record(session, None, BACKED_UP, file[:200], rows=rows, files=files)


def last_backup(session: Session) -> AuditRow | None:
    """The newest that was noted."""
    query = select(AuditRow).where(AuditRow.action == BACKED_UP).order_by(AuditRow.id.desc()).limit(1)
    return session.scalars(query).first()
