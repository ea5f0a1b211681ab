"""A body may be 10 MB, an upload as large as a file may be, announced or not; and it has to come, not only trickle."""

from __future__ import annotations

import asyncio
import time

from fastapi import HTTPException
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chatwheel.server.errors import error_body
from chatwheel.store.files import MOST_BYTES

MAX_BODY_BYTES = 10 * 1024 * 1024
UPLOADS = {"/v1/files": MOST_BYTES + 64 * 1024}
"""Paths whose bodies go to the disk, not into memory, with room for the form around them."""
PATIENCE_SECONDS = 60.0
"""How long a body may be waited for beyond the time that it takes at the least rate: also how long nothing may come."""
LEAST_RATE = 16 * 1024
"""Bytes a second. What trickles in slower holds a connection, a thread or a file for nothing."""


class BodyLimit:
    """ASGI middleware that answers 413 before an over-large body is in memory, and 408 to one that does not go on, or
    only trickles: by each moment as much has come as makes up for the time waited, but for `patience_seconds`."""

    def __init__(
        self,
        app: ASGIApp,
        max_bytes: int = MAX_BODY_BYTES,
        patience_seconds: float = PATIENCE_SECONDS,
        least_rate: int = LEAST_RATE,
    ) -> None:
        self._app = app
        self._max_bytes, self._patience_seconds, self._least_rate = max_bytes, patience_seconds, least_rate

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
        received, waited, whole = 0, 0.0, False

        async def counted() -> Message:
            nonlocal received, waited, whole
            if whole:  # what is waited for now is that the client leaves
                return await receive()
            began = time.monotonic()
            left = self._patience_seconds + received / self._least_rate - waited
            try:
                async with asyncio.timeout(min(self._patience_seconds, left)):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(
                    408, "The rest of the request's body did not come in time; send it again."
                ) from None
            waited += time.monotonic() - began  # not what the server itself takes in between
            whole = not message.get("more_body", False)
            received += len(message.get("body", b""))
            if received > most:
                raise HTTPException(413, too_large)
            return message

        await self._app(scope, counted, send)
