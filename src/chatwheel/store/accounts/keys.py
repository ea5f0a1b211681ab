"""Keys: made, rotated, revoked."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from chatwheel.errors import InputError
from chatwheel.store.accounts.finding import digest_of
from chatwheel.store.accounts.people import clean_name
from chatwheel.store.accounts.principal import (
    ADMIN,
    LIMITS,
    SCOPES,
    USUAL,
    ConflictError,
    ForbiddenError,
    NotFoundError,
    Principal,
)
from chatwheel.store.tables import ApiKeyRow, MemberRow, UserRow

PREFIX = "cw-"
KEY_BYTES = 32


@dataclass(frozen=True)
class NewKey:
    """A key that was just made. `secret` is not kept: this is the only time it can be shown."""

    row: ApiKeyRow
    secret: str


def create_key(
    session: Session,
    *,
    project_id: str,
    user_id: str,
    name: str,
    scopes: Sequence[str] = USUAL,
    models: Sequence[str] | None = None,
    expires_at: float | None = None,
    limits: Mapping[str, int | None] = {},
) -> NewKey:
    """Makes a key of a member of a project. limits: see `tables.accounts.Limits`. Raises InputError, ForbiddenError,
    NotFoundError."""
    check_scopes(scopes)
    member = session.get(MemberRow, (project_id, user_id))
    if member is None:
        raise NotFoundError(f"user {user_id!r} is not in project {project_id!r}")
    user = session.get_one(UserRow, user_id)
    if ADMIN in scopes and user.role != ADMIN:
        raise ForbiddenError("a key with the scope admin is for admins")
    if expires_at is not None and expires_at <= time.time():
        raise InputError("expires_at lies in the past", param="expires_at")
    secret = PREFIX + secrets.token_urlsafe(KEY_BYTES)
    row = ApiKeyRow(
        project_id=project_id,
        user_id=user_id,
        name=clean_name(name),
        hint=f"{secret[:7]}...{secret[-4:]}",
        digest=digest_of(secret),
        scopes=[scope for scope in SCOPES if scope in scopes],
        models=list(models) if models is not None else None,
        expires_at=expires_at,
        **limits,
    )
    session.add(row)
    session.flush()
    return NewKey(row, secret)


def check_hands_out(
    who: Principal,
    *,
    user_id: str,
    scopes: Sequence[str],
    models: Sequence[str] | None,
    expires_at: float | None,
) -> None:
    """Raises ForbiddenError for a key that would be worth more than the one that makes (or rotates) it, or that would
    open somebody else's conversations. Admins may do all anyway."""
    if who.may(ADMIN):
        return
    for scope in scopes:
        if not who.may(scope):
            raise ForbiddenError(f"This key has not the scope {scope!r} itself.", param="scopes")
    if user_id != who.user_id and "conversations" in scopes:
        raise ForbiddenError("Conversations are their user's alone; leave that scope out.", param="scopes")
    if who.models is not None and (models is None or not set(models) <= set(who.models)):
        raise ForbiddenError("This key is for some models only; name those, or fewer.", param="models")
    if who.expires_at is not None and (expires_at is None or expires_at > who.expires_at):
        raise ForbiddenError("This key ends before that one would.", param="expires_in")
    for allowance in who.allowances:
        limited = (allowance.requests_per_minute, allowance.tokens_per_minute, allowance.budget) != (None, None, None)
        if allowance.subject == who.key_id and limited:  # two keys of the same limits would be twice as much
            raise ForbiddenError("A key with limits of its own makes no others.", code="insufficient_permissions")


def check_scopes(scopes: Sequence[str]) -> None:
    """Raises InputError for a scope that there is not, or for none."""
    unknown = [scope for scope in scopes if scope not in SCOPES]
    if unknown or not scopes:
        raise InputError(
            f"scopes: {unknown[0]!r} is none of {', '.join(SCOPES)}" if unknown else "scopes: give at least one",
            param="scopes",
        )


def rotate_key(session: Session, key_id: str, keep_seconds: float = 0.0) -> NewKey:
    """Another secret with the same rights and limits. The old one ends at once, or after so many seconds. Raises
    NotFoundError; ConflictError for a key that has ended: what was taken back does not return."""
    old = get_key(session, key_id)
    if (state := state_of(old)) != "active":
        raise ConflictError(f"The key {old.id} is {state}; make another one.", code="key_not_active")
    new = create_key(
        session,
        project_id=old.project_id,
        user_id=old.user_id,
        name=old.name,
        scopes=old.scopes,
        models=old.models,
        expires_at=old.expires_at,
        limits={name: getattr(old, name) for name in LIMITS},
    )
    if keep_seconds > 0:
        end = time.time() + keep_seconds
        old.expires_at = min(end, old.expires_at or end)
    else:
        old.revoked_at = time.time()
    return new


def revoke_key(session: Session, key_id: str) -> ApiKeyRow:
    """It opens nothing from now on. Once more is no error."""
    row = get_key(session, key_id)
    row.revoked_at = row.revoked_at or time.time()
    return row


def get_key(session: Session, key_id: str, project_id: str | None = None) -> ApiKeyRow:
    """By its id, or by its hint if only one has it. project_id: of that project only. Raises NotFoundError."""
    rows = session.scalars(
        select(ApiKeyRow).where((ApiKeyRow.id == key_id) | (ApiKeyRow.hint == key_id)).limit(2)
    ).all()
    if len(rows) != 1 or project_id not in (None, rows[0].project_id):
        raise NotFoundError(f"key {key_id!r} not found")
    return rows[0]


def state_of(key: ApiKeyRow, now: float | None = None) -> str:
    """active, expired or revoked; whether its owner and project are still there is another question."""
    if key.revoked_at is not None:
        return "revoked"
    gone = key.expires_at is not None and key.expires_at <= (time.time() if now is None else now)
    return "expired" if gone else "active"


def list_keys(session: Session, project_id: str | None = None) -> Sequence[ApiKeyRow]:
    """All, or a project's, the newest first."""
    query = select(ApiKeyRow).order_by(ApiKeyRow.created_at.desc(), ApiKeyRow.id)
    return session.scalars(query if project_id is None else query.where(ApiKeyRow.project_id == project_id)).all()
