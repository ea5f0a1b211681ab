"""Users, projects and keys through the API: what each may, and what it costs."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from chatwheel.store import accounts
from chatwheel.store.accounts import SCOPES, USUAL
from chatwheel.store.database import Database
from tests.server.live import make_app

MODEL = "quickstart/ppo"
Json = dict[str, Any]


@dataclass(frozen=True)
class House:
    """A server with keys: an admin's, an owner's of a project and a plain one there, and one of another project."""

    client: TestClient
    database: Database
    keys: dict[str, str]
    projects: dict[str, str]

    def ask(self, who: str | None, method: str, path: str, **options: Any) -> Any:
        headers = {"authorization": f"Bearer {self.keys.get(who, who)}"} if who else {}
        return self.client.request(method, path, headers=headers, **options)

    def chat(self, who: str, content: str = "hello there", **fields: Any) -> Any:
        body = {"model": MODEL, "messages": [{"role": "user", "content": content}]} | fields
        return self.ask(who, "POST", "/v1/chat/completions", json=body)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    app, database, _ = make_app(tmp_path)
    with database.write() as session:
        local = accounts.local_principal(session)
        ada, bob = accounts.create_user(session, "Ada"), accounts.create_user(session, "Bob")
        physics = accounts.create_project(session, "Physics", ada.id)
        poetry = accounts.create_project(session, "Poetry", bob.id)
        people = {
            "admin": (local.project_id, local.user_id, SCOPES),
            "owner": (physics.id, ada.id, (*USUAL, "project")),
            "plain": (physics.id, ada.id, USUAL),
            "chat only": (physics.id, ada.id, ("chat",)),
            "other": (poetry.id, bob.id, (*USUAL, "project")),
        }
        keys = {
            name: accounts.create_key(session, project_id=project, user_id=user, name=name, scopes=scopes).secret
            for name, (project, user, scopes) in people.items()
        }
        keys["revoked"] = (
            revoked := accounts.create_key(session, project_id=physics.id, user_id=ada.id, name="revoked")
        ).secret
        accounts.revoke_key(session, revoked.row.id)
        projects = {"Physics": physics.id, "Poetry": poetry.id, "Default": local.project_id}
    with TestClient(app, base_url="http://localhost") as client:
        yield House(client, database, keys, projects)


def test_the_first_key_closes_the_door(tmp_path: Path) -> None:
    app, database, _ = make_app(tmp_path)
    with TestClient(app, base_url="http://localhost") as client:
        assert client.get("/v1/models").status_code == 200
        me = client.get("/v1/me").json()
        assert me["user"]["role"] == "admin"
        path = f"/v1/organization/projects/{me['project']['id']}/api_keys"
        made = client.post(path, json={"name": "mine", "scopes": list(SCOPES)}).json()
        headers = {"authorization": f"Bearer {made['value']}"}
        assert client.get("/v1/models").status_code == 401
        assert client.get("/v1/models", headers=headers).status_code == 200
        assert client.delete(f"{path}/{made['id']}", headers=headers).json()["deleted"] is True
        # It stays closed: whoever takes the last key away does not let everybody in.
        for given in ({}, headers):
            assert client.get("/v1/models", headers=given).status_code == 401
    database.close()


def test_a_key_is_shown_once_and_never_again(house: House) -> None:
    path = f"/v1/organization/projects/{house.projects['Physics']}/api_keys"
    made = house.ask("owner", "POST", path, json={"name": "app", "models": [MODEL], "requests_per_minute": 7}).json()
    assert made["value"].startswith("cw-")
    house.keys["new"] = made["value"]
    assert house.chat("new").status_code == 200
    assert house.chat("new", model="quickstart/sft").json()["error"]["code"] == "model_not_allowed"
    for reply in (house.ask("owner", "GET", path), house.ask("owner", "GET", f"{path}/{made['id']}")):
        assert made["value"] not in reply.text
        assert made["redacted_value"] in reply.text
    log = house.ask("admin", "GET", "/v1/organization/audit_logs").json()
    assert log["data"][0]["type"] == "api_key.created"
    assert log["data"][0]["target"] == made["id"]
    assert made["value"] not in str(log)


def test_a_rotated_key(house: House) -> None:
    path = f"/v1/organization/projects/{house.projects['Physics']}/api_keys"
    made = house.ask("owner", "POST", path, json={"name": "app"}).json()
    new = house.ask("owner", "POST", f"{path}/{made['id']}/rotate", json={}).json()
    assert house.chat(made["value"]).status_code == 401
    assert house.chat(new["value"]).status_code == 200


def test_nobody_hands_out_more_than_they_have(house: House) -> None:
    path = f"/v1/organization/projects/{house.projects['Physics']}/api_keys"
    for scope in ("admin", "runs"):
        reply = house.ask("owner", "POST", path, json={"name": "k", "scopes": [scope]})
        assert reply.status_code == 403, reply.text
    assert house.ask("plain", "POST", path, json={"name": "k"}).status_code == 403


@pytest.mark.parametrize(
    ("own", "asked"),
    [
        ({"models": [MODEL]}, {}),
        ({"models": [MODEL]}, {"models": [MODEL, "quickstart/sft"]}),
        ({"expires_in": 3600}, {}),
        ({"expires_in": 3600}, {"expires_in": 7200}),
        ({"requests_per_minute": 5}, {"requests_per_minute": 5}),
        ({"monthly_budget": 1.0}, {}),
    ],
)
def test_a_narrow_key_makes_no_wider_one(own: Json, asked: Json, house: House) -> None:
    path = f"/v1/organization/projects/{house.projects['Physics']}/api_keys"
    scopes = ["chat", "project"]
    narrow = house.ask("owner", "POST", path, json={"name": "narrow", "scopes": scopes} | own).json()["value"]
    refused = house.ask(narrow, "POST", path, json={"name": "wider", "scopes": ["chat"]} | asked)
    assert refused.status_code == 403, refused.text
    assert house.ask("owner", "POST", path, json={"name": "as wide", "scopes": ["chat"]} | asked).status_code == 201
    if "models" in own:
        fits = house.ask(narrow, "POST", path, json={"name": "fits", "scopes": ["chat"]} | own)
        assert fits.status_code == 201, fits.text


def test_a_stronger_key_is_not_taken_over_by_rotating_it(house: House) -> None:
    path = f"/v1/organization/projects/{house.projects['Physics']}"
    admin = house.ask("admin", "GET", "/v1/me").json()["user"]["id"]
    assert house.ask("owner", "POST", f"{path}/users", json={"user_id": admin}).status_code == 201
    body = {"name": "strong", "user_id": admin, "scopes": ["admin"]}
    strong = house.ask("admin", "POST", f"{path}/api_keys", json=body).json()
    reply = house.ask("owner", "POST", f"{path}/api_keys/{strong['id']}/rotate", json={})
    assert reply.status_code == 403
    assert house.ask(strong["value"], "GET", "/v1/organization/users").status_code == 200  # it was left alone
    assert house.ask("admin", "POST", f"{path}/api_keys/{strong['id']}/rotate", json={}).status_code == 201


def test_another_ones_conversations_stay_theirs(house: House) -> None:
    path = f"/v1/organization/projects/{house.projects['Physics']}"
    admin = house.ask("admin", "GET", "/v1/me").json()["user"]["id"]
    house.ask("owner", "POST", f"{path}/users", json={"user_id": admin})
    body = {"name": "theirs", "user_id": admin}
    asked = house.ask("owner", "POST", f"{path}/api_keys", json=body | {"scopes": ["conversations"]})
    assert asked.status_code == 403
    usual = house.ask("owner", "POST", f"{path}/api_keys", json=body).json()
    assert "conversations" not in usual["scopes"]
    assert house.ask(usual["value"], "GET", "/api/conversations").status_code == 403
    own = house.ask("admin", "POST", f"{path}/api_keys", json=body).json()
    assert "conversations" in own["scopes"]
    assert house.ask("owner", "POST", f"{path}/api_keys/{own['id']}/rotate", json={}).status_code == 403


def test_what_was_revoked_does_not_come_back_by_rotating(house: House) -> None:
    path = f"/v1/organization/projects/{house.projects['Physics']}/api_keys"
    made = house.ask("owner", "POST", path, json={"name": "app"}).json()
    house.ask("owner", "DELETE", f"{path}/{made['id']}")
    reply = house.ask("owner", "POST", f"{path}/{made['id']}/rotate", json={})
    assert (reply.status_code, reply.json()["error"]["code"]) == (409, "key_not_active")


def test_a_job_may_no_more_than_its_key(house: House) -> None:
    path = f"/v1/organization/projects/{house.projects['Physics']}/api_keys"
    form = {"files": {"file": ("t.jsonl", b"{}")}, "data": {"purpose": "fine-tune"}}
    training = house.ask("owner", "POST", "/v1/files", **form).json()["id"]

    def ask(limits: Json, model: str) -> Any:
        key = house.ask("owner", "POST", path, json={"name": "k", "scopes": ["fine_tuning"]} | limits).json()["value"]
        part = {"type": "score_model", "name": "g", "model": model, "input": [{"role": "user", "content": "How good?"}]}
        grader = {"type": "multi", "name": "m", "graders": {"g": part}, "calculate_output": "g"}
        method = {"type": "reinforcement", "reinforcement": {"grader": grader}}
        job = {"model": MODEL, "training_file": training, "method": method}
        return house.ask(key, "POST", "/v1/fine_tuning/jobs", json=job)

    assert ask({"models": [MODEL]}, "quickstart/sft").json()["error"]["code"] == "model_not_allowed"
    spent = ask({"monthly_budget": 0.0}, MODEL)
    assert (spent.status_code, spent.json()["error"]["code"]) == (429, "insufficient_quota")
    made = ask({"models": [MODEL]}, MODEL)
    assert made.json()["method"]["reinforcement"]["grader"]["graders"]["g"]["model"] == MODEL, made.text


def test_two_projects_see_nothing_of_each_other(house: House) -> None:
    mine, theirs = (f"/v1/organization/projects/{house.projects[name]}" for name in ("Physics", "Poetry"))
    key = house.ask("other", "GET", f"{theirs}/api_keys").json()["data"][0]["id"]
    for method, path, body in (
        ("GET", theirs, None),
        ("GET", f"{theirs}/users", None),
        ("GET", f"{theirs}/api_keys", None),
        ("POST", f"{theirs}/api_keys", {"name": "k"}),
        ("GET", f"{theirs}/api_keys/{key}", None),
        ("DELETE", f"{theirs}/api_keys/{key}", None),
        ("POST", f"{theirs}/api_keys/{key}/rotate", {}),
        ("POST", f"{theirs}/users", {"user_id": "Ada"}),
        ("DELETE", f"{theirs}/users/someone", None),
        ("GET", f"{mine}/api_keys/{key}", None),
        ("DELETE", f"{mine}/api_keys/{key}", None),
        ("POST", f"{mine}/api_keys/{key}/rotate", {}),
    ):
        assert house.ask("owner", method, path, json=body).status_code == 404, path
    assert [p["name"] for p in house.ask("owner", "GET", "/v1/organization/projects").json()["data"]] == ["Physics"]
    assert house.chat("other").status_code == 200


def test_admins_alone_manage_all(house: House) -> None:
    for method, path, body in (
        ("GET", "/v1/organization/users", None),
        ("POST", "/v1/organization/users", {"name": "Eve"}),
        ("POST", "/v1/organization/projects", {"name": "Chess"}),
        ("POST", f"/v1/organization/projects/{house.projects['Physics']}", {"monthly_budget": 1.5}),
        ("GET", "/v1/organization/audit_logs", None),
        ("POST", "/v1/organization/prices", {"model": "*", "input": 1, "output": 2}),
    ):
        assert house.ask("owner", method, path, json=body).status_code == 403, path
        assert house.ask("admin", method, path, json=body).status_code in (200, 201), path
    reply = house.ask("admin", "POST", f"/v1/organization/projects/{house.projects['Poetry']}/archive")
    assert reply.json()["status"] == "archived"
    assert house.chat("other").status_code == 401


def test_a_member_is_taken_in_and_out(house: House) -> None:
    path = f"/v1/organization/projects/{house.projects['Physics']}"
    bob = house.ask("admin", "GET", "/v1/organization/users").json()["data"][2]
    assert bob["name"] == "Bob"
    assert house.ask("owner", "POST", f"{path}/users", json={"user_id": bob["id"]}).status_code == 201
    made = house.ask("owner", "POST", f"{path}/api_keys", json={"name": "Bob's", "user_id": bob["id"]}).json()
    assert house.chat(made["value"]).status_code == 200
    assert house.ask("owner", "DELETE", f"{path}/users/{bob['id']}").json()["deleted"] is True
    assert house.chat(made["value"]).status_code == 401


def test_an_owner_is_not_told_who_else_is_here(house: House) -> None:
    """A user of another project, or of none, and one that there is not: the same answer, but for what was asked."""
    path = f"/v1/organization/projects/{house.projects['Physics']}"
    eve = house.ask("admin", "POST", "/v1/organization/users", json={"name": "Eve"}).json()
    for name in ("Bob", "Eve"):
        asked = (
            ("POST", f"{path}/users", {"user_id": name}),
            ("POST", f"{path}/users", {"user_id": name, "role": "owner"}),
            ("DELETE", f"{path}/users/{name}", None),
            ("POST", f"{path}/api_keys", {"name": "k", "user_id": name}),
        )
        for method, place, body in asked:
            there = house.ask("owner", method, place, json=body)
            unknown = {**body, "user_id": "Zed"} if body else None
            nobody = house.ask("owner", method, place.replace(name, "Zed"), json=unknown)
            assert there.status_code == nobody.status_code == 404, (method, place)
            assert there.text.replace(name, "Zed") == nobody.text
    members = house.ask("owner", "GET", f"{path}/users").json()["data"]
    assert {member["name"] for member in members}.isdisjoint({"Bob", "Eve"})
    assert house.ask("owner", "POST", f"{path}/users", json={"user_id": eve["id"]}).status_code == 201
    reply = house.ask("owner", "POST", f"{path}/users", json={"user_id": "Eve", "role": "owner"})  # now they know her
    assert reply.json()["role"] == "owner"
    assert house.ask("admin", "POST", f"{path}/users", json={"user_id": "Bob"}).status_code == 201


def test_usage_and_costs(house: House) -> None:
    price = {"model": "quickstart/*", "input": 10, "output": 100}
    assert house.ask("admin", "POST", "/v1/organization/prices", json=price).status_code == 201
    usage = house.chat("plain").json()["usage"]
    house.chat("other")
    result = house.ask("owner", "GET", "/v1/organization/usage/completions?group_by=model").json()["data"][0]["results"]
    assert len(result) == 1
    assert result[0]["input_tokens"] == usage["prompt_tokens"]
    assert result[0]["output_tokens"] == usage["completion_tokens"]
    assert result[0]["model"] == MODEL
    cost = (10 * usage["prompt_tokens"] + 100 * usage["completion_tokens"]) / 10**6
    found = house.ask("owner", "GET", "/v1/organization/costs").json()["data"][0]["results"][0]["amount"]
    assert found == {"value": pytest.approx(cost), "currency": "usd"}
    both = house.ask("admin", "GET", "/v1/organization/usage/completions?group_by=project_id").json()
    assert [row["num_model_requests"] for row in both["data"][0]["results"]] == [1, 1]
    # Another project is not to be asked for.
    path = f"/v1/organization/usage/completions?project_ids={house.projects['Poetry']}"
    assert {r["num_model_requests"] for r in house.ask("owner", "GET", path).json()["data"][0]["results"]} == {1}
    rows = list(csv.DictReader(io.StringIO(house.ask("owner", "GET", "/v1/organization/usage.csv").text)))
    assert [(row["status"], row["endpoint"], row["model"]) for row in rows] == [("completed", "chat", MODEL)]
    assert float(rows[0]["cost_usd"]) == pytest.approx(cost)


def test_limits_are_told_and_kept(house: House) -> None:
    path = f"/v1/organization/projects/{house.projects['Physics']}"
    limits = {"requests_per_minute": 2, "tokens_per_minute": 100000}
    assert house.ask("admin", "POST", path, json=limits).json()["requests_per_minute"] == 2
    first = house.chat("plain")
    assert first.headers["x-ratelimit-limit-requests"] == "2"
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    assert first.headers["x-ratelimit-remaining-tokens"] == "100000"
    assert house.chat("owner").status_code == 200  # the same project's
    third = house.chat("plain")
    assert third.status_code == 429
    assert third.json()["error"] == {
        "message": "Rate limit reached: 2 requests per minute.",
        "type": "rate_limit_error",
        "param": None,
        "code": "rate_limit_exceeded",
    }
    assert 1 <= int(third.headers["retry-after"]) <= 30
    assert int(third.headers["retry-after-ms"]) <= 30_000
    assert third.headers["x-ratelimit-remaining-requests"] == "0"
    assert house.chat("other").status_code == 200


def test_a_spent_budget(house: House) -> None:
    house.ask("admin", "POST", "/v1/organization/prices", json={"model": "*", "input": 1000, "output": 1000})
    path = f"/v1/organization/projects/{house.projects['Physics']}"
    house.ask("admin", "POST", path, json={"monthly_budget": 0.001})
    assert house.chat("plain").status_code == 200
    refused = house.chat("plain")
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "insufficient_quota"
    assert refused.headers["x-should-retry"] == "false"
    house.ask("admin", "POST", path, json={"monthly_budget": None})
    assert house.chat("plain").status_code == 200


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": "k", "scopes": ["everything"]}, "scopes[0]"),
        ({"name": "k", "scopes": []}, "scopes"),
        ({"name": "k", "requests_per_minute": 0}, "requests_per_minute"),
        ({"name": "k", "monthly_budget": -1}, "monthly_budget"),
        ({"name": "k", "expires_in": "tomorrow"}, "expires_in"),
        ({"name": "k", "secret": "mine"}, "secret"),
    ],
)
def test_bad_keys_are_refused_by_the_field(house: House, body: Json, param: str) -> None:
    path = f"/v1/organization/projects/{house.projects['Physics']}/api_keys"
    reply = house.ask("owner", "POST", path, json=body)
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == param
