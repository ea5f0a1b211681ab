"""Signing in by name and password, the sessions that this opens, and passwords."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from chatwheel.errors import ChatwheelError, InputError
from chatwheel.server import cookies
from chatwheel.server.identity import PrincipalDep, needs
from chatwheel.server.organization import Json, listed
from chatwheel.server.routes.organization import AddressDep
from chatwheel.server.services import Services, ServicesDep
from chatwheel.store import accounts, attempts, passwords, sign_in
from chatwheel.store.accounts import ADMIN, ConflictError, ForbiddenError, Principal
from chatwheel.store.sign_in import SIGN_IN_FAILED, NewSession
from chatwheel.store.tables import PasswordRow, SessionRow, UserRow

router = APIRouter(prefix="/v1")
admin = APIRouter(prefix="/v1/organization", dependencies=[Depends(needs(ADMIN))])
NOBODY = "unknown"


class SignIn(BaseModel):
    """POST /v1/session. project_id: one of theirs, the first unless given."""

    model_config = ConfigDict(strict=True, extra="forbid")

    name: str = Field(max_length=200)
    password: str
    project_id: str | None = Field(None, max_length=40)


class NewPassword(BaseModel):
    """PUT /v1/password. current: the one until now, if there is one."""

    model_config = ConfigDict(strict=True, extra="forbid")

    current: str | None = None
    password: str


class WrongPasswordError(ChatwheelError):
    """No such user, or another password: which of both is not told."""

    status = 401


def _wrong() -> WrongPasswordError:
    return WrongPasswordError("The name or the password is wrong.", code="wrong_password")


async def _session_holder(who: PrincipalDep) -> Principal:
    if who.session_id is None:
        raise ForbiddenError("This is for who signed in by a password.", code="insufficient_permissions")
    return who


HolderDep = Annotated[Principal, Depends(_session_holder)]
"""Who signed in. A key may be an application's, which has no business with its owner's sessions."""


@router.get("/session")
def get_session(request: Request, services: ServicesDep) -> Json:
    """Who asks, and by what: `password`, `key`, or `local` (this machine's own user, as long as nobody is asked). `by`
    is null for nobody; `passwords` says whether anybody here has one."""
    who: Principal | None = request.scope["state"]["principal"]
    with services.database.read() as session:
        return _view(session, who, cookies.token_of(request.scope), bool(request.headers.get("authorization")))


@router.post("/session", status_code=201)
async def create_session(
    body: SignIn, request: Request, response: Response, services: ServicesDep, address: AddressDep
) -> Json:
    """Signs in: the cookie is `HttpOnly`, for 30 days, or 7 days of which nothing is seen. After 5 wrong passwords in
    15 minutes for a name, or 20 from an address, one has to wait (429), each time twice as long, 15 minutes at most."""
    counted, found = await services.write(partial(_admit, name=body.name, address=address))
    if not await _hashed(services, services.hasher.is_right, body.password, None if found is None else found.digest):
        target = NOBODY if found is None else found.user_id
        await services.write(lambda session: accounts.record(session, None, SIGN_IN_FAILED, target, address=address))
        raise _wrong()
    assert found is not None
    anew = None
    if services.hasher.is_outdated(found.digest):
        anew = await _hashed(services, services.hasher.digest, body.password)
    agent, left = request.headers.get("user-agent"), cookies.token_of(request.scope)

    def enter(session: Session) -> tuple[NewSession, Json]:
        user, row = passwords.find(session, body.name)
        if user is None or row is None or row.digest != found.digest:  # changed, or out, meanwhile
            raise _wrong()
        attempts.forgive(session, counted)
        row.digest, row.known_address = anew or row.digest, address
        if left is not None:
            sign_in.end_token(session, left)
        made = sign_in.begin(session, user.id, project_id=body.project_id, address=address, user_agent=agent)
        accounts.record(session, _principal(made.row), "session.created", made.row.id, address=address)
        return made, _view(session, sign_in.authenticate(session, made.token), made.token)

    made, view = await services.write(enter)
    cookies.give(response, request.scope, made.token)
    return view


@router.delete("/session", status_code=204)
def delete_session(who: HolderDep, request: Request, services: ServicesDep, address: AddressDep) -> Response:
    """Signs out; what is under way ends within a second."""
    assert who.session_id is not None
    with services.database.write() as session:
        sign_in.end(session, who.session_id)
        accounts.record(session, who, "session.deleted", who.session_id, address=address)
    response = Response(status_code=204)
    cookies.take(response, request.scope)
    return response


@router.get("/sessions")
def list_sessions(who: HolderDep, services: ServicesDep) -> Json:
    """One's own, the one seen last first; `seen_at` is right to five minutes."""
    with services.database.read() as session:
        rows = sign_in.list_sessions(session, who.user_id)
        return listed([_line(row, current=row.id == who.session_id) for row in rows])


@router.delete("/sessions", status_code=204)
def delete_sessions(who: HolderDep, request: Request, services: ServicesDep, address: AddressDep) -> Response:
    """Signs out everywhere, here too."""
    with services.database.write() as session:
        ended = sign_in.end_all(session, who.user_id)
        accounts.record(session, who, "session.all_deleted", who.user_id, address=address, sessions=ended)
    response = Response(status_code=204)
    cookies.take(response, request.scope)
    return response


async def _person(who: PrincipalDep) -> Principal:
    if who.key_id is not None:
        raise ForbiddenError(
            "A key sets no password of its owner's: sign in, or let an admin give a temporary one.",
            code="insufficient_permissions",
        )
    return who


@router.put("/password")
async def set_password(
    body: NewPassword,
    who: Annotated[Principal, Depends(_person)],
    request: Request,
    response: Response,
    services: ServicesDep,
    address: AddressDep,
) -> Json:
    """One's own, from now on: all sessions end, and a new one is opened here. By who signed in, or by this machine's
    own user, whose first one closes the door: from then on everybody is asked. A key sets none."""
    counted, user, found = await services.write(partial(_own, who=who, address=address, given=body.current is not None))
    if found is not None:
        assert body.current is not None
        if not await _hashed(services, services.hasher.is_right, body.current, found.digest):
            await services.write(
                lambda session: accounts.record(session, who, "password.failed", user.id, address=address)
            )
            raise InputError("That is not your password.", param="current", code="wrong_password")
        if body.password == body.current:
            raise InputError("That is the password that you have; choose another one.", code="password_same")
    passwords.check(body.password, user.name)
    digest = await _hashed(services, services.hasher.digest, body.password)
    agent = request.headers.get("user-agent")

    def change(session: Session) -> tuple[NewSession, Json]:
        row = passwords.of_user(session, user.id)
        if (row and row.digest) != (found and found.digest):
            raise ConflictError("Your password was changed meanwhile; sign in again.")
        attempts.forgive(session, counted)
        row = passwords.put(session, user.id, digest)
        row.known_address = address
        made = sign_in.begin(session, user.id, project_id=who.project_id, address=address, user_agent=agent)
        accounts.record(session, who, "password.changed", user.id, address=address)
        return made, _view(session, sign_in.authenticate(session, made.token), made.token)

    made, view = await services.write(change)
    cookies.give(response, request.scope, made.token)
    return view


@admin.post("/users/{user_id}/password", status_code=201)
async def reset_password(user_id: str, who: PrincipalDep, services: ServicesDep, address: AddressDep) -> Json:
    """A temporary password, shown this once: it opens nothing but its own change, for 7 days. Their sessions end."""
    value, until = passwords.temporary(), time.time() + passwords.TEMPORARY_SECONDS
    digest = await _hashed(services, services.hasher.digest, value)

    def reset(session: Session) -> str:
        user = accounts.get_user(session, user_id)
        passwords.put(session, user.id, digest, temporary_until=until)
        attempts.forget(session, user.name)
        accounts.record(session, who, "password.reset", user.id, address=address)
        return user.id

    user = await services.write(reset)
    return {"object": "organization.user.password", "user_id": user, "value": value, "expires_at": int(until)}


async def _hashed(services: Services, work: Callable[..., Any], *arguments: Any) -> Any:
    """Few at a time: each takes 64 MiB."""
    return await anyio.to_thread.run_sync(work, *arguments, limiter=services.hashing)


def _admit(session: Session, name: str, address: str | None) -> tuple[dict[str, int], PasswordRow | None]:
    """Counts an attempt; what it counts for, and whose password it is to be. Raises LimitError."""
    _, row = passwords.find(session, name)
    counted = attempts.subjects(name, address, None if row is None else row.known_address)
    attempts.admit(session, counted, time.time())
    return counted, row


def _own(
    session: Session, who: Principal, address: str | None, *, given: bool
) -> tuple[dict[str, int], UserRow, PasswordRow | None]:
    """As `_admit`, of who wants another one. Raises InputError where the current one is missing, LimitError."""
    user, row = session.get_one(UserRow, who.user_id), passwords.of_user(session, who.user_id)
    if row is None:
        return {}, user, None
    if not given:
        raise InputError("Say your current password too.", param="current", code="current_missing")
    counted = attempts.subjects(user.name, address, row.known_address)
    attempts.admit(session, counted, time.time())
    return counted, user, row


def _principal(row: SessionRow) -> Principal:
    return Principal(row.user_id, row.project_id, session_id=row.id)


def _view(session: Session, who: Principal | None, token: str | None, by_key: bool = False) -> Json:
    """A session, or who asks without one."""
    found: Json = {
        "object": "session",
        "by": None,
        "id": None,
        "user": None,
        "csrf_token": None,
        "must_change": False,
        "has_password": False,
        "passwords": passwords.are_there(session),
    }
    if who is None:
        return found
    user = session.get_one(UserRow, who.user_id)
    own = who.session_id is not None and token is not None
    return found | {
        "by": "password" if own else "key" if by_key else "local",
        "id": who.session_id,
        "user": {"id": user.id, "name": user.name, "role": user.role},
        "csrf_token": sign_in.csrf_token(token) if own and token else None,
        "must_change": who.must_change,
        "has_password": passwords.of_user(session, user.id) is not None,
    }


def _line(row: SessionRow, *, current: bool) -> Json:
    """One of one's own, as the list has it."""
    return {
        "object": "session.line",
        "id": row.id,
        "created_at": int(row.created_at),
        "seen_at": int(row.seen_at),
        "expires_at": int(row.expires_at),
        "user_agent": row.user_agent,
        "ip_address": row.address,
        "current": current,
    }
