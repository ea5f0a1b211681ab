"""Users, projects, keys, prices, the record of changes. `/v1/me` says who one is.

Admins' keys (scope `admin`) manage all; a project's owners (scope `project`) its keys and members.
"""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from sqlalchemy.orm import Session

from chatwheel.server.identity import PrincipalDep, needs
from chatwheel.server.organization import (
    MILLION_DOLLARS,
    Json,
    Membership,
    NewApiKey,
    NewProject,
    NewUser,
    Price,
    ProjectChange,
    Rotation,
    UserChange,
    audit_view,
    key_view,
    listed,
    me_view,
    member_view,
    new_key_view,
    price_view,
    project_view,
    user_view,
)
from chatwheel.server.services import ServicesDep
from chatwheel.store import accounts, prices
from chatwheel.store.accounts import ADMIN, ForbiddenError, NotFoundError, Principal
from chatwheel.store.tables import PriceRow, ProjectRow, UserRow

router = APIRouter(prefix="/v1")
ADMINS = [Depends(needs(ADMIN))]


def address_of(request: Request) -> str | None:
    """Where a request comes from, for the record."""
    return request.client.host if request.client is not None else None


AddressDep = Annotated[str | None, Depends(address_of)]


@router.get("/me")
def get_me(who: PrincipalDep, services: ServicesDep) -> Json:
    """Who asks, in which project, and what they may."""
    with services.database.read() as session:
        return me_view(who, session.get_one(UserRow, who.user_id), session.get_one(ProjectRow, who.project_id))


# -- users


@router.get("/organization/users", dependencies=ADMINS)
def list_users(services: ServicesDep) -> Json:
    """The first one first."""
    with services.database.read() as session:
        return listed([user_view(row) for row in accounts.list_users(session)])


@router.post("/organization/users", status_code=201, dependencies=ADMINS)
def create_user(body: NewUser, who: PrincipalDep, services: ServicesDep, address: AddressDep) -> Json:
    """A user, in no project yet."""
    with services.database.write() as session:
        row = accounts.create_user(session, body.name, body.role)
        accounts.record(session, who, "user.added", row.id, address=address, name=row.name, role=row.role)
        return user_view(row)


@router.get("/organization/users/{user_id}", dependencies=ADMINS)
def get_user(user_id: str, services: ServicesDep) -> Json:
    """One of them."""
    with services.database.read() as session:
        return user_view(accounts.get_user(session, user_id))


@router.post("/organization/users/{user_id}", dependencies=ADMINS)
def change_user(user_id: str, body: UserChange, who: PrincipalDep, services: ServicesDep, address: AddressDep) -> Json:
    """Another role; or out, or in again."""
    changes = body.model_dump(exclude_none=True)
    with services.database.write() as session:
        row = accounts.change_user(session, user_id, **changes)
        accounts.record(session, who, "user.updated", row.id, address=address, **changes)
        return user_view(row)


# -- projects and their members


@router.get("/organization/projects")
def list_projects(who: PrincipalDep, services: ServicesDep) -> Json:
    """All for an admin, else the one of the key."""
    with services.database.read() as session:
        rows = accounts.list_projects(session)
        return listed([project_view(row) for row in rows if who.may(ADMIN) or row.id == who.project_id])


@router.post("/organization/projects", status_code=201, dependencies=ADMINS)
def create_project(body: NewProject, who: PrincipalDep, services: ServicesDep, address: AddressDep) -> Json:
    """A project, with who made it as its owner."""
    with services.database.write() as session:
        row = accounts.create_project(session, body.name, who.user_id)
        accounts.change_project(session, row.id, limits=body.limits())
        accounts.record(session, who, "project.created", row.id, address=address, name=row.name, **body.limits())
        return project_view(row)


@router.get("/organization/projects/{project_id}")
def get_project(project_id: str, who: PrincipalDep, services: ServicesDep) -> Json:
    """One of them."""
    with services.database.read() as session:
        return project_view(_seen(session, who, project_id))


@router.post("/organization/projects/{project_id}", dependencies=ADMINS)
def change_project(
    project_id: str, body: ProjectChange, who: PrincipalDep, services: ServicesDep, address: AddressDep
) -> Json:
    """Another name, other limits."""
    with services.database.write() as session:
        row = accounts.change_project(session, project_id, name=body.name, limits=body.limits())
        changes = body.limits() | ({"name": body.name} if body.name else {})
        accounts.record(session, who, "project.updated", row.id, address=address, **changes)
        return project_view(row)


@router.post("/organization/projects/{project_id}/archive", dependencies=ADMINS)
def archive_project(project_id: str, who: PrincipalDep, services: ServicesDep, address: AddressDep) -> Json:
    """Its keys open nothing from now on; what is in it stays."""
    with services.database.write() as session:
        row = accounts.change_project(session, project_id, archived=True)
        accounts.record(session, who, "project.archived", row.id, address=address)
        return project_view(row)


@router.get("/organization/projects/{project_id}/users")
def list_members(project_id: str, who: PrincipalDep, services: ServicesDep) -> Json:
    """Who is in it."""
    with services.database.read() as session:
        _seen(session, who, project_id)
        return listed([member_view(*found) for found in accounts.members_of(session, project_id)])


@router.post("/organization/projects/{project_id}/users", status_code=201)
def set_member(
    project_id: str, body: Membership, who: PrincipalDep, services: ServicesDep, address: AddressDep
) -> Json:
    """Takes a user in, or gives them another role there. `user_id`: an id, or the name of somebody in the project; an
    admin's key may give any name. To others a name that only people outside of the project have is as unknown as one
    that nobody has: who is here is not told, and ids can't be guessed (`GET /v1/me` tells one's own)."""
    with services.database.write() as session:
        _managed(session, who, project_id)
        user = (
            accounts.get_user(session, body.user_id)
            if who.may(ADMIN)
            else accounts.get_member_to_be(session, project_id, body.user_id)
        )
        member = accounts.set_member(session, project_id, user.id, body.role)
        accounts.record(session, who, "project.user.set", project_id, address=address, user_id=user.id, role=body.role)
        return member_view(member, user)


@router.delete("/organization/projects/{project_id}/users/{user_id}")
def remove_member(project_id: str, user_id: str, who: PrincipalDep, services: ServicesDep, address: AddressDep) -> Json:
    """Out; their keys there open nothing from now on."""
    with services.database.write() as session:
        _managed(session, who, project_id)
        accounts.remove_member(session, project_id, user_id)
        accounts.record(session, who, "project.user.deleted", project_id, address=address, user_id=user_id)
    return {"object": "organization.project.user.deleted", "id": user_id, "deleted": True}


# -- keys


@router.get("/organization/projects/{project_id}/api_keys")
def list_keys(project_id: str, who: PrincipalDep, services: ServicesDep) -> Json:
    """Of a project, the newest first."""
    with services.database.read() as session:
        _managed(session, who, project_id)
        return listed([key_view(row) for row in accounts.list_keys(session, project_id)])


@router.post("/organization/projects/{project_id}/api_keys", status_code=201)
def create_key(project_id: str, body: NewApiKey, who: PrincipalDep, services: ServicesDep, address: AddressDep) -> Json:
    """A key. Its `value` is shown here and never again."""
    with services.database.write() as session:
        _managed(session, who, project_id)
        user_id = body.user_id or who.user_id
        expires_at = time.time() + body.expires_in if body.expires_in is not None else None
        scopes = _scopes(who, user_id, body)
        accounts.check_hands_out(who, user_id=user_id, scopes=scopes, models=body.models, expires_at=expires_at)
        made = accounts.create_key(
            session,
            project_id=project_id,
            user_id=user_id,
            name=body.name,
            scopes=scopes,
            models=body.models,
            expires_at=expires_at,
            limits=body.limits(),
        )
        details = {"name": body.name, "user_id": user_id, "scopes": made.row.scopes}
        accounts.record(session, who, "api_key.created", made.row.id, address=address, **details)
        return new_key_view(made)


@router.get("/organization/projects/{project_id}/api_keys/{key_id}")
def get_key(project_id: str, key_id: str, who: PrincipalDep, services: ServicesDep) -> Json:
    """One of them."""
    with services.database.read() as session:
        _managed(session, who, project_id)
        return key_view(accounts.get_key(session, key_id, project_id))


@router.post("/organization/projects/{project_id}/api_keys/{key_id}/rotate", status_code=201)
def rotate_key(
    project_id: str, key_id: str, body: Rotation, who: PrincipalDep, services: ServicesDep, address: AddressDep
) -> Json:
    """Another key with the same rights; the old one ends."""
    with services.database.write() as session:
        _managed(session, who, project_id)
        old = accounts.get_key(session, key_id, project_id)
        accounts.check_hands_out(
            who, user_id=old.user_id, scopes=old.scopes, models=old.models, expires_at=old.expires_at
        )
        made = accounts.rotate_key(session, old.id, body.keep_seconds)
        accounts.record(session, who, "api_key.rotated", old.id, address=address, successor=made.row.id)
        return new_key_view(made)


@router.delete("/organization/projects/{project_id}/api_keys/{key_id}")
def revoke_key(project_id: str, key_id: str, who: PrincipalDep, services: ServicesDep, address: AddressDep) -> Json:
    """It opens nothing from now on, on any server."""
    with services.database.write() as session:
        _managed(session, who, project_id)
        row = accounts.revoke_key(session, accounts.get_key(session, key_id, project_id).id)
        accounts.record(session, who, "api_key.revoked", row.id, address=address)
        return {"object": "organization.project.api_key.deleted", "id": row.id, "deleted": True}


# -- prices and the record


@router.get("/organization/prices", dependencies=[Depends(needs("usage"))])
def list_prices(services: ServicesDep) -> Json:
    """Dollars for a million tokens, by model."""
    with services.database.read() as session:
        return listed([price_view(row) for row in prices.list_prices(session)])


@router.post("/organization/prices", status_code=201, dependencies=ADMINS)
def set_price(body: Price, who: PrincipalDep, services: ServicesDep, address: AddressDep) -> Json:
    """From now on; what was used before keeps its cost."""
    with services.database.write() as session:
        row = prices.set_price(
            session,
            body.model,
            input=round(body.input * MILLION_DOLLARS),
            cached_input=None if body.cached_input is None else round(body.cached_input * MILLION_DOLLARS),
            output=round(body.output * MILLION_DOLLARS),
            training=round(body.training * MILLION_DOLLARS),
        )
        accounts.record(session, who, "price.set", body.model, address=address, **body.model_dump(exclude={"model"}))
        return price_view(row)


@router.delete("/organization/prices/{model:path}", status_code=204, dependencies=ADMINS)
def delete_price(model: str, who: PrincipalDep, services: ServicesDep, address: AddressDep) -> Response:
    """It costs nothing from now on."""
    with services.database.write() as session:
        row = session.get(PriceRow, model)
        if row is None:
            raise NotFoundError(f"there is no price for {model!r}")
        session.delete(row)
        accounts.record(session, who, "price.deleted", model, address=address)
    return Response(status_code=204)


@router.get("/organization/audit_logs", dependencies=ADMINS)
def list_audit(
    services: ServicesDep,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: Annotated[int | None, Query(ge=0, lt=2**63)] = None,
) -> Json:
    """Who changed what, the newest first; `after` (the last one's id) goes on."""
    with services.database.read() as session:
        rows = accounts.list_audit(session, before=after, limit=limit + 1)
        return listed([audit_view(row) for row in rows[:limit]], has_more=len(rows) > limit)


def _seen(session: Session, who: Principal, project_id: str) -> ProjectRow:
    """Raises NotFoundError for another project than the key's: that it exists is none of theirs."""
    if not who.may(ADMIN) and project_id != who.project_id:
        raise NotFoundError(f"project {project_id!r} not found")
    row = session.get(ProjectRow, project_id)
    if row is None:
        raise NotFoundError(f"project {project_id!r} not found")
    return row


def _scopes(who: Principal, user_id: str, body: NewApiKey) -> list[accounts.Scope]:
    """Those that were asked for; unless told otherwise, another user's key does not open their conversations."""
    others = user_id != who.user_id and not who.may(ADMIN) and "scopes" not in body.model_fields_set
    return [scope for scope in body.scopes if not (others and scope == "conversations")]


def _managed(session: Session, who: Principal, project_id: str) -> ProjectRow:
    row = _seen(session, who, project_id)
    if not who.manages(project_id):
        raise ForbiddenError(
            "This takes an admin's key with the scope 'admin', or an owner's with the scope 'project'.",
            code="insufficient_permissions",
        )
    return row
