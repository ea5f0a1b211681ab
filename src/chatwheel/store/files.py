"""Uploaded files: rows in the database, bytes once on the disk by their SHA-256, and never half there.

Functions that take a session work in the caller's transaction.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from chatwheel.errors import InputError, StorageError
from chatwheel.store.accounts import NotFoundError, Principal
from chatwheel.store.tables import FileRow

PURPOSES = ("fine-tune", "fine-tune-results", "user_data", "batch", "assistants", "evals", "vision")
MOST_BYTES = 512 * 2**20
UNFINISHED_SECONDS = 24 * 3600.0


@dataclass(frozen=True)
class Blob:
    """Bytes on the disk."""

    sha256: str
    size: int


class BlobStore:
    """Bytes by their SHA-256, below one directory, which all servers share. What is being written has another name
    until it is whole and on the disk."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def path(self, sha256: str) -> Path:
        """Where such bytes are, or would be."""
        return self._root / sha256[:2] / sha256

    def put(self, chunks: Iterable[bytes], *, most: int | None = None, expected: str | None = None) -> Blob:
        """Keeps what comes. most: bytes beyond which it is refused. expected: the SHA-256 that it has to have. Blocks.

        Raises InputError for too much or other bytes, StorageError where the disk refuses; nothing is left then.
        """
        digest, size = hashlib.sha256(), 0
        temporary = None
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=".upload-", dir=self._root)
            temporary = Path(name)
            with os.fdopen(handle, "wb") as out:
                for chunk in chunks:
                    size += len(chunk)
                    if most is not None and size > most:
                        raise InputError(f"the file is larger than {most // 2**20} MB", param="file")
                    digest.update(chunk)
                    out.write(chunk)
                out.flush()
                os.fsync(out.fileno())
            blob = Blob(digest.hexdigest(), size)
            if expected not in (None, blob.sha256):
                raise InputError(f"the bytes of {expected} have changed; the copy is damaged")
            self._settle(temporary, self.path(blob.sha256))
        except OSError as error:
            raise StorageError(f"{self._root}: not saved ({error.strerror}); what was there is unharmed") from error
        finally:
            if temporary is not None:
                temporary.unlink(missing_ok=True)
        return blob

    def remove(self, sha256: str) -> None:
        """Forgets bytes that no row names."""
        self.path(sha256).unlink(missing_ok=True)

    def sweep(self, now: float | None = None) -> int:
        """Removes what a killed upload has left; how many."""
        now = time.time() if now is None else now
        old = [
            file
            for file in (self._root.glob(".upload-*") if self._root.is_dir() else ())
            if now - file.stat().st_mtime > UNFINISHED_SECONDS
        ]
        for file in old:
            file.unlink(missing_ok=True)
        return len(old)

    @staticmethod
    def _settle(temporary: Path, final: Path) -> None:
        final.parent.mkdir(exist_ok=True)
        temporary.replace(final)  # the same bytes, if they are there already
        directory = os.open(final.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def add_file(
    session: Session,
    who: Principal,
    blob: Blob,
    *,
    filename: str,
    purpose: str,
    expires_at: float | None = None,
) -> FileRow:
    """A file of the principal's project. Raises InputError."""
    if purpose not in PURPOSES:
        raise InputError(f"purpose: {purpose!r} is none of {', '.join(PURPOSES)}", param="purpose")
    row = FileRow(
        project_id=who.project_id,
        user_id=who.user_id,
        filename=Path(filename.replace("\\", "/")).name or "file",
        purpose=purpose,
        bytes=blob.size,
        sha256=blob.sha256,
        expires_at=expires_at,
        status="processed",
    )
    session.add(row)
    session.flush()
    return row


def get_file(session: Session, project_id: str, file_id: str) -> FileRow:
    """One of a project's. Raises NotFoundError."""
    row = session.get(FileRow, file_id)
    expired = row is not None and row.expires_at is not None and row.expires_at <= time.time()
    if row is None or row.project_id != project_id or expired:
        raise NotFoundError(f"No such File object: {file_id}", param="id")
    return row


def list_files(
    session: Session,
    project_id: str,
    *,
    purpose: str | None = None,
    after: str | None = None,
    limit: int = 10_000,
    newest_first: bool = True,
) -> tuple[Sequence[FileRow], bool]:
    """A project's, and whether there are more. `after` (an id) goes on behind that one. Raises NotFoundError."""
    query = select(FileRow).where(
        FileRow.project_id == project_id, (FileRow.expires_at.is_(None)) | (FileRow.expires_at > time.time())
    )
    if purpose is not None:
        query = query.where(FileRow.purpose == purpose)
    if after is not None:
        last = get_file(session, project_id, after)
        behind = FileRow.created_at < last.created_at if newest_first else FileRow.created_at > last.created_at
        same = (FileRow.created_at == last.created_at) & (FileRow.id > last.id)
        query = query.where(behind | same)
    order = FileRow.created_at.desc() if newest_first else FileRow.created_at
    rows = session.scalars(query.order_by(order, FileRow.id).limit(limit + 1)).all()
    return rows[:limit], len(rows) > limit


def delete_file(session: Session, project_id: str, file_id: str) -> str | None:
    """Raises NotFoundError. Gives the SHA-256 of bytes that no row names any more, to be removed when this is saved."""
    row = get_file(session, project_id, file_id)
    session.delete(row)
    session.flush()
    others = session.scalar(select(func.count()).select_from(FileRow).where(FileRow.sha256 == row.sha256))
    return None if others else row.sha256
