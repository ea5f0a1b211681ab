"""Who changed what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from chatwheel.store.accounts.principal import Principal
from chatwheel.store.tables import AuditRow


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
