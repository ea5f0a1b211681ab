"""The arena: two models answer the same prompt, somebody who does not know which ones says which answer is better,
and all such battles together rate the models.

Server-sent events of a battle: `start` {id, prompt, language, topic}, `delta` {left, right}, the next characters of
each answer, and at last `done` {id} or `error` {error}. Both answers are shown at the slower's pace, and what is
cut off is not kept. Whom a limit refuses gets a 429. A battle is two requests, one to each model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection
from typing import Annotated

import anyio.to_thread
from fastapi import APIRouter, Depends, Query, Request, Response
from sqlalchemy.orm import Session

from chatwheel.errors import InputError
from chatwheel.feedback import battles
from chatwheel.feedback.battles import Asked
from chatwheel.feedback.leaderboard import leaderboard
from chatwheel.feedback.matchmaking import draw
from chatwheel.server.answers import Event
from chatwheel.server.arena import Fight, Json, NewBattle, NewBattleChoice, battle_view, leaderboard_view
from chatwheel.server.callers import KeyEndedError
from chatwheel.server.catalog import TUNED
from chatwheel.server.errors import logged_body
from chatwheel.server.identity import PrincipalDep, needs
from chatwheel.server.organization import listed
from chatwheel.server.services import ServicesDep
from chatwheel.server.streaming import KEEP_ALIVE, Feed, FeedResponse, begun, sse
from chatwheel.store.accounts import Principal
from chatwheel.store.registry import ModelEntry
from chatwheel.store.tables import Topic, new_id

router = APIRouter(prefix="/v1/arena", dependencies=[Depends(needs("conversations"))])
LATEST = 20_000
"""Battles that decide who fights next; they are read for each."""


@router.post("/battles", responses={200: {"content": {"text/event-stream": {}}}})
async def create_battle(body: NewBattle, request: Request, services: ServicesDep, who: PrincipalDep) -> Response:
    """Lets two models answer, which and on which side is drawn by chance, and streams both answers, blind."""
    asked = Asked.of(body.prompt, body.language)
    if not asked.prompt:
        raise InputError("prompt: there is nothing in it but spaces", param="prompt")
    entries = {entry.name: entry for entry in await anyio.to_thread.run_sync(services.catalog.entries, who)}

    def pick(session: Session) -> tuple[str, str]:
        told = _told(who, entries)
        return draw(battles.fought(session, told, LATEST), _answering(entries.values()))

    left, right = await services.read(pick)
    fight = Fight(services, who, request, new_id("battle"), asked, {"left": entries[left], "right": entries[right]})
    feed = await begun(request, Feed[Event](fight.write))
    return FeedResponse(feed, _events(feed))


@router.get("/battles")
def list_battles(
    services: ServicesDep,
    who: PrincipalDep,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    before: Annotated[float | None, Query(ge=0, le=10**11)] = None,
) -> Json:
    """One's own, the newest first; `before` (a `created_at`) goes on where the last list ended."""
    with services.database.read() as session:
        rows = battles.list_battles(session, who.user_id, limit + 1, before)
        return listed([battle_view(row) for row in rows[:limit]], has_more=len(rows) > limit)


@router.get("/battles/{battle_id}")
def get_battle(battle_id: str, services: ServicesDep, who: PrincipalDep) -> Json:
    """One of one's own. `models` is null until it is decided."""
    with services.database.read() as session:
        return battle_view(battles.get_battle(session, who.user_id, battle_id))


@router.delete("/battles/{battle_id}", status_code=204)
def delete_battle(battle_id: str, services: ServicesDep, who: PrincipalDep) -> Response:
    """Takes one of one's own away: it counts for no rating any more, and nothing is learnt from it."""
    with services.database.write() as session:
        session.delete(battles.get_battle(session, who.user_id, battle_id))
    return Response(status_code=204)


@router.put("/battles/{battle_id}/choice")
def choose(battle_id: str, body: NewBattleChoice, services: ServicesDep, who: PrincipalDep) -> Json:
    """Decides one of one's own, once, and tells whose the answers are."""
    with services.database.write() as session:
        return battle_view(battles.choose(session, who.user_id, battle_id, body.choice))


@router.get("/leaderboard")
async def get_leaderboard(
    services: ServicesDep,
    who: PrincipalDep,
    language: Annotated[str | None, Query(max_length=16)] = None,
    topic: Topic | None = None,
) -> Json:
    """Ratings (Elo's scale) with 95 % intervals and the ranks that they leave open, from everybody's battles, of one
    language or topic or of all. `too_few`: of a model on fewer than 10 prompts nothing is said. Models that a project
    has tuned are on its own leaderboard alone."""
    entries = {entry.name: entry for entry in await anyio.to_thread.run_sync(services.catalog.entries, who)}

    def work(session: Session) -> Json:
        found = battles.fought(session, _told(who, entries))
        chosen = [one for one in found if language in (None, one.language) and topic in (None, one.topic)]
        board = leaderboard(chosen, _answering(entries.values()))
        languages = Counter(one.language for one in found if one.language is not None)
        topics = Counter(one.topic for one in found if one.topic is not None)
        return {"language": language, "topic": topic, **leaderboard_view(board, languages, topics)}

    return await services.read(work)


def _answering(entries: Collection[ModelEntry]) -> list[str]:
    return [entry.name for entry in entries if entry.kind != "reward"]


def _told(who: Principal, entries: Collection[str]) -> Callable[[str], bool]:
    """Whether somebody may see a model's name: those that they may ask, and those that the installation once had."""
    return lambda name: name in entries or (not name.startswith(TUNED) and who.may_ask(name))


async def _events(feed: Feed[Event]) -> AsyncIterator[str]:
    try:
        async for event in feed.events():
            yield sse(event.data, event.name) if event else KEEP_ALIVE
    except KeyEndedError as error:
        yield sse(logged_body(error, "a battle"), "error")
