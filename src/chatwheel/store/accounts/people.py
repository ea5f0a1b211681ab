"""Users, projects, and who is in which."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import get_args

from sqlalchemy import Select, delete, func, select
from sqlalchemy.exc import NoResultFound
from sqlalchemy.orm import Session

from chatwheel.errors import InputError
from chatwheel.store.accounts.finding import local_principal
from chatwheel.store.accounts.principal import ADMIN, ConflictError, NotFoundError
from chatwheel.store.database import lock
from chatwheel.store.tables import MemberRow, ProjectRow, SessionRow, UserRole, UserRow


def create_user(session: Session, name: str, role: str = "member") -> UserRow:
    """Raises InputError, ConflictError."""
    if role not in get_args(UserRole):
        raise InputError(f"role: {role!r} is none of {', '.join(get_args(UserRole))}", param="role")
    name = clean_name(name)
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
    row = ProjectRow(name=clean_name(name))
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
        row.name = clean_name(name)
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


def clean_name(name: str) -> str:
    """Without spaces around and more than one between words. Raises InputError."""
    name = " ".join(name.split())
    if not 0 < len(name) <= 200:
        raise InputError("name: give 1 to 200 characters", param="name")
    return name
