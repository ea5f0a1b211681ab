"""What is only read: POST /v1/embeddings, /score, /tokenize, /detokenize; and GET /ready."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai import AsyncOpenAI, BadRequestError, OpenAI

from chatwheel.assistant.orchestrator import Assistant
from chatwheel.errors import InputError
from chatwheel.training.reward import score
from tests.server.conftest import Site
from tests.server.real import MODEL, REWARD, SCALE, Real, run_real
from tests.tiny import causal, scalar, tokenizer

TEXTS = ["The capital of France is Paris.", "法国的首都是巴黎。", "🙂"]
TALK = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi there!"}]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Real]:
    with run_real(tmp_path_factory.mktemp("home")) as real:
        yield real


@torch.no_grad()
def expected(text: str) -> torch.Tensor:
    mean_D = causal().model(torch.tensor([tokenizer().encode(text)]))[0].mean(0)
    return mean_D / mean_D.norm()


def test_embeddings_are_means_of_hidden_states_in_both_formats(real: Real) -> None:
    numbers = real.client.embeddings.create(model=MODEL, input=TEXTS, encoding_format="float")
    asked = real.client.embeddings.create(model=MODEL, input=TEXTS)  # the client asks for base64
    assert [one.index for one in numbers.data] == [0, 1, 2]
    for text, one, other in zip(TEXTS, numbers.data, asked.data, strict=True):
        torch.testing.assert_close(torch.tensor(one.embedding), expected(text), atol=1e-5, rtol=0)
        assert np.array_equal(np.array(other.embedding, np.float32), np.array(one.embedding, np.float32))
    count = sum(len(tokenizer().encode(text)) for text in TEXTS)
    assert (numbers.usage.prompt_tokens, numbers.usage.total_tokens) == (count, count)


def test_inputs_of_every_form(real: Real) -> None:
    whole = real.client.embeddings.create(model=MODEL, input=TEXTS)
    ids = [tokenizer().encode(text) for text in TEXTS]
    forms: list[tuple[Any, int]] = [(TEXTS[0], 1), ([TEXTS[0]], 1), (ids[0], 1), ([ids[0]], 1), (ids, 3)]
    for form, count in forms:
        found = real.client.embeddings.create(model=MODEL, input=form)
        assert len(found.data) == count
        for one, other in zip(found.data, whole.data, strict=False):
            assert one.embedding == other.embedding
    many = real.client.embeddings.create(model=MODEL, input=["Hi"] * 700)  # more than the engine's queue holds
    assert len(many.data) == 700


def test_fewer_dimensions_are_a_prefix_of_length_1(real: Real) -> None:
    short = real.client.embeddings.create(model=MODEL, input=TEXTS[0], dimensions=5).data[0].embedding
    prefix_D = expected(TEXTS[0])[:5]
    torch.testing.assert_close(torch.tensor(short), prefix_D / prefix_D.norm(), atol=1e-5, rtol=0)
    with pytest.raises(BadRequestError, match="32 dimensions") as caught:
        real.client.embeddings.create(model=MODEL, input=TEXTS[0], dimensions=33)
    assert caught.value.param == "dimensions"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": ["a", ""]}, "input[1]"),
        ({"input": [[]]}, "input[0]"),
        ({"input": ["a"] * 2049}, "input"),
        ({"input": "word " * 1200}, "input"),
        ({"input": [10**8]}, "prompt"),
        ({"encoding_format": "hex"}, "encoding_format"),
        ({"dimensions": 0}, "dimensions"),
        ({"model": REWARD}, "model"),
        ({"truncate": True}, "truncate"),
    ],
)
def test_a_bad_embedding_request_is_named(real: Real, fields: dict[str, Any], param: str) -> None:
    response = real.http.post("/v1/embeddings", json={"model": MODEL, "input": "Hello"} | fields)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == param


def test_the_asynchronous_client(real: Real) -> None:
    async def run() -> None:
        async with AsyncOpenAI(base_url=f"{real.url}/v1", api_key="unused", max_retries=0) as client:
            found = await asyncio.gather(
                *(client.embeddings.create(model=MODEL, input=text) for text in TEXTS),
                *(client.completions.create(model=MODEL, prompt=text, seed=1) for text in TEXTS),
            )
            alone = [await client.completions.create(model=MODEL, prompt=text, seed=1) for text in TEXTS]
            assert [one.choices[0].text for one in found[3:]] == [one.choices[0].text for one in alone]
            for text, one in zip(TEXTS, found[:3], strict=True):
                torch.testing.assert_close(torch.tensor(one.data[0].embedding), expected(text), atol=1e-5, rtol=0)

    asyncio.run(run())


def test_scores_are_the_reward_models_with_demonstrations_at_zero(real: Real) -> None:
    other = [TALK[0], {"role": "assistant", "content": "Go away."}]
    ids = [tokenizer().encode_conversation(talk)[0] for talk in (TALK, other)]
    raw = score(scalar(), ids, 64, torch.float32)
    wanted = ((raw - SCALE["mean"]) / SCALE["std"]).tolist()
    body = real.http.post("/score", json={"model": REWARD, "conversations": [TALK, other]}).json()
    assert [one["score"] for one in body["data"]] == pytest.approx(wanted, abs=1e-4)
    assert body["usage"]["prompt_tokens"] == sum(map(len, ids))
    (one,) = real.http.post("/v1/score", json={"model": REWARD, "messages": TALK}).json()["data"]
    assert one == {"index": 0, "object": "score", "score": pytest.approx(wanted[0], abs=1e-4)}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": MODEL}, "model"),
        ({"messages": None}, "messages"),
        ({"conversations": [TALK]}, "messages"),
        ({"messages": TALK[:1]}, "messages"),
        ({"messages": [TALK[0], {"role": "assistant", "content": "word " * 400}]}, "messages"),
        ({"messages": []}, "messages"),
    ],
)
def test_a_bad_score_request_is_named(real: Real, fields: dict[str, Any], param: str) -> None:
    response = real.http.post("/score", json={"model": REWARD, "messages": TALK} | fields)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == param


def test_tokens_and_back(real: Real) -> None:
    for text in (*TEXTS, "<|assistant|> is special"):
        body = real.http.post("/tokenize", json={"model": MODEL, "prompt": text, "return_token_strs": True}).json()
        assert body["tokens"] == tokenizer().encode(text)
        assert (body["count"], body["max_model_len"]) == (len(body["tokens"]), 1024)
        assert len(body["token_strs"]) == body["count"]
        back = real.http.post("/detokenize", json={"model": MODEL, "tokens": body["tokens"]})
        assert back.json() == {"prompt": text}
    body = real.http.post("/tokenize", json={"model": MODEL, "messages": TALK[:1]}).json()
    assert body["tokens"] == tokenizer().encode_prompt(TALK[:1])
    fields = {"model": MODEL, "messages": TALK, "add_generation_prompt": False}
    assert real.http.post("/tokenize", json=fields).json()["tokens"] == tokenizer().encode_conversation(TALK)[0]
    assert real.http.post("/tokenize", json={"model": REWARD, "prompt": "Hi"}).json()["count"] > 0
    for bad, param in (({}, "prompt"), ({"prompt": "a", "messages": TALK}, "prompt"), ({"text": "a"}, "text")):
        response = real.http.post("/tokenize", json={"model": MODEL} | bad)
        assert (response.status_code, response.json()["error"]["param"]) == (400, param)
    response = real.http.post("/detokenize", json={"model": MODEL, "tokens": [-1]})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "tokens[0]")
    assert real.http.post("/detokenize", json={"model": MODEL, "tokens": [10**9]}).json() == {"prompt": ""}


def test_ready_until_it_closes_or_the_database_is_gone(site: Site) -> None:
    assert site.client.get("/ready").json() == {"status": "ready"}
    site.client.app.state.services.closing.set()  # type: ignore[attr-defined]
    response = site.client.get("/ready")
    assert (response.status_code, response.json()["error"]["code"]) == (503, "not_ready")
    assert "shutting down" in response.json()["error"]["message"]
    site.client.app.state.services.closing.clear()  # type: ignore[attr-defined]
    file = site.models.root.parent / "chatwheel.db"
    site.database.close()
    for beside in file.parent.glob("chatwheel.db*"):
        beside.unlink()
    file.mkdir()
    response = site.client.get("/ready")
    assert response.status_code == 503
    assert "database" in response.json()["error"]["message"]


def test_the_same_in_one_line_of_python(real: Real) -> None:
    model, judge = Assistant.load(real.models / MODEL), Assistant.load(real.models / REWARD)
    try:
        client: OpenAI = real.client
        text = client.completions.create(model=MODEL, prompt=TEXTS[0], temperature=0, max_tokens=128).choices[0].text
        assert model.complete(TEXTS[0]) == text
        for vector, one in zip(model.embed(TEXTS), TEXTS, strict=True):
            torch.testing.assert_close(torch.tensor(vector), expected(one), atol=1e-5, rtol=0)
        (over_http,) = real.http.post("/score", json={"model": REWARD, "messages": TALK}).json()["data"]
        assert judge.score(TALK) == pytest.approx(over_http["score"], abs=1e-6)
        for ask in (lambda: judge.chat("Hi"), lambda: judge.embed(["Hi"]), lambda: model.score(TALK)):
            with pytest.raises(InputError, match="reward model"):
                ask()
    finally:
        model.close()
        judge.close()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
BODIES: dict[str, dict[str, Any]] = {
    "/v1/completions": {"model": MODEL, "prompt": "Hi", "max_tokens": 2},
    "/v1/embeddings": {"model": MODEL, "input": "Hi"},
    "/score": {"model": REWARD, "messages": TALK},
    "/tokenize": {"model": MODEL, "prompt": "Hi"},
    "/detokenize": {"model": MODEL, "tokens": [5]},
}
FIELDS = ["prompt", "suffix", "max_tokens", "best_of", "echo", "logprobs", "n", "stop", "logit_bias", "stream", "input"]
FIELDS += ["dimensions", "encoding_format", "messages", "conversations", "tokens", "tools", "model", "seed"]


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(sorted(BODIES)), data=st.data())
def test_no_body_makes_a_500(real: Real, path: str, data: st.DataObject) -> None:
    own = st.sampled_from([name for name in FIELDS if name in BODIES[path] or path == "/v1/completions"] or FIELDS)
    fields = data.draw(st.dictionaries(own, json_values, max_size=3))
    response = real.http.post(path, json=BODIES[path] | fields)
    assert response.status_code < 500, response.text
    if response.status_code != 200:
        assert set(response.json()["error"]) == {"message", "type", "param", "code"}


def test_the_api_describes_itself(real: Real) -> None:
    paths = real.http.get("/openapi.json").json()["paths"]
    assert {*BODIES, "/v1/chat/completions", "/ready"} <= set(paths)
