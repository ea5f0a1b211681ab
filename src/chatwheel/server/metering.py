"""What a request uses is written down as it is used: before the work, before each piece leaves, and at its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Literal, TypeVar

from fastapi import Request
from sqlalchemy import Connection

from chatwheel.engine.requests import Delta
from chatwheel.errors import ChatwheelError
from chatwheel.server.spent import Spent
from chatwheel.server.streaming import ClientGoneError
from chatwheel.store import metering
from chatwheel.store.accounts import Principal
from chatwheel.store.ledger import Ledger
from chatwheel.store.limits import Left, LimitError
from chatwheel.store.prices import Tokens

T = TypeVar("T")
Status = Literal["completed", "cancelled", "failed"]


@dataclass(frozen=True)
class Bill:
    """A request's tokens, and its row. streamed: whether its pieces leave before its end."""

    usage_id: int
    ledger: Ledger
    spent: Spent
    streamed: bool = True

    @property
    def tokens(self) -> Tokens:
        """What it has had by now."""
        return Tokens(self.spent.prompt_tokens, self.spent.cached_tokens, self.spent.completion_tokens)

    async def note(self, answer: int, delta: Delta, prompt: int = 0) -> None:
        """A piece is about to leave: it is written down first. What leaves whole is written down at its end."""
        self.spent.note(answer, delta, prompt)
        if self.streamed and (delta.text or delta.calls or delta.completion is not None):
            await _done(self.ledger.count(self.usage_id, self.tokens))


Asked = AbstractAsyncContextManager[Bill]
"""A request that is metered while the block runs, see `Meter.request`."""


class Meter:
    """Writes for one server, which `instance` names."""

    def __init__(self, ledger: Ledger, instance: str) -> None:
        self._ledger, self._instance = ledger, instance
        self._open = 0
        self._owed: list[_Ending] = []

    async def wait_until_closed(self, seconds: float) -> None:
        """Until all requests have been ended, or so many seconds are over."""
        until = asyncio.get_running_loop().time() + seconds
        while self._open and asyncio.get_running_loop().time() < until:
            await asyncio.sleep(0.01)

    @asynccontextmanager
    async def request(
        self,
        principal: Principal,
        *,
        endpoint: str,
        model: str,
        priced_as: Sequence[str] = (),
        spent: Spent | None = None,
        http: Request | None = None,
        request_id: str | None = None,
        streamed: bool = True,
    ) -> AsyncIterator[Bill]:
        """A request while it is worked on; what the block raises says how it ended.

        spent: where its tokens are counted. http: whose headers tell what is left of limits. streamed: whether pieces
        leave before its end. Raises LimitError before anything is done.
        """
        state = http.scope["state"] if http is not None else {}
        named = request_id or state.get("request_id") or "none"

        def begin(connection: Connection) -> tuple[int, Left]:
            return metering.begin(
                connection,
                principal,
                request_id=named,
                endpoint=endpoint,
                model=model,
                instance=self._instance,
            )

        def ending(usage_id: int, status: Status, tokens: Tokens) -> _Ending:
            return _Ending(
                lambda connection: metering.finish(
                    connection, usage_id, status, tokens, allowances=principal.allowances, priced_as=priced_as
                ),
                subjects,
            )

        subjects = metering.subjects_of(principal)
        begun = self._ledger.write(begin, subjects)
        try:
            usage_id, state["left"] = await _done(begun)
        except LimitError as error:
            state["left"] = error.left
            raise
        except asyncio.CancelledError:  # the client went away while its row was written: the row is there
            begun.add_done_callback(lambda done: self._end_unused(done, ending))
            raise
        bill = Bill(usage_id, self._ledger, Spent() if spent is None else spent, streamed)
        status: Status = "failed"
        self._open += 1
        try:
            yield bill
            status = "completed"
        except (asyncio.CancelledError, ClientGoneError, GeneratorExit):
            status = "cancelled"
            raise
        finally:
            # Not given up when the client goes away: what was used is used.
            await asyncio.shield(self._end(ending(usage_id, status, bill.tokens)))

    async def settle_owed(self) -> None:
        """Ends the requests whose end could not be written, as the database was away. Raises StorageError if it is
        away still."""
        while self._owed:
            ending = self._owed[0]
            await _done(self._ledger.write(ending.work, ending.subjects))
            self._owed.remove(ending)

    async def _end(self, ending: _Ending) -> None:
        try:
            await _done(self._ledger.write(ending.work, ending.subjects))
        except ChatwheelError:
            self._owed.append(ending)
            raise
        finally:
            self._open -= 1

    def _end_unused(self, begun: Future[tuple[int, Left]], ending: Callable[[int, Status, Tokens], _Ending]) -> None:
        if not begun.cancelled() and begun.exception() is None:
            unused = ending(begun.result()[0], "cancelled", Tokens())
            with suppress(ChatwheelError):  # closed meanwhile: another server settles it
                self._ledger.write(unused.work, unused.subjects)


@dataclass(frozen=True, eq=False)
class _Ending:
    """What ends a request, and what is locked for it."""

    work: Callable[[Connection], int]
    subjects: Sequence[str]


async def _done(written: Future[T]) -> T:
    return await asyncio.wrap_future(written)
