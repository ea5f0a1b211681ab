"""The application: services, layers, routes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from chatwheel import __version__
from chatwheel.safety.moderation import Moderator
from chatwheel.server.answers import Answers
from chatwheel.server.auth import Door
from chatwheel.server.errors import install_error_handlers
from chatwheel.server.headers import ResponseHeaders
from chatwheel.server.limits import BodyLimit
from chatwheel.server.models import ModelPool
from chatwheel.server.routes import chat, conversations, health, messages, models, moderations, page, report, runs
from chatwheel.server.services import Services
from chatwheel.settings import Settings
from chatwheel.store.database import Database


def create_app(
    *, settings: Settings, models_pool: ModelPool, database: Database, api_key: str | None, check_host: bool
) -> FastAPI:
    """The ASGI application. It closes the models and the database when it shuts down.

    api_key: what clients must send, None for nobody but this machine. check_host: see `Door`.
    """
    services = Services(
        settings=settings,
        models=models_pool,
        database=database,
        answers=Answers(models_pool, database),
        needs_key=api_key is not None,
        moderator=Moderator.load(settings.models),  # now: a damaged one of the user's own is said at the start
    )
    app = FastAPI(
        title="Chatwheel",
        version=__version__,
        lifespan=_lifespan,
        docs_url=None,  # they would load scripts from elsewhere
        redoc_url=None,
    )
    app.state.services = services
    install_error_handlers(app)
    # The last one added is the outermost.
    app.add_middleware(BodyLimit)
    app.add_middleware(Door, api_key=api_key, check_host=check_host)
    app.add_middleware(ResponseHeaders)
    for routes in (chat, models, moderations, runs, conversations, messages, report, health, page):
        app.include_router(routes.router)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    services: Services = app.state.services
    try:
        yield
    finally:
        await services.answers.close()
        await services.models.close()
        services.database.close()
