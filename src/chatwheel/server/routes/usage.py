"""GET /v1/organization/usage/... and /costs: what was used, and what it costs. A key sees its own project, an admin's
all."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query
from fastapi.responses import StreamingResponse

from chatwheel.errors import InputError
from chatwheel.server.identity import PrincipalDep, needs
from chatwheel.server.organization import Json, usage_page
from chatwheel.server.services import Services, ServicesDep
from chatwheel.store.accounts import ADMIN, Principal
from chatwheel.store.prices import DOLLAR
from chatwheel.store.tables import UsageRow
from chatwheel.store.usage import WIDTHS, usage_by, usage_rows

router = APIRouter(prefix="/v1/organization", dependencies=[Depends(needs("usage"))])
ENDPOINTS = {
    "completions": ("chat", "completions", "conversations", "arena", "labelling"),
    "embeddings": ("embeddings",),
}
DAY = 86400.0
MOST_BUCKETS = 1440
LAST_SECOND = 10**11
COLUMNS = (
    "request_id",
    "time",
    "seconds",
    "project_id",
    "user_id",
    "api_key_id",
    "endpoint",
    "model",
    "status",
    "input_tokens",
    "cached_tokens",
    "output_tokens",
    "cost_usd",
)


class CsvResponse(StreamingResponse):
    """Lines as they are read."""

    media_type = "text/csv"


Start = Annotated[int | None, Query(ge=0, le=LAST_SECOND)]
Names = Annotated[list[str] | None, Query()]
GroupName = Literal["project_id", "user_id", "api_key_id", "model", "endpoint", "status"]
Group = Annotated[list[GroupName] | None, Query()]
Width = Annotated[Literal["1m", "1h", "1d"], Query()]


@router.get("/usage/{kind}")
def get_usage(
    kind: Literal["completions", "embeddings", "moderations"],
    who: PrincipalDep,
    services: ServicesDep,
    start_time: Start = None,
    end_time: Start = None,
    bucket_width: Width = "1d",
    group_by: Group = None,
    project_ids: Names = None,
    user_ids: Names = None,
    api_key_ids: Names = None,
    models: Names = None,
) -> Json:
    """Tokens by stretches of time; what there was nothing of is left out."""
    only = {"project_id": project_ids, "user_id": user_ids, "api_key_id": api_key_ids, "model": models}
    only["endpoint"] = list(ENDPOINTS.get(kind, (kind,)))
    return _page(kind, services, who, (start_time, end_time), bucket_width, group_by or [], only)


@router.get("/costs")
def get_costs(
    who: PrincipalDep,
    services: ServicesDep,
    start_time: Start = None,
    end_time: Start = None,
    bucket_width: Width = "1d",
    group_by: Group = None,
    project_ids: Names = None,
) -> Json:
    """Money by stretches of time."""
    span = (start_time, end_time)
    return _page("costs", services, who, span, bucket_width, group_by or [], {"project_id": project_ids})


@router.get("/usage.csv", response_class=CsvResponse)
def export_usage(who: PrincipalDep, services: ServicesDep) -> StreamingResponse:
    """Every request, a line each."""
    headers = {"content-disposition": 'attachment; filename="usage.csv"'}
    return CsvResponse(_lines(services, who), headers=headers)


def _page(
    kind: str,
    services: Services,
    who: Principal,
    span: tuple[int | None, int | None],
    width: str,
    groups: Sequence[str],
    only: dict[str, list[str] | None],
) -> Json:
    end = float(span[1]) if span[1] is not None else time.time() + 1
    start = float(span[0]) if span[0] is not None else max(0.0, end - 31 * DAY)
    if (end - start) / WIDTHS[width] > MOST_BUCKETS and width != "1d":
        raise InputError(f"that is more than {MOST_BUCKETS} buckets; ask for wider ones", param="bucket_width")
    groups = list(dict.fromkeys(groups))
    chosen = {name: values for name, values in only.items() if values is not None}
    if not who.may(ADMIN):
        chosen["project_id"] = [who.project_id]
    with services.database.read() as session:
        rows = usage_by(session, start=start, end=end, width=width, group_by=groups, only=chosen)
    return usage_page(kind, rows, groups, WIDTHS[width])


def _lines(services: Services, who: Principal) -> Iterator[str]:
    """A thousand rows at a time, so that neither memory nor the database is held by a slow reader."""
    yield _csv([COLUMNS])
    last = 0
    project = None if who.may(ADMIN) else who.project_id
    while True:
        with services.database.read() as session:
            rows = usage_rows(session, after=last, project_id=project)
        if not rows:
            return
        last = rows[-1].id
        yield _csv([_cells(row) for row in rows])


def _cells(row: UsageRow) -> tuple[object, ...]:
    moment = datetime.fromtimestamp(row.created_at, UTC).isoformat(timespec="milliseconds")
    return (
        row.request_id,
        moment,
        f"{row.seconds:.3f}",
        row.project_id,
        row.user_id,
        row.key_id or "",
        row.endpoint,
        row.model,
        row.status,
        row.input_tokens,
        row.cached_tokens,
        row.output_tokens,
        f"{row.cost / DOLLAR:.9f}",
    )


def _csv(rows: list[tuple[object, ...]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
