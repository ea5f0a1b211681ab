"""Who may come in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from tests.server.conftest import Site
from tests.server.live import make_app

KEY = "a-long-random-key"


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[TestClient]:
    app, _, _ = make_app(tmp_path, api_key=KEY)
    with TestClient(app, base_url="http://localhost") as client:
        yield client


GUARDED = [
    ("GET", "/v1/models"),
    ("GET", "/metrics"),
    ("GET", "/v1/models/quickstart/ppo"),
    ("POST", "/v1/chat/completions"),
    ("GET", "/v1/runs"),
    ("GET", "/v1/runs/run-1"),
    ("GET", "/v1/runs/run-1/events"),
    ("GET", "/v1/runs/run-1/stages/stage-1/metrics"),
    ("GET", "/v1/runs/run-1/stages/stage-1/samples"),
    ("GET", "/v1/runs/run-1/stages/stage-1/findings"),
    ("GET", "/v1/runs/run-1/stages/stage-1/rollouts"),
    ("GET", "/v1/no-such-thing"),
    ("GET", "/no-such-thing"),
    ("GET", "/api/models"),
    ("GET", "/api/conversations"),
    ("POST", "/api/conversations"),
    ("GET", "/api/conversations/conv-1"),
    ("PATCH", "/api/conversations/conv-1"),
    ("DELETE", "/api/conversations/conv-1"),
    ("POST", "/api/conversations/conv-1/messages"),
    ("POST", "/api/messages/msg-1/regenerate"),
    ("POST", "/api/messages/msg-1/stop"),
    ("PUT", "/api/messages/msg-1/rating"),
    ("POST", "/api/report/ticket"),
    ("GET", "/report"),
    ("GET", "/openapi.json"),
]


@pytest.mark.parametrize(("method", "path"), GUARDED)
@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer wrong", "Basic " + KEY, KEY, "Bearer " + KEY + "x"])
def test_every_route_with_data_needs_the_key(guarded: TestClient, method: str, path: str, header: str | None) -> None:
    headers = {} if header is None else {"authorization": header}
    response = guarded.request(method, path, headers=headers)
    assert response.status_code == 401
    assert response.json()["error"]["code"] == "invalid_api_key"
    assert response.headers["www-authenticate"] == "Bearer"


def test_no_route_is_forgotten(guarded: TestClient) -> None:
    """Every route of the application is in the list above or needs no key on purpose."""
    schema = guarded.get("/openapi.json", headers={"authorization": f"Bearer {KEY}"}).json()
    routes = {(method.upper(), path) for path, methods in schema["paths"].items() for method in methods}
    tested = {
        (method, path.replace("conv-1", "{conversation_id}").replace("msg-1", "{message_id}"))
        for method, path in GUARDED
    }
    names = {"quickstart/ppo": "{model_id}", "run-1": "{name}", "stage-1": "{stage}"}
    for name, parameter in names.items():
        tested = {(method, path.replace(name, parameter)) for method, path in tested}
    assert routes - tested == {("GET", "/health")}


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
    for origin in ("https://evil.example", "null", "http://localhost:9999"):
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
