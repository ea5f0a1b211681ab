"""Calls of functions: what a model that knows nothing writes is well-formed, and reading depends on no cut."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import llguidance
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatwheel.engine.detokenizer import Detokenizer
from chatwheel.engine.engine import Engine
from chatwheel.engine.requests import CallDelta, Request, SamplingParams
from chatwheel.engine.structured import json_object, schema_of
from chatwheel.engine.tools import CallReader, Function, ToolUse, call_grammar, shown_tokens
from chatwheel.errors import InputError
from chatwheel.model.call_format import GENERAL, CallFormat
from chatwheel.model.tokenizer import Tokenizer
from tests.model.test_foreign_tokenizers import sentencepiece
from tests.model.tool_templates import STYLES, TOOLS, written
from tests.tiny import causal, tokenizer, tokens

FUNCTIONS = [Function(**tool["function"]) for tool in TOOLS]
BARE = CallFormat(opening='{"name": "', middle='", "parameters": ', closing="}", following=None)
LIST = CallFormat(
    opening='[TOOL_CALLS] [{"name": "',
    middle='", "arguments": ',
    closing=', "id": "\ue0f2"}]',
    following=', "id": "\ue0f2"}, {"name": "',
)
NAMED = CallFormat(opening="[TOOL_CALLS]", middle="[ARGS]", closing="", following="[TOOL_CALLS]")
Read = tuple[str, list[tuple[str, str, str]]]


@pytest.fixture(scope="module", params=["general", *STYLES])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """A model of random weights, with the tokenizer and the template of each style."""
    if request.param == "general":
        return Engine(causal(max_positions=2048), tokenizer(), max_running=32)
    directory = tmp_path_factory.mktemp("tokenizer")
    written(directory, request.param)
    return of(Tokenizer.load(directory))


def of(found: Tokenizer) -> Engine:
    return Engine(causal(max_positions=2048, vocab_size=found.highest_id + 1), found, max_running=32)


def answers(engine: Engine, use: ToolUse, count: int, **params: Any) -> list[CallReader]:
    """What was read of so many answers."""
    form, special = engine.tokenizer.template.call_format, engine.special_tokens
    values: dict[str, Any] = {"temperature": 1.0, "max_tokens": 500} | params
    grammar, shown = call_grammar(use, form, special), shown_tokens(form, special)
    requests = [
        Request(
            prompt_ids=tuple((tokens(8, seed=seed) % engine.model.config.vocab_size).tolist()),
            params=SamplingParams(seed=seed, grammar=grammar, shown_tokens=shown, **values),
        )
        for seed in range(count)
    ]
    readers = []
    for answer in engine.generate(requests):
        reader = CallReader(form)
        reader.feed(answer.text)
        reader.finish()
        readers.append(reader)
    return readers


def check(reader: CallReader, functions: Sequence[Function]) -> None:
    """The calls are whole, and their arguments what the schemas say."""
    assert not reader.cut
    schemas = {f.name: f.parameters for f in functions}
    for call in reader.calls:
        schema = schemas[call.name]
        jsonschema.validate(json.loads(call.arguments), {"maxProperties": 0} if schema is None else schema)


SCHEMAS: dict[str, list[Function]] = {
    "two functions": FUNCTIONS,
    "no arguments": [Function(name="now")],
    "an empty schema": [Function(name="now", parameters={})],
    "nested": [
        Function(
            name="book-flight_2",
            parameters={
                "type": "object",
                "$defs": {"place": {"type": "object", "properties": {"城市": {"enum": ["巴黎", "Rome"]}}}},
                "properties": {
                    "from": {"$ref": "#/$defs/place"},
                    "seats": {"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 2},
                    "note": {"anyOf": [{"type": "string", "maxLength": 8}, {"type": "null"}]},
                },
                "required": ["from", "seats", "note"],
            },
        )
    ],
    "long strings": [
        Function(
            name="write",
            parameters={"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
        )
    ],
    "strict": [
        Function(
            name="set",
            strict=True,
            parameters={
                "type": "object",
                "properties": {"on": {"type": "boolean"}, "level": {"type": ["number", "null"]}},
                "required": ["on", "level"],
                "additionalProperties": False,
            },
        )
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_model_of_random_weights_that_must_call_always_calls_well(engine: Engine, name: str) -> None:
    functions = SCHEMAS[name]
    read = answers(engine, ToolUse(functions=functions, choice="required"), 30)
    assert all(reader.calls and not reader.words for reader in read)
    for reader in read:
        check(reader, functions)
    assert {call.name for reader in read for call in reader.calls} == {f.name for f in functions}


def test_one_named_function_is_called_once(engine: Engine) -> None:
    use = ToolUse(functions=FUNCTIONS, choice="required", only="add", parallel=False)
    for reader in answers(engine, use, 10):
        assert [call.name for call in reader.calls] == ["add"]
        check(reader, FUNCTIONS)


def test_without_parallel_calls_there_is_at_most_one(engine: Engine) -> None:
    use = ToolUse(functions=FUNCTIONS, choice="required", parallel=False)
    assert all(len(reader.calls) == 1 for reader in answers(engine, use, 10))
    bias = {engine.tokenizer.encode(text)[0]: 5.0 for text in ("\n", ",")}  # what comes before another call
    several = answers(engine, replace(use, parallel=True), 20, logit_bias=bias)
    if engine.tokenizer.template.call_format.following is not None:
        assert any(len(reader.calls) > 1 for reader in several)


def test_what_is_free_is_words_or_whole_calls(engine: Engine) -> None:
    special = {name: t.id for name, t in engine.special_tokens.items()}
    marker = engine.tokenizer.template.call_format.marker
    # A model of random weights begins no call by itself: it is made to like how they begin.
    bias = {special[marker]: 4.0} if marker in special else {engine.tokenizer.encode("<" if marker else "{")[0]: 10.0}
    read = answers(engine, ToolUse(functions=FUNCTIONS), 30, logit_bias=bias, max_tokens=200)
    for reader in read:
        if reader.calls and not reader.cut:
            check(reader, FUNCTIONS)
        if not reader.calls and not reader.cut and marker:
            assert marker not in reader.words
    if marker in special or not marker:
        assert any(reader.calls for reader in read)
        assert any(reader.words for reader in read)


def test_where_nothing_may_be_called_the_mark_is_never_written(engine: Engine) -> None:
    form = engine.tokenizer.template.call_format
    grammar = call_grammar(ToolUse(functions=FUNCTIONS, choice="none"), form, engine.special_tokens)
    assert (grammar is None) == (not form.marker)
    if grammar is not None:
        ids = engine.tokenizer.encode(f"x {form.marker}")
        assert passes(engine, grammar, ids) == (False, False)
        ids = [i for character in f"x {form.marker}" for i in engine.tokenizer.encode(character)]
        assert passes(engine, grammar, ids) == (False, False)
        ids = engine.tokenizer.encode("x y 你好 <b>")
        assert passes(engine, grammar, ids) == (True, True)


def passes(engine: Engine, grammar: str, ids: Sequence[int]) -> tuple[bool, bool]:
    """Whether the grammar lets all these tokens pass, and whether they may be the whole answer."""
    matcher = llguidance.LLMatcher(engine._grammars._backend, grammar)
    assert not matcher.is_error(), matcher.get_error()
    passed = matcher.try_consume_tokens(list(ids)) == len(ids)
    return passed, passed and (matcher.is_accepting() or matcher.is_stopped())


def answer_of(form: CallFormat, *calls: tuple[str, str], words: str = "") -> str:
    """An answer with calls."""
    parts = [name + form.middle + arguments for name, arguments in calls]
    text = form.opening + (form.following or "").join(parts) + form.closing
    return words + text.replace("\ue0f2", "a1B2c3D4e")


WEATHER = ("get_weather", '{"city": "巴黎 \\"}]</tool_call>\\\\", "days": 3}')
ADD = ("add", '{"a": 1, "b": {"c": ["}"]}}')


@pytest.mark.parametrize("words", ["", "Let me see. 我看看 🙂\n"])
def test_a_grammar_lets_pass_what_a_model_writes(engine: Engine, words: str) -> None:
    form = engine.tokenizer.template.call_format
    if words and not form.marker:
        return  # there a call is the whole answer: see the test below
    calls = [("get_weather", '{"city": "巴黎"}'), ("add", '{"a": 1.5, "b": 2}')][: 2 if form.following else 1]
    text = answer_of(form, *calls, words=words)
    ids = engine.tokenizer.encode(text)
    grammar = call_grammar(ToolUse(functions=FUNCTIONS), form, engine.special_tokens)
    assert grammar is not None
    assert passes(engine, grammar, ids) == (True, True)
    for bad in (text.replace("get_weather", "get_whether"), text.replace('"city"', '"town"')):
        assert passes(engine, grammar, engine.tokenizer.encode(bad)) == (False, False)
    ends = []
    for n in range(len(ids)):
        said = Detokenizer(engine.tokenizer, (), shown_tokens(form, engine.special_tokens))
        for token in ids[:n]:
            said.add(token)
        _, ending = passes(engine, grammar, ids[:n])
        if (form.marker or "{") in said.text:
            ends.append(ending)
        else:
            assert ending != said.text.endswith("\ufffd")
    # A call that has begun does not end before it is whole; another may follow, if it is not within a list.
    assert sum(ends) == (len(calls) - 1 if (form.following or "").startswith(form.closing) else 0)


def test_calls_behind_a_token_in_a_vocabulary_of_pieces(tmp_path: Path) -> None:
    """SentencePiece's decoder drops the space behind `[TOOL_CALLS]`, as before any first word."""
    written(tmp_path, "list", sentencepiece())
    for reader in answers(of(Tokenizer.load(tmp_path)), ToolUse(functions=FUNCTIONS, choice="required"), 30):
        assert reader.calls
        assert not reader.words
        check(reader, FUNCTIONS)


def test_thoughts_may_come_first_where_they_are_tokens(tmp_path: Path) -> None:
    written(tmp_path, "thoughts")
    found = Tokenizer.load(tmp_path)
    engine = of(found)
    form = found.template.call_format
    text = answer_of(form, ("add", '{"a": 1, "b": 2}'), words="<think>\n嗯\n</think>\n\n")
    assert found.backend.token_to_id("<think>") in found.encode(text)
    grammar = call_grammar(ToolUse(functions=FUNCTIONS), form, engine.special_tokens)
    assert grammar is not None
    assert passes(engine, grammar, found.encode(text)) == (True, True)


def test_a_marker_that_is_spelled_is_one_too(engine: Engine) -> None:
    """Where it is a token, a model may still write its characters: calls begin then as well, in grammar and reader."""
    form = engine.tokenizer.template.call_format
    if not form.marker:
        return
    grammar = call_grammar(ToolUse(functions=FUNCTIONS), form, engine.special_tokens)
    assert grammar is not None
    ids = [i for character in f"x{form.marker}" for i in engine.tokenizer.encode(character)]
    assert passes(engine, grammar, ids) == (True, False)


def test_a_bare_call_is_the_whole_answer() -> None:
    reader = CallReader(BARE)
    text = 'See: {"name": "add", "parameters": {}}'
    assert reader.feed(text)[0] + reader.finish()[0] == text
    assert not reader.calls


def test_words_of_a_schema_beside_calls(engine: Engine) -> None:
    form, content = engine.tokenizer.template.call_format, schema_of(json_object())
    if not form.marker:
        with pytest.raises(InputError, match="told apart") as error:
            call_grammar(ToolUse(functions=FUNCTIONS), form, engine.special_tokens, content)
        assert error.value.param == "response_format"
        return
    grammar = call_grammar(ToolUse(functions=FUNCTIONS), form, engine.special_tokens, content)
    assert grammar is not None
    for text, fits in (('{"a": "b"}', True), ("hello", False), (answer_of(form, ("add", '{"a": 1, "b": 2}')), True)):
        ids = engine.tokenizer.encode(text)
        assert passes(engine, grammar, ids) == (fits, fits)
    reader = CallReader(form, only_at_start=True)
    text = f'{{"a": "{form.marker}"}}'
    assert reader.feed(text)[0] + reader.finish()[0] == text


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"type": "string"}, "type 'object'"),
        ({"type": "object", "properties": {"a": {"type": "text"}}}, "Invalid type: text"),
        ({"type": "object", "properties": 5}, "properties must be an object"),
        ({"type": "object", "properties": {"a": {"$ref": "#/$defs/x"}}}, "does not exist"),
    ],
)
def test_a_schema_that_is_none_is_one_clear_line(parameters: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason) as error:
        _ = Function(name="f", parameters=parameters).schema
    assert "\n" not in error.value.message


def test_a_schema_nested_without_end_is_one_clear_line() -> None:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(3000):
        schema = {"type": "object", "properties": {"a": schema}}
    with pytest.raises(InputError, match="nested too deeply"):
        _ = Function(name="f", parameters=schema).schema


def test_only_strict_functions_refuse_what_is_not_known_of_a_schema() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string", "format": "no-such"}}, "required": ["a"]}
    assert Function(name="f", parameters=schema).schema
    with pytest.raises(InputError, match="Unknown format"):
        _ = Function(name="f", parameters=schema, strict=True).schema


# The reader.


def read(form: CallFormat, pieces: Sequence[str]) -> Read:
    """Words, and (id, name, arguments) of the calls, put together from what is given piece by piece."""
    numbers = itertools.count()
    reader = CallReader(form, new_id=lambda: f"call_{next(numbers)}")
    given = [*map(reader.feed, pieces), reader.finish()]
    deltas = [delta for _, some in given for delta in some]
    calls: list[tuple[str, str, str]] = []
    for delta in deltas:
        if delta.id is not None:
            assert delta.name is not None
            assert delta.index == len(calls)
            calls.append((delta.id, delta.name, delta.arguments))
        else:
            assert delta.index == len(calls) - 1
            calls[-1] = (*calls[-1][:2], calls[-1][2] + delta.arguments)
    words = "".join(text for text, _ in given)
    assert words == reader.words
    assert calls == [(c.id, c.name, c.arguments) for c in reader.calls]
    return words, calls


EXPECTED = [("call_0", *WEATHER), ("call_1", *ADD)]


@pytest.mark.parametrize("form", [GENERAL, BARE, LIST, NAMED], ids=["general", "bare", "list", "named"])
@pytest.mark.parametrize("words", ["", "Let me see: <tool 我看看 🙂 [TOOL {.\n\n"])
def test_every_cut_of_an_answer_reads_as_the_whole(form: CallFormat, words: str) -> None:
    calls = [WEATHER, ADD] if form.following is not None else [WEATHER]
    words = words if form.marker else ""
    text = answer_of(form, *calls, words=words)
    whole = read(form, [text])
    assert whole == (words.rstrip(), EXPECTED[: len(calls)])
    for cut in range(len(text) + 1):
        assert read(form, [text[:cut], text[cut:]]) == whole
    assert read(form, list(text)) == whole


@given(
    st.lists(
        st.sampled_from(["<tool_call>", "\n", "<tool", "_call>", " ", "a", "你", '{"name": "', "}", "{"]), max_size=12
    )
)
def test_words_that_never_become_a_call_are_kept(parts: list[str]) -> None:
    text = "".join(parts)
    before, marker, _ = text.partition("<tool_call>")
    whole = read(GENERAL, [text])
    assert whole == (before.rstrip() if marker else text, [])
    assert read(GENERAL, list(text)) == whole
    assert read(GENERAL, parts) == whole


@pytest.mark.parametrize("form", [GENERAL, BARE, LIST], ids=["general", "bare", "list"])
def test_an_answer_that_was_cut_says_so(form: CallFormat) -> None:
    text = answer_of(form, WEATHER)
    for size in range(1, len(text) + 1):
        reader = CallReader(form)
        reader.feed(text[:size])
        reader.finish()
        assert reader.cut or size == len(text) or not reader.calls
        assert WEATHER[1].startswith("".join(call.arguments for call in reader.calls))
    assert not reader.cut


def test_arguments_come_as_soon_as_they_are_written() -> None:
    reader = CallReader(GENERAL, new_id=lambda: "call_x")
    assert reader.feed('Hm.\n<tool_call>\n{"name": "add", "argu') == ("Hm.", ())
    assert reader.feed('ments": ')[1] == ()
    first = CallDelta(index=0, id="call_x", name="add")
    assert reader.feed('{"a"') == ("", (first, CallDelta(index=0, arguments='{"a"')))
    assert reader.feed(": 1}}\n</tool") == ("", (CallDelta(index=0, arguments=": 1}"),))
    assert reader.feed("_call>") == ("", ())
    assert reader.finish() == ("", ())
    assert not reader.cut
