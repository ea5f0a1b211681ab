"""What Prometheus reads of a server with a real engine behind it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from chatwheel.assistant.orchestrator import Assistant
from chatwheel.errors import InputError
from chatwheel.model.checkpoint import save_model
from chatwheel.model.tokenizer import Tokenizer
from chatwheel.server.app import create_app
from chatwheel.server.models import ModelPool, load_assistant
from chatwheel.settings import Settings
from chatwheel.store.database import Database
from chatwheel.store.registry import Registry
from tests.tiny import TEXT, causal, tokenizer

Samples = dict[tuple[str, str], float]


@pytest.fixture
def client(tmp_path: Path) -> TestClient:
    settings = Settings(home=tmp_path, database_url=f"sqlite:///{tmp_path / 'chatwheel.db'}")
    save_model(settings.models / "tiny", causal(), tokenizer(), {})
    pool = ModelPool(
        Registry(settings.models), load=partial(load_assistant, speculate=3, draft=settings.models / "tiny")
    )
    database = Database.open(settings.database_url)
    app = create_app(settings=settings, models_pool=pool, database=database, api_key="key", check_host=True)
    return TestClient(app, base_url="http://localhost:8000", headers={"authorization": "Bearer key"})


def scrape(client: TestClient) -> Samples:
    """By name and by what is told apart beside the model."""
    families = text_string_to_metric_families(client.get("/metrics").text)
    return {
        (
            sample.name.removeprefix("chatwheel_"),
            sample.labels.get("le") or sample.labels.get("finish_reason") or "",
        ): sample.value
        for family in families
        for sample in family.samples
    }


def test_answers_are_counted_and_timed(client: TestClient) -> None:
    with client:
        assert scrape(client) == {}, "no model is loaded yet"
        body = {"model": "tiny", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 20, "logit_bias": {}}
        answers = [client.post("/v1/chat/completions", json=body | {"seed": i}).json() for i in range(3)]
        found = scrape(client)
    usage = [answer["usage"] for answer in answers]
    assert found["prompt_tokens_total", ""] == sum(u["prompt_tokens"] for u in usage)
    assert found["generation_tokens_total", ""] == sum(u["completion_tokens"] for u in usage) > 3
    reasons = [answer["choices"][0]["finish_reason"] for answer in answers]
    for reason in set(reasons):
        assert found["requests_total", reason] == reasons.count(reason)
    for name in ("request_queue_seconds", "time_to_first_token_seconds", "request_duration_seconds"):
        assert found[f"{name}_count", ""] == found[f"{name}_bucket", "+Inf"] == 3, name
    assert 0 < found["time_to_first_token_seconds_sum", ""] <= found["request_duration_seconds_sum", ""] < 60
    gaps = sum(u["completion_tokens"] - 1 for u in usage)
    assert found["inter_token_latency_seconds_count", ""] == gaps
    assert (found["requests_running", ""], found["requests_waiting", ""], found["cache_blocks_held", ""]) == (0, 0, 0)
    assert found["guessed_tokens_total", ""] >= found["accepted_tokens_total", ""] > 0, "the draft model is the model"


def test_what_is_refused_is_counted(client: TestClient) -> None:
    with client:
        body = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "logit_bias": {"100000": 5}}
        assert client.post("/v1/chat/completions", json=body).status_code == 400
        assert scrape(client)["requests_total", "refused"] == 1


def test_who_has_no_key_learns_nothing(client: TestClient) -> None:
    assert client.get("/metrics", headers={"authorization": ""}).status_code == 401


def test_the_format_is_the_one_that_is_asked_for(client: TestClient) -> None:
    text = client.get("/metrics")
    assert text.headers["content-type"].startswith("text/plain")
    wanted = {"accept": "application/openmetrics-text;version=1.0.0"}
    assert client.get("/metrics", headers=wanted).text.endswith("# EOF\n")


def test_a_draft_model_of_another_tokenizer_is_refused(tmp_path: Path) -> None:
    save_model(tmp_path / "model", causal(), tokenizer(), {})
    other = Tokenizer.train([line[::-1] for line in TEXT] * 3, 400)
    save_model(tmp_path / "other", causal(), other, {})
    with pytest.raises(InputError, match="has other tokens than"):
        Assistant.load(tmp_path / "model", speculate=2, draft=tmp_path / "other")
