"""Who may come in: this machine's own pages on loopback, whoever holds a key, and whoever has signed in."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Callable
from urllib.parse import urlsplit

import anyio.to_thread
from anyio import CapacityLimiter
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from chatwheel.errors import ChatwheelError
from chatwheel.server import cookies
from chatwheel.server.errors import body_of, error_body, status_of
from chatwheel.store.accounts import Principal
from chatwheel.store.sign_in import csrf_token

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
# What a browser may load before it knows the key: the page itself holds no data. All else is guarded.
OPEN_PATHS = frozenset({"/", "/health", "/ready", "/favicon.svg", "/theme.js"})
OPEN_PREFIX = "/assets/"
SESSION_PATH, PASSWORD_PATH = "/v1/session", "/v1/password"
SIGN_IN = ("POST", SESSION_PATH)
WHO_AM_I = ("GET", SESSION_PATH)
"""Answers also who is nobody, so that the page knows what to ask for."""
CHANGING_PATHS = frozenset({SESSION_PATH, PASSWORD_PATH})
"""What a temporary password opens: its own change, and the way out."""
REPORT_TICKET_PATH = "/report"


class Door:
    """ASGI middleware: the Host and Origin checks, then who it is, which routes find in the request's state.

    identify: who has a key, or else a session's token, None is nobody; blocks. check_host: refuse Host headers that
    are not `is_loopback`, so that a web site whose name is made to point at 127.0.0.1 (DNS rebinding) cannot read
    answers.
    """

    def __init__(
        self, app: ASGIApp, *, identify: Callable[[str | None, str | None], Principal | None], check_host: bool
    ) -> None:
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
        key = _key_of(headers.get("authorization", ""))
        if key is None and scope["method"] not in SAFE_METHODS and not _from_here(headers):
            message = "Requests from other web sites are not allowed."
            return JSONResponse(error_body(message, "invalid_request_error", code="origin_not_allowed"), 403)
        if not _guarded(scope):
            return None
        token = cookies.token_of(scope) if key is None else None  # a key wins over a cookie
        if self._threads is None:
            self._threads = CapacityLimiter(8)
        try:
            principal = await anyio.to_thread.run_sync(self._identify, key, token, limiter=self._threads)
        except ChatwheelError as error:
            return JSONResponse(body_of(error), status_of(error))
        scope.setdefault("state", {})["principal"] = principal
        asked = (scope["method"], scope["path"])
        if principal is None:
            return None if asked == WHO_AM_I else _signed_out() if token else _unauthorized()
        return _session_refusal(scope, principal, token, headers) if principal.session_id is not None else None


def is_loopback(host: str) -> bool:
    """Whether a host can be reached from this machine only: `localhost`, 127.0.0.0/8, ::1. Other names never count."""
    try:
        return host.lower() == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _session_refusal(scope: Scope, who: Principal, token: str | None, headers: Headers) -> JSONResponse | None:
    """What somebody who came in by a cookie may not, which browsers send whoever wrote the page."""
    sent = headers.get("x-csrf-token", "")
    if scope["method"] not in SAFE_METHODS and not _same(sent, csrf_token(token or "")):
        message = "Send the session's `csrf_token` (GET /v1/session) as the header X-CSRF-Token."
        return JSONResponse(error_body(message, "invalid_request_error", code="csrf_token_invalid"), 403)
    if who.must_change and scope["path"] not in CHANGING_PATHS:
        message = "Your password is a temporary one; change it first (PUT /v1/password)."
        return JSONResponse(error_body(message, "invalid_request_error", code="password_change_required"), 403)
    return None


def _same(sent: str, expected: str) -> bool:
    return hmac.compare_digest(sent.encode("utf-8", "surrogatepass"), expected.encode())


def _from_here(headers: Headers) -> bool:
    """Whether the browser, if it is one that says so, was asked by our own page."""
    return headers.get("sec-fetch-site", "same-origin") == "same-origin"


def _guarded(scope: Scope) -> bool:
    path: str = scope["path"]
    if (scope["method"], path) == SIGN_IN:
        return False
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


def _signed_out() -> JSONResponse:
    message = "You are not signed in any more; sign in again."
    return JSONResponse(error_body(message, "invalid_request_error", code="signed_out"), 401)


def _unauthorized() -> JSONResponse:
    message = "Incorrect API key provided. Send it as the header `Authorization: Bearer KEY`."
    body = error_body(message, "invalid_request_error", code="invalid_api_key")
    return JSONResponse(body, 401, headers={"www-authenticate": "Bearer"})
