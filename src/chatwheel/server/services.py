"""What the routes work with: made once by `create_app`, reached through a dependency."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, TypeVar

import anyio
import anyio.to_thread
from fastapi import Depends, Request
from sqlalchemy.orm import Session

from chatwheel.safety.moderation import Moderator
from chatwheel.server.answers import Answers
from chatwheel.server.models import ModelPool
from chatwheel.settings import Settings
from chatwheel.store.database import Database

T = TypeVar("T")


@dataclass(frozen=True)
class Services:
    """One server's parts. `needs_key`: whether the door asks for an API key. `closing`: set when the server ends.
    `long_moderations`: whose turn it is."""

    settings: Settings
    models: ModelPool
    database: Database
    answers: Answers
    needs_key: bool
    moderator: Moderator
    closing: threading.Event = field(default_factory=threading.Event)
    ticket_secret: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    long_moderations: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(1))

    async def read(self, work: Callable[[Session], T]) -> T:
        """`work` on one consistent look at the rows, in a thread."""

        def in_thread() -> T:
            with self.database.read() as session:
                return work(session)

        return await anyio.to_thread.run_sync(in_thread)

    async def write(self, work: Callable[[Session], T]) -> T:
        """`work` in one transaction, in a thread."""

        def in_thread() -> T:
            with self.database.write() as session:
                return work(session)

        return await anyio.to_thread.run_sync(in_thread)


def _services(request: Request) -> Services:
    services = request.app.state.services
    assert isinstance(services, Services)
    return services


ServicesDep = Annotated[Services, Depends(_services)]
