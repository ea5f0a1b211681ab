"""The page's answers while they are being written: streamed, stoppable, and saved whatever happens."""

from __future__ import annotations

import asyncio
import threading
import time
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import anyio.to_thread
from fastapi import Request
from sqlalchemy.orm import Session

from chatwheel.data.records import Message
from chatwheel.engine.requests import SamplingParams
from chatwheel.server.catalog import bases
from chatwheel.server.errors import logged_body
from chatwheel.server.metering import Bill, Meter
from chatwheel.server.models import ModelPool
from chatwheel.server.sampling import check_context
from chatwheel.server.streaming import Feed, closing
from chatwheel.store.accounts import Principal
from chatwheel.store.conversations import ask_to_stop, is_written, save_answer
from chatwheel.store.database import Database
from chatwheel.store.metering import ALIVE_SECONDS
from chatwheel.store.registry import ModelEntry
from chatwheel.store.tables import MessageStatus

if TYPE_CHECKING:
    from chatwheel.assistant.orchestrator import Assistant

T = TypeVar("T")
SAVE_SECONDS = 1.0
STOP_SECONDS = 5.0
"""How long a stop waits for another server, which looks twice a second."""
STOP_LOOK_SECONDS = 0.05
ROOM_FOR_ANSWER = 128  # tokens kept free for the answer, or a quarter of a small context


@dataclass(frozen=True)
class Event:
    """A server-sent event of the page: its name and its JSON."""

    name: str
    data: dict[str, Any]


class Answers:
    """The answers that are being written now by this server, `instance`, by message id. alive_seconds: how long another
    one may be silent before it is taken for gone."""

    def __init__(
        self,
        models: ModelPool,
        database: Database,
        meter: Meter,
        instance: str,
        alive_seconds: float = ALIVE_SECONDS,
    ) -> None:
        self._models, self._meter = models, meter
        self._database = database
        self._instance, self._alive_seconds = instance, alive_seconds
        self._feeds: dict[str, Feed[Event]] = {}

    def start(
        self,
        message_id: str,
        entry: ModelEntry,
        begin: Callable[[], Awaitable[tuple[Sequence[Message], Event]]],
        params: SamplingParams,
        who: Principal,
        http: Request,
    ) -> Feed[Event]:
        """Writes an answer. begin: saves the question, and the answer's row `message_id`; gives what the model is to
        see, and the first event. It is called when limits have let the request in: whom they refuse finds nothing
        saved, and what is raised before its event is the feed's. Further events: note, delta, error, done."""

        async def write(put: Callable[[Event], None]) -> None:
            draft = _Draft(message_id, self._database)
            status: MessageStatus = "error"
            begun = False
            try:
                async with self._meter.request(
                    who, endpoint="conversations", model=entry.name, priced_as=bases(entry), http=http
                ) as bill:
                    turns, start = await _saved(begin())
                    begun = True
                    put(start)
                    await self._generate(entry, turns, params, draft, put, bill)
                status = "complete"
            except asyncio.CancelledError:
                if not begun:
                    await draft.save("partial", ended=True)  # its row is there, if it was being saved
                    raise
                status = "partial"  # stopped, or the reader left: not an error, and the rest still runs
                if feed.reason is not None:  # but for a key that has ended
                    put(Event("error", logged_body(feed.reason, message_id)))
            except Exception as error:
                if not begun:
                    raise
                put(Event("error", logged_body(error, message_id)))
            finally:
                if begun:
                    await draft.save(status, ended=True)
                    put(Event("done", {"id": message_id, "status": status}))

        feed = Feed[Event](write)
        self._feeds[message_id] = feed
        feed.on_end(lambda: self._forget(message_id))
        return feed

    @property
    def ids(self) -> frozenset[str]:
        """Of those that are being written here."""
        return frozenset(self._feeds)

    def cancel(self, message_ids: frozenset[str]) -> None:
        """Ends those of them that are being written here."""
        for message_id in message_ids:
            if (feed := self._feeds.get(message_id)) is not None:
                feed.cancel()

    async def stop(self, message_id: str) -> bool:
        """Ends an answer, whichever server writes it, and waits until what there is of it is saved; False if it is not
        being written, or the other server did not get to it in `STOP_SECONDS`."""
        feed = self._feeds.get(message_id)
        if feed is None:
            return await self._stop_elsewhere(message_id)
        feed.cancel()
        await feed.wait()
        return True

    async def _stop_elsewhere(self, message_id: str) -> bool:
        def ask(session: Session) -> bool:
            return ask_to_stop(session, message_id, self._instance, time.time() - self._alive_seconds)

        def goes_on() -> bool:
            with self._database.read() as session:
                return is_written(session, message_id)

        if not await anyio.to_thread.run_sync(self._database.transact, ask):
            return False
        until = time.monotonic() + STOP_SECONDS
        while time.monotonic() < until:
            await asyncio.sleep(STOP_LOOK_SECONDS)
            if not await anyio.to_thread.run_sync(goes_on):
                return True
        return False

    async def close(self) -> None:
        """Stops and saves all."""
        for message_id in list(self._feeds):
            await self.stop(message_id)

    def _forget(self, message_id: str) -> None:
        self._feeds.pop(message_id, None)

    async def _generate(
        self,
        entry: ModelEntry,
        turns: Sequence[Message],
        params: SamplingParams,
        draft: _Draft,
        put: Callable[[Event], None],
        bill: Bill,
    ) -> None:
        async with self._models.use(entry) as assistant:
            await self._speak(assistant, turns, params, draft, put, bill)

    @staticmethod
    async def _speak(
        assistant: Assistant,
        turns: Sequence[Message],
        params: SamplingParams,
        draft: _Draft,
        put: Callable[[Event], None],
        bill: Bill,
    ) -> None:
        kept, room = await anyio.to_thread.run_sync(fit_context, assistant, turns)
        if len(kept) < len(turns):
            put(Event("note", {"left_out": len(turns) - len(kept)}))
        bill.spent.prompt_tokens = assistant.context_length - room
        params = replace(params, max_tokens=min(params.max_tokens or room, room))
        async with closing(assistant.stream(kept, params)) as deltas:
            async for delta in deltas:
                await bill.note(0, delta)
                if delta.text:
                    put(Event("delta", {"text": delta.text}))
                    await draft.add(delta.text)


class _Draft:
    """The text so far; saved every second, so that even a crash loses little."""

    def __init__(self, message_id: str, database: Database) -> None:
        self._message_id = message_id
        self._database = database
        self._pieces: list[str] = []
        self._saved = time.monotonic()
        self._lock = threading.Lock()
        self._num_saved = -1

    async def add(self, text: str) -> None:
        self._pieces.append(text)
        if time.monotonic() - self._saved >= SAVE_SECONDS:
            await self.save("partial")

    async def save(self, status: MessageStatus, *, ended: bool = False) -> None:
        await anyio.to_thread.run_sync(self._save, len(self._pieces), status, ended)
        self._saved = time.monotonic()

    def _save(self, num_pieces: int, status: MessageStatus, ended: bool) -> None:
        # A cancelled `add` leaves its thread behind: whichever of the two comes last, the longer text stays.
        with self._lock, self._database.write() as session:
            if num_pieces >= self._num_saved:
                text = "".join(self._pieces[:num_pieces])
                save_answer(session, self._message_id, text, status, ended=ended)
                self._num_saved = num_pieces


async def _saved(saving: Awaitable[T]) -> T:
    """What a save gives. A cancelled one goes on in its thread: it is waited for, so that what comes after finds it."""
    task = asyncio.ensure_future(saving)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # seen, though nobody is there to be told
        raise


def fit_context(assistant: Assistant, turns: Sequence[Message]) -> tuple[Sequence[Message], int]:
    """The newest turns that leave room for an answer, and that room in tokens; a system turn always stays. Blocks.

    Raises ContextLengthError if the last message alone is too long.
    """
    length = assistant.context_length
    limit = length - min(ROOM_FOR_ANSWER, length // 4)
    system = turns[:1] if turns[0].role == "system" else []
    starts = [place for place, turn in enumerate(turns) if turn.role == "user"]
    first = bisect_left(starts, True, key=lambda start: assistant.count_tokens([*system, *turns[start:]]) <= limit)
    kept = [*system, *turns[starts[min(first, len(starts) - 1)] :]]
    prompt_tokens = assistant.count_tokens(kept)
    check_context(prompt_tokens, None, length)
    return kept, length - prompt_tokens
