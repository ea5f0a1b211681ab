"""Who may come in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from chatwheel.store import accounts
from tests.server.conftest import Site
from tests.server.live import make_app

KEY = "a-long-random-key"


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[TestClient]:
    app, _, _ = make_app(tmp_path, api_key=KEY)
    with TestClient(app, base_url="http://localhost") as client:
        yield client


OPEN = {("GET", "/health"), ("GET", "/ready"), ("GET", "/v1/session"), ("POST", "/v1/session")}
HIDDEN = [("GET", "/report"), ("GET", "/openapi.json"), ("GET", "/v1/no-such-thing"), ("GET", "/no-such-thing")]
"""What the schema does not tell of."""


def every_route(client: TestClient) -> list[tuple[str, str]]:
    """Method and path, as the application's own schema has them, with something in place of the names."""
    schema = client.get("/openapi.json", headers={"authorization": f"Bearer {KEY}"}).json()
    routes = {(method.upper(), path) for path, methods in schema["paths"].items() for method in methods}
    assert routes >= OPEN
    return [(m, re.sub(r"{[^}]*}", "some-1", path)) for m, path in sorted(routes - OPEN)] + HIDDEN


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer wrong", "Basic " + KEY, KEY, "Bearer " + KEY + "x"])
def test_every_route_with_data_needs_the_key(guarded: TestClient, header: str | None) -> None:
    headers = {} if header is None else {"authorization": header}
    routes = every_route(guarded)
    assert len(routes) > 50
    for method, path in routes:
        response = guarded.request(method, path, headers=headers)
        assert response.status_code == 401, (method, path)
        assert response.json()["error"]["code"] == "invalid_api_key"
        assert response.headers["www-authenticate"] == "Bearer"


ANY_KEY = {
    ("GET", "/api/shared/some-1"),
    ("GET", "/v1/me"),
    ("GET", "/v1/organization/projects"),
    ("GET", "/v1/organization/projects/some-1"),
    ("GET", "/v1/organization/projects/some-1/users"),
    ("GET", "/openapi.json"),
    ("GET", "/v1/no-such-thing"),
    ("GET", "/no-such-thing"),
}
"""Routes that take a key, and no scope."""
SESSIONS_ALONE = {
    ("DELETE", "/v1/session"),
    ("GET", "/v1/sessions"),
    ("DELETE", "/v1/sessions"),
    ("PUT", "/v1/password"),
}
"""Routes of who signed in, which no key opens, whatever its scopes."""
MANAGING = ("project", "admin")
SCOPES_OF: list[tuple[str, str, tuple[str, ...]]] = [
    ("", "/v1/chat/", ("chat",)),
    ("", "/v1/completions", ("completions",)),
    ("", "/v1/embeddings", ("embeddings",)),
    ("", "/v1/moderations", ("moderations",)),
    ("", "/score", ("score",)),
    ("", "/v1/score", ("score",)),
    ("", "/tokenize", ("models",)),
    ("", "/detokenize", ("models",)),
    ("DELETE", "/v1/models", ("fine_tuning",)),  # who may see models may not delete those of jobs
    ("", "/v1/models", ("models",)),
    ("", "/api/models", ("models",)),
    ("", "/v1/files", ("files",)),
    ("", "/v1/fine_tuning", ("fine_tuning",)),
    ("", "/v1/runs", ("runs",)),
    ("", "/metrics", ("runs",)),
    ("", "/report", ("runs",)),
    ("", "/api/report", ("runs",)),
    ("", "/api/conversations", ("conversations",)),
    ("", "/api/messages", ("conversations",)),
    ("", "/api/comparisons", ("conversations",)),
    ("", "/api/shares", ("conversations",)),
    ("", "/api/consent", ("conversations",)),
    ("", "/api/personas", ("conversations",)),
    ("", "/api/instruction", ("conversations",)),
    ("", "/api/prompts", ("conversations",)),
    ("", "/api/reports", ("admin",)),
    ("", "/v1/deployments", ("admin",)),
    ("", "/v1/wheel", ("admin",)),
    ("POST", "/v1/labelling/queues/some-1/next", ("labelling",)),
    ("POST", "/v1/labelling/queues", MANAGING),
    ("PATCH", "/v1/labelling/queues", MANAGING),
    ("DELETE", "/v1/labelling/queues", MANAGING),
    ("", "/v1/labelling/queues/some-1/report", MANAGING),
    ("", "/v1/labelling/queues/some-1/adjudication", MANAGING),
    ("", "/v1/labelling/queues/some-1/reported", MANAGING),
    ("", "/v1/labelling/queues/some-1/export", MANAGING),
    ("", "/v1/labelling/tasks", MANAGING),
    ("", "/v1/labelling", ("labelling",)),
    ("", "/v1/arena", ("conversations",)),
    ("", "/v1/organization/usage", ("usage",)),
    ("", "/v1/organization/usage.csv", ("usage",)),
    ("", "/v1/organization/costs", ("usage",)),
    ("GET", "/v1/organization/prices", ("usage",)),
    ("", "/v1/organization/prices", ("admin",)),
    ("", "/v1/organization/projects/some-1/api_keys", MANAGING),
    ("", "/v1/organization/projects/some-1/users", MANAGING),
    ("", "/v1/organization/projects", ("admin",)),
    ("", "/v1/organization/users", ("admin",)),
    ("", "/v1/organization/audit_logs", ("admin",)),
    ("", "/v1/organization/health", ("admin",)),
    ("", "/v1/organization/settings", ("admin",)),
]
"""Method (any, if left out), the path's beginning, and the scopes each of which opens it; the first that fits."""
BODIES = {
    "/v1/organization/projects/some-1/api_keys": {"name": "k"},
    "/v1/organization/projects/some-1/users": {"user_id": "somebody"},
}
"""Of routes that read their body before they ask who it is."""


def scopes_of(method: str, path: str) -> tuple[str, ...]:
    """Those that open a route, none for one of any key's; a route that nobody has listed is an error."""
    if (method, path) in ANY_KEY | SESSIONS_ALONE:
        return ()
    for verb, start, scopes in SCOPES_OF:
        if verb in ("", method) and re.match(re.escape(start) + ("" if start.endswith("/") else r"(?=/|$)"), path):
            return scopes
    raise AssertionError(f"{method} {path}: say in SCOPES_OF or ANY_KEY which keys it takes")


def test_a_key_does_what_its_scopes_say_and_nothing_else(tmp_path: Path) -> None:
    """Each route, with a key that has all scopes but the route's own; those without one, with a key of another."""
    app, database, _ = make_app(tmp_path)
    with TestClient(app, base_url="http://localhost") as client:
        routes = every_route(client)
        with database.write() as session:
            local = accounts.local_principal(session)

            def key_without(scopes: tuple[str, ...]) -> str:
                return accounts.create_key(
                    session,
                    project_id=local.project_id,
                    user_id=local.user_id,
                    name="k",
                    scopes=[other for other in accounts.SCOPES if other not in scopes],
                ).secret

            keys = {scopes: key_without(scopes) for scopes in {scopes_of(*route) for route in routes} if scopes}
            keys[()] = key_without(tuple(scope for scope in accounts.SCOPES if scope != "embeddings"))
        for method, path in routes:
            scopes = scopes_of(method, path)
            place = path.replace("/projects/some-1", f"/projects/{local.project_id}")
            headers = {"authorization": f"Bearer {keys[scopes]}"}
            reply = client.request(method, place, headers=headers, json=BODIES.get(path, {}))
            if scopes or (method, path) in SESSIONS_ALONE:
                assert reply.status_code == 403, (method, path, reply.text)
                assert reply.json()["error"]["code"] == "insufficient_permissions"
            else:
                assert reply.status_code == (404 if "no-such-thing" in path else 200), (method, path, reply.text)
        assert {scope for scopes in keys for scope in scopes} == set(accounts.SCOPES)


def test_a_new_route_fails_until_its_scopes_are_said(guarded: TestClient) -> None:
    app = guarded.app
    assert isinstance(app, FastAPI)
    app.get("/v1/chatter")(lambda: "")
    app.openapi_schema = None
    new = [route for route in every_route(guarded) if route == ("GET", "/v1/chatter")]
    assert new
    with pytest.raises(AssertionError, match="GET /v1/chatter: say in SCOPES_OF"):
        scopes_of(*new[0])


def test_the_key_opens(guarded: TestClient) -> None:
    headers = {"authorization": f"Bearer {KEY}"}
    assert guarded.get("/v1/models", headers=headers).status_code == 200


def test_health_and_the_page_need_no_key(guarded: TestClient) -> None:
    assert guarded.get("/health").json()["status"] == "ok"
    assert guarded.get("/").status_code in (200, 503)
    assert guarded.get("/assets/no-such-file.js").status_code == 404


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "127.example.com", "localhost.evil", "", "[::1"],
)
def test_a_name_that_is_not_this_machines_is_refused(site: Site, host: str) -> None:
    response = site.client.get("/v1/models", headers={"host": host})
    assert response.status_code == 403
    assert response.json()["error"]["code"] == "host_not_allowed"


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:1", "127.0.0.1:8000", "127.0.0.2:8000", "[::1]:8000", "[::1]"]
)
def test_this_machines_names_are_fine(site: Site, host: str) -> None:
    assert site.client.get("/v1/models", headers={"host": host}).status_code == 200


def test_another_site_cannot_post(site: Site) -> None:
    for origin in ("https://evil.example", "null", "http://localhost:9999", "http://["):
        response = site.client.post("/api/messages/msg-1/stop", headers={"origin": origin})
        assert response.json()["error"]["code"] == "origin_not_allowed"
    response = site.client.post("/api/messages/msg-1/stop", headers={"origin": "http://localhost:8000"})
    assert response.status_code == 404


def test_other_sites_are_told_nothing(site: Site) -> None:
    response = site.client.get("/v1/models", headers={"origin": "https://evil.example"})
    assert not any(name.startswith("access-control") for name in response.headers)


def test_a_report_ticket_opens_only_the_report_and_only_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, _, _ = make_app(tmp_path, api_key=KEY)
    (tmp_path / "runs/quickstart").mkdir(parents=True)
    (tmp_path / "runs/quickstart/report.html").write_text("<script>1</script>report")
    with TestClient(app, base_url="http://localhost") as client:
        headers = {"authorization": f"Bearer {KEY}"}
        url = client.post("/api/report/ticket", headers=headers).json()["url"]
        assert "report" in client.get(f"/{url}").text
        assert client.get(f"/{url[:-1]}").status_code == 401
        assert client.get("/report?ticket=9999999999.x").status_code == 401
        assert client.get("/report?ticket=nonsense").status_code == 401
        assert client.get("/report?ticket=").status_code == 401
        assert client.get("/report?ticket=&x=1").status_code == 401
        assert client.get("/report?ticket=a&ticket=").status_code == 401
        assert client.get(f"/v1/models?{url.partition('?')[2]}").status_code == 401
        monkeypatch.setattr("time.time", lambda: 9e9)
        assert client.get(f"/{url}").status_code == 401
