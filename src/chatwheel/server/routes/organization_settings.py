"""GET, PUT /v1/organization/settings: what admins decide for the whole installation."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from pydantic import Field
from sqlalchemy.orm import Session

from chatwheel.server.identity import PrincipalDep, needs
from chatwheel.server.routes.organization import AddressDep
from chatwheel.server.services import ServicesDep
from chatwheel.server.shapes import Body
from chatwheel.store import accounts
from chatwheel.store.retention import LEAST_DAYS, MOST_DAYS, NAME, Retention, due, retention, set_retention

router = APIRouter(prefix="/v1/organization/settings", dependencies=[Depends(needs(accounts.ADMIN))])
Json = dict[str, Any]
LEAST_CHAT, LEAST_AUDIT = LEAST_DAYS["chat_days"], LEAST_DAYS["audit_days"]


class RetentionBody(Body):
    """Days that things are kept; null is for ever."""

    chat_days: int | None = Field(ge=LEAST_CHAT, le=MOST_DAYS)
    audit_days: int | None = Field(ge=LEAST_AUDIT, le=MOST_DAYS)


class SettingsBody(Body):
    """PUT /v1/organization/settings: all of them."""

    retention: RetentionBody


@router.get("")
def get_settings(services: ServicesDep) -> Json:
    """How long things are kept, and what falls under that now (`due`): servers delete it within an hour. chat_days: a
    conversation without a new turn for so long is deleted with its messages, ratings and corrections; audit_days: a
    line of the audit log. null is for ever. What was used is always kept."""
    with services.database.read() as session:
        return _view(session, retention(session))


@router.get("/due")
def get_due(
    services: ServicesDep,
    chat_days: Annotated[int | None, Query(ge=LEAST_CHAT, le=MOST_DAYS)] = None,
    audit_days: Annotated[int | None, Query(ge=LEAST_AUDIT, le=MOST_DAYS)] = None,
) -> Json:
    """What such a rule would delete now; nothing is saved."""
    with services.database.read() as session:
        return _view(session, Retention(chat_days, audit_days))


@router.put("")
def put_settings(body: SettingsBody, who: PrincipalDep, services: ServicesDep, address: AddressDep) -> Json:
    """They hold from now on. What is deleted does not come back but from a backup: `GET .../due` tells before."""
    rule = Retention(**body.retention.model_dump())

    with services.database.write() as session:
        set_retention(session, rule)
        accounts.record(session, who, "settings.updated", NAME, address=address, **asdict(rule))
        return _view(session, rule)


def _view(session: Session, rule: Retention) -> Json:
    return {"object": "organization.settings", "retention": asdict(rule), "due": asdict(due(session, rule))}
