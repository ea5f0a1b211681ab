"""How much a project's files may take: those that are there, and those that are being uploaded, on any server.

An upload reserves what it announces before a byte of it is kept; its row takes the reservation's place, in one
transaction. What a server that is gone had reserved does not count. Functions work in the caller's transaction.
"""

from __future__ import annotations

import time

from sqlalchemy import Select, delete, func, select
from sqlalchemy.orm import Session

from chatwheel.errors import InputError
from chatwheel.store.database import lock
from chatwheel.store.files import MOST_BYTES
from chatwheel.store.tables import FileRow, InstanceRow, ProjectRow, UploadRow

GB = 10**9


def reserve(
    session: Session, project_id: str, size: int | None, *, default: int, instance: str, alive_since: float
) -> UploadRow:
    """Room for an upload of so many bytes; of one that announces none, as much as a file may have or is left. default:
    the limit of projects that have none of their own. alive_since: servers that were seen later have uploads under
    way. Raises InputError where it does not fit."""
    lock(session, [f"files of {project_id}"])
    limit = session.scalar(select(ProjectRow.file_bytes).where(ProjectRow.id == project_id))
    limit = default if limit is None else limit
    taken = _taken(session, project_id, alive_since)
    left = max(0, limit - taken)
    wanted = min(MOST_BYTES, max(1, left)) if size is None else size
    if wanted > left:
        raise _full(f" may take {limit / GB:,.3f} GB, and {taken / GB:,.3f} GB are taken, uploads under way included")
    row = UploadRow(project_id=project_id, bytes=wanted, instance=instance)
    session.add(row)
    session.flush()
    return row


def check_fits(room: UploadRow, size: int) -> None:
    """Raises InputError for a file that turned out to be larger than what was left for it."""
    if room.bytes < min(size, MOST_BYTES):
        raise _full(f" had {room.bytes / GB:,.3f} GB left, which this one goes beyond")


def _full(what: str) -> InputError:
    message = f"The files of this project{what}; delete some, or ask an admin to raise file_bytes."
    return InputError(message, param="file", code="storage_limit_exceeded")


def release(session: Session, upload_id: str) -> None:
    """The upload has ended: its file is there by now, or will never be."""
    session.execute(delete(UploadRow).where(UploadRow.id == upload_id))


def used(session: Session, project_id: str, now: float | None = None) -> int:
    """Bytes of a project's files, each as often as it was uploaded."""
    return int(session.scalar(_used(project_id, time.time() if now is None else now)) or 0)


def _used(project_id: str, now: float) -> Select[int]:
    there = (FileRow.expires_at.is_(None)) | (FileRow.expires_at > now)
    return select(func.coalesce(func.sum(FileRow.bytes), 0)).where(FileRow.project_id == project_id, there)


def _taken(session: Session, project_id: str, alive_since: float) -> int:
    """One statement, which sees one moment: between two an upload would become a file, and be neither."""
    alive = select(InstanceRow.id).where(InstanceRow.seen_at > alive_since)
    coming = select(func.coalesce(func.sum(UploadRow.bytes), 0)).where(
        UploadRow.project_id == project_id, UploadRow.instance.in_(alive)
    )
    both = _used(project_id, time.time()).scalar_subquery() + coming.scalar_subquery()
    return int(session.scalar(select(both)) or 0)
