"""Who may come in: this machine's own pages on loopback, and whoever holds the key elsewhere."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from urllib.parse import urlsplit

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from chatwheel.server.errors import error_body

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
# What a browser may load before it knows the key: the page itself holds no data. All else is guarded.
OPEN_PATHS = frozenset({"/", "/health", "/favicon.svg", "/theme.js"})
OPEN_PREFIX = "/assets/"
REPORT_TICKET_PATH = "/report"


class Door:
    """ASGI middleware: the Host and Origin checks, then the key.

    check_host: refuse Host headers that are not `is_loopback`, so that a web site whose name is made to point at
    127.0.0.1 (DNS rebinding) cannot read answers. api_key: None leaves the door open, which only loopback may.
    """

    def __init__(self, app: ASGIApp, *, api_key: str | None, check_host: bool) -> None:
        self._app = app
        self._key_digest = _digest(api_key) if api_key else None
        self._check_host = check_host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        await (refusal or self._app)(scope, receive, send)

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self._check_host and not is_loopback(_hostname(host)):
            message = (
                "This server answers on localhost and loopback addresses only; the Host header names another machine."
            )
            return JSONResponse(error_body(message, "invalid_request_error", code="host_not_allowed"), 403)
        origin = headers.get("origin")
        if scope["method"] not in SAFE_METHODS and origin is not None and urlsplit(origin).netloc != host:
            message = "Requests from other web sites are not allowed."
            return JSONResponse(error_body(message, "invalid_request_error", code="origin_not_allowed"), 403)
        if self._key_digest and _guarded(scope) and not self._has_key(headers.get("authorization", "")):
            return _unauthorized()
        return None

    def _has_key(self, authorization: str) -> bool:
        scheme, _, key = authorization.partition(" ")
        same = hmac.compare_digest(_digest(key.strip()), self._key_digest or b"")
        return same and scheme.lower() == "bearer"


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


def _digest(key: str) -> bytes:
    # Compared as digests, so that neither content nor length shows in the time it takes.
    return hashlib.sha256(key.encode("utf-8")).digest()


def _unauthorized() -> JSONResponse:
    message = "Incorrect API key provided. Send it as the header `Authorization: Bearer KEY`."
    body = error_body(message, "invalid_request_error", code="invalid_api_key")
    return JSONResponse(body, 401, headers={"www-authenticate": "Bearer"})
