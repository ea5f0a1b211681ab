"""Who a request comes from: a key's owner, who signed in, or this machine's own user where nobody is asked."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Annotated

from fastapi import Depends, Request

from chatwheel.errors import StorageError
from chatwheel.store import accounts, sign_in
from chatwheel.store.accounts import ForbiddenError, Principal
from chatwheel.store.database import Database


class Identity:
    """Looks keys and sessions up, anew for every request: what has ended opens nothing from then on, on any server.

    api_key: one that is given in the environment, which is the first admin's. loopback: whether this machine alone can
    reach the server; only then, and only as long as no key was ever made nor a password given, does it answer without.
    """

    def __init__(self, database: Database, api_key: str | None, *, loopback: bool) -> None:
        self._database = database
        self._key_digest = _digest(api_key) if api_key else None
        self._loopback = loopback

    def find(self, key: str | None, token: str | None = None) -> Principal | None:
        """Who has this key, or signed in by a session of this token; None is nobody. Blocks."""
        if key and self._key_digest and hmac.compare_digest(_digest(key), self._key_digest):
            with self._database.read() as session:
                return accounts.local_principal(session)
        found = None
        if key or token:
            with self._database.look() as connection:
                if key:
                    found = accounts.authenticate(connection, key)
                elif token:
                    found = sign_in.authenticate(connection, token)
        if found is None and self._loopback and self._key_digest is None:
            with self._database.read() as session:
                if not accounts.is_guarded(session):
                    return accounts.local_principal(session)
        if found is not None and found.entry is not None:
            self._mark(found, time.time())
        return found

    def _mark(self, found: Principal, now: float) -> None:
        often = accounts.SEEN_SECONDS if found.session_id is None else sign_in.SEEN_SECONDS
        if found.seen_at is not None and now - found.seen_at <= often:
            return
        with suppress(StorageError), self._database.write() as session:  # a full disk is no reason to refuse
            if found.session_id is None:
                accounts.mark_used(session, found, now)
            else:
                sign_in.mark_seen(session, found.session_id, now)


def _digest(key: str) -> bytes:
    # Compared as digests, so that neither content nor length shows in the time it takes.
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


# Dependencies that wait for nothing are coroutines all the same: FastAPI takes others to a thread.
async def _principal(request: Request) -> Principal:
    principal = request.scope["state"]["principal"]
    assert isinstance(principal, Principal)
    return principal


PrincipalDep = Annotated[Principal, Depends(_principal)]
"""Who asks; the door has let them in."""


def needs(scope: str) -> Callable[[Principal], Awaitable[None]]:
    """A dependency of routes that only keys with a scope may use. Raises ForbiddenError."""

    async def check(principal: PrincipalDep) -> None:
        check_scope(principal, scope)

    check.scope = scope  # type: ignore[attr-defined]
    return check


def check_scope(principal: Principal, scope: str) -> None:
    """Raises ForbiddenError for a key that may not do that."""
    if not principal.may(scope):
        raise ForbiddenError(
            f"This key may not do that: it has not the scope {scope!r}.", code="insufficient_permissions"
        )


def check_model(principal: Principal, model: str) -> None:
    """Raises ForbiddenError for a model that a key was not made for."""
    if not principal.may_ask(model):
        raise ForbiddenError(f"This key may not use the model {model!r}.", code="model_not_allowed", param="model")
