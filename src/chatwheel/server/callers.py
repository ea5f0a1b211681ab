"""Whose requests are under way in this process, so that those are broken off whose key opens nothing any more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from starlette.types import Scope

from chatwheel.errors import ChatwheelError


class KeyEndedError(ChatwheelError):
    """The key was revoked or has expired, or its owner may not come in any more, while the request was answered."""

    status = 401

    def __init__(self) -> None:
        super().__init__(
            "This API key was revoked or has expired, or its owner may not come in any more; the request ends here.",
            code="invalid_api_key",
        )


@dataclass(frozen=True, eq=False)
class _Caller:
    key_id: str
    end: Callable[[KeyEndedError], None]


class Callers:
    """Requests by their keys. Who comes in without one (this machine's own user) has none that could end."""

    def __init__(self) -> None:
        self._present: set[_Caller] = set()

    @property
    def keys(self) -> frozenset[str]:
        """The ids of the keys that have requests under way."""
        return frozenset(caller.key_id for caller in self._present)

    @contextmanager
    def answering(self, key_id: str | None, end: Callable[[KeyEndedError], None]) -> Iterator[None]:
        """A request while it is answered. end: called, at most once, when its key has ended."""
        if key_id is None:
            yield
            return
        caller = _Caller(key_id, end)
        self._present.add(caller)
        try:
            yield
        finally:
            self._present.discard(caller)

    def end_all_but(self, asked: frozenset[str], opening: frozenset[str]) -> None:
        """Ends the requests of those keys that were asked about and do not open any more; others came meanwhile."""
        for caller in [caller for caller in self._present if caller.key_id in asked - opening]:
            self._present.discard(caller)
            caller.end(KeyEndedError())


@contextmanager
def watched(scope: Scope, end: Callable[[KeyEndedError], None]) -> Iterator[None]:
    """A request of the application's, see `Callers.answering`."""
    callers, principal = scope["app"].state.callers, scope["state"].get("principal")
    assert isinstance(callers, Callers)
    with callers.answering(None if principal is None else principal.key_id, end):
        yield
