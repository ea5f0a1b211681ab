"""Writes docs/api.md, the reference of the HTTP API.

    python docs/write_api.py

Paths, fields, limits and defaults are those of the application's OpenAPI document (`/openapi.json` of a server), scopes
those that its routes ask for, errors those that the code raises; what is said of them stands in docstrings. Only the
groups and the examples are written here. A test fails where the file is not what this writes.
"""

from __future__ import annotations

import ast
import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import TypeAdapter

import chatwheel
from chatwheel.errors import ChatwheelError, DivergedError
from chatwheel.jobs.fine_tuning.graders import Grader
from chatwheel.jobs.fine_tuning.method import Method
from chatwheel.server.app import create_app
from chatwheel.server.models import ModelPool
from chatwheel.server.routes.files import FIELDS
from chatwheel.settings import Settings
from chatwheel.store.accounts import SCOPES, USUAL
from chatwheel.store.database import Database
from chatwheel.store.files import MOST_BYTES, PURPOSES
from chatwheel.store.fine_tuning import LostJobError
from chatwheel.store.registry import Registry

API = Path(__file__).with_name("api.md")
OPEN = ("/health", "/ready")
SIGN_IN = "/v1/session"
BEYOND_KEYS = {
    ("get", SIGN_IN): "Anybody.",
    ("post", SIGN_IN): "Anybody.",
    ("delete", SIGN_IN): "Who signed in.",
    ("get", "/v1/sessions"): "Who signed in.",
    ("delete", "/v1/sessions"): "Who signed in.",
    ("put", "/v1/password"): "Who signed in, and this machine's own user.",
}
"""Whom routes are for that no key opens."""
NEVER_SENT = (ChatwheelError, DivergedError, LostJobError)
"""Errors of training and of workers, and the family's head."""
Json = dict[str, Any]
GROUPS = {
    "Chat completions": r"/v1/chat/",
    "Completions": r"/v1/completions",
    "Embeddings": r"/v1/embeddings",
    "Moderations": r"/v1/moderations",
    "Scores of a reward model": r"(/v1)?/score",
    "Tokens": r"/(de)?tokenize",
    "Models": r"/v1/(models|deployments)",
    "Wheel": r"/v1/wheel",
    "Files": r"/v1/files",
    "Fine-tuning": r"/v1/fine_tuning",
    "Usage and costs": r"/v1/organization/(usage|costs|prices)",
    "Users, projects and keys": r"/v1/(me|organization)",
    "Signing in": r"/v1/(session|sessions|password)$",
    "Training runs": r"/v1/runs",
    "Labelling": r"/v1/labelling",
    "Arena": r"/v1/arena",
    "The page's own": r"/api/",
    "The server": r"/(health|ready|metrics)",
}
"""By title, which paths; the first that fits."""
EXAMPLES: dict[str, tuple[str, str]] = {
    "Chat completions": (
        """curl $OPENAI_BASE_URL/chat/completions -H "Authorization: Bearer $OPENAI_API_KEY" \\
    -H 'Content-Type: application/json' \\
    -d '{"model": "quickstart/ppo", "messages": [{"role": "user", "content": "What is the capital of France?"}]}'""",
        """stream = client.chat.completions.create(
    model="quickstart/ppo",
    messages=[{"role": "user", "content": "What is the capital of France?"}],
    stream=True,
)
for piece in stream:
    print(piece.choices[0].delta.content or "", end="")""",
    ),
    "Completions": (
        """curl $OPENAI_BASE_URL/completions -H "Authorization: Bearer $OPENAI_API_KEY" \\
    -H 'Content-Type: application/json' -d '{"model": "quickstart/base", "prompt": "Paris is", "max_tokens": 8}'""",
        """answer = client.completions.create(model="quickstart/base", prompt="Paris is", max_tokens=8, logprobs=2)""",
    ),
    "Embeddings": (
        """curl $OPENAI_BASE_URL/embeddings -H "Authorization: Bearer $OPENAI_API_KEY" \\
    -H 'Content-Type: application/json' -d '{"model": "quickstart/base", "input": ["one text", "another"]}'""",
        """vectors = client.embeddings.create(model="quickstart/base", input=["one text", "another"])""",
    ),
    "Moderations": (
        """curl $OPENAI_BASE_URL/moderations -H "Authorization: Bearer $OPENAI_API_KEY" \\
    -H 'Content-Type: application/json' -d '{"input": "What a nice day."}'""",
        """flagged = client.moderations.create(input="What a nice day.").results[0].flagged""",
    ),
    "Models": (
        """curl $OPENAI_BASE_URL/models -H "Authorization: Bearer $OPENAI_API_KEY\"""",
        """names = [model.id for model in client.models.list()]""",
    ),
    "Files": (
        """curl $OPENAI_BASE_URL/files -H "Authorization: Bearer $OPENAI_API_KEY" \\
    -F purpose=fine-tune -F file=@train.jsonl""",
        """file = client.files.create(file=open("train.jsonl", "rb"), purpose="fine-tune")""",
    ),
    "Fine-tuning": (
        """curl $OPENAI_BASE_URL/fine_tuning/jobs -H "Authorization: Bearer $OPENAI_API_KEY" \\
    -H 'Content-Type: application/json' \\
    -d "{\\"model\\": \\"quickstart/sft\\", \\"training_file\\": \\"$FILE\\", \\"suffix\\": \\"topics\\"}\"""",
        """job = client.fine_tuning.jobs.create(model="quickstart/sft", training_file=file.id, suffix="topics")
events = client.fine_tuning.jobs.list_events(job.id)""",
    ),
    "Usage and costs": (
        """curl "$OPENAI_BASE_URL/organization/usage/completions?start_time=0&bucket_width=1d&group_by=model" \\
    -H "Authorization: Bearer $OPENAI_API_KEY\"""",
        """usage = client.get("/organization/usage/completions?start_time=0&group_by=model", cast_to=object)""",
    ),
}
"""By group, with curl and with Python."""
HEAD = """\
# The API

Written by `docs/write_api.py` from the application's own OpenAPI document (`/openapi.json` of a server); change the
code. The shapes are OpenAI's, so their official clients work, with the server's address in place of theirs. A field of
which nothing is said means what OpenAI's means; a default that is left out is the model's own. Examples suppose

```sh
export OPENAI_BASE_URL=http://127.0.0.1:8000/v1
export OPENAI_API_KEY=$(chatwheel keys create reference --scope all)
```

```python
from openai import OpenAI

client = OpenAI()
```

How to fine-tune, step by step: [fine-tuning.md](fine-tuning.md). The page has a playground that writes such requests,
and a console for keys, people, limits, usage, files and jobs:

![The console: keys with their scopes, models and limits](pictures/keys.webp)
![The console: tokens and costs by day and model](pictures/usage.webp)
"""
AUTH = """\
## Who may

`Authorization: Bearer KEY` with every request but those to {open}. A key is of a user and a project: files, jobs, tuned
models, conversations and usage are the project's, and nobody else's key sees them (404). A key has scopes; without one
the answer is 403. Unless it was made with others, it has all but `runs`, `project` and `admin`.

People sign in to the page by their name and a password (`chatwheel users password NAME`), and may what their role
says: admins everything, members all but `runs` and `admin`, and `project` where they own it. `POST /v1/session` gives a
browser a cookie that no script can read; what changes something needs the session's `csrf_token` (`GET /v1/session`) in
the header `x-csrf-token` too, and is refused where the browser says that another site asked. With a key in the header
the cookie counts for nothing, and no token is needed.

Until the first key is made (`chatwheel keys create NAME`) or the first password given, a server that only its own
machine can reach asks for none.

| scope | for | usual |
|---|---|---|
"""
ERRORS = """\
## Errors

Each has OpenAI's body, `{"error": {"message", "type", "param", "code"}}`; `message` is a sentence that says what is
wrong, where, and what to do, `param` the field (`messages[0].content`, `method.supervised.hyperparameters.n_epochs`).
An unknown field is refused by its name. Every answer has an `x-request-id`, also in the server's log. A 429 has
`retry-after` and `retry-after-ms`; the official clients try again by themselves. In a stream an error comes as
`data: {"error": ...}`.

| status | type | when |
|---|---|---|
"""


def application(home: Path) -> FastAPI:
    """One that serves nothing, over an empty database."""
    settings = Settings(home=home, database_url=f"sqlite:///{home / 'chatwheel.db'}")
    pool, database = ModelPool(Registry(settings.models)), Database.open(settings.database_url)
    app = create_app(settings=settings, models_pool=pool, database=database, api_key=None, check_host=True)
    database.close()
    return app


def scope_of(route: APIRoute) -> str | None:
    """What `needs` asks for."""
    scopes = [getattr(dependency.call, "scope", None) for dependency in route.dependant.dependencies]
    return next((scope for scope in scopes if scope), None)


def routes_of(app: FastAPI) -> dict[tuple[str, str], APIRoute]:
    """By method and path, as the document has them."""
    found = {}
    for route in walk(app.routes):
        for method in route.methods:
            found[method.lower(), re.sub(r":\w+}", "}", route.path)] = route
    return found


def walk(routes: Any) -> Iterator[APIRoute]:
    """All routes, those of included routers too."""
    for route in routes:
        if isinstance(route, APIRoute):
            yield route
        elif (router := getattr(route, "original_router", None)) is not None:
            yield from walk(router.routes)


# -- fields


def kind(schema: Json) -> str:
    """A schema's type as people write it, with its limits."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema or "oneOf" in schema:
        branches = [
            kind(branch) for branch in schema.get("anyOf", schema.get("oneOf", [])) if branch != {"type": "null"}
        ]
        return " or ".join(dict.fromkeys(branches))
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if schema.get("type") == "array":
        size = span(schema, "minItems", "maxItems")
        return f"list of {kind(schema.get('items', {}))}{' (' + size + ')' if size else ''}"
    name = {"object": "object", "string": "text", "integer": "integer", "number": "number", "boolean": "true or false"}
    shown = name.get(str(schema.get("type")), "anything")
    if shown == "object" and isinstance(schema.get("additionalProperties"), dict):
        shown = f"object of {kind(schema['additionalProperties'])}"
    size = span(schema, "minLength", "maxLength", " letters") or span(schema, "minimum", "maximum")
    low, high = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    size += (", " if size and low is not None else "") + (f"above {figure(low)}" if low is not None else "")
    size += (", " if size and high is not None else "") + (f"below {figure(high)}" if high is not None else "")
    pattern = f"`{schema['pattern']}`" if "pattern" in schema else ""
    limits = ", ".join(part for part in (size, pattern) if part)
    return shown + (f" ({limits})" if limits else "")


def span(schema: Json, low: str, high: str, unit: str = "") -> str:
    """`1 to 64 letters`."""
    least, most = schema.get(low), schema.get(high)
    if least is not None and most is not None:
        return f"{figure(least)} to {figure(most)}{unit}"
    if most is not None:
        return f"at most {figure(most)}{unit}"
    return f"at least {figure(least)}{unit}" if least is not None else ""


def figure(value: float) -> str:
    """A limit; powers of two that nobody would count by their names."""
    exact = {2**63: "2^63", -(2**63): "-2^63", 2**31: "2^31", 2**31 - 1: "2^31 - 1"}
    return exact.get(int(value)) or f"{value:.15g}"


def said_of(schema: Json) -> dict[str, str]:
    """What the description says of the fields, as `name: text.`"""
    names = "|".join(map(re.escape, schema.get("properties", {})))
    if not names:
        return {}
    mark = re.compile(rf"(?<![\w./{{])((?:{names})(?:, (?:{names}))*): ")
    text = " ".join(str(schema.get("description", "")).split())
    marks = list(mark.finditer(text))
    found = {}
    for here, after in zip(marks, [*marks[1:], None][: len(marks)], strict=True):
        for name in here[1].split(", "):
            found[name] = text[here.end() : after.start() if after else None].strip()
    return found


def table(schema: Json) -> list[str]:
    """A body's fields."""
    said = said_of(schema)
    rows = ["| field | type | default | |", "|---|---|---|---|"]
    for name, field in schema.get("properties", {}).items():
        if name in schema.get("required", []):
            usual = "must be given"
        elif field.get("default") is None:
            usual = ""
        else:
            usual = written_value(field["default"])
        text = said.get(name) or field.get("description", "")
        rows.append(f"| `{name}` | {kind(field)} | {usual} | {' '.join(text.split())} |".replace("||", "| |"))
    return rows


def written_value(value: Any) -> str:
    """A default, as JSON has it."""
    return "see its fields" if isinstance(value, dict) else f"`{json.dumps(value)}`"


def resolved(document: Json, schema: Json) -> Json:
    """Behind a reference."""
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[-1]]
    return schema


def referred(document: Json, schema: Any, found: dict[str, Json]) -> None:
    """Adds the schemas that one mentions, and those that they mention."""
    if isinstance(schema, dict):
        if "$ref" in schema:
            name = schema["$ref"].rsplit("/", 1)[-1]
            if name not in found:
                found[name] = resolved(document, schema)
                referred(document, found[name], found)
        for value in schema.values():
            referred(document, value, found)
    elif isinstance(schema, list):
        for value in schema:
            referred(document, value, found)


# -- errors


def error_classes(kind_: type[ChatwheelError] = ChatwheelError) -> Iterator[type[ChatwheelError]]:
    """All of the family."""
    yield kind_
    for child in kind_.__subclasses__():
        yield from error_classes(child)


def codes() -> dict[str, set[int]]:
    """By `code`, the statuses that it comes with: of each place in the code that raises it, or that answers with it."""
    status = {one.__name__: one.status for one in error_classes()}
    found: dict[str, set[int]] = {}
    for path in sorted(Path(chatwheel.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in status:
                for keyword in node.keywords:
                    if keyword.arg == "code" and isinstance(keyword.value, ast.Constant) and keyword.value.value:
                        found.setdefault(str(keyword.value.value), set()).add(status[node.func.id])
    return found


def errors() -> list[str]:
    """The families, and the codes."""
    rows: dict[tuple[int, str], list[str]] = {}
    for one in error_classes():
        if one not in NEVER_SENT and one.__module__.startswith(("chatwheel.errors", "chatwheel.store")) and one.__doc__:
            rows.setdefault((one.status, one.type), []).append(" ".join(one.__doc__.split("\n\n")[0].split()))
    rows[401, "invalid_request_error"] = [
        "The key is missing, wrong, revoked or at its end; nobody is signed in, or the password is wrong."
    ]
    rows[413, "invalid_request_error"] = ["The body is larger than the server takes."]
    rows[500, "server_error"] = ["A bug: the server's log has the details under the request's id."]
    lines = [f"| {status} | `{type_}` | {' '.join(said)} |" for (status, type_), said in sorted(rows.items())]
    lines += ["", "| `code` | status |", "|---|---|"]
    lines += [f"| `{code}` | {', '.join(map(str, sorted(at)))} |" for code, at in sorted(codes().items())]
    return lines


# -- endpoints


def endpoint(document: Json, path: str, method: str, operation: Json, route: APIRoute) -> list[str]:
    """One of them."""
    scope = scope_of(route)
    lines = [f"### `{method.upper()} {path}`", "", " ".join(operation.get("description", "").split()), ""]
    if path not in OPEN:
        lines += [BEYOND_KEYS.get((method, path)) or (f"Scope: `{scope}`." if scope else "Any key."), ""]
    parameters = [one for one in operation.get("parameters", []) if one["in"] == "query"]  # the path shows its own
    if parameters:
        lines += ["| in the query | type | default |", "|---|---|---|"]
        for one in parameters:
            schema = one["schema"]
            default = written_value(schema["default"]) if schema.get("default") is not None else ""
            usual = "must be given" if one.get("required") else default
            lines.append(f"| `{one['name']}` | {kind(schema)} | {usual} |")
        lines.append("")
    content = operation.get("requestBody", {}).get("content", {})
    if content:
        schema = resolved(document, next(iter(content.values()))["schema"])
        about = general(schema)
        lines += [*([about, ""] if about else []), *table(schema), ""]
    elif (method, path) == ("post", "/v1/files"):
        lines += [form(), ""]
    return lines


def general(schema: Json) -> str:
    """What a body's description says of it as a whole."""
    text = " ".join(str(schema.get("description", "")).split())
    text = re.sub(r"^(GET|POST|PUT|PATCH) \S+?(?=[.:]( |$))[.:] ?", "", text)
    marks = [text.find(f"{name}: ") for name in said_of(schema)]
    cut = min((mark for mark in marks if mark >= 0), default=len(text))
    about = re.sub(r"(\w+, )+$", "", text[:cut]).strip()
    return "" if about == "The body." else about


def form() -> str:
    """Of an upload, which is read piece by piece and therefore no schema's."""
    extra = ", ".join(f"`{name}`" for name in sorted(FIELDS - {"file", "purpose"}))
    purposes = ", ".join(f"`{name}`" for name in PURPOSES)
    return (
        f"A form (`multipart/form-data`): `file`, at most {MOST_BYTES >> 20} MB; `purpose`, one of {purposes}; and, if "
        f"it is to be forgotten by itself, {extra}."
    )


def shapes(found: dict[str, Json], level: str = "####") -> list[str]:
    """The objects that bodies hold."""
    lines = []
    for name, schema in sorted(found.items()):
        lines += [f"{level} {name}", ""]
        if "properties" in schema:
            about = general(schema)
            lines += [*([about, ""] if about else []), *table(schema), ""]
        else:
            lines += [f"{' '.join(str(schema.get('description', '')).split())} {kind(schema)}".strip(), ""]
    return lines


def fine_tuning_shapes() -> list[str]:
    """`method`, which a job takes as an object, and the graders."""
    found: dict[str, Json] = {}
    for title, adapter in (("Method", TypeAdapter(Method)), ("Grader", TypeAdapter(Grader))):
        schema = adapter.json_schema()
        found |= schema.pop("$defs", {})
        found[title] = schema
    return ["`method` of a job:", "", *shapes(found)]


def group_of(path: str) -> str:
    """Where it belongs."""
    return next(title for title, pattern in GROUPS.items() if re.match(pattern, path))


def written() -> str:
    """The whole file."""
    with tempfile.TemporaryDirectory() as home:
        app = application(Path(home))
    document, routes = app.openapi(), routes_of(app)
    groups: dict[str, list[tuple[str, str, Json]]] = {title: [] for title in GROUPS}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            groups[group_of(path)].append((path, method, operation))
    wanted: dict[str, set[str]] = {}
    for (method, path), route in routes.items():
        if (scope := scope_of(route)) and path in document["paths"] and method in document["paths"][path]:
            wanted.setdefault(scope, set()).add(group_of(path))
    lines = [HEAD, AUTH.format(open=" and ".join(f"`{path}`" for path in OPEN)).rstrip()]
    for one in SCOPES:
        where = [title for title in GROUPS if title in wanted.get(one, ())]
        if one == "project":
            where = ["the keys, members and labelling queues of its project"]
        lines.append(f"| `{one}` | {', '.join(where)} | {'yes' if one in USUAL else 'no'} |")
    lines += ["", ERRORS.rstrip(), *errors(), ""]
    for title, operations in groups.items():
        lines += [f"## {title}", ""]
        if title in EXAMPLES:
            shell, python = EXAMPLES[title]
            lines += ["```sh", shell, "```", "", "```python", python, "```", ""]
        found: dict[str, Json] = {}
        for path, method, operation in sorted(operations, key=lambda one: (one[0], one[1] != "get", one[1])):
            lines += endpoint(document, path, method, operation, routes[method, path])
            for content in operation.get("requestBody", {}).get("content", {}).values():
                referred(document, resolved(document, content["schema"]), found)
        lines += shapes(found)
        if title == "Fine-tuning":
            lines += fine_tuning_shapes()
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    API.write_text(written(), encoding="utf-8")
