"""Which model answers who asks for `chatwheel-latest`: promoted to a part, to all, rolled back."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from chatwheel.errors import InputError
from chatwheel.feedback import watching
from chatwheel.server.catalog import TUNED
from chatwheel.server.identity import PrincipalDep, needs
from chatwheel.server.organization import listed
from chatwheel.server.routes.organization import AddressDep
from chatwheel.server.services import ServicesDep
from chatwheel.server.shapes import Body
from chatwheel.store import accounts, deployments
from chatwheel.store.tables import DeploymentRow

router = APIRouter(prefix="/v1/deployments", dependencies=[Depends(needs(accounts.ADMIN))])
Json = dict[str, Any]


class NewDeployment(Body):
    """POST /v1/deployments. share: of those who ask for the latest model."""

    model: str = Field(min_length=1, max_length=1000)
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    note: str | None = Field(None, max_length=2000)


class DeploymentView(BaseModel):
    """A model, from when to when it answered whom."""

    model_config = ConfigDict(from_attributes=True)
    id: int
    model: str
    share: float
    started_at: float
    started_by: str | None
    ended_at: float | None
    outcome: str | None
    note: dict[str, Any]


@router.get("")
def list_deployments(services: ServicesDep) -> Json:
    """The newest first; those without an end answer now. ratings: how those of the newest compare with those of the
    model before, in words."""
    with services.database.read() as session:
        found = watching.judged(session, deployments.deployed(session))
        rows = listed([_view(row) for row in deployments.history(session)])
        return rows | {"ratings": found.words if found is not None else None}


@router.post("", status_code=201)
async def promote(body: NewDeployment, services: ServicesDep, who: PrincipalDep, address: AddressDep) -> Json:
    """Lets a model answer a part, or all."""
    if body.model.startswith(TUNED) or body.model == deployments.LATEST:
        raise InputError(f"{body.model!r} is no model of the installation's own; promote one of them", param="model")
    entry = await services.catalog.find_answering(who, body.model)

    def work(session: Session) -> Json:
        note = {"words": body.note} if body.note else {}
        row = deployments.promote(session, entry.name, share=body.share, by=who.user_id, note=note)
        accounts.record(session, who, "model.promoted", entry.name, address=address, share=body.share)
        return _view(row)

    return await services.write(work)


@router.post("/rollback")
def rollback(services: ServicesDep, who: PrincipalDep, address: AddressDep) -> Json:
    """The candidate goes, or, where there is none, the current model in favour of the one before it."""
    with services.database.write() as session:
        now = deployments.rollback(session, by=who.user_id)
        accounts.record(session, who, "model.rolled_back", now.current.model if now.current else "", address=address)
        return listed([_view(row) for row in (now.current, now.candidate) if row is not None])


def _view(row: DeploymentRow) -> Json:
    return DeploymentView.model_validate(row).model_dump()
