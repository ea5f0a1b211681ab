"""A body may be 10 MB, whether its length is announced or not."""

from __future__ import annotations

from fastapi import HTTPException
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chatwheel.server.errors import error_body

MAX_BODY_BYTES = 10 * 1024 * 1024
TOO_LARGE = f"The request body is larger than {MAX_BODY_BYTES // 1024 // 1024} MB."


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
        announced = Headers(scope=scope).get("content-length", "0")
        if not announced.isdecimal() or int(announced) > self._max_bytes:
            await JSONResponse(error_body(TOO_LARGE, "invalid_request_error"), 413)(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_bytes:
                raise HTTPException(413, TOO_LARGE)
            return message

        await self._app(scope, counted, send)
