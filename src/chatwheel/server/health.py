"""The JSON of an installation's health, and what in it wants somebody's attention."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from chatwheel import __version__
from chatwheel.store.health import DatabaseState, Requests
from chatwheel.store.tables import AuditRow, FineTuningJobRow, InstanceRow

if TYPE_CHECKING:
    from chatwheel.engine.engine import Counts
    from chatwheel.engine.metrics import Metrics

Json = dict[str, Any]
Finding = Literal["no_worker", "disk_low", "many_errors", "backup_old"]
LEAST_SHARE, LEAST_BYTES = 0.05, 5 * 10**9
"""A disk that has less than both free is nearly full."""
MOST_ERRORS, OF_REQUESTS = 0.05, 20
"""A larger share of at least so many requests should not fail."""
OLD_BACKUP_SECONDS = 8 * 86400.0
"""Of who backs up each week."""


def health_view(
    *,
    now: float,
    me: str,
    alive_seconds: float,
    home: Path,
    database: DatabaseState,
    processes: Sequence[InstanceRow],
    requests: Requests,
    engines: Mapping[str, tuple[Counts, Metrics]],
    jobs: Sequence[FineTuningJobRow],
    backup: AuditRow | None,
) -> Json:
    """All of it. me: the server that tells, whose models in memory and queue these are. Blocks (asks the disk)."""
    there = next(place for place in (home, *home.parents) if place.exists())
    disk = shutil.disk_usage(there)
    alive = {row.id: row for row in processes if row.seen_at > now - alive_seconds}
    waiting = sum(counts.waiting for counts, _ in engines.values())
    return {
        "object": "organization.health",
        "checked_at": int(now),
        "version": __version__,
        "findings": list(findings(now, alive.values(), (disk.free, disk.total), requests, jobs, backup)),
        "database": asdict(database),
        "disk": {"home": str(home), "free_bytes": disk.free, "total_bytes": disk.total},
        "processes": [_process(row, me, is_alive=row.id in alive) for row in processes],
        "requests": {
            "running": requests.running,
            "waiting_here": waiting,
            "last_hour": {
                "completed": requests.completed,
                "cancelled": requests.cancelled,
                "failed": requests.failed,
                "error_rate": requests.error_rate,
            },
        },
        "models_here": [_model(name, counts) for name, (counts, _) in sorted(engines.items())],
        "jobs": [_job(row, alive) for row in jobs],
        "backup": None if backup is None else {"created_at": int(backup.created_at), "file": backup.target},
    }


def findings(
    now: float,
    alive: Iterable[InstanceRow],
    disk: tuple[int, int],
    requests: Requests,
    jobs: Sequence[FineTuningJobRow],
    backup: AuditRow | None,
) -> Iterable[Finding]:
    """What somebody should see to. alive: who is up; disk: its free bytes and all of them."""
    free, total = disk
    if any(job.status != "paused" for job in jobs) and not any(row.kind == "worker" for row in alive):
        yield "no_worker"
    if free < min(LEAST_SHARE * total, LEAST_BYTES):
        yield "disk_low"
    if requests.ended >= OF_REQUESTS and (requests.error_rate or 0.0) > MOST_ERRORS:
        yield "many_errors"
    if backup is not None and backup.created_at < now - OLD_BACKUP_SECONDS:
        yield "backup_old"


def _process(row: InstanceRow, me: str, *, is_alive: bool) -> Json:
    return {
        "id": row.id,
        "kind": row.kind,
        "place": row.place,
        "started_at": int(row.started_at),
        "seen_at": int(row.seen_at),
        "alive": is_alive,
        "here": row.id == me,
    }


def _model(name: str, counts: Counts) -> Json:
    return {
        "id": name,
        "running": counts.running,
        "waiting": counts.waiting,
        "cache_share": counts.blocks_held / counts.blocks if counts.blocks else None,
    }


def _job(row: FineTuningJobRow, alive: Mapping[str, InstanceRow]) -> Json:
    worker = alive.get(row.worker or "")
    return {
        "id": row.id,
        "model": row.model,
        "status": row.status,
        "project_id": row.project_id,
        "created_at": int(row.created_at),
        "worker": None if worker is None else worker.place,
    }
