"""The outermost layer: a request id, security headers, and a plain 500 for whatever nobody caught."""

from __future__ import annotations

import math
import secrets
import time

from fastapi.responses import JSONResponse
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chatwheel.server.errors import logged_body
from chatwheel.store.limits import Left

PAGE_POLICY = "; ".join(
    (
        "default-src 'self'",
        "img-src 'self' data:",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)


class ResponseHeaders:
    """ASGI middleware. A route's own header (such as another Content-Security-Policy) is left as it is."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = f"req_{secrets.token_hex(12)}"
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        began, started = time.perf_counter(), False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                _complete(headers, request_id, time.perf_counter() - began)
                if (left := state.get("left")) is not None:
                    headers.update(limit_headers(left))
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except Exception as error:
            body = logged_body(error, f"{scope['method']} {scope['path']} ({request_id})")
            if started:
                raise
            await JSONResponse(body, 500)(scope, receive, send_with_headers)


def limit_headers(left: Left) -> dict[str, str]:
    """What is left of a key's limits, as OpenAI tells it."""
    headers = {}
    for kind, bucket in (("requests", left.requests), ("tokens", left.tokens)):
        if bucket is not None:
            headers[f"x-ratelimit-limit-{kind}"] = str(bucket.limit)
            headers[f"x-ratelimit-remaining-{kind}"] = str(bucket.remaining)
            headers[f"x-ratelimit-reset-{kind}"] = _duration(bucket.reset)
    return headers


def _duration(seconds: float) -> str:
    """Such as 120ms, 7s or 6m0s."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, rest = divmod(math.ceil(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def _complete(headers: MutableHeaders, request_id: str, seconds: float) -> None:
    headers["x-request-id"] = request_id
    headers["openai-processing-ms"] = str(round(seconds * 1000))
    headers.setdefault("content-security-policy", PAGE_POLICY)
    headers.setdefault("x-content-type-options", "nosniff")
    headers.setdefault("referrer-policy", "no-referrer")
    headers.setdefault("cross-origin-resource-policy", "same-origin")
    headers.setdefault("cross-origin-opener-policy", "same-origin")
    headers.setdefault("cache-control", "no-store")
