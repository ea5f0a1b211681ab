"""Who asks for the latest model gets the one that was promoted, on every door."""

from __future__ import annotations

from chatwheel.store import accounts
from chatwheel.store.deployments import LATEST
from tests.server.conftest import Site

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
