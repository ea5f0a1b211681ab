"""A real uvicorn on a free port, in a thread of the test process."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from chatwheel.server.app import create_app
from chatwheel.server.models import ModelPool
from chatwheel.settings import Settings
from chatwheel.store.database import Database
from chatwheel.store.registry import Registry
from tests.server.fake_assistant import FakeModels

PASSWORD_KIB = 64
"""Too little for people, and quick."""


@dataclass(frozen=True)
class LiveServer:
    """Where it is, and what is inside it."""

    url: str
    database: Database
    models: FakeModels


def make_app(
    home: Path,
    *,
    delay: float = 0.0,
    api_key: str | None = None,
    capacity: int = 4,
    alive_seconds: float = 30.0,
    database_url: str | None = None,
) -> tuple[FastAPI, Database, FakeModels]:
    """An application over fake models in `home`, by default with SQLite there."""
    settings = Settings(
        home=home, database_url=database_url or f"sqlite:///{home / 'chatwheel.db'}", password_kib=PASSWORD_KIB
    )
    models = FakeModels(settings.models, delay)
    database = Database.open(settings.database_url)
    pool = ModelPool(Registry(settings.models), capacity=capacity, load=models.load)
    app = create_app(
        settings=settings,
        models_pool=pool,
        database=database,
        api_key=api_key,
        check_host=True,
        alive_seconds=alive_seconds,
    )
    return app, database, models


@contextmanager
def run_server(app: FastAPI) -> Iterator[str]:
    """Serves until the block ends; gives the base URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="on", timeout_graceful_shutdown=3))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            _wait(lambda: server.started, thread)
            yield f"http://127.0.0.1:{port}"
        finally:
            app.state.services.closing.set()  # as `chatwheel serve` does
            server.should_exit = True
            thread.join(timeout=20)
            assert not thread.is_alive(), "the server did not stop"


def _wait(condition: object, thread: threading.Thread) -> None:
    assert callable(condition)
    deadline = time.monotonic() + 20
    while not condition():
        assert thread.is_alive(), "the server ended before it started"
        assert time.monotonic() < deadline, "the server did not start"
        time.sleep(0.01)
