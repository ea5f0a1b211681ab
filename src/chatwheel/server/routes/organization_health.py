"""GET /v1/organization/health: how the installation is, for its admins."""

from __future__ import annotations

import time

from fastapi import APIRouter, Depends
from sqlalchemy.orm import Session

from chatwheel.server.health import Json, health_view
from chatwheel.server.identity import needs
from chatwheel.server.services import ServicesDep
from chatwheel.store import health
from chatwheel.store.accounts import ADMIN

router = APIRouter(prefix="/v1/organization", dependencies=[Depends(needs(ADMIN))])


@router.get("/health")
async def get_health(services: ServicesDep) -> Json:
    """Servers and workers, database, disk, requests, jobs, the last backup, and what wants attention (`findings`:
    `no_worker`, `disk_low`, `many_errors`, `backup_old`). What ends in `_here` is of the server that was asked alone;
    the last backup is the last one of `chatwheel db backup`."""
    now, engines = time.time(), services.models.metrics()

    def look(session: Session) -> Json:
        return health_view(
            now=now,
            me=services.instance,
            alive_seconds=services.alive_seconds,
            home=services.settings.home,
            database=health.database_state(session),
            processes=health.instances(session),
            requests=health.requests(session, now),
            engines=engines,
            jobs=health.open_jobs(session),
            backup=health.last_backup(session),
        )

    return await services.read(look)
