"""Who may come in: this machine's own pages on loopback, and whoever holds a key elsewhere."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from urllib.parse import urlsplit

import anyio.to_thread
from anyio import CapacityLimiter
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from chatwheel.errors import ChatwheelError
from chatwheel.server.errors import body_of, error_body, status_of
from chatwheel.store.accounts import Principal

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
# What a browser may load before it knows the key: the page itself holds no data. All else is guarded.
OPEN_PATHS = frozenset({"/", "/health", "/ready", "/favicon.svg", "/theme.js"})
OPEN_PREFIX = "/assets/"
REPORT_TICKET_PATH = "/report"


class Door:
    """ASGI middleware: the Host and Origin checks, then who it is, which routes find in the request's state.

    identify: who has a key, None is nobody; blocks. check_host: refuse Host headers that are not `is_loopback`, so that
    a web site whose name is made to point at 127.0.0.1 (DNS rebinding) cannot read answers.
    """

    def __init__(self, app: ASGIApp, *, identify: Callable[[str | None], Principal | None], check_host: bool) -> None:
        self._app = app
        self._identify = identify
        self._check_host = check_host
        # Its own threads: those that read files for others would keep people waiting at the door.
        self._threads: CapacityLimiter | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        refusal = await self._refusal(scope) if scope["type"] == "http" else None
        await (refusal or self._app)(scope, receive, send)

    async def _refusal(self, scope: Scope) -> JSONResponse | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self._check_host and not is_loopback(_hostname(host)):
            message = (
                "This server answers on localhost and loopback addresses only; the Host header names another machine."
            )
            return JSONResponse(error_body(message, "invalid_request_error", code="host_not_allowed"), 403)
        origin = headers.get("origin")
        if scope["method"] not in SAFE_METHODS and origin is not None and _netloc(origin) != host:
            message = "Requests from other web sites are not allowed."
            return JSONResponse(error_body(message, "invalid_request_error", code="origin_not_allowed"), 403)
        if not _guarded(scope):
            return None
        if self._threads is None:
            self._threads = CapacityLimiter(8)
        key = _key_of(headers.get("authorization", ""))
        try:
            principal = await anyio.to_thread.run_sync(self._identify, key, limiter=self._threads)
        except ChatwheelError as error:
            return JSONResponse(body_of(error), status_of(error))
        if principal is None:
            return _unauthorized()
        scope.setdefault("state", {})["principal"] = principal
        return None


def is_loopback(host: str) -> bool:
    """Whether a host can be reached from this machine only: `localhost`, 127.0.0.0/8, ::1. Other names never count."""
    try:
        return host.lower() == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _guarded(scope: Scope) -> bool:
    path: str = scope["path"]
    if path == REPORT_TICKET_PATH and scope["query_string"].startswith(b"ticket="):
        return False  # the route checks the ticket: a link cannot carry a header
    return path not in OPEN_PATHS and not path.startswith(OPEN_PREFIX)


def _hostname(host: str) -> str:
    """The name in a Host header: without port, brackets and upper case."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _netloc(origin: str) -> str | None:
    """Name and port in an Origin header; None for one that is no URL."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def _key_of(authorization: str) -> str | None:
    scheme, _, key = authorization.partition(" ")
    return key.strip() or None if scheme.lower() == "bearer" else None


def _unauthorized() -> JSONResponse:
    message = "Incorrect API key provided. Send it as the header `Authorization: Bearer KEY`."
    body = error_body(message, "invalid_request_error", code="invalid_api_key")
    return JSONResponse(body, 401, headers={"www-authenticate": "Bearer"})
