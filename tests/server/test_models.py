"""The lists of models, and the pool that keeps them in memory."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from chatwheel.errors import InputError, ModelNotFoundError
from chatwheel.server.models import FRESH_SECONDS, ModelPool
from chatwheel.store import accounts
from chatwheel.store.accounts import SCOPES
from chatwheel.store.registry import Registry, check_answers
from tests.server.conftest import Site
from tests.server.fake_assistant import FakeModels


def test_openais_list_and_one_model(site: Site) -> None:
    body = site.client.get("/v1/models").json()
    assert body["object"] == "list"
    names = [model["id"] for model in body["data"]]
    assert names == ["quickstart/base", "quickstart/ppo", "quickstart/reward", "quickstart/sft"]
    model = site.client.get("/v1/models/quickstart/ppo").json()
    assert (model["object"], model["id"], model["owned_by"]) == ("model", "quickstart/ppo", "chatwheel")
    assert isinstance(model["created"], int)


def test_a_model_that_is_not_there(site: Site) -> None:
    response = site.client.get("/v1/models/quickstart/none")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"


def test_a_key_for_some_models_is_told_of_those_alone(site: Site) -> None:
    with site.database.write() as session:
        local = accounts.local_principal(session)
        some, none = (
            accounts.create_key(
                session, project_id=local.project_id, user_id=local.user_id, name="k", scopes=SCOPES, models=models
            ).secret
            for models in (["quickstart/sft"], [])
        )

    def refused(key: str, method: str, path: str, body: dict[str, Any] | None = None) -> str:
        reply = site.client.request(method, path, json=body, headers={"authorization": f"Bearer {key}"})
        assert reply.status_code == 404
        assert reply.json()["error"]["code"] == "model_not_found"
        return str(reply.json()["error"]["message"])

    asked = {"model": "none", "messages": [{"role": "user", "content": "hi"}]}
    conversation = {"model": "none"}
    for method, path, body in (
        ("GET", "/v1/models/none", None),
        ("POST", "/v1/chat/completions", asked),
        ("POST", "/v1/completions", {"model": "none", "prompt": "hi"}),
        ("POST", "/v1/embeddings", {"model": "none", "input": "hi"}),
        ("POST", "/v1/score", asked),
        ("POST", "/api/conversations", conversation),
    ):
        assert refused(some, method, path, body).endswith("(models: quickstart/sft).")
        assert refused(none, method, path, body).endswith("(models: none).")


def test_the_pages_list_is_labelled_and_leaves_reward_models_out(site: Site) -> None:
    body = site.client.get("/api/models").json()
    assert [(model["label"], model["stage"], model["group"]) for model in body["data"]] == [
        ("Base", "base", "quickstart"),
        ("SFT", "sft", "quickstart"),
        ("PPO", "ppo", "quickstart"),
    ]
    assert body["default"] == "quickstart/ppo"
    assert body["report"] is None


def test_a_new_model_is_served_at_once(site: Site) -> None:
    site.models.write("mine", "sft", 1)
    assert site.chat(model="mine").json()["choices"][0]["message"]["content"].startswith("mine heard")


def test_a_replaced_model_is_loaded_again(site: Site) -> None:
    site.chat()
    site.chat()
    assert len(site.models.loaded) == 1
    (site.models.root / "quickstart/ppo/model.safetensors").write_bytes(b"other weights")
    time.sleep(FRESH_SECONDS)
    site.chat()
    assert len(site.models.loaded) == 2
    assert site.models.loaded[0].closed


def pool_of(tmp_path: Path, capacity: int = 2, names: tuple[str, ...] = ()) -> tuple[ModelPool, FakeModels]:
    models = FakeModels(tmp_path / "models")
    return ModelPool(Registry(models.root), names, capacity, models.load), models


def test_concurrent_requests_load_a_model_once(tmp_path: Path) -> None:
    async def run() -> None:
        pool, models = pool_of(tmp_path)
        entry = pool.entry("quickstart/ppo")

        async def use() -> None:
            async with pool.use(entry):
                await asyncio.sleep(0)

        await asyncio.gather(*(use() for _ in range(8)))
        assert len(models.loaded) == 1
        await pool.close()
        assert models.loaded[0].closed

    asyncio.run(run())


def test_the_least_recently_used_idle_model_makes_room(tmp_path: Path) -> None:
    async def run() -> None:
        pool, models = pool_of(tmp_path)
        entries = {name: pool.entry(f"quickstart/{name}") for name in ("base", "sft", "ppo")}
        for name in ("base", "sft", "base", "ppo"):
            async with pool.use(entries[name]):
                pass
        await asyncio.sleep(0.1)
        assert {model.name: model.closed for model in models.loaded} == {"base": False, "sft": True, "ppo": False}
        await pool.close()

    asyncio.run(run())


def test_a_busy_model_is_never_closed(tmp_path: Path) -> None:
    async def run() -> None:
        pool, models = pool_of(tmp_path, capacity=1)
        first, second = pool.entry("quickstart/base"), pool.entry("quickstart/ppo")
        order = []

        async def other() -> None:
            async with pool.use(second):
                order.append("second")

        async with pool.use(first) as assistant:
            task = asyncio.create_task(other())
            await asyncio.sleep(0.05)
            order.append("first")
            assert assistant is models.loaded[0]  # type: ignore[comparison-overlap]
            assert not models.loaded[0].closed
        await task
        assert order == ["first", "second"]
        await pool.close()
        assert all(model.closed for model in models.loaded)

    asyncio.run(run())


def test_only_named_models_are_served(tmp_path: Path) -> None:
    async def run() -> None:
        pool, _ = pool_of(tmp_path, names=("quickstart/sft",))
        assert [entry.name for entry in pool.entries()] == ["quickstart/sft"]
        with pytest.raises(ModelNotFoundError):
            pool.entry("quickstart/ppo")

    asyncio.run(run())


def test_a_reward_model_cannot_answer(tmp_path: Path) -> None:
    async def run() -> None:
        pool, _ = pool_of(tmp_path)
        with pytest.raises(InputError, match="reward model"):
            check_answers(pool.entry("quickstart/reward"))

    asyncio.run(run())


def test_a_dead_model_is_loaded_again(tmp_path: Path) -> None:
    async def run() -> None:
        pool, models = pool_of(tmp_path)
        entry = pool.entry("quickstart/ppo")
        async with pool.use(entry):
            models.loaded[0].dead = True
        async with pool.use(entry) as assistant:
            assert assistant is models.loaded[1]  # type: ignore[comparison-overlap]
        await pool.close()
        assert all(model.closed for model in models.loaded)

    asyncio.run(run())
