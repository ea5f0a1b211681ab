"""A server that is to end finishes what it has begun, and takes nothing new."""

from __future__ import annotations

import threading

from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from chatwheel.server.auth import OPEN_PATHS
from chatwheel.server.errors import error_body

MESSAGE = "This server is shutting down; ask again, and another one or the next one answers."


class UnderWay:
    """How many requests are being answered."""

    def __init__(self) -> None:
        self.num = 0


class Draining:
    """ASGI middleware: counts requests that are under way, and answers 503 to new ones once `closing` is set. What
    tells how the server is (`/health`, `/ready`) is always answered, and never waited for."""

    def __init__(self, app: ASGIApp, *, closing: threading.Event, under_way: UnderWay) -> None:
        self._app = app
        self._closing = closing
        self._under_way = under_way

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        if self._closing.is_set():
            body = error_body(MESSAGE, "server_error", code="shutting_down")
            await JSONResponse(body, 503, headers={"retry-after": "1", "connection": "close"})(scope, receive, send)
            return
        self._under_way.num += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._under_way.num -= 1
