"""What was used: sums by time and group, and the rows themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from chatwheel.store.tables import UsageRow

GROUPS: Mapping[str, InstrumentedAttribute[Any]] = {
    "project_id": UsageRow.project_id,
    "user_id": UsageRow.user_id,
    "api_key_id": UsageRow.key_id,
    "model": UsageRow.model,
    "endpoint": UsageRow.endpoint,
    "status": UsageRow.status,
}
WIDTHS = {"1m": 60, "1h": 3600, "1d": 86400}


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
