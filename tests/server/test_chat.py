"""POST /v1/chat/completions: what OpenAI's clients send and get."""

from __future__ import annotations

import json
from typing import Any

import pytest

from chatwheel.engine.structured import json_object, json_schema
from tests.server.conftest import MODEL, Site


def chunks(text: str) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def test_an_answer_has_openais_shape(site: Site) -> None:
    response = site.chat()
    assert response.status_code == 200
    assert response.headers["x-request-id"].startswith("req_")
    body = response.json()
    assert body["id"].startswith("chatcmpl-")
    assert body["object"] == "chat.completion"
    assert body["model"] == MODEL
    assert body["system_fingerprint"].startswith("fp_")
    [choice] = body["choices"]
    assert choice["finish_reason"] == "stop"
    assert choice["message"]["role"] == "assistant"
    assert choice["message"]["content"] == "ppo heard: hello there"
    usage = body["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] == 5 + 4
    assert usage["prompt_tokens_details"] == {"cached_tokens": 0, "audio_tokens": 0}
    assert usage["completion_tokens_details"]["reasoning_tokens"] == 0


def test_max_tokens_ends_with_length(site: Site) -> None:
    for name in ("max_tokens", "max_completion_tokens"):
        choice = site.chat(**{name: 2}).json()["choices"][0]
        assert (choice["message"]["content"], choice["finish_reason"]) == ("ppo heard:", "length")


def test_the_settings_reach_the_engine(site: Site) -> None:
    site.chat(temperature=0, top_p=0.5, seed=7, stop="END", max_tokens=9, top_k=3)
    params = site.models.loaded[0].params[-1]
    assert (params.temperature, params.top_p, params.top_k, params.seed) == (0, 0.5, 3, 7)
    assert (params.stop, params.max_tokens) == (("END",), 9)
    site.chat()
    params = site.models.loaded[0].params[-1]
    assert (params.temperature, params.top_p, params.seed, params.stop, params.max_tokens) == (1, 1, None, (), None)


def test_each_choice_has_its_own_seed(site: Site) -> None:
    body = site.chat(n=3, seed=5).json()
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    assert sorted(params.seed or 0 for params in site.models.loaded[0].params) == [5, 6, 7]
    assert body["usage"]["prompt_tokens"] == 5
    assert body["usage"]["completion_tokens"] == 12


def test_messages_of_every_form(site: Site) -> None:
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]},
        # as the openai library gives an answer back
        {"role": "assistant", "content": "ok", "refusal": None, "annotations": [], "tool_calls": None, "audio": None},
        {"role": "user", "content": "three", "name": "ann"},
    ]
    assert site.chat(messages=messages).status_code == 200
    turns = [(turn.role, turn.content) for turn in site.models.loaded[0].prompts[-1]]
    assert turns == [("system", "Be brief."), ("user", "one two"), ("assistant", "ok"), ("user", "three")]


def test_neutral_values_of_unsupported_fields_are_fine(site: Site) -> None:
    neutral = {
        "presence_penalty": 0,
        "frequency_penalty": 0.0,
        "logit_bias": {},
        "logprobs": False,
        "tools": [],
        "tool_choice": "auto",
        "response_format": {"type": "text"},
        "user": "u1",
        "metadata": {"a": "b"},
        "store": True,
        "stop": None,
    }
    assert site.chat(**neutral).status_code == 200


def test_how_to_sample_reaches_the_engine(site: Site) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    fields = {
        "presence_penalty": 0.5,
        "frequency_penalty": -1,
        "logit_bias": {"5": 10},
        "min_p": 0.1,
        "repetition_penalty": 1.2,
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}},
    }
    assert site.chat(**fields).status_code == 200
    params = site.models.loaded[0].params[-1]
    assert (params.presence_penalty, params.frequency_penalty, params.logit_bias) == (0.5, -1.0, {5: 10.0})
    assert (params.min_p, params.repetition_penalty, params.grammar) == (0.1, 1.2, json_schema(schema))
    assert site.chat(response_format={"type": "json_object"}).status_code == 200
    assert site.models.loaded[0].params[-1].grammar == json_object()


def test_a_stream_has_openais_shape(site: Site) -> None:
    response = site.chat(stream=True)
    assert response.headers["content-type"].startswith("text/event-stream")
    pieces = chunks(response.text)
    assert len({piece["id"] for piece in pieces}) == 1
    assert {piece["object"] for piece in pieces} == {"chat.completion.chunk"}
    assert pieces[0]["choices"][0]["delta"]["role"] == "assistant"
    assert all("role" not in piece["choices"][0]["delta"] for piece in pieces[1:])
    assert "".join(piece["choices"][0]["delta"].get("content", "") for piece in pieces) == "ppo heard: hello there"
    assert [piece["choices"][0]["finish_reason"] for piece in pieces] == [None] * (len(pieces) - 1) + ["stop"]
    assert "usage" not in pieces[0]


def test_a_stream_counts_its_tokens_when_asked(site: Site) -> None:
    pieces = chunks(site.chat(stream=True, stream_options={"include_usage": True}).text)
    assert pieces[-1]["choices"] == []
    assert pieces[-1]["usage"]["total_tokens"] == 9
    assert all(piece["usage"] is None for piece in pieces[:-1])


def test_a_stream_of_several_choices(site: Site) -> None:
    pieces = chunks(site.chat(stream=True, n=2).text)
    for index in (0, 1):
        own = [piece["choices"][0] for piece in pieces if piece["choices"][0]["index"] == index]
        assert "".join(choice["delta"].get("content", "") for choice in own) == "ppo heard: hello there"
        assert own[-1]["finish_reason"] == "stop"


@pytest.mark.parametrize("path", ["/v1/chat/completions"])
def test_only_the_named_method_is_allowed(site: Site, path: str) -> None:
    response = site.client.get(path)
    assert response.status_code == 405
    assert response.json()["error"]["type"] == "invalid_request_error"
