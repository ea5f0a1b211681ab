"""Sessions of people who signed in: opened by a password, found by a cookie's token, ended. Functions work in the
caller's transaction."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, delete, select, update
from sqlalchemy.orm import Session

from chatwheel.store import accounts
from chatwheel.store.accounts import ADMIN, LIMITS, SCOPES, Allowance, ForbiddenError, Principal, digest_of
from chatwheel.store.prepared import Prepared
from chatwheel.store.tables import MemberRow, PasswordRow, ProjectRow, SessionRow, UserRow

LIFE_SECONDS = 30 * 86400.0
IDLE_SECONDS = 7 * 86400.0
SEEN_SECONDS = 300.0
"""`seen_at` is right to five minutes: not every request writes it."""
MOST = 50
"""A user's, at the same time: one more ends the one that was longest unseen."""
TOKEN_BYTES = 32
SIGN_IN_FAILED = "session.failed"
AGENT_CHARACTERS = 300


@dataclass(frozen=True)
class NewSession:
    """One that was just opened. `token` is the cookie's; what is kept of it is a digest."""

    row: SessionRow
    token: str


def csrf_token(token: str) -> str:
    """What a page must send in a header to change something: it knows the session, which a form of another site does
    not. Of the token, so that no server has to keep it, and not the token, which scripts never see."""
    return hmac.new(token.encode("utf-8", "surrogatepass"), b"chatwheel csrf", hashlib.sha256).hexdigest()


def begin(
    session: Session,
    user_id: str,
    *,
    project_id: str | None = None,
    address: str | None = None,
    user_agent: str | None = None,
    now: float | None = None,
) -> NewSession:
    """Opens a session, in a project of theirs or in their first one. Raises ForbiddenError where there is none."""
    now = time.time() if now is None else now
    projects = [row.id for row in accounts.list_projects(session, user_id) if row.archived_at is None]
    if not projects or project_id not in (None, *projects):
        raise ForbiddenError("You are in no such project; whoever runs this server can take you in.", code="no_project")
    old = select(SessionRow.id).where(SessionRow.user_id == user_id)
    old = old.order_by(SessionRow.seen_at.desc(), SessionRow.id).offset(MOST - 1)
    session.execute(delete(SessionRow).where(SessionRow.id.in_(session.scalars(old).all())))
    token = secrets.token_urlsafe(TOKEN_BYTES)
    row = SessionRow(
        user_id=user_id,
        project_id=project_id or projects[0],
        digest=digest_of(token),
        created_at=now,
        seen_at=now,
        expires_at=now + LIFE_SECONDS,
        user_agent=user_agent[:AGENT_CHARACTERS] if user_agent else None,
        address=address,
    )
    session.add(row)
    session.flush()
    return NewSession(row, token)


def authenticate(reader: Session | Connection, token: str, now: float | None = None) -> Principal | None:
    """Whose session a token is; None for one that is unknown or over, or of somebody who has no business here any more.
    Reads once, and always anew."""
    now = time.time() if now is None else now
    if isinstance(reader, Session):
        reader.flush()
    rows = _HOLDER.rows(reader, {"token_digest": digest_of(token), "now": now, "idle": now - IDLE_SECONDS})
    if not rows:
        return None
    found = rows[0]
    return Principal(
        user_id=found.user_id,
        project_id=found.project_id,
        session_id=found.id,
        is_admin=found.role == ADMIN,
        owns_project=found.membership == "owner",
        scopes=frozenset(scope for scope in SCOPES if scope != "project" or found.membership == "owner"),
        allowances=(Allowance(found.project_id, *(getattr(found, limit) for limit in LIMITS)),),
        must_change=found.temporary_until is not None,
        seen_at=found.seen_at,
    )


_HOLDER = Prepared(
    select(
        *(SessionRow.id, SessionRow.user_id, SessionRow.project_id, SessionRow.seen_at),
        *(UserRow.role, MemberRow.role.label("membership"), PasswordRow.temporary_until),
        *(getattr(ProjectRow, limit) for limit in LIMITS),
    )
    .join(UserRow, UserRow.id == SessionRow.user_id)
    .join(PasswordRow, PasswordRow.user_id == SessionRow.user_id)
    .join(ProjectRow, ProjectRow.id == SessionRow.project_id)
    .join(MemberRow, (MemberRow.project_id == SessionRow.project_id) & (MemberRow.user_id == SessionRow.user_id))
    .where(
        SessionRow.digest == bindparam("token_digest"),
        SessionRow.expires_at > bindparam("now"),
        SessionRow.seen_at > bindparam("idle"),
        UserRow.disabled_at.is_(None),
        ProjectRow.archived_at.is_(None),
    )
)


def opening(session: Session, ids: Collection[str], now: float | None = None) -> frozenset[str]:
    """Those of these keys and sessions, by their ids, that still open what they opened: a query for all of each."""
    now = time.time() if now is None else now
    sessions = {one for one in ids if one.startswith("sess-")}
    keys = frozenset(ids) - sessions
    found = accounts.opening(session, keys, now) if keys else keys
    if not sessions:
        return found
    query = (
        select(SessionRow.id)
        .join(UserRow, UserRow.id == SessionRow.user_id)
        .join(ProjectRow, ProjectRow.id == SessionRow.project_id)
        .join(MemberRow, (MemberRow.project_id == SessionRow.project_id) & (MemberRow.user_id == SessionRow.user_id))
        .where(
            SessionRow.id.in_(sessions),
            SessionRow.expires_at > now,
            UserRow.disabled_at.is_(None),
            ProjectRow.archived_at.is_(None),
        )
    )
    return found | frozenset(session.scalars(query))


def mark_seen(session: Session, session_id: str, now: float) -> None:
    """It is in use."""
    session.execute(update(SessionRow).where(SessionRow.id == session_id).values(seen_at=now))


def end(session: Session, session_id: str) -> None:
    """It opens nothing from now on, on any server."""
    session.execute(delete(SessionRow).where(SessionRow.id == session_id))


def end_token(session: Session, token: str) -> None:
    """`end`, by what the cookie says: a browser that signs in anew leaves nothing open behind it."""
    session.execute(delete(SessionRow).where(SessionRow.digest == digest_of(token)))


def end_all(session: Session, user_id: str) -> int:
    """A user's, everywhere; how many there were."""
    ended = session.scalars(delete(SessionRow).where(SessionRow.user_id == user_id).returning(SessionRow.id)).all()
    return len(ended)


def list_sessions(session: Session, user_id: str, now: float | None = None) -> Sequence[SessionRow]:
    """A user's that still open, the one seen last first."""
    now = time.time() if now is None else now
    query = select(SessionRow).where(
        SessionRow.user_id == user_id, SessionRow.expires_at > now, SessionRow.seen_at > now - IDLE_SECONDS
    )
    return session.scalars(query.order_by(SessionRow.seen_at.desc(), SessionRow.id)).all()


def tidy(session: Session, now: float) -> None:
    """Forgets sessions that are over."""
    over = (SessionRow.expires_at <= now) | (SessionRow.seen_at <= now - IDLE_SECONDS)
    session.execute(delete(SessionRow).where(over))
