"""A body may be 10 MB, an upload as large as a file may be, whether its length is announced or not."""

from __future__ import annotations

from fastapi import HTTPException
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chatwheel.server.errors import error_body
from chatwheel.store.files import MOST_BYTES

MAX_BODY_BYTES = 10 * 1024 * 1024
UPLOADS = {"/v1/files": MOST_BYTES + 64 * 1024}
"""Paths whose bodies go to the disk, not into memory, with room for the form around them."""


class BodyLimit:
    """ASGI middleware that answers 413 before an over-large body is in memory."""

    def __init__(self, app: ASGIApp, max_bytes: int = MAX_BODY_BYTES) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most = UPLOADS.get(scope["path"], self._max_bytes)
        too_large = f"The request body is larger than {most // 1024 // 1024} MB."
        announced = Headers(scope=scope).get("content-length", "0")
        if not announced.isdecimal() or int(announced) > most:
            await JSONResponse(error_body(too_large, "invalid_request_error"), 413)(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > most:
                raise HTTPException(413, too_large)
            return message

        await self._app(scope, counted, send)
