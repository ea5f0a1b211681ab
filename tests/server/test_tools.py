"""Functions in POST /v1/chat/completions: with the official openai library, a model of random weights, and errors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from openai import BadRequestError, OpenAI

from chatwheel.model.checkpoint import save_model
from chatwheel.server.app import create_app
from chatwheel.server.models import ModelPool
from chatwheel.settings import Settings
from chatwheel.store.database import Database
from chatwheel.store.registry import Registry
from tests.model.tool_templates import TOOLS
from tests.server.conftest import MODEL, Site
from tests.server.live import LiveServer, run_server
from tests.server.test_chat import chunks
from tests.server.test_chat_errors import error_of
from tests.tiny import causal, tokenizer

WEATHER = TOOLS[0]
SCHEMAS = {tool["function"]["name"]: tool["function"]["parameters"] for tool in TOOLS}


@pytest.fixture
def client(live_server: LiveServer) -> Iterator[OpenAI]:
    """Of a server whose model does what it is told."""
    with OpenAI(base_url=f"{live_server.url}/v1", api_key="unused", max_retries=0, timeout=20) as client:
        yield client


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAI]:
    """Of a server with a real model of random weights."""
    home = tmp_path_factory.mktemp("home")
    settings = Settings(home=home, database_url=f"sqlite:///{home / 'chatwheel.db'}")
    save_model(settings.models / "tiny" / "sft", causal(max_positions=4096), tokenizer(), {"stage": "sft"})
    pool, database = ModelPool(Registry(settings.models)), Database.open(settings.database_url)
    app = create_app(settings=settings, models_pool=pool, database=database, api_key=None, check_host=True)
    with run_server(app) as url, OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0, timeout=60) as client:
        yield client


def ask(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def check(name: str, arguments: str) -> None:
    jsonschema.validate(json.loads(arguments), SCHEMAS[name])


def test_a_whole_loop_of_a_model_that_knows_nothing(real: OpenAI) -> None:
    """Call, result, answer; then a call that has to be, in a stream."""
    tools: Any = TOOLS
    messages = ask("What is the weather in Paris? 巴黎的天气怎么样?")
    shared: Any = {"model": "tiny/sft", "seed": 3, "max_tokens": 300}
    first = real.chat.completions.create(messages=messages, tools=tools, tool_choice="required", **shared)
    choice = first.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    assert choice.message.tool_calls
    for call in choice.message.tool_calls:
        assert call.id.startswith("call_")
        assert call.type == "function"
        check(call.function.name, call.function.arguments)
    results: list[Any] = [
        {"role": "tool", "tool_call_id": call.id, "content": '{"t": 20}'} for call in choice.message.tool_calls
    ]
    messages = [*messages, choice.message, *results]
    second = real.chat.completions.create(messages=messages, tools=tools, tool_choice="none", **shared)
    assert second.choices[0].message.tool_calls is None
    assert second.choices[0].message.content
    assert second.choices[0].finish_reason in ("stop", "length")

    messages = [*messages, second.choices[0].message, *ask("And 1 + 1?")]
    only: Any = {"type": "function", "function": {"name": "add"}}
    pieces = list(real.chat.completions.create(messages=messages, tools=tools, tool_choice=only, stream=True, **shared))
    deltas = [piece.choices[0].delta for piece in pieces]
    assert deltas[0].role == "assistant"
    assert deltas[0].content is None
    calls = [call for delta in deltas for call in delta.tool_calls or []]
    assert calls[0].id
    assert (calls[0].index, calls[0].type) == (0, "function")
    assert calls[0].function
    assert (calls[0].function.name, calls[0].function.arguments) == ("add", "")
    assert all(c.id is None and c.type is None and c.function and c.function.name is None for c in calls[1:])
    check("add", "".join(c.function.arguments or "" for c in calls if c.function))
    assert pieces[-1].choices[0].finish_reason == "tool_calls"


def test_thirty_answers_of_thirty_are_valid_calls(real: OpenAI) -> None:
    tools: Any = TOOLS
    answer = real.chat.completions.create(
        model="tiny/sft", messages=ask("x"), tools=tools, tool_choice="required", n=30, seed=1, max_tokens=500
    )
    for choice in answer.choices:
        assert choice.finish_reason == "tool_calls"
        for call in choice.message.tool_calls or []:
            assert call.type == "function"
            check(call.function.name, call.function.arguments)
    ids = [call.id for choice in answer.choices for call in choice.message.tool_calls or []]
    assert len(ids) == len(set(ids)) >= 30


def test_a_stream_is_what_the_whole_answer_is(real: OpenAI) -> None:
    fields: Any = {"model": "tiny/sft", "messages": ask("y"), "tools": TOOLS, "seed": 5, "max_tokens": 300}
    fields |= {"tool_choice": "required"}
    whole = real.chat.completions.create(**fields).choices[0].message.tool_calls
    with real.chat.completions.stream(**fields) as stream:
        streamed = stream.get_final_completion().choices[0].message.tool_calls
    assert whole
    assert streamed
    assert [(c.function.name, c.function.arguments) for c in whole if c.type == "function"] == [
        (c.function.name, c.function.arguments) for c in streamed
    ]


def test_a_call_that_no_token_is_left_for_ends_with_length(real: OpenAI) -> None:
    tools: Any = TOOLS
    fields: Any = {"model": "tiny/sft", "messages": ask("z"), "tools": tools, "tool_choice": "required"}
    choice = real.chat.completions.create(**fields, max_tokens=12).choices[0]
    assert choice.finish_reason == "length"


@pytest.mark.parametrize("words", ["", "Let me see."])
def test_words_and_calls_of_an_answer(client: OpenAI, words: str) -> None:
    tools: Any = TOOLS
    fields: Any = {"model": MODEL, "messages": ask(f"call {words}"), "tools": tools}
    choice = client.chat.completions.create(**fields).choices[0]
    assert choice.message.content == (words or None)
    assert choice.finish_reason == "tool_calls"
    assert [c.function.arguments for c in choice.message.tool_calls or []] == ['{"city": "巴黎"}'] * 2
    with client.chat.completions.stream(**fields) as stream:
        events = list(stream)
        streamed = stream.get_final_completion().choices[0].message
    assert streamed.content == (words or None)
    assert [c.function.arguments for c in streamed.tool_calls or []] == ['{"city": "巴黎"}'] * 2
    assert [c.id for c in streamed.tool_calls or []] == ["call_0", "call_1"]
    assert [e.type for e in events].count("tool_calls.function.arguments.done") == 2


def test_a_stream_s_pieces_have_openais_shape(site: Site) -> None:
    deltas = [c["choices"][0] for c in chunks(site.chat("call", tools=TOOLS, stream=True).text)]
    assert [d["delta"] for d in deltas[:4]] == [
        {"role": "assistant", "content": None, "refusal": None},
        {
            "tool_calls": [
                {
                    "index": 0,
                    "id": "call_0",
                    "type": "function",
                    "function": {"name": "get_weather", "arguments": ""},
                }
            ]
        },
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"city": '}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '"巴黎"}'}}]},
    ]
    assert (deltas[-1]["delta"], deltas[-1]["finish_reason"]) == ({}, "tool_calls")
    words = chunks(site.chat("call Hm.", tools=TOOLS, stream=True).text)
    assert words[0]["choices"][0]["delta"] == {"role": "assistant", "content": "", "refusal": None}


def test_what_may_be_called_reaches_the_assistant(site: Site) -> None:
    strict = {"type": "function", "function": {"name": "now", "strict": True}}
    only = {"type": "function", "function": {"name": "now"}}
    for fields, expected in (
        ({}, ("auto", None, True)),
        ({"tool_choice": "auto", "parallel_tool_calls": False}, ("auto", None, False)),
        ({"tool_choice": "none"}, ("none", None, True)),
        ({"tool_choice": "required", "parallel_tool_calls": True}, ("required", None, True)),
        ({"tool_choice": only}, ("required", "now", False)),
    ):
        assert site.chat(tools=[WEATHER, strict], **fields).status_code == 200
        use = site.models.loaded[0].tools[-1]
        assert use is not None
        assert (use.choice, use.only, use.parallel) == expected
        assert [f.name for f in use.functions] == ["get_weather", "now"]
        assert (use.functions[0].parameters, use.functions[1].strict) == (SCHEMAS["get_weather"], True)
        assert use.definitions() == ([] if use.choice == "none" else [WEATHER, only])
    assert site.chat(tools=[]).status_code == 200
    assert site.models.loaded[0].tools[-1] is None


CALLS = [{"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "巴黎"}'}}]
TURNS = [
    {"role": "user", "content": "x"},
    {"role": "assistant", "content": None, "tool_calls": CALLS},
    {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "sunny"}]},
]


def test_calls_and_results_reach_the_assistant(site: Site) -> None:
    assert site.chat(messages=TURNS, tools=TOOLS).status_code == 200
    _, assistant, result = site.models.loaded[0].prompts[-1]
    assert assistant.content == ""
    assert assistant.tool_calls
    assert assistant.tool_calls[0].model_dump() == CALLS[0]
    assert (result.role, result.content, result.tool_call_id) == ("tool", "sunny", "call_1")


def function(**fields: Any) -> dict[str, Any]:
    return {"tools": [{"type": "function", "function": {"name": "f"} | fields}]}


def changed(place: int, **fields: Any) -> dict[str, Any]:
    messages: list[Any] = [dict(turn) for turn in TURNS]
    messages[place] |= fields
    return {"messages": messages}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": 5}, "tools"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        (function(name="a b"), "tools[0].function.name"),
        (function(name="x" * 65), "tools[0].function.name"),
        (function(name=""), "tools[0].function.name"),
        (function(description=5), "tools[0].function.description"),
        (function(strict="yes"), "tools[0].function.strict"),
        (function(parameters=[]), "tools[0].function.parameters"),
        (function(parameters={"type": "string"}), "tools[0].function.parameters"),
        (function(parameters={"type": "object", "properties": {"a": {"type": "t"}}}), "tools[0].function.parameters"),
        (function(parameters={"type": "object", "uniqueItems": True}, strict=True), "tools[0].function.parameters"),
        (function(color="red"), "tools.0.function.color"),
        ({"tools": [WEATHER, WEATHER]}, "tools[1].function.name"),
        ({"tools": [function(name=f"f{i}")["tools"][0] for i in range(129)]}, "tools"),
        ({"tools": TOOLS, "tool_choice": "any"}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": 5}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": {"type": "function"}}, "tool_choice.function"),
        (
            {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "g"}}},
            "tool_choice.function.name",
        ),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": TOOLS, "parallel_tool_calls": "no"}, "parallel_tool_calls"),
        (changed(0, tool_calls=CALLS), "messages[0].tool_calls"),
        (changed(0, tool_call_id="call_1"), "messages[0].tool_call_id"),
        (changed(1, tool_calls=[*CALLS, *CALLS]), "messages[1].tool_calls[1].id"),
        (
            changed(1, tool_calls=[{**CALLS[0], "function": {"name": "f", "arguments": "[1]"}}]),
            "messages[1].tool_calls[0].function.arguments",
        ),
        (
            changed(1, tool_calls=[{**CALLS[0], "function": {"name": "f", "arguments": "{"}}]),
            "messages[1].tool_calls[0].function.arguments",
        ),
        (
            changed(1, tool_calls=[{**CALLS[0], "function": {"name": "f"}}]),
            "messages[1].tool_calls[0].function.arguments",
        ),
        (changed(1, tool_calls=None), "messages[2].tool_call_id"),
        (changed(2, tool_call_id="call_2"), "messages[2].tool_call_id"),
        (changed(2, tool_call_id=None), "messages[2].tool_call_id"),
        (changed(2, content=None), "messages[2].content"),
        ({"messages": [*TURNS, TURNS[2]]}, "messages[3].tool_call_id"),
    ],
)  # fmt: skip
def test_a_bad_field_is_named(site: Site, fields: dict[str, Any], param: str) -> None:
    error = error_of(site.chat(**fields), 400)
    assert error["param"] == param
    assert param in error["message"]
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize("messages", [TURNS[:2], [*TURNS[:2], {"role": "user", "content": "y"}]])
def test_a_call_without_a_result_is_named(site: Site, messages: list[Any]) -> None:
    error = error_of(site.chat(messages=messages, tools=TOOLS), 400)
    assert error["param"] == "messages"
    assert "call_1" in error["message"]


def test_errors_are_the_librarys_own(client: OpenAI) -> None:
    tools: Any = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": 1}}}]
    with pytest.raises(BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=ask("x"), tools=tools)
    assert (caught.value.code, caught.value.param) == ("invalid_function_parameters", "tools[0].function.parameters")
