"""How long things are kept: a rule of the installation's, off as it comes, and what falls under it.

What was used (the usage rows) is always kept: it is what was billed. Functions work in the caller's transaction.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass

from sqlalchemy import ColumnElement, delete, func, select
from sqlalchemy.orm import Session

from chatwheel.errors import InputError
from chatwheel.store.conversations import untie
from chatwheel.store.database import lock, upsert
from chatwheel.store.health import last_backup
from chatwheel.store.tables import AuditRow, ConversationRow, SettingRow

NAME = "retention"
DAY = 86400.0
MOST_DAYS = 36_500
LEAST_DAYS = {"chat_days": 1, "audit_days": 30}
"""Of the audit log more: who changes something should not be able to have it forgotten by the next day."""
CHATS_TOGETHER, LINES_TOGETHER = 50, 1000
"""That one transaction deletes: others write between two."""


@dataclass(frozen=True)
class Retention:
    """chat_days: a conversation without a new turn for so many days is deleted, with all that hangs on it; audit_days:
    so is a line of the audit log that is so old. None keeps them. Raises InputError for days out of bounds."""

    chat_days: int | None = None
    audit_days: int | None = None

    def __post_init__(self) -> None:
        for name, days in asdict(self).items():
            if days is not None and not LEAST_DAYS[name] <= days <= MOST_DAYS:
                raise InputError(f"{name}: {days} is not from {LEAST_DAYS[name]} to {MOST_DAYS}", param=name)


@dataclass(frozen=True)
class Due:
    """How many of each a rule deletes."""

    chats: int
    audit: int

    def __bool__(self) -> bool:
        return bool(self.chats or self.audit)


def retention(session: Session) -> Retention:
    """The rule that holds."""
    row = session.get(SettingRow, NAME, populate_existing=True)
    return Retention() if row is None else Retention(**row.value)


def set_retention(session: Session, rule: Retention, now: float | None = None) -> None:
    """It holds from now on; `apply` does what it says."""
    changed_at = time.time() if now is None else now
    upsert(session, SettingRow, {"name": NAME}, {"value": asdict(rule), "changed_at": changed_at})


def due(session: Session, rule: Retention, now: float | None = None) -> Due:
    """What a rule would delete now."""
    now = time.time() if now is None else now
    counts = {}
    for kind, condition in _conditions(session, rule, now).items():
        counts[kind] = session.scalar(select(func.count()).select_from(kind).where(*condition)) or 0
    return Due(counts.get(ConversationRow, 0), counts.get(AuditRow, 0))


def touched_at(session: Session, told: float, now: float | None = None) -> float:
    """When a conversation that comes from a file was last touched: as the file tells, but now where the rule would
    delete it at once."""
    now = time.time() if now is None else now
    days = retention(session).chat_days
    return now if days is not None and told < now - days * DAY else told


def apply(session: Session, now: float | None = None) -> Due:
    """Deletes some of what the rule that holds says, the oldest first, and says how much: nothing, when all is done."""
    now = time.time() if now is None else now
    lock(session, [NAME])  # one server at a time
    conditions = _conditions(session, retention(session), now)
    chats = lines = 0
    if condition := conditions.get(ConversationRow):
        oldest = select(ConversationRow.id).where(*condition).order_by(ConversationRow.updated_at).limit(CHATS_TOGETHER)
        old = session.scalars(oldest.with_for_update()).all()  # nobody takes one up again meanwhile
        untie(session, old)
        gone = delete(ConversationRow).where(ConversationRow.id.in_(old), *condition).returning(ConversationRow.id)
        chats = len(session.scalars(gone).all())
    if condition := conditions.get(AuditRow):
        lines_due = select(AuditRow.id).where(*condition).order_by(AuditRow.created_at).limit(LINES_TOGETHER)
        lines = len(session.scalars(delete(AuditRow).where(AuditRow.id.in_(lines_due)).returning(AuditRow.id)).all())
    return Due(chats, lines)


def _conditions(
    session: Session, rule: Retention, now: float
) -> dict[type[ConversationRow] | type[AuditRow], tuple[ColumnElement[bool], ...]]:
    """By kind of row, what is true of those that a rule deletes."""
    found: dict[type[ConversationRow] | type[AuditRow], tuple[ColumnElement[bool], ...]] = {}
    if rule.chat_days is not None:
        found[ConversationRow] = (ConversationRow.updated_at < now - rule.chat_days * DAY,)
    if rule.audit_days is not None:
        backup = last_backup(session)  # Health tells of it
        kept = () if backup is None else (AuditRow.id != backup.id,)
        found[AuditRow] = (AuditRow.created_at < now - rule.audit_days * DAY, *kept)
    return found
