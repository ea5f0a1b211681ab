"""Users, projects and keys: who asks, what they may, who changed that. Functions work in the caller's transaction."""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVarTuple, get_args

from sqlalchemy import Connection, Select, bindparam, delete, func, select, update
from sqlalchemy.exc import NoResultFound
from sqlalchemy.orm import Session

from chatwheel.errors import ChatwheelError, InputError
from chatwheel.store.database import lock
from chatwheel.store.prepared import Prepared
from chatwheel.store.tables import (
    ApiKeyRow,
    AuditRow,
    MemberRow,
    PasswordRow,
    ProjectRow,
    SessionRow,
    UserRole,
    UserRow,
)

Ts = TypeVarTuple("Ts")
ADMIN = "admin"
Scope = Literal[
    "chat",
    "completions",
    "embeddings",
    "moderations",
    "score",
    "models",
    "files",
    "fine_tuning",
    "conversations",
    "labelling",
    "usage",
    "runs",
    "project",
    "admin",
]
SCOPES: tuple[Scope, ...] = get_args(Scope)
"""What a key may be allowed: an endpoint each; `runs` are the installation's training runs, `project` the keys and
members of the project of its owner, `admin` everybody's."""
USUAL: tuple[Scope, ...] = tuple(scope for scope in SCOPES if scope not in ("runs", "project", ADMIN))
"""What a key may do unless it was said otherwise."""

LIMITS = ("requests_per_minute", "tokens_per_minute", "budget")
PREFIX = "cw-"
KEY_BYTES = 32
SEEN_SECONDS = 60.0
"""`last_used_at` is right to a minute: not every request writes it."""


class ForbiddenError(ChatwheelError):
    """One may come in, but not do that."""

    status = 403
    type = "invalid_request_error"


class NotFoundError(ChatwheelError):
    """There is none of that id, or it is somebody else's: which of both is not told."""

    status = 404


class ConflictError(ChatwheelError):
    """It is there already, or it is not in a state for that."""

    status = 409


@dataclass(frozen=True)
class Allowance:
    """Limits of a key or a project, see `tables.accounts.Limits`."""

    subject: str
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    budget: int | None = None


@dataclass(frozen=True)
class Principal:
    """Who asks. models: None is all of those that the project sees. allowances: the key's and the project's.
    session_id: of who signed in by a password, who has no key. must_change: it is a temporary one, which opens nothing
    but its own change. expires_at: when the key ends. seen_at: when it was last noted as being in use."""

    user_id: str
    project_id: str
    key_id: str | None = None
    session_id: str | None = None
    is_admin: bool = False
    owns_project: bool = False
    scopes: frozenset[str] = frozenset(USUAL)
    models: tuple[str, ...] | None = None
    allowances: tuple[Allowance, ...] = field(default=(), repr=False)
    must_change: bool = field(default=False, repr=False)
    expires_at: float | None = field(default=None, repr=False)
    seen_at: float | None = field(default=None, repr=False, compare=False)

    @property
    def entry(self) -> str | None:
        """The id of the key or session that it came in with; None is this machine's own user."""
        return self.key_id or self.session_id

    def may(self, scope: str) -> bool:
        """Whether it has a scope; `admin` takes an admin's key that was made for it."""
        return scope in self.scopes and (self.is_admin or scope not in (ADMIN, "runs"))

    def manages(self, project_id: str) -> bool:
        """Whether it may hand out keys of a project and take members in."""
        return self.may(ADMIN) or (self.may("project") and self.owns_project and project_id == self.project_id)

    def may_ask(self, model: str) -> bool:
        """Whether it may use a model of that name."""
        return self.models is None or model in self.models


@dataclass(frozen=True)
class NewKey:
    """A key that was just made. `secret` is not kept: this is the only time it can be shown."""

    row: ApiKeyRow
    secret: str


# -- who asks


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


# -- keys


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
        name=_named(name),
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


# -- users and projects


def create_user(session: Session, name: str, role: str = "member") -> UserRow:
    """Raises InputError, ConflictError."""
    if role not in get_args(UserRole):
        raise InputError(f"role: {role!r} is none of {', '.join(get_args(UserRole))}", param="role")
    name = _named(name)
    if session.scalar(select(UserRow.id).where(UserRow.name == name)) is not None:
        raise ConflictError(f"there is a user {name!r} already", param="name")
    row = UserRow(name=name, role=role)
    session.add(row)
    session.flush()
    return row


def change_user(session: Session, user_id: str, *, role: str | None = None, disabled: bool | None = None) -> UserRow:
    """Who gets another role, or is out, is signed out everywhere. Raises InputError, NotFoundError; ConflictError where
    no admin would be left."""
    lock(session, [ADMIN])
    row = get_user(session, user_id)
    if disabled or role not in (None, row.role):
        session.execute(delete(SessionRow).where(SessionRow.user_id == row.id))
    if role is not None:
        if role not in get_args(UserRole):
            raise InputError(f"role: {role!r} is none of {', '.join(get_args(UserRole))}", param="role")
        row.role = role
    if disabled is not None:
        row.disabled_at = (row.disabled_at or time.time()) if disabled else None
    session.flush()
    admins = select(func.count()).select_from(UserRow).where(UserRow.role == ADMIN, UserRow.disabled_at.is_(None))
    if not session.scalar(admins):
        raise ConflictError(f"{row.name!r} is the only admin left; make another one first")
    if not _has_local_user(session):
        raise ConflictError(f"{row.name!r} is the only admin in a project; take another one into one first")
    return row


def get_user(session: Session, user: str) -> UserRow:
    """By id or name. Raises NotFoundError."""
    row = session.scalar(select(UserRow).where((UserRow.id == user) | (UserRow.name == user)))
    if row is None:
        raise NotFoundError(f"user {user!r} not found")
    return row


def get_member_to_be(session: Session, project_id: str, user: str) -> UserRow:
    """Whom an owner takes in, or gives another role: by their id, which nobody guesses and they tell (`/v1/me`), or by
    the name of one who is in the project. Raises NotFoundError, the same for a name that somebody else here has and for
    one that nobody has."""
    inside = select(MemberRow.user_id).where(MemberRow.project_id == project_id)
    row = session.scalar(
        select(UserRow).where((UserRow.id == user) | ((UserRow.name == user) & UserRow.id.in_(inside)))
    )
    if row is None:
        raise NotFoundError(f"user {user!r} not found; name one who is not in the project by their id", param="user_id")
    return row


def list_users(session: Session) -> Sequence[UserRow]:
    """The first one first."""
    return session.scalars(select(UserRow).order_by(UserRow.created_at, UserRow.id)).all()


def create_project(session: Session, name: str, owner_id: str) -> ProjectRow:
    """With its owner as a member."""
    row = ProjectRow(name=_named(name))
    session.add(row)
    session.flush()
    session.add(MemberRow(project_id=row.id, user_id=owner_id, role="owner"))
    session.flush()
    return row


def get_project(session: Session, project: str, user_id: str | None = None) -> ProjectRow:
    """By id, or by a name that only one has; for a user, only one that they are in. Raises NotFoundError."""
    rows = session.scalars(
        _projects(user_id).where((ProjectRow.id == project) | (ProjectRow.name == project)).limit(2)
    ).all()
    if len(rows) != 1:
        reason = "not found" if not rows else "is the name of several; give the id"
        raise NotFoundError(f"project {project!r} {reason}")
    return rows[0]


def list_projects(session: Session, user_id: str | None = None) -> Sequence[ProjectRow]:
    """All, or those that a user is in, the first one first."""
    return session.scalars(_projects(user_id).order_by(ProjectRow.created_at, ProjectRow.id)).all()


def _projects(user_id: str | None) -> Select[ProjectRow]:
    query = select(ProjectRow)
    if user_id is None:
        return query
    return query.join(MemberRow, MemberRow.project_id == ProjectRow.id).where(MemberRow.user_id == user_id)


def change_project(
    session: Session,
    project_id: str,
    *,
    name: str | None = None,
    archived: bool | None = None,
    limits: Mapping[str, int | None] = {},
) -> ProjectRow:
    """limits: those of `tables.accounts.Limits`, and `file_bytes`, that change; None takes one away. Raises InputError,
    NotFoundError."""
    lock(session, [ADMIN])
    row = get_project(session, project_id)
    if name is not None:
        row.name = _named(name)
    if archived is not None:
        row.archived_at = (row.archived_at or time.time()) if archived else None
    for limit, value in limits.items():
        setattr(row, limit, value)
    session.flush()
    if archived and not _has_local_user(session):
        raise ConflictError(f"{row.name!r} is the only project of an admin that is left; make another one first")
    return row


def _has_local_user(session: Session) -> bool:
    try:
        local_principal(session)
    except NoResultFound:
        return False
    return True


def set_member(session: Session, project_id: str, user_id: str, role: str = "member") -> MemberRow:
    """Takes a user into a project, or gives them another role there."""
    if role not in ("owner", "member"):
        raise InputError(f"role: {role!r} is neither owner nor member", param="role")
    row = session.get(MemberRow, (project_id, user_id))
    if row is None:
        row = MemberRow(project_id=project_id, user_id=user_id)
        session.add(row)
    row.role = role
    session.flush()
    return row


def remove_member(session: Session, project_id: str, user_id: str) -> None:
    """Out of a project; their keys and sessions there open nothing any more. Raises NotFoundError; ConflictError where
    no admin would be in any project: this machine's own pages, and the key of its environment, are the first one's."""
    lock(session, [ADMIN])
    row = session.get(MemberRow, (project_id, user_id))
    if row is None:
        raise NotFoundError(f"user {user_id!r} is not in project {project_id!r}")
    session.delete(row)
    session.execute(delete(SessionRow).where(SessionRow.project_id == project_id, SessionRow.user_id == user_id))
    session.flush()
    if not _has_local_user(session):
        raise ConflictError(f"user {user_id!r} is the only admin in a project; take another one into one first")


def members_of(session: Session, project_id: str) -> Sequence[tuple[MemberRow, UserRow]]:
    """With their names."""
    query = select(MemberRow, UserRow).join(UserRow, UserRow.id == MemberRow.user_id)
    query = query.where(MemberRow.project_id == project_id).order_by(MemberRow.created_at, UserRow.id)
    return [(member, user) for member, user in session.execute(query).all()]


def _named(name: str) -> str:
    name = " ".join(name.split())
    if not 0 < len(name) <= 200:
        raise InputError("name: give 1 to 200 characters", param="name")
    return name


# -- the record


def record(
    session: Session,
    principal: Principal | None,
    action: str,
    target: str,
    *,
    address: str | None = None,
    **details: Any,
) -> None:
    """Writes down a change, in the transaction that makes it. principal: None is this machine's command line."""
    row = AuditRow(action=action, target=target, address=address, details=details)
    if principal is not None:
        row.user_id, row.key_id, row.project_id = principal.user_id, principal.key_id, principal.project_id
    session.add(row)


def list_audit(session: Session, *, before: int | None = None, limit: int = 100) -> Sequence[AuditRow]:
    """The newest first; `before` (an id) goes on where the last list ended."""
    query = select(AuditRow).order_by(AuditRow.id.desc()).limit(limit)
    return session.scalars(query if before is None else query.where(AuditRow.id < before)).all()
