"""What the routes work with: made once by `create_app`, reached through a dependency."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, TypeVar

import anyio
import anyio.to_thread
from fastapi import Depends, Request
from sqlalchemy.orm import Session

from chatwheel.errors import ChatwheelError
from chatwheel.feedback import watching
from chatwheel.safety.moderation import Moderator
from chatwheel.server.answers import Answers
from chatwheel.server.callers import Callers
from chatwheel.server.catalog import Catalog
from chatwheel.server.draining import UnderWay
from chatwheel.server.errors import LOG
from chatwheel.server.metering import Meter
from chatwheel.server.models import ModelPool
from chatwheel.server.wheel import Forecasting, Looking
from chatwheel.settings import Settings
from chatwheel.store import attempts, conversations, files, metering, sign_in
from chatwheel.store.database import Database
from chatwheel.store.files import BlobStore
from chatwheel.store.ledger import Ledger
from chatwheel.store.passwords import Hasher

T = TypeVar("T")
BEAT_SECONDS = 5.0
WATCH_SECONDS = 0.5
"""Between two looks at whether what is under way may go on."""
TIDY_SECONDS = 3600.0
PURGE_SECONDS = 10.0
"""Between two looks at which deleted conversations nobody can want back any more."""
JUDGE_SECONDS = 60.0


@dataclass(frozen=True)
class Services:
    """One server's parts. instance: its id among all servers. alive_seconds: how long one of them may be silent before
    it is taken for gone. closing: set when it is to end; under_way: what it has to finish first. long_moderations:
    whose turn it is; file_checks the same: half a gigabyte takes its time, and the threads are everybody's. hashing:
    passwords that are looked at together, each of which takes memory."""

    settings: Settings
    models: ModelPool
    catalog: Catalog
    database: Database
    ledger: Ledger
    meter: Meter
    answers: Answers
    callers: Callers
    instance: str
    moderator: Moderator
    hasher: Hasher
    alive_seconds: float = metering.ALIVE_SECONDS
    closing: threading.Event = field(default_factory=threading.Event)
    under_way: UnderWay = field(default_factory=UnderWay)
    ticket_secret: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    long_moderations: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(1))
    file_checks: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(1))
    forecasting: Forecasting = field(default_factory=Forecasting)
    wheel: Looking = field(default_factory=Looking)
    hashing: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(2))

    @asynccontextmanager
    async def alive(self) -> AsyncIterator[None]:
        """Tells the other servers that this one is up, ends what those that are gone have left running, and tidies."""
        place = f"{socket.gethostname()}:{os.getpid()}"
        tasks = [asyncio.create_task(work) for work in self._works(place)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await self.forecasting.end()
            with suppress(ChatwheelError):
                await self.meter.settle_owed()
            with suppress(ChatwheelError):
                await self.write(lambda session: metering.deregister(session, self.instance))

    def _works(self, place: str) -> tuple[Coroutine[None, None, None], ...]:
        return self._beat(place), self._watch(), self._tidy(), self._purge(), self._judge()

    async def _beat(self, place: str) -> None:
        """While the database was away no server was seen: none is taken for gone until all had time to come back."""
        trusted, is_first = 0.0, True
        while True:
            try:
                await self.write(lambda session: metering.seen(session, self.instance, "server", place))
                await self.meter.settle_owed()
                if time.monotonic() > trusted:
                    await self.write(partial(metering.settle, alive_seconds=self.alive_seconds))
                    if is_first:  # of servers whose end nobody has seen
                        since = time.time() - self.alive_seconds
                        await self.write(partial(conversations.forget_writers, alive_since=since))
                        is_first = False
            except ChatwheelError:  # such as a full disk; it may have room again
                trusted = time.monotonic() + self.alive_seconds
            except Exception:
                LOG.exception("this server's beat failed; it goes on")
            await asyncio.sleep(BEAT_SECONDS)

    async def _watch(self) -> None:
        """Ends requests whose key or session ends while they are answered, and the page's answers that are to be
        stopped: a query for all of each, on every server, as whoever asked for it may have asked another one."""
        thread = anyio.CapacityLimiter(1)  # of its own: others may be waited for
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            try:
                entries, answers = self.callers.entries, self.answers.ids
                if entries or answers:
                    opening, stopped = await anyio.to_thread.run_sync(self._look, entries, answers, limiter=thread)
                    self.callers.end_all_but(entries, opening)
                    self.answers.cancel(stopped)
            except ChatwheelError:  # the database is away: it will be asked again
                continue
            except Exception:
                LOG.exception("nobody could be asked whether what is under way may go on; it goes on")

    def _look(self, entries: frozenset[str], answers: frozenset[str]) -> tuple[frozenset[str], frozenset[str]]:
        """The keys and sessions that still open, and the answers that are to be stopped."""
        with self.database.read() as session:
            opening = sign_in.opening(session, entries)
            return opening, conversations.to_be_stopped(session, answers) if answers else answers

    async def _purge(self) -> None:
        """Takes deleted conversations away, whether or not the page that deleted them is still open."""
        while True:
            try:
                before = time.time() - conversations.UNDO_SECONDS
                if await self.read(partial(conversations.has_deleted, before=before)):
                    await self.write(partial(conversations.purge, before=before))
            except ChatwheelError:  # the database is away: it will be asked again
                pass
            except Exception:
                LOG.exception("deleted conversations could not be taken away; it will be tried again")
            await asyncio.sleep(PURGE_SECONDS)

    async def _judge(self) -> None:
        """Takes a promoted model back whose ratings fall behind those of the one before."""
        while True:
            await asyncio.sleep(JUDGE_SECONDS)
            try:
                watched = await self.write(watching.watch)
                if watched is not None and watched.taken_back:
                    LOG.warning("%s was taken back: %s", watched.model, watched.words)
            except ChatwheelError:  # the database is away: it will be asked again
                continue
            except Exception:
                LOG.exception("nobody looked at the ratings of the latest model; it will be done")

    async def _tidy(self) -> None:
        """Forgets files and sessions whose time is over, and bytes that uploads which were killed have left."""
        while True:
            try:
                await self.write(partial(sign_in.tidy, now=time.time()))
                await self.write(partial(attempts.tidy, now=time.time()))
                await anyio.to_thread.run_sync(files.tidy, self.database, self.blobs)
            except (ChatwheelError, OSError) as error:
                LOG.warning("what is over was not tidied: %s", error)
            except Exception:
                LOG.exception("what is over was not tidied")
            await asyncio.sleep(TIDY_SECONDS)

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

        return await anyio.to_thread.run_sync(self.database.transact, work)


async def _services(request: Request) -> Services:  # a coroutine: FastAPI takes others to a thread
    services = request.app.state.services
    assert isinstance(services, Services)
    return services


ServicesDep = Annotated[Services, Depends(_services)]
