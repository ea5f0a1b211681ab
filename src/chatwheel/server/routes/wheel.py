"""The wheel: what came in, whether it is enough, turns, their gates, and where models are from.

A turn is a run: its curves are those of GET /v1/runs/{name}. It is worked on by a process beside the server; the model
that answers now goes on answering, and what comes of the turn answers nobody before it is promoted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio.to_thread
from fastapi import APIRouter, Depends
from sqlalchemy.orm import Session

from chatwheel.errors import InputError
from chatwheel.feedback import watching
from chatwheel.jobs.wheel.ancestry import ancestry
from chatwheel.jobs.wheel.state import TurnFiles, turn_files, turn_named
from chatwheel.server.identity import PrincipalDep, needs
from chatwheel.server.organization import listed
from chatwheel.server.routes.deployments import DeploymentView
from chatwheel.server.routes.organization import AddressDep
from chatwheel.server.services import Services, ServicesDep
from chatwheel.server.wheel import Json, NewTurn, TurnPromotion, by_model, deployed_view, turn_view
from chatwheel.store import accounts, deployments

router = APIRouter(prefix="/v1/wheel", dependencies=[Depends(needs(accounts.ADMIN))])
MOST_DEPLOYMENTS = 1000


@router.get("")
async def get_wheel(services: ServicesDep) -> Json:
    """All of it, for the page: who answers now, what came in since the last turn, whether that is enough, and turns."""

    def read(session: Session) -> Json:
        now = deployments.deployed(session)
        ratings = watching.judged(session, now)
        seen, digest = services.looking.look(services.settings, session)
        model = now.current.model if now.current is not None else None
        return {
            "object": "wheel",
            "current": deployed_view(now.current),
            "candidate": deployed_view(now.candidate),
            "rollback": None if ratings is None else ratings.to_json(),
            **seen,
            "forecast": services.forecasting.view(services.settings, model=model, digest=digest),
            "turns": _views(services, session),
        }

    return await services.read(read)


@router.get("/forecast")
async def get_forecast(services: ServicesDep) -> Json:
    """The last one that was made; `fresh`: of the deployed model and of all rankings that there are now."""
    return await services.read(lambda session: _forecast(services, session))


@router.post("/forecast", status_code=202)
async def make_forecast(services: ServicesDep) -> Json:
    """Begins one, which takes seconds to minutes: what twice as many rankings would bring."""
    services.forecasting.begin(services.settings)
    return await services.read(lambda session: _forecast(services, session))


@router.get("/turns")
async def list_turns(services: ServicesDep) -> Json:
    """The one that was begun last first."""
    return await services.read(lambda session: listed(_views(services, session)))


@router.post("/turns", status_code=201)
async def begin_turn(body: NewTurn, services: ServicesDep, who: PrincipalDep, address: AddressDep) -> Json:
    """Writes down what people have given until now; a process beside the server learns from it: SFT, a reward model,
    PPO, and then the gate."""
    from chatwheel.jobs.wheel.recipe import check_changes
    from chatwheel.jobs.wheel.turn import begin

    check_changes(body.changes)

    def read(session: Session) -> str:
        current = body.model or _answering(session)
        if current is None:
            raise InputError("no model is deployed; name one, or promote one first", param="model")
        turn = begin(
            services.settings,
            session,
            current=current,
            name=body.name,
            everybody=body.everybody,
            changes=body.changes,
            by=who.user_id,
        )
        return turn.name

    name = await services.read(read)

    def note(session: Session) -> Json:
        accounts.record(session, who, "wheel.turn.begun", name, address=address, everybody=body.everybody)
        return _view(session, turn_named(services.settings.runs, name))

    return await services.write(note)


@router.get("/turns/{name}")
async def get_turn(name: str, services: ServicesDep) -> Json:
    """One, with its recipe."""

    def read(session: Session) -> Json:
        turn = turn_named(services.settings.runs, name)
        return _view(session, turn) | {"recipe": turn.recipe}

    return await services.read(read)


@router.post("/turns/{name}/stop")
async def stop_turn(name: str, services: ServicesDep, who: PrincipalDep, address: AddressDep) -> Json:
    """At its next step; what it has made is kept."""
    return await _changed(services, who, address, name, "wheel.turn.stopped", TurnFiles.stop)


@router.post("/turns/{name}/resume")
async def resume_turn(name: str, services: ServicesDep, who: PrincipalDep, address: AddressDep) -> Json:
    """It goes on where it was: after a stop, or after what made it fail was mended."""
    return await _changed(services, who, address, name, "wheel.turn.resumed", TurnFiles.resume)


@router.post("/turns/{name}/promote", status_code=201)
async def promote_turn(
    name: str, body: TurnPromotion, services: ServicesDep, who: PrincipalDep, address: AddressDep
) -> Json:
    """Lets the turn's model answer a part of those who ask for the latest one, or all; if the gate let it pass, or
    `anyway`. Taken back by POST /v1/deployments/rollback, or by itself where ratings fall."""
    turn = turn_named(services.settings.runs, name)
    await services.read(lambda session: turn.check_promotable(_answering(session), anyway=body.anyway))
    entry = await services.catalog.find_answering(who, turn.candidate)
    verdict = turn.verdict or {}

    def work(session: Session) -> Json:
        turn.check_promotable(_answering(session), anyway=body.anyway)  # somebody may have promoted another meanwhile
        note = {"turn": name, "verdict": verdict.get("verdict"), "words": verdict.get("words")}
        row = deployments.promote(session, entry.name, share=body.share, by=who.user_id, note=note)
        details: dict[str, Any] = {"share": body.share, "turn": name, "anyway": not verdict.get("passed")}
        accounts.record(session, who, "model.promoted", entry.name, address=address, **details)
        return DeploymentView.model_validate(row).model_dump()

    return await services.write(work)


@router.get("/lineage")
async def get_lineage(services: ServicesDep) -> Json:
    """Where each model is from: people -> data -> run -> model, as nodes and edges."""
    return await services.read(lambda session: ancestry(services.settings, session))


async def _changed(
    services: Services,
    who: accounts.Principal,
    address: str | None,
    name: str,
    action: str,
    change: Callable[[TurnFiles], None],
) -> Json:
    turn = turn_named(services.settings.runs, name)
    await anyio.to_thread.run_sync(change, turn)

    def work(session: Session) -> Json:
        accounts.record(session, who, action, name, address=address)
        return _view(session, turn)

    return await services.write(work)


def _answering(session: Session) -> str | None:
    """The model that answers all, or all but a part."""
    now = deployments.deployed(session).current
    return now.model if now is not None else None


def _forecast(services: Services, session: Session) -> Json:
    _, digest = services.looking.look(services.settings, session)
    return services.forecasting.view(services.settings, model=_answering(session), digest=digest)


def _views(services: Services, session: Session) -> list[Json]:
    history, names = by_model(list(deployments.history(session, MOST_DEPLOYMENTS))), _names(session)
    return [turn_view(turn, history, names) for turn in turn_files(services.settings.runs)]


def _view(session: Session, turn: TurnFiles) -> Json:
    return turn_view(turn, by_model(list(deployments.history(session, MOST_DEPLOYMENTS))), _names(session))


def _names(session: Session) -> dict[str, str]:
    return {user.id: user.name for user in accounts.list_users(session)}
