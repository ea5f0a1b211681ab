"""Every error leaves as OpenAI's body: {"error": {message, type, param, code}}."""

from __future__ import annotations

import json
import logging
import math
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from chatwheel.errors import ChatwheelError, StorageError, UnavailableError
from chatwheel.store.limits import LimitError

LOG = logging.getLogger("chatwheel.server")
REFUSED_MESSAGE = "The disk or the database refuses; what was there is unharmed. The server's log has the details."
INTERNAL_MESSAGE = "The server had an error while processing your request. Its log has the details."
Body = dict[str, dict[str, Any]]


def error_body(message: str, type_: str, *, param: str | None = None, code: str | None = None) -> Body:
    """OpenAI's error object."""
    return {"error": {"message": message, "type": type_, "param": param, "code": code}}


def body_of(error: BaseException) -> Body:
    """The body for an error on purpose, and a plain one for a bug or a disk, whose details are the log's alone."""
    if isinstance(error, StorageError) and not isinstance(error, UnavailableError):
        LOG.error("%s", error.message)
        return error_body(REFUSED_MESSAGE, error.type, code=_code(error))
    if isinstance(error, ChatwheelError):
        return error_body(error.message, error.type, param=error.param, code=_code(error))
    return error_body(INTERNAL_MESSAGE, "server_error")


def logged_body(error: BaseException, what: str) -> Body:
    """`body_of`, with a bug's traceback in the log under the name of what failed."""
    if not isinstance(error, ChatwheelError):
        LOG.error("%s failed", what, exc_info=error)
    return body_of(error)


def status_of(error: BaseException) -> int:
    """The HTTP status of an error."""
    return error.status if isinstance(error, ChatwheelError) else 500


def install_error_handlers(app: FastAPI) -> None:
    """Turns raised errors into responses. Bugs are caught further out, in `headers.py`."""
    app.add_exception_handler(ChatwheelError, _on_chatwheel_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(UnicodeEncodeError, _on_half_a_character)


def _code(error: ChatwheelError) -> str | None:
    defaults = {"ContextLengthError": "context_length_exceeded", "ModelNotFoundError": "model_not_found"}
    return error.code or defaults.get(type(error).__name__)


async def _on_chatwheel_error(_request: Request, error: Exception) -> JSONResponse:
    return JSONResponse(body_of(error), status_of(error), headers=_retry_headers(error))


def _retry_headers(error: Exception) -> dict[str, str]:
    """When to come again; clients of OpenAI's obey."""
    if status_of(error) != 429:
        return {}
    seconds = error.retry_after if isinstance(error, LimitError) else 1.0
    if seconds is None:  # time alone does not help
        return {"x-should-retry": "false"}
    return {"retry-after": str(math.ceil(seconds)), "retry-after-ms": str(math.ceil(1000 * seconds))}


async def _on_invalid_request(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    message, param = _describe(_first_fault(list(error.errors())))
    return JSONResponse(error_body(message, "invalid_request_error", param=param), 400)


async def _on_http_exception(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    where = f"{request.method} {request.url.path}"
    message = {404: f"Invalid URL ({where})", 405: f"Not allowed: {where}"}.get(error.status_code, str(error.detail))
    kind = "invalid_request_error" if error.status_code < 500 else "server_error"
    return JSONResponse(error_body(message, kind), error.status_code, headers=error.headers)


async def _on_half_a_character(_request: Request, _error: Exception) -> JSONResponse:
    # JSON's escapes may hold half a surrogate pair, which neither an answer nor a database can.
    message = "The request has half a surrogate pair (such as \\ud800) in a text; send whole characters."
    return JSONResponse(error_body(message, "invalid_request_error"), 400)


def _first_fault(faults: list[dict[str, Any]]) -> dict[str, Any]:
    """The first one; where a field may be text or a list and neither fits, the branch that came further."""
    field = faults[0]["loc"][:-1] if faults[0]["loc"][-1] == "str" else faults[0]["loc"]
    return max((fault for fault in faults if fault["loc"][: len(field)] == field), key=lambda fault: len(fault["loc"]))


def _describe(fault: dict[str, Any]) -> tuple[str, str | None]:
    """A pydantic error as one sentence, and the field it is about: `messages[0].content`."""
    if fault["type"] == "json_invalid":
        return f"The body is not valid JSON: {fault['ctx']['error']} (at character {fault['loc'][-1]}).", None
    if fault["type"] == "extra_forbidden":
        name = ".".join(map(str, fault["loc"][1:]))
        return f"Unrecognized request argument supplied: {name}", name
    param = _param(fault["loc"][1:])
    if param is None:
        hint = "send a JSON object with the header Content-Type: application/json"
        return f"The body could not be read ({fault['msg']}); {hint}.", None
    if fault["type"] == "missing":
        return f"Missing required parameter: '{param}'.", param
    reason = fault["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if param in SECRETS:
        return f"Invalid value for '{param}': expected {reason}.", param
    expected = reason if fault["msg"].startswith("Value error, ") else f"expected {reason}"
    return f"Invalid value for '{param}': {expected}, got {_shown(fault.get('input'))}.", param


def _param(location: tuple[Any, ...]) -> str | None:
    name, before = "", None
    for part in location:
        if isinstance(part, int):
            name += f"[{part}]"
        # pydantic adds the names of a union's branches, and of one that a `type` tells, that type
        elif (
            part not in ("str", "NamedChoice")
            and "[" not in part
            and not (before == "response_format" and part in RESPONSE_FORMATS)
        ):
            name += f".{part}" if name else part
        before = part
    return name or None


SECRETS = frozenset({"password", "current"})
"""Fields of which nothing is said again."""
RESPONSE_FORMATS = ("text", "json_object", "json_schema")


def _shown(value: Any) -> str:
    """A value as it may be repeated to its sender: JSON, pure ASCII, short."""
    try:
        text = json.dumps(value)
    except (TypeError, ValueError):
        text = type(value).__name__
    return text if len(text) <= 80 else text[:77] + "..."
