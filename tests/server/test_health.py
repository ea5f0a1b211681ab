"""GET /v1/organization/health, and what in it wants attention."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from chatwheel import __version__
from chatwheel.server.health import OLD_BACKUP_SECONDS, findings
from chatwheel.store import health, metering
from chatwheel.store.health import Requests
from chatwheel.store.tables import AuditRow, FineTuningJobRow, InstanceRow
from tests.server.conftest import MODEL, Site

NOW = 1_800_000_000.0
ROOM = (50 * 10**9, 100 * 10**9)
WELL = Requests(0, 100, 0, 5)
WORKER = InstanceRow(id="inst-1", kind="worker", place="host:1", started_at=NOW, seen_at=NOW)
SERVER = InstanceRow(id="inst-2", kind="server", place="host:2", started_at=NOW, seen_at=NOW)


def job(status: str) -> FineTuningJobRow:
    return FineTuningJobRow(id="ftjob-1", status=status)


def backup(age: float) -> AuditRow:
    return AuditRow(action=health.BACKED_UP, target="b.zip", created_at=NOW - age)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"alive": [SERVER]}, ["no_worker"]),
        ({"alive": [SERVER], "jobs": [job("paused")]}, []),
        ({"alive": [SERVER], "jobs": []}, []),
        ({"disk": (4 * 10**9, 100 * 10**9)}, ["disk_low"]),
        ({"disk": (6 * 10**9, 1000 * 10**9)}, []),  # little of the whole, and yet a lot
        ({"disk": (2 * 10**9, 10 * 10**9)}, []),  # little, and yet a lot of the whole
        ({"requests": Requests(0, 94, 0, 6)}, ["many_errors"]),
        ({"requests": Requests(0, 1, 0, 18)}, []),  # too few to say
        ({"backup": backup(OLD_BACKUP_SECONDS + 1)}, ["backup_old"]),
        ({"backup": None}, []),  # somebody may back up otherwise
    ],
)
def test_findings(changes: dict[str, Any], expected: list[str]) -> None:
    well: dict[str, Any] = {
        "alive": [SERVER, WORKER],
        "disk": ROOM,
        "requests": WELL,
        "jobs": [job("queued")],
        "backup": backup(60.0),
    }
    assert list(findings(NOW, **(well | changes))) == expected


def test_health_tells_who_is_up_and_what_is_in_memory(site: Site, tmp_path: Path) -> None:
    site.chat().raise_for_status()
    with site.database.write() as session:
        metering.seen(session, "inst-far", "worker", "elsewhere:7")
        metering.seen(session, "inst-gone", "server", "gone:8", 1.0)
        health.note_backup(session, "monday.zip", rows=3, files=1)
    found = site.client.get("/v1/organization/health").json()
    assert found["version"] == __version__
    assert found["findings"] == []
    assert found["database"]["kind"] == "sqlite"
    assert found["disk"]["home"] == str(tmp_path)
    assert 0 < found["disk"]["free_bytes"] < found["disk"]["total_bytes"]
    up = {one["id"]: (one["kind"], one["alive"], one["here"]) for one in found["processes"]}
    (mine,) = [name for name, (_, _, here) in up.items() if here]
    assert up == {
        mine: ("server", True, True),
        "inst-far": ("worker", True, False),
        "inst-gone": ("server", False, False),
    }
    assert [one["id"] for one in found["models_here"]] == [MODEL]
    assert found["requests"]["last_hour"] == {"completed": 1, "cancelled": 0, "failed": 0, "error_rate": 0.0}
    assert found["backup"]["file"] == "monday.zip"


def test_health_tells_no_secrets(site: Site, tmp_path: Path) -> None:
    reply = site.client.get("/v1/organization/health")
    assert "chatwheel.db" not in reply.text
    assert "sqlite:///" not in reply.text
    assert reply.text.count(str(tmp_path)) == 1  # the home, and nothing below or above
