"""Passwords: what they must be, how they are kept, whose there are."""

from __future__ import annotations

import secrets
import time
import unicodedata
from dataclasses import replace
from functools import cached_property

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHash
from argon2.profiles import RFC_9106_LOW_MEMORY
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from chatwheel.errors import InputError
from chatwheel.store import accounts
from chatwheel.store.accounts import ADMIN, ConflictError
from chatwheel.store.database import lock, upsert
from chatwheel.store.tables import PasswordRow, SessionRow, UserRow

LEAST_CHARACTERS = 8
MOST_BYTES = 1024
TEMPORARY_SECONDS = 7 * 86400.0
"""How long one that an admin gave can be changed into one's own."""
LETTERS = "23456789abcdefghjkmnpqrstuvwxyz"  # none that looks like another one
GROUPS, GROUP_LETTERS = 4, 4


class Hasher:
    """Argon2id with the second profile of RFC 9106: 3 passes over `kib` KiB in 4 lanes."""

    def __init__(self, kib: int) -> None:
        self._argon2 = PasswordHasher.from_parameters(replace(RFC_9106_LOW_MEMORY, memory_cost=kib))

    def digest(self, password: str) -> str:
        """What is kept of it. Takes a fifth of a second and `kib` of memory."""
        return self._argon2.hash(_normal(password))

    def is_right(self, password: str, digest: str | None) -> bool:
        """Whether it is the one; of nobody (None) none is, and to say so takes as long."""
        try:
            self._argon2.verify(self._nobodys if digest is None else digest, _normal(password))
        except (Argon2Error, InvalidHash):
            return False
        return digest is not None

    def is_outdated(self, digest: str) -> bool:
        """Whether it was made with other parameters than now."""
        return self._argon2.check_needs_rehash(digest)

    @cached_property
    def _nobodys(self) -> str:
        return self._argon2.hash(secrets.token_urlsafe(32))


def _normal(password: str) -> str:
    """The same characters from whatever keyboard (NFKC, as NIST SP 800-63B 3.1.1.2 advises)."""
    return unicodedata.normalize("NFKC", password)


def check(password: str, name: str, param: str | None = "password") -> None:
    """Raises InputError for one that may not be a password of a user of that name."""
    if len(password) < LEAST_CHARACTERS:
        raise InputError(f"A password has at least {LEAST_CHARACTERS} characters.", param=param, code="password_short")
    if len(_normal(password).encode()) > MOST_BYTES:
        raise InputError(f"A password has at most {MOST_BYTES} bytes.", param=param, code="password_long")
    if _normal(password).strip().casefold() == name.casefold():
        raise InputError("The name is not a password.", param=param, code="password_is_name")


def temporary() -> str:
    """One that can be read out on the telephone: 79 random bits."""
    group = ("".join(secrets.choice(LETTERS) for _ in range(GROUP_LETTERS)) for _ in range(GROUPS))
    return "-".join(group)


def put(session: Session, user_id: str, digest: str, *, temporary_until: float | None = None) -> PasswordRow:
    """Gives a user a password and ends their sessions. Raises NotFoundError; ConflictError where a member's would be
    the first one and close the door on this machine's own admin, who has none to come in with."""
    lock(session, [ADMIN])
    user = accounts.get_user(session, user_id)
    if user.role != ADMIN and not accounts.is_guarded(session):
        raise ConflictError(
            "The first password is an admin's: from then on everybody is asked for one. Give yourself one first.",
            code="admin_password_first",
        )
    session.execute(delete(SessionRow).where(SessionRow.user_id == user.id))
    values = {"digest": digest, "set_at": time.time(), "temporary_until": temporary_until}
    return upsert(session, PasswordRow, {"user_id": user.id}, values)


def of_user(session: Session, user_id: str) -> PasswordRow | None:
    """A user's, if they have one."""
    return session.get(PasswordRow, user_id)


def are_there(session: Session) -> bool:
    """Whether anybody has one."""
    return session.scalar(select(PasswordRow.user_id).limit(1)) is not None


def find(session: Session, name: str) -> tuple[UserRow | None, PasswordRow | None]:
    """The user of that name who may come in, and their password; None for what there is not (any more)."""
    now = time.time()
    row = session.execute(
        select(UserRow, PasswordRow)
        .join(PasswordRow, PasswordRow.user_id == UserRow.id)
        .where(
            UserRow.name == " ".join(name.split()),
            UserRow.disabled_at.is_(None),
            (PasswordRow.temporary_until.is_(None)) | (PasswordRow.temporary_until > now),
        )
    ).one_or_none()
    return (row[0], row[1]) if row is not None else (None, None)
