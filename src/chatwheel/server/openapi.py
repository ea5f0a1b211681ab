"""The OpenAPI document: FastAPI's, with what it cannot know: the key, the groups, and how errors look."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from chatwheel.server.auth import OPEN_PATHS, SIGN_IN, WHO_AM_I
from chatwheel.server.cookies import NAME

Json = dict[str, Any]
DESCRIPTION = """OpenAI's API over models of one's own, and what is needed to run it: keys, projects, usage, training
runs, and the page's own conversations.

Errors have OpenAI's body: `{"error": {"message", "type", "param", "code"}}`. Every response has an `x-request-id`, by
which its usage and the server's log know it."""

GROUPS = {
    "Chat and completions": ("/v1/chat", "/v1/completions"),
    "Reading": ("/v1/embeddings", "/v1/score", "/score", "/tokenize", "/detokenize", "/v1/moderations"),
    "Models": ("/v1/models", "/api/models", "/v1/deployments"),
    "Wheel": ("/v1/wheel",),
    "Files": ("/v1/files",),
    "Fine-tuning": ("/v1/fine_tuning",),
    "Usage and costs": ("/v1/organization/usage", "/v1/organization/costs", "/v1/organization/prices"),
    "Signing in": ("/v1/session", "/v1/password"),
    "Organization": ("/v1/organization", "/v1/me"),
    "Training runs": ("/v1/runs", "/api/report/"),
    "Conversations": ("/api/conversations", "/api/messages"),
    "Personas and prompts": ("/api/personas", "/api/instruction", "/api/prompts"),
    "Labelling": ("/v1/labelling",),
    "Feedback": ("/api/comparisons", "/api/consent", "/api/reports"),
    "Server": ("/health", "/ready", "/metrics"),
}
"""By how a path begins; the first that fits."""

ERRORS = {
    "400": "Something in the request is wrong; `param` names the field.",
    "401": "No key, or one that opens nothing (any more).",
    "403": "The key may not do that, or the request comes from another web site or by another host's name.",
    "404": "There is no such thing, or it is somebody else's.",
    "408": "The rest of the body did not come in time.",
    "409": "It is there already, or not in a state for that.",
    "413": "The body is too large.",
    "429": "A limit is reached, or the server is full; see `retry-after`.",
    "507": "The disk or the database refuses; what was there is unharmed.",
}
ERROR: Json = {
    "type": "object",
    "title": "Error",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}


def install_openapi(app: FastAPI) -> None:
    """Makes the document when it is first asked for."""

    def document() -> Json:
        if app.openapi_schema is None:
            app.openapi_schema = _completed(
                get_openapi(title=app.title, version=app.version, description=DESCRIPTION, routes=app.routes)
            )
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _completed(schema: Json) -> Json:
    parts = schema.setdefault("components", {})
    parts["securitySchemes"] = {
        "key": {"type": "http", "scheme": "bearer", "description": "A key of `/v1/me`'s owner."},
        "session": {
            "type": "apiKey",
            "in": "cookie",
            "name": NAME,
            "description": "Of who signed in (`POST /v1/session`), `__Host-` before it over https. What changes "
            "something needs the session's `csrf_token` in the header `x-csrf-token` too.",
        },
    }
    parts["responses"] = {code: _response(text) for code, text in ERRORS.items()}
    schemas = parts.setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas["Error"] = ERROR
    schema["security"] = [{"key": []}, {"session": []}]
    schema["tags"] = [{"name": name} for name in GROUPS]
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            operation["tags"] = [_group(path)]
            operation["responses"].pop("422", None)
            opened = path in OPEN_PATHS or (method.upper(), path) in (SIGN_IN, WHO_AM_I)
            if opened:
                operation["security"] = []
            for code in ("403",) if path in OPEN_PATHS else ERRORS:
                operation["responses"].setdefault(code, {"$ref": f"#/components/responses/{code}"})
    return schema


def _group(path: str) -> str:
    return next(name for name, starts in GROUPS.items() if path.startswith(starts))


def _response(text: str) -> Json:
    return {
        "description": text,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }
