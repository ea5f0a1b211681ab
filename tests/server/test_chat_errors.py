"""Every error under /v1 is OpenAI's body, names what was wrong, and has a request id."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chatwheel.server.limits import MAX_BODY_BYTES
from tests.server.conftest import MODEL, Site


def error_of(response: Any, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["x-request-id"]
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    return dict(body["error"])


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": "warm"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"n": 0}, "n"),
        ({"n": 1.5}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": -1}, "max_completion_tokens"),
        ({"max_tokens": 3, "max_completion_tokens": 3}, "max_tokens"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"stop": [""]}, "stop[0]"),
        ({"stop": 5}, "stop"),
        ({"seed": 2**64}, "seed"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"presence_penalty": 2.5}, "presence_penalty"),
        ({"frequency_penalty": -3}, "frequency_penalty"),
        ({"logit_bias": {"5": 101}}, "logit_bias.5"),
        ({"logit_bias": {"five": 10}}, "logit_bias"),
        ({"logit_bias": {"1" * 5000: 10}}, "logit_bias"),
        ({"top_k": 3_000_000_000}, "top_k"),
        ({"min_p": 2}, "min_p"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"logprobs": 3}, "logprobs"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"store": "yes"}, "store"),
        ({"metadata": {str(i): "x" for i in range(17)}}, "metadata"),
        ({"metadata": {"a": "x" * 513}}, "metadata.a"),
        ({"reasoning_effort": "high"}, "reasoning_effort"),
        ({"response_format": {"type": "yaml"}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a b"}}},
            "response_format.json_schema.name",
        ),
        ({"no_such_field": 1}, "no_such_field"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": "x", "tool_calls": [1]}]}, "messages[0].tool_calls[0]"),
        ({"model": ""}, "model"),
        ({"model": None}, "model"),
    ],
)
def test_a_bad_field_is_named(site: Site, fields: dict[str, Any], param: str) -> None:
    error = error_of(site.chat(**fields), 400)
    assert error["param"] == param
    assert param in error["message"]
    assert error["type"] == "invalid_request_error"


def test_a_missing_field_is_named(site: Site) -> None:
    error = error_of(site.client.post("/v1/chat/completions", json={"model": MODEL}), 400)
    assert error["message"] == "Missing required parameter: 'messages'."


@pytest.mark.parametrize(
    "body", [b"{", b"[1]", b"null", b"", b'{"a": ' + b"[" * 5000, b"\xff\xfe", b'{"model": NaN}', b"1" * 5000]
)
def test_a_broken_body_is_400(site: Site, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    error_of(site.client.post("/v1/chat/completions", content=body, headers=headers), 400)


def test_json_must_say_that_it_is_json(site: Site) -> None:
    # A form of another web site could send text/plain without asking first.
    body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "x"}]})
    headers = {"content-type": "text/plain"}
    error_of(site.client.post("/v1/chat/completions", content=body, headers=headers), 400)


def test_an_unknown_model_is_404(site: Site) -> None:
    for name in ("gpt-5", "../quickstart/ppo", "/etc", str(site.models.root / "quickstart/ppo"), "quickstart"):
        error = error_of(site.chat(model=name), 404)
        assert (error["code"], error["param"]) == ("model_not_found", "model")


def test_a_reward_model_does_not_answer(site: Site) -> None:
    error = error_of(site.chat(model="quickstart/reward"), 400)
    assert "reward model" in error["message"]
    assert error["param"] == "model"


@pytest.mark.parametrize("stream", [False, True])
def test_an_over_long_prompt_says_how_long(site: Site, stream: bool) -> None:
    error = error_of(site.chat("word " * 300, stream=stream), 400)
    assert error["code"] == "context_length_exceeded"
    assert "200 tokens" in error["message"]
    assert "303 tokens" in error["message"]


def test_too_much_room_for_the_answer_says_how_much(site: Site) -> None:
    error = error_of(site.chat("one two", max_tokens=500), 400)
    assert error["code"] == "context_length_exceeded"
    assert "(5 in the messages, 500 in the completion)" in error["message"]


def test_an_over_large_body_is_413(site: Site) -> None:
    error_of(site.chat("x" * MAX_BODY_BYTES), 413)
    pieces = (b"x" * 1024 * 1024 for _ in range(11))  # no content-length
    headers = {"content-type": "application/json"}
    error_of(site.client.post("/v1/chat/completions", content=pieces, headers=headers), 413)


def test_a_full_queue_is_429_before_the_stream_begins(site: Site) -> None:
    for stream in (False, True):
        response = site.chat("overload", stream=stream)
        assert error_of(response, 429)["type"] == "rate_limit_error"
        assert response.headers["retry-after"]


def test_a_bug_is_500_without_its_details(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "chatwheel.server"):
        response = site.chat("fail")
    error = error_of(response, 500)
    assert error["type"] == "server_error"
    assert "secret" not in response.text
    assert "secret detail of a bug" in caplog.text


def test_an_error_in_mid_stream_is_an_event(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "chatwheel.server"):
        text = site.chat("fail", stream=True).text
    last = json.loads(text.strip().split("\n\n")[-1].removeprefix("data: "))
    assert last["error"]["type"] == "server_error"
    assert "ppo" in text
    assert "[DONE]" not in text
    assert "secret" not in text
    assert "secret detail of a bug" in caplog.text


def test_a_model_that_cannot_be_loaded_is_500_and_tried_again(site: Site) -> None:
    site.models.write("broken", "sft", 1)
    for _ in range(2):
        response = site.chat(model="broken")
        assert "secret" not in json.dumps(error_of(response, 500))
    assert site.chat().status_code == 200


def test_an_unknown_address_is_404(site: Site) -> None:
    error = error_of(site.client.get("/v1/nothing"), 404)
    assert error["message"] == "Invalid URL (GET /v1/nothing)"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = ["messages", "model", "temperature", "top_p", "n", "stop", "seed", "stream", "stream_options", "user"]
FIELDS += ["tools", "tool_choice", "parallel_tool_calls"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fields=st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=3))
def test_no_body_makes_a_500(site: Site, fields: dict[str, Any]) -> None:
    response = site.chat(**fields)
    assert response.status_code < 500, response.text
    if response.status_code != 200:
        error_of(response, response.status_code)
