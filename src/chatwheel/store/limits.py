"""Who may still use something: requests and tokens a minute as buckets that fill up evenly, and money by the month.

Keys and projects have limits of their own (`Allowance`); a request is let through by all of them or none. Functions
work in the caller's transaction.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from sqlalchemy import Table, bindparam, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from chatwheel.errors import ChatwheelError
from chatwheel.store.accounts import Allowance
from chatwheel.store.database import Transaction, dialect_of, either_insert, lock
from chatwheel.store.prepared import Prepared
from chatwheel.store.prices import DOLLAR
from chatwheel.store.tables import BucketRow, SpendingRow

REQUESTS, TOKENS = "requests", "tokens"
_SPENDING = cast(Table, SpendingRow.__table__)
_BUCKETS = cast(Table, BucketRow.__table__)
_SPENT = Prepared(
    select(_SPENDING.c.subject, _SPENDING.c.cost).where(
        _SPENDING.c.subject.in_((bindparam("first"), bindparam("last"))),
        _SPENDING.c.month == bindparam("of_month"),
    )
)
_SPEND = {
    name: Prepared(
        statement.values(
            {column.name: bindparam(f"new_{column.name}") for column in _SPENDING.c}
        ).on_conflict_do_update(
            index_elements=["subject", "month"], set_={"cost": _SPENDING.c.cost + statement.excluded.cost}
        )
    )
    for name, statement in (
        ("sqlite", sqlite.insert(_SPENDING)),
        ("postgresql", postgresql.insert(_SPENDING)),
    )
}
_FILL = Prepared(
    update(_BUCKETS)
    .where(_BUCKETS.c.subject == bindparam("of"), _BUCKETS.c.kind == bindparam("sort"))
    .values(level=bindparam("now_level"), filled_at=bindparam("now_filled"))
)
_FIND_BUCKETS = Prepared(
    select(_BUCKETS)
    .where(_BUCKETS.c.subject.in_((bindparam("first"), bindparam("last"))))
    .order_by(_BUCKETS.c.subject, _BUCKETS.c.kind)
    .with_for_update()
)


class LimitError(ChatwheelError):
    """A limit is reached. retry_after: seconds until it is not, None if time alone does not help."""

    status = 429
    type = "rate_limit_error"

    def __init__(self, message: str, *, code: str, retry_after: float | None, left: Left | None = None) -> None:
        super().__init__(message, code=code)
        self.retry_after, self.left = retry_after, left


@dataclass(frozen=True)
class Bucket:
    """Of one kind, of the key or the project that has least left. reset: seconds until it is full again."""

    limit: int
    remaining: int
    reset: float


@dataclass(frozen=True)
class Left:
    """What is left of limits; None where there is no limit."""

    requests: Bucket | None = None
    tokens: Bucket | None = None


def check_budgets(session: Transaction, allowances: Sequence[Allowance], now: float) -> None:
    """Raises LimitError where a key or its project has spent its month's budget."""
    limited = {allowance.subject: allowance.budget for allowance in allowances if allowance.budget is not None}
    if not limited:
        return
    month = month_of(now)
    spent = {row.subject: row.cost for row in _SPENT.rows(session, _ends(limited) | {"of_month": month})}
    for subject, budget in limited.items():
        if spent.get(subject, 0) >= budget:
            raise LimitError(
                f"You have spent the budget of {'this key' if subject.startswith('key') else 'this project'} for "
                f"{month} ({budget / DOLLAR:.2f} dollars); ask an admin to raise it.",
                code="insufficient_quota",
                retry_after=None,
            )


def take(session: Transaction, allowances: Sequence[Allowance], now: float) -> Left:
    """Takes a request off the buckets, if there is one and a token in all of them."""
    buckets = _buckets(session, allowances, now)
    left = _left(buckets)
    for kind, found in ((REQUESTS, left.requests), (TOKENS, left.tokens)):
        if found is not None and found.remaining < 1:
            least = min((bucket for bucket in buckets if bucket.kind == kind), key=lambda bucket: bucket.level)
            raise LimitError(
                f"Rate limit reached: {least.limit:,} {kind} per minute.",
                code="rate_limit_exceeded",
                retry_after=(1 - least.level) * 60 / least.limit,
                left=left,
            )
    for bucket in buckets:
        bucket.level -= bucket.kind == REQUESTS
    _keep(session, buckets)
    return _left(buckets)


def pay(session: Transaction, allowances: Sequence[Allowance], tokens: int, now: float) -> None:
    buckets = _buckets(session, [a for a in allowances if a.tokens_per_minute is not None], now)
    for bucket in buckets:
        bucket.level -= tokens if bucket.kind == TOKENS else 0
    _keep(session, buckets)


def spend(session: Transaction, subjects: Iterable[str], cost: int, now: float | None = None) -> None:
    """Adds to what keys and projects have spent this month."""
    subjects = list(subjects)
    lock(session, subjects)
    add_spending(session, subjects, cost, time.time() if now is None else now)


def add_spending(session: Transaction, subjects: list[str], cost: int, now: float) -> None:
    if not cost:
        return
    statement = _SPEND[dialect_of(session)]
    month = month_of(now)
    statement.each(
        session, [{"new_subject": subject, "new_month": month, "new_cost": cost} for subject in sorted(subjects)]
    )


def month_of(now: float) -> str:
    """Such as 2026-11, in UTC."""
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m")


def spent(session: Session, subject: str, month: str) -> int:
    """In billionths of a dollar."""
    row = session.get(SpendingRow, (subject, month))
    return row.cost if row is not None else 0


@dataclass
class _Filled:
    """A bucket as it is now."""

    subject: str
    kind: str
    limit: int
    level: float
    filled_at: float


def _buckets(session: Transaction, allowances: Sequence[Allowance], now: float) -> list[_Filled]:
    """Those with limits, filled up to now, and locked in always the same order."""
    limits = {
        (allowance.subject, kind): limit
        for allowance in allowances
        for kind, limit in ((REQUESTS, allowance.requests_per_minute), (TOKENS, allowance.tokens_per_minute))
        if limit is not None
    }
    if not limits:
        return []
    rows = _locked(session, limits)
    if len(rows) < len(limits):
        new = [{"subject": s, "kind": k, "level": n, "filled_at": now} for (s, k), n in limits.items()]
        _insert_missing(session, new)
        rows = _locked(session, limits)
    found = []
    for row in rows:
        limit = limits[row.subject, row.kind]
        # Clocks of several servers may differ a little: time that runs backwards fills nothing.
        level = min(float(limit), row.level + max(0.0, now - row.filled_at) * limit / 60)
        found.append(_Filled(row.subject, row.kind, limit, level, max(row.filled_at, now)))
    return found


def _locked(session: Transaction, limits: Mapping[tuple[str, str], int]) -> list[Any]:
    found = _FIND_BUCKETS.rows(session, _ends({subject for subject, _ in limits}))
    return [row for row in found if (row.subject, row.kind) in limits]


def _ends(subjects: Collection[str]) -> dict[str, str]:
    """A key and its project, or one of them: with a list of any length, each statement would be compiled anew."""
    assert 1 <= len(subjects) <= 2
    return {"first": min(subjects), "last": max(subjects)}


def _keep(session: Transaction, buckets: Sequence[_Filled]) -> None:
    if buckets:
        _FILL.each(
            session,
            [{"of": b.subject, "sort": b.kind, "now_level": b.level, "now_filled": b.filled_at} for b in buckets],
        )


def _insert_missing(session: Transaction, rows: list[dict[str, Any]]) -> None:
    session.execute(either_insert(session)(BucketRow).values(rows).on_conflict_do_nothing())


def _left(buckets: Sequence[_Filled]) -> Left:
    def least(kind: str) -> Bucket | None:
        found = [
            Bucket(b.limit, max(0, int(b.level)), max(0.0, (b.limit - b.level) * 60 / b.limit) if b.limit else 60.0)
            for b in buckets
            if b.kind == kind
        ]
        return min(found, key=lambda bucket: bucket.remaining) if found else None

    return Left(least(REQUESTS), least(TOKENS))
