"""Uploaded files: rows in the database, bytes once on the disk by their SHA-256, and never half there.

Functions that take a session work in the caller's transaction.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from chatwheel.errors import InputError, StorageError, UnavailableError
from chatwheel.store.accounts import NotFoundError, Principal
from chatwheel.store.database import Database, lock
from chatwheel.store.tables import FileRow, InstanceRow, UploadRow

PURPOSES = ("fine-tune", "fine-tune-results", "user_data", "batch", "assistants", "evals", "vision")
MOST_BYTES = 512 * 2**20
UNFINISHED_SECONDS = 24 * 3600.0
TOGETHER = 500
"""Rows that are looked at in one transaction."""


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
        old = self._older_than(UNFINISHED_SECONDS, ".upload-*", now)
        for file in old:
            file.unlink(missing_ok=True)
        return len(old)

    def settled(self, now: float | None = None) -> list[str]:
        """The SHA-256 of all bytes that have been there for longer than an upload takes."""
        return sorted(file.name for file in self._older_than(UNFINISHED_SECONDS, "??/*", now))

    def _older_than(self, seconds: float, pattern: str, now: float | None) -> list[Path]:
        now = time.time() if now is None else now
        found = []
        for file in self._root.glob(pattern) if self._root.is_dir() else ():
            with suppress(FileNotFoundError):  # another server tidies too
                if now - file.stat().st_mtime > seconds:
                    found.append(file)
        return found

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
    blobs: BlobStore | None = None,
) -> FileRow:
    """A file of the principal's project. blobs: where its bytes have been put; the last file that had the same ones may
    have been deleted just now, and they with it. Raises InputError; UnavailableError if they are gone."""
    if purpose not in PURPOSES:
        raise InputError(f"purpose: {purpose!r} is none of {', '.join(PURPOSES)}", param="purpose")
    lock(session, [blob.sha256])
    if blobs is not None and not blobs.path(blob.sha256).is_file():
        raise UnavailableError("The same bytes were deleted at this very moment; upload the file again.")
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


def delete_file(session: Session, project_id: str, file_id: str) -> str:
    """Raises NotFoundError. Gives the SHA-256 of its bytes, for `remove_unused` when this is saved."""
    row = get_file(session, project_id, file_id)
    session.delete(row)
    return row.sha256


def remove_unused(session: Session, blobs: BlobStore, sha256: str) -> bool:
    """Removes bytes that no row names, and says whether it did. Nobody who uploads the same ones gets a row meanwhile:
    `add_file` waits, and then sees that they are gone."""
    lock(session, [sha256])
    if session.scalar(select(FileRow.id).where(FileRow.sha256 == sha256).limit(1)) is not None:
        return False
    blobs.remove(sha256)
    return True


def tidy(database: Database, blobs: BlobStore, now: float | None = None) -> int:
    """Forgets files whose time is over, what killed uploads have left or reserved, and bytes that no row names; how
    many. Every server may do it at any time. Blocks."""
    now = time.time() if now is None else now

    def forget(session: Session) -> list[str]:
        over = session.scalars(
            select(FileRow).where(FileRow.expires_at <= now).limit(TOGETHER).with_for_update(skip_locked=True)
        ).all()
        for row in over:
            session.delete(row)
        return [row.sha256 for row in over]

    def forget_uploads(session: Session) -> None:
        session.execute(delete(UploadRow).where(UploadRow.instance.not_in(select(InstanceRow.id))))

    count = blobs.sweep(now)
    database.transact(forget_uploads)
    while over := database.transact(forget):
        count += len(over)
        for sha256 in over:
            database.transact(partial(remove_unused, blobs=blobs, sha256=sha256))
    old = blobs.settled(now)
    for start in range(0, len(old), TOGETHER):
        together = old[start : start + TOGETHER]
        with database.read() as session:
            named = set(session.scalars(select(FileRow.sha256).where(FileRow.sha256.in_(together))))
        for sha256 in together:
            if sha256 not in named:
                count += database.transact(partial(remove_unused, blobs=blobs, sha256=sha256))
    return count
