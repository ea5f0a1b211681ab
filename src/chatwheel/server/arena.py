"""A battle of the arena: two models write, the reader sees both at one pace, and nobody is told whose they are; and the
JSON of what comes of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import anyio.to_thread
from fastapi import Request
from pydantic import Field

from chatwheel.data.records import Message
from chatwheel.errors import ChatwheelError, ContextLengthError, InputError, ModelNotFoundError, OverloadedError
from chatwheel.feedback import battles
from chatwheel.feedback.battles import Asked, Fighter
from chatwheel.feedback.leaderboard import Leaderboard, Line
from chatwheel.server.answers import Event, fit_context
from chatwheel.server.catalog import bases
from chatwheel.server.curtain import SIDES, Curtain, Side
from chatwheel.server.errors import LOG, body_of
from chatwheel.server.metering import Bill
from chatwheel.server.routes.chat import fingerprint
from chatwheel.server.services import Services
from chatwheel.server.shapes import Body, Sampling
from chatwheel.server.streaming import closing, together
from chatwheel.store.accounts import Principal
from chatwheel.store.registry import ModelEntry
from chatwheel.store.tables import BattleChoice, BattleRow

if TYPE_CHECKING:
    from chatwheel.engine.requests import SamplingParams

Json = dict[str, Any]
TICK_SECONDS = 0.05
"""Between two looks at what may be shown: the pieces come evenly, whatever steps the engines make."""


class NewBattle(Body):
    """POST /v1/arena/battles. language: an ISO 639 code; where it is left out it is told from the prompt, English or
    Chinese."""

    prompt: str = Field(min_length=1, max_length=100_000)
    language: str | None = Field(None, pattern=r"^[a-z]{2,3}$")


class NewBattleChoice(Body):
    """PUT /v1/arena/battles/{id}/choice."""

    choice: BattleChoice


@dataclass(frozen=True)
class Fight:
    """Who asks what of whom. entries: by their sides."""

    services: Services
    who: Principal
    http: Request
    battle_id: str
    asked: Asked
    entries: Mapping[Side, ModelEntry]

    async def write(self, put: Callable[[Event], None]) -> None:
        """Events: start, when limits have let both requests in, delta, and done or error. What is raised before start
        is the feed's: nothing is kept then. The battle is kept when both answers are there."""
        begun = False
        try:
            async with self._metered("left") as left, self._metered("right") as right:
                begun = True
                put(Event("start", {"id": self.battle_id} | _about(self.asked)))
                curtain = Curtain()
                await together([self._speak(curtain, {"left": left, "right": right}), _show(curtain, put)])
            put(Event("done", {"id": self.battle_id}))
        except Exception as error:
            if not begun:
                raise
            put(Event("error", _blind(error, self.battle_id)))

    def _metered(self, side: Side) -> AbstractAsyncContextManager[Bill]:
        entry = self.entries[side]
        return self.services.meter.request(
            self.who, endpoint="arena", model=entry.name, priced_as=bases(entry), http=self.http
        )

    async def _speak(self, curtain: Curtain, bills: Mapping[Side, Bill]) -> None:
        sampling = Sampling.model_validate({})
        await together([self._one(side, curtain, bills[side], sampling.params()) for side in SIDES])
        left, right = (
            Fighter(self.entries[side].name, fingerprint(self.entries[side]), curtain.text(side)) for side in SIDES
        )
        chosen = sampling.model_dump(include={"temperature", "top_p", "max_tokens", "seed"})
        await self.services.write(
            lambda session: battles.keep(session, self.who.user_id, self.battle_id, self.asked, left, right, chosen)
        )

    async def _one(self, side: Side, curtain: Curtain, bill: Bill, params: SamplingParams) -> None:
        turns = [Message(role="user", content=self.asked.prompt)]
        async with self.services.models.use(self.entries[side]) as assistant:
            _, room = await anyio.to_thread.run_sync(fit_context, assistant, turns)
            bill.spent.prompt_tokens = assistant.context_length - room
            params = replace(params, max_tokens=min(params.max_tokens or room, room))
            async with closing(assistant.stream(turns, params)) as deltas:
                async for delta in deltas:
                    await bill.note(0, delta)
                    curtain.add(side, delta.text, time.monotonic())
        curtain.end(side, time.monotonic())


async def _show(curtain: Curtain, put: Callable[[Event], None]) -> None:
    while not curtain.over:
        pieces = curtain.take(time.monotonic())
        if any(pieces.values()):
            put(Event("delta", {side: pieces[side] for side in SIDES}))
        if not curtain.over:
            await asyncio.sleep(TICK_SECONDS)


def _blind(error: Exception, battle_id: str) -> Json:
    """The body of an error that names no model, nor anything of one, such as the length of its context."""
    if isinstance(error, ContextLengthError):
        message = "The prompt is too long for one of the two models. Shorten it, or ask once more for two others."
        return body_of(InputError(message, code="context_length_exceeded", param="prompt"))
    if isinstance(error, OverloadedError):
        return body_of(OverloadedError("One of the two models is busy; ask once more in a moment.", code="overloaded"))
    LOG.error("%s failed", battle_id, exc_info=error)
    if isinstance(error, ModelNotFoundError | InputError):
        return body_of(ChatwheelError("One of the two models does not answer; ask once more.", code="no_answer"))
    return body_of(error)


def _about(asked: Asked | BattleRow) -> Json:
    return {"prompt": asked.prompt, "language": asked.language, "topic": asked.topic}


def battle_view(row: BattleRow) -> Json:
    """A battle as its owner sees it: whose the answers are, once it is decided."""
    names = {"left": row.left_model, "right": row.right_model}
    return {
        "id": row.id,
        **_about(row),
        "answers": {"left": row.left_answer, "right": row.right_answer},
        "choice": row.choice,
        "models": None if row.choice is None else names,
        "created_at": row.created_at,
        "chosen_at": row.chosen_at,
    }


def leaderboard_view(board: Leaderboard, languages: Mapping[str, int], topics: Mapping[str, int]) -> Json:
    """Ratings are on Elo's scale, the models' mean is 1000. languages, topics: how many battles there are of each."""
    left = board.left_first
    return {
        "object": "arena.leaderboard",
        "battles": board.battles,
        "models": [_line(line) for line in board.lines],
        "pairs": [
            {
                "models": [met.one, met.other],
                "battles": met.battles,
                "wins": [met.one_wins, met.other_wins],
                "ties": met.ties,
            }
            for met in board.meetings
        ],
        "left_first": None if left is None else {"points": left, "interval": _numbers(board.left_first_interval)},
        "languages": dict(languages),
        "topics": dict(topics),
    }


def _line(line: Line) -> Json:
    return {
        "model": line.model,
        "rating": line.rating,
        "interval": _numbers(line.interval),
        "rank": None if line.places is None else list(line.places),
        "too_few": line.rating is None,
        "battles": line.battles,
        "wins": line.wins,
        "ties": line.ties,
        "both_bad": line.both_bad,
    }


def _numbers(interval: Sequence[float] | None) -> list[float] | None:
    return None if interval is None else [float(value) for value in interval]
