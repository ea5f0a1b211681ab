"""A request's life, and the servers that work on it. Functions work in the caller's transaction.

A request is a row before a model works on it (`begin`), its tokens are counted before they are sent (`count`), and what
ends it settles its cost, its project's spending and what its limits have left (`finish`), all in one transaction. So a
server that dies at any moment loses no token that a client got; `settle` ends what it left running.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Literal, cast

from sqlalchemy import Table, bindparam, delete, func, insert, select, update
from sqlalchemy.orm import Session

from chatwheel.store.accounts import Allowance, Principal, allowances_of
from chatwheel.store.conversations import forget_writers
from chatwheel.store.database import Transaction, either_insert, lock
from chatwheel.store.limits import Left, add_spending, check_budgets, pay, spend, take
from chatwheel.store.prepared import Prepared
from chatwheel.store.prices import Tokens, cost_of, price_of
from chatwheel.store.tables import InstanceRow, TunedModelRow, UsageRow

ALIVE_SECONDS = 30.0
"""An instance that has not been seen for so long is gone."""
MOST_SETTLED = 500
"""Requests that are settled in one transaction."""


def begin(
    session: Transaction,
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
    left = take(session, principal.allowances, now)
    made = _BEGIN.rows(
        session,
        {
            "new_request_id": request_id,
            "new_created_at": now,
            "new_project_id": principal.project_id,
            "new_user_id": principal.user_id,
            "new_key_id": principal.key_id,
            "new_endpoint": endpoint,
            "new_model": model,
            "new_instance": instance,
        },
    )
    return int(made[0].id), left


def count(session: Transaction, usage_id: int, tokens: Tokens) -> None:
    """What there is of a request so far."""
    count_all(session, {usage_id: tokens})


def count_all(session: Transaction, counts: Mapping[int, Tokens]) -> None:
    """What there is of several requests so far, by their rows."""
    _COUNT.each(
        session,
        [
            {"row": row, "input": tokens.input, "cached": tokens.cached, "output": tokens.output}
            for row, tokens in sorted(counts.items())  # locked in always the same order
        ],
    )


def finish(
    session: Transaction,
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
    found = _BEGUN.rows(session, {"row": usage_id})
    if not found or found[0].status != "running":
        return int(found[0].cost) if found else 0
    row = found[0]
    cost = cost_of(tokens, price_of(session, row.model, *priced_as))
    _FINISH.rows(
        session,
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
    add_spending(session, [subject for subject in (row.key_id, row.project_id) if subject], cost, now)
    pay(session, allowances, tokens.input + tokens.output, now)
    return cost


def settle(session: Session, now: float | None = None, *, alive_seconds: float = ALIVE_SECONDS) -> int:
    """Ends what servers that are gone have left running: as failed, at what was counted, which goes off the limits that
    hold by now. Answers of the page's that they were writing are nobody's. Gives how many requests."""
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
            priced_as = () if base is None else (base,)
            allowances = allowances_of(session, row.key_id, row.project_id)
            finish(session, row.id, "failed", tokens, allowances=allowances, priced_as=priced_as, now=now)
            settled += 1
    if len(left) < MOST_SETTLED:
        silent = delete(InstanceRow).where(InstanceRow.seen_at <= now - alive_seconds).returning(InstanceRow.id)
        if session.scalars(silent).all():
            forget_writers(session, now - alive_seconds)
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


_USAGE = cast(Table, UsageRow.__table__)
_COUNT = Prepared(
    update(_USAGE)
    .where(_USAGE.c.id == bindparam("row"), _USAGE.c.status == "running")
    .values(input_tokens=bindparam("input"), cached_tokens=bindparam("cached"), output_tokens=bindparam("output"))
)
_TOLD = ("request_id", "created_at", "project_id", "user_id", "key_id", "endpoint", "model", "instance")
_NOTHING = ("seconds", "input_tokens", "cached_tokens", "output_tokens", "cost")
_BEGIN = Prepared(
    insert(_USAGE)
    .values({name: bindparam(f"new_{name}") for name in _TOLD} | dict.fromkeys(_NOTHING, 0) | {"status": "running"})
    .returning(_USAGE.c.id)
)
_BEGUN = Prepared(
    select(_USAGE.c.status, _USAGE.c.cost, _USAGE.c.created_at, _USAGE.c.model, _USAGE.c.key_id, _USAGE.c.project_id)
    .where(_USAGE.c.id == bindparam("row"))
    .with_for_update()
)
_FINISH = Prepared(
    update(_USAGE)
    .where(_USAGE.c.id == bindparam("row"))
    .values(
        {name: bindparam(f"new_{name}") for name in ("status", "seconds", "cost")}
        | {f"{name}_tokens": bindparam(f"new_{name}") for name in ("input", "cached", "output")}
    )
)


def seen(session: Session, instance: str, kind: str, place: str, now: float | None = None) -> None:
    """It is still up; also if others had taken it for gone."""
    now = time.time() if now is None else now
    row = {"id": instance, "kind": kind, "place": place, "started_at": now, "seen_at": now}
    statement = either_insert(session)(InstanceRow).values(row)
    session.execute(statement.on_conflict_do_update(index_elements=["id"], set_={"seen_at": now}))


def deregister(session: Session, instance: str) -> None:
    """It goes, in order."""
    session.execute(delete(InstanceRow).where(InstanceRow.id == instance))
