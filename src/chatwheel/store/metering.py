"""What is used, what it costs, and who may still use something. Functions work in the caller's transaction.

A request is a row before a model works on it (`begin`), its tokens are counted before they are sent (`count`), and what
ends it settles its cost, its project's spending and what its limits have left (`finish`), all in one transaction. So a
server that dies at any moment loses no token that a client got; `settle` ends what it left running.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, cast

from sqlalchemy import Select, Table, bindparam, delete, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import InstrumentedAttribute, Session

from chatwheel.errors import ChatwheelError, InputError
from chatwheel.store.accounts import Allowance, Principal
from chatwheel.store.database import lock
from chatwheel.store.tables import BucketRow, InstanceRow, PriceRow, SpendingRow, TunedModelRow, UsageRow

REQUESTS, TOKENS = "requests", "tokens"
DOLLAR = 10**9
"""In billionths of one."""
ALIVE_SECONDS = 30.0
"""An instance that has not been seen for so long is gone."""
MOST_SETTLED = 500
"""Requests that are settled in one transaction."""
GROUPS: Mapping[str, InstrumentedAttribute[Any]] = {
    "project_id": UsageRow.project_id,
    "user_id": UsageRow.user_id,
    "api_key_id": UsageRow.key_id,
    "model": UsageRow.model,
    "endpoint": UsageRow.endpoint,
    "status": UsageRow.status,
}
WIDTHS = {"1m": 60, "1h": 3600, "1d": 86400}


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


@dataclass(frozen=True)
class Tokens:
    """Of a request. cached: those of the input that were not computed again."""

    input: int = 0
    cached: int = 0
    output: int = 0

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(self.input + other.input, self.cached + other.cached, self.output + other.output)


# -- a request's life


def begin(
    session: Session,
    principal: Principal,
    *,
    request_id: str,
    endpoint: str,
    model: str,
    instance: str,
    now: float | None = None,
) -> tuple[int, Left]:
    """A request's row, if its limits allow it, and what they have left. Raises LimitError."""
    now = time.time() if now is None else now
    check_budgets(session, principal.allowances, now)
    left = _take(session, principal.allowances, now)
    made = session.connection().execute(
        _BEGIN,
        {
            "request_id": request_id,
            "created_at": now,
            "project_id": principal.project_id,
            "user_id": principal.user_id,
            "key_id": principal.key_id,
            "endpoint": endpoint,
            "model": model,
            "instance": instance,
        },
    )
    return int(made.scalar_one()), left


def count(session: Session, usage_id: int, tokens: Tokens) -> None:
    """What there is of a request so far."""
    count_all(session, {usage_id: tokens})


def count_all(session: Session, counts: Mapping[int, Tokens]) -> None:
    """What there is of several requests so far, by their rows."""
    session.connection().execute(
        _COUNT,
        [
            {"row": row, "input": tokens.input, "cached": tokens.cached, "output": tokens.output}
            for row, tokens in sorted(counts.items())  # locked in always the same order
        ],
    )


def finish(
    session: Session,
    usage_id: int,
    status: Literal["completed", "cancelled", "failed"],
    tokens: Tokens,
    *,
    allowances: Sequence[Allowance] = (),
    priced_as: Sequence[str] = (),
    now: float | None = None,
) -> int:
    """Ends a request: its cost, which goes to its key's and its project's spending, and its tokens, which go off their
    limits. priced_as: other names whose price counts where its model has none, such as its base's. Gives the cost.
    A request that has ended already is left as it is."""
    now = time.time() if now is None else now
    row = session.connection().execute(_BEGUN, {"row": usage_id}).one_or_none()
    if row is None or row.status != "running":
        return int(row.cost) if row is not None else 0
    cost = cost_of(tokens, price_of(session, row.model, *priced_as))
    session.connection().execute(
        _FINISH,
        {
            "row": usage_id,
            "new_status": status,
            "new_seconds": max(0.0, now - row.created_at),
            "new_cost": cost,
            "new_input": tokens.input,
            "new_cached": tokens.cached,
            "new_output": tokens.output,
        },
    )
    _spend(session, [subject for subject in (row.key_id, row.project_id) if subject], cost, now)
    _pay(session, allowances, tokens.input + tokens.output, now)
    return cost


def settle(session: Session, now: float | None = None, *, alive_seconds: float = ALIVE_SECONDS) -> int:
    """Ends what servers that are gone have left running: as failed, at what was counted. Gives how many."""
    now = time.time() if now is None else now
    alive = select(InstanceRow.id).where(InstanceRow.seen_at > now - alive_seconds)
    gone = (UsageRow.status == "running", UsageRow.instance.not_in(alive))
    left = session.scalars(select(UsageRow).where(*gone).order_by(UsageRow.id).limit(MOST_SETTLED)).all()
    lock(session, subjects_of(*left))
    settled = 0
    for row in left:
        session.refresh(row, with_for_update=True)  # others settle too
        if row.status == "running":
            tokens = Tokens(row.input_tokens, row.cached_tokens, row.output_tokens)
            base = session.scalar(select(TunedModelRow.base).where(TunedModelRow.name == row.model))
            finish(session, row.id, "failed", tokens, priced_as=() if base is None else (base,), now=now)
            settled += 1
    if len(left) < MOST_SETTLED:
        session.execute(delete(InstanceRow).where(InstanceRow.seen_at <= now - alive_seconds))
    return settled


def subjects_of(*rows: UsageRow | Principal) -> list[str]:
    """Whose limits and spending requests touch: to be locked before `begin` and `finish` where others ask too."""
    return sorted({subject for row in rows for subject in (row.key_id, row.project_id) if subject})


def record(
    session: Session,
    *,
    request_id: str,
    who: Principal,
    endpoint: str,
    model: str,
    tokens: Tokens,
    cost: int,
    now: float | None = None,
) -> None:
    """What was used apart from requests, such as a training, whole: its row, and what it adds to spending."""
    now = time.time() if now is None else now
    session.add(
        UsageRow(
            request_id=request_id,
            created_at=now,
            project_id=who.project_id,
            user_id=who.user_id,
            key_id=who.key_id,
            endpoint=endpoint,
            model=model,
            status="completed",
            input_tokens=tokens.input,
            output_tokens=tokens.output,
            cost=cost,
            instance="",
        )
    )
    session.flush()
    spend(session, subjects_of(who), cost, now)


def tokens_recorded(session: Session, request_id: str) -> int:
    """Of what `record` has noted under an id."""
    query = select(func.coalesce(func.sum(UsageRow.input_tokens), 0)).where(UsageRow.request_id == request_id)
    return int(session.scalar(query) or 0)


def spend(session: Session, subjects: Iterable[str], cost: int, now: float | None = None) -> None:
    """Adds to what keys and projects have spent this month."""
    subjects = list(subjects)
    lock(session, subjects)
    _spend(session, subjects, cost, time.time() if now is None else now)


# Statements that every request needs are built once: building one takes longer than the database does.
_USAGE = cast(Table, UsageRow.__table__)
_SPENDING = cast(Table, SpendingRow.__table__)
_BUCKETS = cast(Table, BucketRow.__table__)
_COUNT = (
    update(_USAGE)
    .where(_USAGE.c.id == bindparam("row"), _USAGE.c.status == "running")
    .values(input_tokens=bindparam("input"), cached_tokens=bindparam("cached"), output_tokens=bindparam("output"))
)
_BEGIN = insert(_USAGE).returning(_USAGE.c.id)
_PRICED = select(PriceRow.model)
_SPENT = select(_SPENDING.c.subject, _SPENDING.c.cost).where(
    _SPENDING.c.subject.in_(bindparam("subjects", expanding=True)),
    _SPENDING.c.month == bindparam("of_month"),
)
_SPEND = {
    name: statement.on_conflict_do_update(
        index_elements=["subject", "month"], set_={"cost": _SPENDING.c.cost + statement.excluded.cost}
    )
    for name, statement in (
        ("sqlite", sqlite.insert(_SPENDING)),
        ("postgresql", postgresql.insert(_SPENDING)),
    )
}
_FILL = (
    update(_BUCKETS)
    .where(_BUCKETS.c.subject == bindparam("of"), _BUCKETS.c.kind == bindparam("sort"))
    .values(level=bindparam("now_level"), filled_at=bindparam("now_filled"))
)
_FIND_BUCKETS = (
    select(_BUCKETS)
    .where(_BUCKETS.c.subject.in_(bindparam("subjects", expanding=True)))
    .order_by(_BUCKETS.c.subject, _BUCKETS.c.kind)
    .with_for_update()
)
_BEGUN = (
    select(_USAGE.c.status, _USAGE.c.cost, _USAGE.c.created_at, _USAGE.c.model, _USAGE.c.key_id, _USAGE.c.project_id)
    .where(_USAGE.c.id == bindparam("row"))
    .with_for_update()
)
_FINISH = (
    update(_USAGE)
    .where(_USAGE.c.id == bindparam("row"))
    .values(
        {name: bindparam(f"new_{name}") for name in ("status", "seconds", "cost")}
        | {f"{name}_tokens": bindparam(f"new_{name}") for name in ("input", "cached", "output")}
    )
)


# -- instances


def register(session: Session, kind: str, place: str) -> str:
    """A server or worker that is up; its id."""
    row = InstanceRow(kind=kind, place=place)
    session.add(row)
    session.flush()
    return row.id


def seen(session: Session, instance: str, kind: str, place: str, now: float | None = None) -> None:
    """It is still up; also if others had taken it for gone."""
    now = time.time() if now is None else now
    row = {"id": instance, "kind": kind, "place": place, "started_at": now, "seen_at": now}
    statement = _insert(session)(InstanceRow).values(row)
    session.execute(statement.on_conflict_do_update(index_elements=["id"], set_={"seen_at": now}))


def deregister(session: Session, instance: str) -> None:
    """It goes, in order."""
    session.execute(delete(InstanceRow).where(InstanceRow.id == instance))


# -- prices


def cost_of(tokens: Tokens, price: PriceRow | None) -> int:
    """In billionths of a dollar; cached tokens at their own price."""
    if price is None:
        return 0
    fresh = tokens.input - tokens.cached
    return fresh * price.input + tokens.cached * price.cached_input + tokens.output * price.output


def price_of(session: Session, *models: str) -> PriceRow | None:
    """The price of the first of these names that has one: its own, or that of the longest beginning of it."""
    names = set(session.connection().execute(_PRICED).scalars())
    for model in models if names else ():
        if model in names:
            return session.get(PriceRow, model)
        beginnings = [name for name in names if name.endswith("*") and model.startswith(name[:-1])]
        if beginnings:
            return session.get(PriceRow, max(beginnings, key=len))
    return None


def set_price(
    session: Session, model: str, *, input: int, cached_input: int | None = None, output: int, training: int = 0
) -> PriceRow:
    """In billionths of a dollar a token. Cached tokens cost as much as others unless said otherwise."""
    if min(input, input if cached_input is None else cached_input, output, training) < 0:
        raise InputError(f"the price of {model!r} is below zero")
    row = session.get(PriceRow, model) or PriceRow(model=model)
    row.input, row.output, row.training = input, output, training
    row.cached_input = input if cached_input is None else cached_input
    session.add(row)
    session.flush()
    return row


def list_prices(session: Session) -> Sequence[PriceRow]:
    """By name."""
    return session.scalars(select(PriceRow).order_by(PriceRow.model)).all()


# -- limits


def check_budgets(session: Session, allowances: Sequence[Allowance], now: float) -> None:
    """Raises LimitError where a key or its project has spent its month's budget."""
    limited = {allowance.subject: allowance.budget for allowance in allowances if allowance.budget is not None}
    if not limited:
        return
    month = month_of(now)
    found = session.connection().execute(_SPENT, {"subjects": sorted(limited), "of_month": month})
    spent = {row.subject: row.cost for row in found}
    for subject, budget in limited.items():
        if spent.get(subject, 0) >= budget:
            raise LimitError(
                f"You have spent the budget of {'this key' if subject.startswith('key') else 'this project'} for "
                f"{month} ({budget / DOLLAR:.2f} dollars); ask an admin to raise it.",
                code="insufficient_quota",
                retry_after=None,
            )


def _take(session: Session, allowances: Sequence[Allowance], now: float) -> Left:
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


def _pay(session: Session, allowances: Sequence[Allowance], tokens: int, now: float) -> None:
    buckets = _buckets(session, [a for a in allowances if a.tokens_per_minute is not None], now)
    for bucket in buckets:
        bucket.level -= tokens if bucket.kind == TOKENS else 0
    _keep(session, buckets)


@dataclass
class _Filled:
    """A bucket as it is now."""

    subject: str
    kind: str
    limit: int
    level: float
    filled_at: float


def _buckets(session: Session, allowances: Sequence[Allowance], now: float) -> list[_Filled]:
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


def _locked(session: Session, limits: Mapping[tuple[str, str], int]) -> list[Any]:
    found = session.connection().execute(_FIND_BUCKETS, {"subjects": sorted({subject for subject, _ in limits})})
    return [row for row in found if (row.subject, row.kind) in limits]


def _keep(session: Session, buckets: Sequence[_Filled]) -> None:
    if buckets:
        session.connection().execute(
            _FILL,
            [{"of": b.subject, "sort": b.kind, "now_level": b.level, "now_filled": b.filled_at} for b in buckets],
        )


def _insert_missing(session: Session, rows: list[dict[str, Any]]) -> None:
    session.execute(_insert(session)(BucketRow).values(rows).on_conflict_do_nothing())


def _insert(session: Session) -> Callable[[Any], Any]:
    """Both dialects' word for inserting or changing is the same."""
    return postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert


def _left(buckets: Sequence[_Filled]) -> Left:
    def least(kind: str) -> Bucket | None:
        found = [
            Bucket(b.limit, max(0, int(b.level)), max(0.0, (b.limit - b.level) * 60 / b.limit) if b.limit else 60.0)
            for b in buckets
            if b.kind == kind
        ]
        return min(found, key=lambda bucket: bucket.remaining) if found else None

    return Left(least(REQUESTS), least(TOKENS))


def _spend(session: Session, subjects: list[str], cost: int, now: float) -> None:
    if not cost:
        return
    statement = _SPEND[session.get_bind().dialect.name]
    month = month_of(now)
    session.connection().execute(
        statement, [{"subject": subject, "month": month, "cost": cost} for subject in sorted(subjects)]
    )


def month_of(now: float) -> str:
    """Such as 2026-11, in UTC."""
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m")


def spent(session: Session, subject: str, month: str) -> int:
    """In billionths of a dollar."""
    row = session.get(SpendingRow, (subject, month))
    return row.cost if row is not None else 0


# -- what was used


def usage_by(
    session: Session,
    *,
    start: float,
    end: float,
    width: str = "1d",
    group_by: Sequence[str] = (),
    only: Mapping[str, Sequence[str]] = {},
) -> list[dict[str, Any]]:
    """Sums of each stretch of time (`1m`, `1h`, `1d`, in UTC) that has any, in order: `start`, the groups' values,
    requests, tokens and cost. only: values that count, by the names of `GROUPS`."""
    seconds = WIDTHS[width]
    number = func.floor(UsageRow.created_at / seconds).label("number")
    columns = [GROUPS[name].label(name) for name in group_by]
    sums = [
        func.count().label("num_requests"),
        *(
            func.coalesce(func.sum(column), 0).label(name)
            for name, column in (
                ("input_tokens", UsageRow.input_tokens),
                ("cached_tokens", UsageRow.cached_tokens),
                ("output_tokens", UsageRow.output_tokens),
                ("cost", UsageRow.cost),
            )
        ),
    ]
    query: Select[Any] = select(number, *columns, *sums).where(UsageRow.created_at >= start, UsageRow.created_at < end)
    for name, values in only.items():
        query = query.where(GROUPS[name].in_(values))
    query = query.group_by(number, *columns).order_by(number, *columns)
    rows = session.execute(query).mappings()
    return [
        {"start": int(row["number"]) * seconds}
        | {name: row[name] for name in group_by}
        | {name: int(row[name]) for name in ("num_requests", "input_tokens", "cached_tokens", "output_tokens", "cost")}
        for row in rows
    ]


def usage_rows(
    session: Session, *, after: int = 0, limit: int = 1000, project_id: str | None = None
) -> Sequence[UsageRow]:
    """The rows themselves, in the order in which they were begun."""
    query = select(UsageRow).where(UsageRow.id > after).order_by(UsageRow.id).limit(limit)
    return session.scalars(query if project_id is None else query.where(UsageRow.project_id == project_id)).all()
