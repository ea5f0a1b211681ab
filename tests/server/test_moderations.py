"""POST /v1/moderations: OpenAI's shapes by the official client, errors, and inputs of any size."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from openai import BadRequestError, NotFoundError, OpenAI

from chatwheel.errors import InputError
from chatwheel.safety.categories import CATEGORIES
from chatwheel.safety.classifier import FILE, SHIPPED, Classifier
from chatwheel.server.limits import MAX_BODY_BYTES
from chatwheel.server.moderations import ALIASES, MOST_INPUTS
from tests.server.conftest import Site
from tests.server.live import LiveServer, make_app
from tests.server.test_chat_errors import error_of

THREAT = "I will kill you, you worthless idiot"
HARMLESS = "What is the capital of France?"


@pytest.fixture
def client(live_server: LiveServer) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{live_server.url}/v1", api_key="unused", max_retries=0, timeout=60) as client:
        yield client


def moderate(site: Site, **body: Any) -> Any:
    return site.client.post("/v1/moderations", json=body)


def test_the_official_client_reads_the_answer(client: OpenAI) -> None:
    answer = client.moderations.create(input=THREAT)
    assert answer.id.startswith("modr-")
    assert answer.model.startswith("chatwheel-moderation-")
    (result,) = answer.results
    assert result.flagged
    assert result.categories.harassment
    assert result.categories.harassment_threatening
    assert not result.categories.sexual_minors
    assert result.category_scores.harassment_threatening > 0.5 > result.category_scores.self_harm_intent
    assert result.category_applied_input_types.violence == ["text"]
    assert client.moderations.create(input=HARMLESS, model=answer.model).results[0].flagged is False


def test_several_texts_have_a_result_each_in_order(client: OpenAI) -> None:
    texts = [HARMLESS, THREAT, "我要杀了你", "今天天气真好", ""]
    results = client.moderations.create(input=texts, model="omni-moderation-latest").results
    assert [result.flagged for result in results] == [False, True, True, False, False]


def test_the_parts_of_one_input_have_one_result(client: OpenAI) -> None:
    parts: list[Any] = [{"type": "text", "text": HARMLESS}, {"type": "text", "text": THREAT}]
    (result,) = client.moderations.create(input=parts).results
    assert result.flagged
    with pytest.raises(BadRequestError, match="image_url") as caught:
        client.moderations.create(input=[*parts, {"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}])
    assert caught.value.param == "input[2].type"


def test_an_unknown_model_is_404(client: OpenAI) -> None:
    with pytest.raises(NotFoundError) as caught:
        client.moderations.create(input="x", model="text-moderation-007")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    for name in ALIASES:
        assert client.moderations.create(input="x", model=name).model not in ALIASES


def test_all_categories_are_there(site: Site) -> None:
    (result,) = moderate(site, input=THREAT).json()["results"]
    for field in ("categories", "category_scores", "category_applied_input_types"):
        assert tuple(result[field]) == CATEGORIES
    assert all(0 <= score <= 1 for score in result["category_scores"].values())


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "input"),
        ({"input": 5}, "input"),
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": ["x"] * (MOST_INPUTS + 1)}, "input"),
        ({"input": ["x", 5]}, "input[1]"),
        ({"input": [{"type": "text"}]}, "input[0].text"),
        ({"input": [{"type": "audio", "text": "x"}]}, "input[0].type"),
        ({"input": [{"type": "image_url", "image_url": {"url": "x"}}]}, "input[0].type"),
        ({"input": [{"type": "text", "text": "x", "more": 1}]}, "input[0].more"),
        ({"input": "x", "model": ""}, "model"),
        ({"input": "x", "model": 5}, "model"),
        ({"input": "x", "language": "en"}, "language"),
    ],
)
def test_a_bad_field_is_named(site: Site, body: dict[str, Any], param: str) -> None:
    error = error_of(moderate(site, **body), 400)
    assert error["type"] == "invalid_request_error"
    assert error["param"] is not None
    assert param.rpartition(".")[2] in error["message"]


def test_a_model_of_the_users_own_is_preferred_and_a_damaged_one_said_at_the_start(tmp_path: Path) -> None:
    own = tmp_path / "models" / "moderation" / FILE
    shipped = Classifier.load(SHIPPED)
    silent = Classifier(shipped.labels, shipped.thresholds, {}, shipped.weights * 0, shipped.bias * 0 - 9).save(own)
    app, _, _ = make_app(tmp_path)
    with TestClient(app, base_url="http://localhost:8000") as client:
        answer = client.post("/v1/moderations", json={"input": "you stupid bitch"}).json()
        assert answer["model"].endswith(silent.digest)
        assert silent.digest != shipped.digest
        listed = client.get("/v1/models").json()["data"]
        assert "moderation" not in [model["id"] for model in listed]
    own.write_bytes(own.read_bytes()[:1000])
    with pytest.raises(InputError, match="damaged"):
        make_app(tmp_path)


def test_a_long_input_blocks_nobody(live_server: LiveServer) -> None:
    # Two megabytes, and the threat at their very end. Meanwhile the server answers others.
    text = "the weather is nice and people walk home " * 50_000
    done = threading.Event()
    answers: list[httpx.Response] = []

    def ask() -> None:
        body = {"input": text + THREAT}
        answers.append(httpx.post(f"{live_server.url}/v1/moderations", json=body, timeout=300))
        done.set()

    assert len(text) < MAX_BODY_BYTES
    thread = threading.Thread(target=ask)
    thread.start()
    waited = []
    while not done.is_set():
        began = time.monotonic()
        assert httpx.get(f"{live_server.url}/health", timeout=60).status_code == 200
        short = httpx.post(f"{live_server.url}/v1/moderations", json={"input": HARMLESS}, timeout=60)
        assert short.json()["results"][0]["flagged"] is False
        waited.append(time.monotonic() - began)
    thread.join()
    assert answers[0].json()["results"][0]["categories"]["harassment/threatening"] is True
    assert len(waited) > 3, "the long input was judged before anybody could be kept waiting"
    assert sorted(waited)[len(waited) // 2] < 5
