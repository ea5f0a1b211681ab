"""What the routes work with: made once by `create_app`, reached through a dependency."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Annotated, TypeVar

import anyio
import anyio.to_thread
from fastapi import Depends, Request
from sqlalchemy.orm import Session

from chatwheel.errors import ChatwheelError
from chatwheel.safety.moderation import Moderator
from chatwheel.server.answers import Answers
from chatwheel.server.catalog import Catalog
from chatwheel.server.metering import Meter
from chatwheel.server.models import ModelPool
from chatwheel.settings import Settings
from chatwheel.store import metering
from chatwheel.store.database import Database
from chatwheel.store.files import BlobStore
from chatwheel.store.ledger import Ledger

T = TypeVar("T")
BEAT_SECONDS = 5.0


@dataclass(frozen=True)
class Services:
    """One server's parts. instance: its id among all servers. alive_seconds: how long one of them may be silent before
    it is taken for gone. closing: set when it ends. long_moderations: whose turn it is."""

    settings: Settings
    models: ModelPool
    catalog: Catalog
    database: Database
    ledger: Ledger
    meter: Meter
    answers: Answers
    instance: str
    moderator: Moderator
    alive_seconds: float = metering.ALIVE_SECONDS
    closing: threading.Event = field(default_factory=threading.Event)
    ticket_secret: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    long_moderations: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(1))

    @asynccontextmanager
    async def alive(self) -> AsyncIterator[None]:
        """Tells the other servers that this one is up, and ends what those that are gone have left running."""
        place = f"{socket.gethostname()}:{os.getpid()}"

        def look(session: Session) -> None:
            metering.seen(session, self.instance, "server", place)
            metering.settle(session, alive_seconds=self.alive_seconds)

        async def beat() -> None:
            while True:
                with suppress(ChatwheelError):  # such as a full disk; it may have room again
                    await self.write(look)
                await asyncio.sleep(BEAT_SECONDS)

        beating = asyncio.create_task(beat())
        try:
            yield
        finally:
            beating.cancel()
            with suppress(ChatwheelError):
                await self.write(lambda session: metering.deregister(session, self.instance))

    @property
    def blobs(self) -> BlobStore:
        """The bytes of uploaded files."""
        return BlobStore(self.settings.files)

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
