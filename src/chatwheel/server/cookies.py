"""The cookie of who signed in: no script reads it, no other site sends it, and over https no other host sets it."""

from __future__ import annotations

from fastapi import Response
from starlette.requests import cookie_parser
from starlette.types import Scope

from chatwheel.store.sign_in import LIFE_SECONDS

NAME = "chatwheel_session"
SECURE_NAME = f"__Host-{NAME}"
"""Browsers take it over https alone, from this host alone (RFC 6265bis, 4.1.3.2)."""


def token_of(scope: Scope) -> str | None:
    """What the cookie of a request says; over https that of plain http is none."""
    for name, value in scope["headers"]:
        if name == b"cookie" and (token := cookie_parser(value.decode("latin-1")).get(_name(scope))):
            return token
    return None


def give(response: Response, scope: Scope, token: str) -> None:
    """Signs a browser in."""
    _set(response, scope, token, int(LIFE_SECONDS))


def take(response: Response, scope: Scope) -> None:
    """Makes a browser forget it."""
    _set(response, scope, "", 0)


def _set(response: Response, scope: Scope, value: str, seconds: int) -> None:
    response.set_cookie(
        _name(scope), value, max_age=seconds, path="/", secure=_is_secure(scope), httponly=True, samesite="lax"
    )


def _name(scope: Scope) -> str:
    return SECURE_NAME if _is_secure(scope) else NAME


def _is_secure(scope: Scope) -> bool:
    """As the browser sees it: uvicorn takes X-Forwarded-Proto from proxies that it trusts (FORWARDED_ALLOW_IPS)."""
    return bool(scope.get("scheme") == "https")
