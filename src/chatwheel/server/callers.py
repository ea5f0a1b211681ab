"""Whose requests are under way in this process, so that those are broken off whose key, or session, opens
nothing any more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from starlette.types import Scope

from chatwheel.errors import ChatwheelError
from chatwheel.store.accounts import Principal


class KeyEndedError(ChatwheelError):
    """The key was revoked or has expired, or its owner may not come in any more, while the request was answered.
    session: it was a session's, which has ended."""

    status = 401

    def __init__(self, *, session: bool = False) -> None:
        if session:
            super().__init__("You are not signed in any more; the request ends here.", code="signed_out")
        else:
            super().__init__(
                "This API key was revoked or has expired, or its owner may not come in any more; the request ends "
                "here.",
                code="invalid_api_key",
            )


@dataclass(frozen=True, eq=False)
class _Caller:
    entry: str
    is_session: bool
    end: Callable[[KeyEndedError], None]


class Callers:
    """Requests by their keys and sessions. Who comes in without (this machine's own user) has none that could end."""

    def __init__(self) -> None:
        self._present: set[_Caller] = set()

    @property
    def entries(self) -> frozenset[str]:
        """The ids of the keys and sessions that have requests under way."""
        return frozenset(caller.entry for caller in self._present)

    @contextmanager
    def answering(self, who: Principal | None, end: Callable[[KeyEndedError], None]) -> Iterator[None]:
        """A request while it is answered. end: called, at most once, when its key or session has ended."""
        if who is None or who.entry is None:
            yield
            return
        caller = _Caller(who.entry, who.session_id is not None, end)
        self._present.add(caller)
        try:
            yield
        finally:
            self._present.discard(caller)

    def end_all_but(self, asked: frozenset[str], opening: frozenset[str]) -> None:
        """Ends the requests of those that were asked about and do not open any more; others came meanwhile."""
        for caller in [caller for caller in self._present if caller.entry in asked - opening]:
            self._present.discard(caller)
            caller.end(KeyEndedError(session=caller.is_session))


@contextmanager
def watched(scope: Scope, end: Callable[[KeyEndedError], None]) -> Iterator[None]:
    """A request of the application's, see `Callers.answering`."""
    callers, principal = scope["app"].state.callers, scope["state"].get("principal")
    assert isinstance(callers, Callers)
    with callers.answering(principal, end):
        yield
