"""The latest model: promoted to a part of those who ask for it, then to all, and rolled back. Functions work in the
caller's transaction.

    promote(session, "world-2/ppo", share=0.05)      # a candidate, for one in twenty conversations
    promote(session, "world-2/ppo")                  # for all
    rollback(session)                                # back to the one before
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from chatwheel.errors import InputError
from chatwheel.store.accounts import ConflictError
from chatwheel.store.database import lock
from chatwheel.store.tables import DeploymentRow, Outcome

LATEST = "chatwheel-latest"
"""What one asks for who asks for no model in particular."""


@dataclass(frozen=True)
class Deployed:
    """Who answers now."""

    current: DeploymentRow | None
    candidate: DeploymentRow | None

    def pick(self, subject: str) -> str | None:
        """The model that answers somebody, or a conversation: always the same one while the candidate's share stays,
        and a larger share keeps those who have it already. None where nothing was promoted yet."""
        if self.current is None:
            return None
        if self.candidate is None:
            return self.current.model
        digest = hashlib.sha256(f"{self.candidate.model} {subject}".encode()).digest()
        drawn = int.from_bytes(digest[:8], "big") / 2**64
        return self.candidate.model if drawn < self.candidate.share else self.current.model


def deployed(session: Session) -> Deployed:
    """Who answers now."""
    rows = session.scalars(select(DeploymentRow).where(DeploymentRow.ended_at.is_(None))).all()
    by_kind = {row.share < 1: row for row in rows}
    return Deployed(by_kind.get(False), by_kind.get(True))


def history(session: Session, limit: int = 100) -> Sequence[DeploymentRow]:
    """The newest first."""
    return session.scalars(select(DeploymentRow).order_by(DeploymentRow.id.desc()).limit(limit)).all()


def promote(
    session: Session, model: str, *, share: float = 1.0, by: str | None = None, note: dict[str, Any] | None = None
) -> DeploymentRow:
    """Lets a model answer a part of those who ask for the latest one, or all. Raises InputError for a share outside
    (0, 1]; ConflictError for a part where there is no other model for the rest, or where it answers all already."""
    if not 0 < share <= 1:
        raise InputError(f"share is {share}; it must be above 0 and at most 1", param="share")
    lock(session, ["deployments"])
    now = deployed(session)
    if now.current is not None and now.current.model == model:
        raise ConflictError(f"{model!r} answers everybody already", code="deployed")
    if share < 1 and now.current is None:
        raise ConflictError(f"no other model is deployed for the rest; promote {model!r} to all", code="not_deployed")
    if now.candidate is not None:
        same = now.candidate.model == model
        _end(now.candidate, "promoted" if same and share == 1 else "replaced")
    if share == 1 and now.current is not None:
        _end(now.current, "replaced")
    row = DeploymentRow(model=model, share=share, started_by=by, note=note or {})
    session.add(row)
    session.flush()
    return row


def rollback(session: Session, *, by: str | None = None, note: dict[str, Any] | None = None) -> Deployed:
    """Takes the candidate back, or, where there is none, the current model in favour of the one before it. Raises
    ConflictError where there is nothing to go back to."""
    lock(session, ["deployments"])
    now = deployed(session)
    if now.candidate is not None:
        _end(now.candidate, "rolled_back", note)
    elif now.current is not None:
        earlier = before(session, now.current)
        if earlier is None:
            raise ConflictError(f"no model was deployed before {now.current.model!r}", code="not_deployed")
        _end(now.current, "rolled_back", note)
        session.add(DeploymentRow(model=earlier.model, share=1.0, started_by=by, note={"after": now.current.model}))
    else:
        raise ConflictError("no model is deployed", code="not_deployed")
    session.flush()
    return deployed(session)


def before(session: Session, current: DeploymentRow) -> DeploymentRow | None:
    """The last one that answered all and was not taken back."""
    query = select(DeploymentRow).where(
        DeploymentRow.share == 1,
        DeploymentRow.id < current.id,
        DeploymentRow.outcome == "replaced",
        DeploymentRow.model != current.model,
    )
    return session.scalars(query.order_by(DeploymentRow.id.desc()).limit(1)).first()


def _end(row: DeploymentRow, outcome: Outcome, note: dict[str, Any] | None = None) -> None:
    row.ended_at, row.outcome = time.time(), outcome
    if note:
        row.note = {**row.note, **note}
