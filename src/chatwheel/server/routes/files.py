"""Files: what fine-tuning learns from, and what it gives."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, BinaryIO, Literal

import anyio.to_thread
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import FileResponse
from sqlalchemy.orm import Session
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from chatwheel.errors import InputError, StorageError
from chatwheel.server.callers import KeyEndedError
from chatwheel.server.identity import PrincipalDep, needs
from chatwheel.server.organization import listed
from chatwheel.server.routes.organization import AddressDep
from chatwheel.server.services import Services, ServicesDep
from chatwheel.store import accounts, file_space, files, sign_in
from chatwheel.store.accounts import NotFoundError, Principal
from chatwheel.store.tables import FileRow, UploadRow

router = APIRouter(prefix="/v1/files", dependencies=[Depends(needs("files"))])
Json = dict[str, Any]
CHUNK = 1 << 20
FIELDS = {"file", "purpose", "expires_after[anchor]", "expires_after[seconds]"}


def file_view(row: FileRow) -> Json:
    """OpenAI's file object."""
    return {
        "id": row.id,
        "object": "file",
        "bytes": row.bytes,
        "created_at": int(row.created_at),
        "expires_at": None if row.expires_at is None else int(row.expires_at),
        "filename": row.filename,
        "purpose": row.purpose,
        "status": row.status,
        "status_details": None,
    }


FORM: Json = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "purpose"],
                    "additionalProperties": False,
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "purpose": {"type": "string", "enum": list(files.PURPOSES)},
                        "expires_after[anchor]": {"type": "string", "enum": ["created_at"]},
                        "expires_after[seconds]": {"type": "integer", "minimum": 3600, "maximum": 30 * 86400},
                    },
                }
            }
        },
    }
}
"""For the OpenAPI document: the form is read piece by piece, which FastAPI does not see."""


@router.post("", openapi_extra=FORM)
async def upload(request: Request, who: PrincipalDep, services: ServicesDep, address: AddressDep) -> Json:
    """Keeps a file: a form with `file` and `purpose`. Its bytes are on the disk before its row is."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise InputError("Send the file as a form: multipart/form-data with the fields file and purpose.", param="file")
    async with _room(request, who, services) as room:
        return await _take(request, who, services, address, room)


@asynccontextmanager
async def _room(request: Request, who: Principal, services: Services) -> AsyncIterator[UploadRow]:
    """Reserved before a byte of the body is kept, and given back if no file comes of it."""
    announced = request.headers.get("content-length")
    room = await services.write(
        lambda session: file_space.reserve(
            session,
            who.project_id,
            None if announced is None else int(announced),
            default=services.settings.file_bytes,
            instance=services.instance,
            alive_since=time.time() - services.alive_seconds,
        )
    )
    try:
        yield room
    except BaseException:
        await asyncio.shield(services.write(lambda session: file_space.release(session, room.id)))
        raise


async def _take(request: Request, who: Principal, services: Services, address: str | None, room: UploadRow) -> Json:
    try:
        # What is larger than a megabyte is a file without a name on the disk: memory stays as it is.
        async with request.form(max_files=1, max_fields=10) as form:
            for name in form:
                if name not in FIELDS:
                    raise InputError(f"Unrecognized request argument supplied: {name}", param=name)
            given, purpose = form.get("file"), form.get("purpose")
            if not isinstance(given, UploadFile):
                raise InputError("Missing required parameter: 'file'.", param="file")
            if not isinstance(purpose, str):
                raise InputError("Missing required parameter: 'purpose'.", param="purpose")
            expires_at = _expires_at(form.get("expires_after[anchor]"), form.get("expires_after[seconds]"))
            filename = given.filename or "file"
            if purpose not in files.PURPOSES:  # before it is written
                raise InputError(f"purpose: {purpose!r} is none of {', '.join(files.PURPOSES)}", param="purpose")
            file_space.check_fits(room, given.size or 0)
            blob = await anyio.to_thread.run_sync(
                lambda: services.blobs.put(_chunks(given.file), most=files.MOST_BYTES)
            )
    except OSError as error:  # where a form waits until it is whole
        raise StorageError(f"{tempfile.gettempdir()}: the upload does not fit ({error.strerror})") from error
    except HTTPException as error:
        if error.status_code != 400:
            raise
        raise InputError(f"The form could not be read: {error.detail}", param="file") from None

    def save(session: Session) -> FileRow:
        if who.entry is not None and not sign_in.opening(session, [who.entry]):  # it ended while the bytes came
            raise KeyEndedError(session=who.session_id is not None)
        file_space.release(session, room.id)
        row = files.add_file(
            session, who, blob, filename=filename, purpose=purpose, expires_at=expires_at, blobs=services.blobs
        )
        accounts.record(session, who, "file.created", row.id, address=address, filename=row.filename, bytes=row.bytes)
        return row

    try:
        return file_view(await services.write(save))
    except KeyEndedError:
        await services.write(lambda session: files.remove_unused(session, services.blobs, blob.sha256))
        raise


@router.get("")
def list_files(
    who: PrincipalDep,
    services: ServicesDep,
    purpose: Annotated[str | None, Query(max_length=32)] = None,
    after: Annotated[str | None, Query(max_length=40)] = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
    order: Literal["asc", "desc"] = "desc",
) -> Json:
    """The project's."""
    with services.database.read() as session:
        rows, more = files.list_files(
            session, who.project_id, purpose=purpose, after=after, limit=limit, newest_first=order == "desc"
        )
        return listed([file_view(row) for row in rows], has_more=more)


@router.get("/{file_id}")
def get_file(file_id: str, who: PrincipalDep, services: ServicesDep) -> Json:
    """What is known of it."""
    with services.database.read() as session:
        return file_view(files.get_file(session, who.project_id, file_id))


@router.get("/{file_id}/content")
def get_content(file_id: str, who: PrincipalDep, services: ServicesDep) -> FileResponse:
    """Its bytes, never as a page of this server's."""
    with services.database.read() as session:
        row = files.get_file(session, who.project_id, file_id)
    path = services.blobs.path(row.sha256)
    if not path.is_file():
        raise NotFoundError(f"the bytes of {file_id} are gone from {path.parent}; upload the file again")
    return FileResponse(path, media_type="application/octet-stream", filename=row.filename)


@router.delete("/{file_id}")
def delete_file(file_id: str, who: PrincipalDep, services: ServicesDep, address: AddressDep) -> Json:
    """Forgets it; its bytes go with the last file that has them."""
    with services.database.write() as session:
        sha256 = files.delete_file(session, who.project_id, file_id)
        accounts.record(session, who, "file.deleted", file_id, address=address)
    services.database.transact(lambda session: files.remove_unused(session, services.blobs, sha256))
    return {"id": file_id, "object": "file", "deleted": True}


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    file.seek(0)
    while chunk := file.read(CHUNK):
        yield chunk


def _expires_at(anchor: Any, seconds: Any) -> float | None:
    if anchor is None and seconds is None:
        return None
    if anchor != "created_at" or not isinstance(seconds, str) or not seconds.isdecimal() or len(seconds) > 8:
        raise InputError(
            "expires_after takes an anchor of created_at and seconds as a whole number", param="expires_after"
        )
    if not 3600 <= int(seconds) <= 30 * 86400:
        raise InputError("expires_after[seconds] must be from an hour to thirty days", param="expires_after")
    return time.time() + int(seconds)
