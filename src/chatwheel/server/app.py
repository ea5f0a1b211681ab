"""The application: services, layers, routes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from chatwheel import __version__
from chatwheel.safety.moderation import Moderator
from chatwheel.server.answers import Answers
from chatwheel.server.auth import Door
from chatwheel.server.callers import Callers
from chatwheel.server.catalog import Catalog
from chatwheel.server.draining import Draining
from chatwheel.server.errors import install_error_handlers
from chatwheel.server.headers import ResponseHeaders
from chatwheel.server.identity import Identity
from chatwheel.server.limits import BodyLimit
from chatwheel.server.metering import Meter
from chatwheel.server.models import ModelPool
from chatwheel.server.openapi import install_openapi
from chatwheel.server.routes import (
    arena,
    chat,
    completions,
    conversations,
    deployments,
    embeddings,
    feedback,
    files,
    fine_tuning,
    health,
    labelling,
    messages,
    models,
    moderations,
    organization,
    organization_health,
    organization_settings,
    page,
    personas,
    report,
    runs,
    score,
    shares,
    sign_in,
    tokens,
    usage,
    wheel,
)
from chatwheel.server.services import Services
from chatwheel.settings import Settings
from chatwheel.store.database import Database
from chatwheel.store.ledger import Ledger
from chatwheel.store.metering import ALIVE_SECONDS
from chatwheel.store.passwords import Hasher
from chatwheel.store.tables import new_id

CLOSE_SECONDS = 5.0
"""That requests have which were broken off, to be written down."""


def create_app(
    *,
    settings: Settings,
    models_pool: ModelPool,
    database: Database,
    api_key: str | None,
    check_host: bool,
    alive_seconds: float = ALIVE_SECONDS,
) -> FastAPI:
    """The ASGI application. It closes the models and the database when it shuts down.

    api_key: a key of the first admin's, beside those that were made. check_host: whether this machine alone can reach
    it, see `Door` and `Identity`. alive_seconds: see `Services`.
    """
    ledger = Ledger(database)
    instance = new_id("inst")
    services = Services(
        settings=settings,
        models=models_pool,
        catalog=Catalog(models_pool, database, settings.tuned),
        database=database,
        ledger=ledger,
        meter=(meter := Meter(ledger, instance)),
        answers=Answers(models_pool, database, meter, instance, alive_seconds),
        callers=Callers(),
        instance=instance,
        moderator=Moderator.load(settings.models),  # now: a damaged one of the user's own is said at the start
        hasher=Hasher(settings.password_kib),
        alive_seconds=alive_seconds,
    )
    identity = Identity(database, api_key, loopback=check_host)
    app = FastAPI(
        title="Chatwheel",
        version=__version__,
        lifespan=_lifespan,
        docs_url=None,  # they would load scripts from elsewhere
        redoc_url=None,
    )
    app.state.services = services
    app.state.callers = services.callers
    install_error_handlers(app)
    # The last one added is the outermost.
    app.add_middleware(BodyLimit)
    app.add_middleware(Door, identify=identity.find, check_host=check_host)
    app.add_middleware(Draining, closing=services.closing, under_way=services.under_way)
    app.add_middleware(ResponseHeaders)
    _include_routes(app)
    install_openapi(app)
    return app


def _include_routes(app: FastAPI) -> None:
    api = (chat, completions, embeddings, score, moderations, tokens, models, files, organization, sign_in, usage, runs)
    for routes in (
        *api,
        fine_tuning,
        conversations,
        messages,
        personas,
        shares,
        feedback,
        deployments,
        wheel,
        report,
        health,
        page,
    ):
        app.include_router(routes.router)
    for router in (
        sign_in.admin,
        shares.public,
        arena.router,
        organization_health.router,
        organization_settings.router,
        labelling.router,
        labelling.managing,
        feedback.admin,
        fine_tuning.graders,
        fine_tuning.checks,
        fine_tuning.models,
    ):
        app.include_router(router)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    services: Services = app.state.services
    async with services.alive():
        try:
            yield
        finally:
            await services.answers.close()
            await services.meter.wait_until_closed(CLOSE_SECONDS)
            await services.models.close()
    services.ledger.close()
    services.database.close()
