"""Who asks for the latest model gets the one that was promoted, on every door."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from chatwheel.feedback.watching import watch
from chatwheel.server import services
from chatwheel.store import accounts
from chatwheel.store.deployments import LATEST, deployed
from tests.server.conftest import Site
from tests.server.live import make_app

PPO, SFT = "quickstart/ppo", "quickstart/sft"


def answers_of(site: Site, number: int) -> list[str]:
    """The models that answer as many new conversations."""
    found = []
    for _ in range(number):
        conversation = site.client.post("/api/conversations", json={"model": LATEST}).json()
        events = site.ask(conversation["id"], "hello", model=LATEST)
        assert events[0][1]["message"]["model"] == conversation["model"]  # one conversation, one model
        found.append(conversation["model"])
    return found


def test_the_latest_model_is_the_one_that_was_promoted(site: Site) -> None:
    assert site.client.get("/api/models").json()["default"] == PPO
    missing = site.chat(model=LATEST)
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")
    made = site.client.post("/v1/deployments", json={"model": SFT, "note": "the first"})
    assert (made.status_code, made.json()["note"]) == (201, {"words": "the first"})
    models = site.client.get("/api/models").json()
    assert (models["default"], models["data"][0]["id"]) == (LATEST, LATEST)
    assert LATEST in [model["id"] for model in site.client.get("/v1/models").json()["data"]]
    assert site.chat(model=LATEST).json()["model"] == SFT
    assert set(answers_of(site, 3)) == {SFT}

    assert site.client.post("/v1/deployments", json={"model": PPO, "share": 0.5}).status_code == 201
    assert set(answers_of(site, 24)) == {SFT, PPO}  # all the same once in 2^23
    one = {site.chat(model=LATEST).json()["model"] for _ in range(5)}
    assert len(one) == 1  # the same person, the same model

    now = site.client.post("/v1/deployments/rollback").json()["data"]
    assert [row["model"] for row in now] == [SFT]
    assert set(answers_of(site, 8)) == {SFT}
    history = site.client.get("/v1/deployments").json()["data"]
    assert [(row["model"], row["outcome"]) for row in history] == [(PPO, "rolled_back"), (SFT, None)]


def rate(site: Site, model: str, value: int) -> None:
    """A new conversation that this model answers, and its thumb."""
    conversation = site.client.post("/api/conversations", json={"model": model}).json()["id"]
    answer = site.ask(conversation, "hello")[-1][1]["id"]
    assert site.client.put(f"/api/messages/{answer}/rating", json={"value": value}).status_code == 200


def test_a_candidate_that_people_like_less_is_taken_back(site: Site) -> None:
    site.client.post("/v1/deployments", json={"model": SFT})
    for _ in range(30):
        rate(site, PPO, -1)  # from before it was a candidate: they say nothing of it beside the other
    site.client.post("/v1/deployments", json={"model": PPO, "share": 0.5})
    for number in range(12):
        rate(site, SFT, 1 if number % 3 else -1)
        rate(site, PPO, 1 if number % 3 else -1)
    with site.database.write() as session:
        found = watch(session)
        assert found is not None
        assert (found.model, found.taken_back) == (PPO, False)
        assert deployed(session).candidate is not None
    assert "not shown to be worse" in site.client.get("/v1/deployments").json()["ratings"]
    for _ in range(12):
        rate(site, SFT, 1)
        rate(site, PPO, -1)
    with site.database.write() as session:
        found = watch(session)
        assert found is not None
        assert found.taken_back
        assert watch(session) is None
    history = site.client.get("/v1/deployments").json()
    assert (history["data"][0]["model"], history["data"][0]["outcome"]) == (PPO, "rolled_back")
    assert history["data"][0]["note"]["ratings"].startswith("worse")
    assert history["ratings"] is None
    assert site.chat(model=LATEST).json()["model"] == SFT


def test_a_model_that_answers_all_is_held_against_the_one_before(site: Site) -> None:
    site.client.post("/v1/deployments", json={"model": SFT})
    for _ in range(19):
        rate(site, SFT, 1)
    site.client.post("/v1/deployments", json={"model": PPO})
    rate(site, SFT, 1)  # too late to be of the past
    with site.database.write() as session:
        assert watch(session) is None  # nobody knows yet what is usual
    site.client.post("/v1/deployments/rollback")
    rate(site, SFT, 1)
    site.client.post("/v1/deployments", json={"model": PPO})
    for _ in range(6):
        rate(site, PPO, 1)
    with site.database.write() as session:
        found = watch(session)
        assert found is not None
        assert (found.model, found.taken_back) == (PPO, False)
    for _ in range(20):
        rate(site, PPO, -1)
    with site.database.write() as session:
        found = watch(session)
        assert found is not None
        assert found.taken_back
    assert site.chat(model=LATEST).json()["model"] == SFT


def test_the_server_looks_by_itself(site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(services, "JUDGE_SECONDS", 0.05)
    app, database, _ = make_app(tmp_path / "other")
    with TestClient(app, base_url="http://localhost:8000") as client:
        other = Site(client, database, site.models)
        client.post("/v1/deployments", json={"model": SFT})
        client.post("/v1/deployments", json={"model": PPO, "share": 0.5})
        for _ in range(14):
            rate(other, SFT, 1)
            rate(other, PPO, -1)
        until = time.monotonic() + 20
        while (row := client.get("/v1/deployments").json()["data"][0])["outcome"] is None and time.monotonic() < until:
            time.sleep(0.05)
        assert (row["model"], row["outcome"]) == (PPO, "rolled_back")
        kinds = [one["type"] for one in client.get("/v1/organization/audit_logs").json()["data"]]
        assert kinds[0] == "model.rolled_back"


def test_what_cannot_be_promoted(site: Site) -> None:
    for model, status in (
        ("quickstart/none", 404),
        ("quickstart/reward", 400),
        ("ft:quickstart-sft:x", 400),
        (LATEST, 400),
    ):
        assert site.client.post("/v1/deployments", json={"model": model}).status_code == status, model
    assert site.client.post("/v1/deployments", json={"model": SFT, "share": 0}).status_code == 400
    assert site.client.post("/v1/deployments/rollback").status_code == 409


def test_a_key_for_the_latest_model_is_one_for_whichever_that_is(site: Site) -> None:
    site.client.post("/v1/deployments", json={"model": SFT})
    with site.database.write() as session:
        local = accounts.local_principal(session)

        def key(*models: str) -> dict[str, str]:
            made = accounts.create_key(
                session, project_id=local.project_id, user_id=local.user_id, name="k", models=list(models)
            )
            return {"authorization": f"Bearer {made.secret}"}

        latest, sft, ppo = key(LATEST), key(SFT), key(PPO)
    body = {"model": LATEST, "messages": [{"role": "user", "content": "hello"}]}

    def ask(headers: dict[str, str], **more: str) -> int:
        return site.client.post("/v1/chat/completions", headers=headers, json=body | more).status_code

    assert (ask(latest), ask(sft), ask(ppo)) == (200, 200, 403)
    assert ask(latest, model=SFT) == 403  # by its own name it was not made for
    assert site.client.get("/v1/deployments", headers=latest).status_code == 403
