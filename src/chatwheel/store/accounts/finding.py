"""Who a key is: looked up anew for every request."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Collection
from typing import Any, TypeVarTuple

from sqlalchemy import Connection, Select, bindparam, select, update
from sqlalchemy.orm import Session

from chatwheel.store.accounts.principal import ADMIN, LIMITS, SCOPES, Allowance, Principal
from chatwheel.store.prepared import Prepared
from chatwheel.store.tables import ApiKeyRow, MemberRow, PasswordRow, ProjectRow, UserRow

Ts = TypeVarTuple("Ts")
SEEN_SECONDS = 60.0
"""`last_used_at` is right to a minute: not every request writes it."""


def digest_of(secret: str) -> str:
    """What is kept of a key. A key has 256 random bits, so that a plain hash cannot be searched backwards."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def authenticate(reader: Session | Connection, secret: str, now: float | None = None) -> Principal | None:
    """Who a key is; None for one that is unknown, revoked, expired, or of somebody who has no business here any more.
    Reads once, and always anew: what was revoked is so at once, on every server."""
    asked = {"secret_digest": digest_of(secret), "now": time.time() if now is None else now}
    if isinstance(reader, Session):
        reader.flush()
    rows = _HOLDER.rows(reader, asked)
    if not rows:
        return None
    found = rows[0]
    scopes, models = (json.loads(v) if isinstance(v, str) else v for v in (found.scopes, found.models))  # as drivers do
    return Principal(
        user_id=found.user_id,
        project_id=found.project_id,
        key_id=found.id,
        is_admin=found.role == ADMIN,
        owns_project=found.membership == "owner",
        scopes=frozenset(scopes),
        models=tuple(models) if models is not None else None,
        allowances=(
            Allowance(found.id, *(getattr(found, limit) for limit in LIMITS)),
            Allowance(found.project_id, *(getattr(found, f"project_{limit}") for limit in LIMITS)),
        ),
        expires_at=found.expires_at,
        seen_at=found.last_used_at,
    )


def opening(session: Session, key_ids: Collection[str], now: float | None = None) -> frozenset[str]:
    """Those of these keys, by their ids, that still open what they opened: one query for all."""
    query = _that_open(select(ApiKeyRow.id), time.time() if now is None else now)
    return frozenset(session.scalars(query.where(ApiKeyRow.id.in_(key_ids))))


def _that_open(query: Select[*Ts], now: Any) -> Select[*Ts]:
    """Of keys, with their users, projects and memberships: those that are not revoked or expired, and whose owners have
    business here."""
    return (
        query.join(UserRow, UserRow.id == ApiKeyRow.user_id)
        .join(ProjectRow, ProjectRow.id == ApiKeyRow.project_id)
        .join(MemberRow, (MemberRow.project_id == ApiKeyRow.project_id) & (MemberRow.user_id == ApiKeyRow.user_id))
        .where(
            ApiKeyRow.revoked_at.is_(None),
            (ApiKeyRow.expires_at.is_(None)) | (ApiKeyRow.expires_at > now),
            UserRow.disabled_at.is_(None),
            ProjectRow.archived_at.is_(None),
        )
    )


_HOLDER = Prepared(
    _that_open(
        select(
            *(ApiKeyRow.id, ApiKeyRow.user_id, ApiKeyRow.project_id, ApiKeyRow.scopes, ApiKeyRow.models),
            *(ApiKeyRow.expires_at, ApiKeyRow.last_used_at, UserRow.role, MemberRow.role.label("membership")),
            *(getattr(ApiKeyRow, limit) for limit in LIMITS),
            *(getattr(ProjectRow, limit).label(f"project_{limit}") for limit in LIMITS),
        ),
        bindparam("now"),
    ).where(ApiKeyRow.digest == bindparam("secret_digest"))
)


def mark_used(session: Session, principal: Principal, now: float) -> None:
    """The key is in use."""
    session.execute(update(ApiKeyRow).where(ApiKeyRow.id == principal.key_id).values(last_used_at=now))


def local_principal(session: Session) -> Principal:
    """This machine's own user, who needs no key: the first admin, in the first project of theirs."""
    user, project = session.execute(
        select(UserRow.id, ProjectRow)
        .join(MemberRow, MemberRow.user_id == UserRow.id)
        .join(ProjectRow, ProjectRow.id == MemberRow.project_id)
        .where(UserRow.role == ADMIN, UserRow.disabled_at.is_(None), ProjectRow.archived_at.is_(None))
        .order_by(UserRow.created_at, UserRow.id, ProjectRow.created_at, ProjectRow.id)
        .limit(1)
    ).one()
    return Principal(
        user_id=user,
        project_id=project.id,
        is_admin=True,
        owns_project=True,
        scopes=frozenset(SCOPES),
        allowances=(_allowance(project),),
    )


def has_keys(session: Session) -> bool:
    """Whether a key was ever made, revoked or not."""
    return session.scalar(select(ApiKeyRow.id).limit(1)) is not None


def is_guarded(session: Session) -> bool:
    """Whether a key was ever made or a password given: from then on everybody is asked for one or the other."""
    return has_keys(session) or session.scalar(select(PasswordRow.user_id).limit(1)) is not None


def allowances_of(session: Session, key_id: str | None, project_id: str) -> tuple[Allowance, ...]:
    """The limits of a key and its project as they are now, of those that are still there."""
    found = (session.get(ApiKeyRow, key_id) if key_id is not None else None, session.get(ProjectRow, project_id))
    return tuple(_allowance(row) for row in found if row is not None)


def _allowance(row: ApiKeyRow | ProjectRow) -> Allowance:
    return Allowance(row.id, row.requests_per_minute, row.tokens_per_minute, row.budget)
