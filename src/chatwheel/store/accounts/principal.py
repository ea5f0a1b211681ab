"""Who asks, and what they may."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from chatwheel.errors import ChatwheelError

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
