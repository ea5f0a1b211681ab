"""Structured answers of a model that knows nothing: each of them is valid."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import jsonschema
import pytest

from chatwheel.engine.engine import Engine
from chatwheel.engine.requests import Completion, Request, SamplingParams
from chatwheel.engine.structured import json_object, json_schema, regular_expression
from chatwheel.errors import InputError
from tests.engine.compiled import needs_kernels
from tests.tiny import causal, tokenizer, tokens


def engine() -> Engine:
    return Engine(causal(max_positions=2048), tokenizer(), max_running=32)


def ask(grammar: str, seed: int, **params: Any) -> Request:
    values = {"max_tokens": 700, "temperature": 1.0} | params
    return Request(
        prompt_ids=tuple(tokens(12, seed=seed).tolist()), params=SamplingParams(seed=seed, grammar=grammar, **values)
    )


def schema_of(difficulty: int, r: random.Random) -> dict[str, Any]:
    """More kinds of values and deeper ones as it grows."""
    simple: list[dict[str, Any]] = [
        {"type": "integer", "minimum": -50, "maximum": 1000},
        {"type": "boolean"},
        {"enum": ["red", "green", "蓝", 3, None]},
        {"type": "string", "maxLength": 8},
        {"const": {"version": 1}},
    ]
    medium: list[dict[str, Any]] = [
        {"type": "number"},
        {"type": "null"},
        {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3}$"},
        {"type": "string", "format": "date"},
        {"type": "string", "minLength": 3, "maxLength": 12},
        {"type": ["integer", "null"]},
    ]
    kinds = simple + (medium if difficulty >= 3 else [])
    if difficulty <= 1 or r.random() < 0.3:
        return r.choice(kinds)
    if r.random() < 0.35:
        least = r.randrange(3)
        items = schema_of(difficulty - 2, r)
        return {"type": "array", "items": items, "minItems": least, "maxItems": least + r.randrange(1, 3)}
    if difficulty >= 5 and r.random() < 0.3:
        return {"anyOf": [schema_of(difficulty - 2, r), {"type": "string", "maxLength": 4}]}
    names = r.sample(["name", "age", "城市", "tags", "is ok", 'quo"te', "x1"], r.randrange(1, 4))
    return {
        "type": "object",
        "properties": {name: schema_of(difficulty - 2, r) for name in names},
        "required": r.sample(names, r.randrange(len(names) + 1)),
        "additionalProperties": False,
    }


def test_200_schemas_of_growing_difficulty() -> None:
    r = random.Random(0)
    schemas = [schema_of(2 + i // 25, r) for i in range(199)]
    schemas.append(
        {
            "$defs": {
                "node": {
                    "type": "object",
                    "properties": {
                        "value": {"type": "integer"},
                        "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
                    },
                    "required": ["value", "next"],
                    "additionalProperties": False,
                }
            },
            "$ref": "#/$defs/node",
        }
    )
    answers = engine().generate([ask(json_schema(schema), i) for i, schema in enumerate(schemas)])
    for schema, answer in zip(schemas, answers, strict=True):
        assert answer.finish_reason == "stop", (schema, answer.text)
        jsonschema.validate(json.loads(answer.text), schema)
    assert len({answer.text for answer in answers}) > 100


@pytest.mark.parametrize("max_tokens", [60, 150])
def test_a_long_winded_model_is_led_to_the_end(max_tokens: int) -> None:
    schema = {
        "type": "object",
        "properties": {"story": {"type": "string"}, "moral": {"type": "string"}},
        "required": ["story", "moral"],
        "additionalProperties": False,
    }
    for answer in engine().generate([ask(json_schema(schema), i, max_tokens=max_tokens) for i in range(20)]):
        assert answer.finish_reason == "stop"
        assert json.loads(answer.text).keys() == {"story", "moral"}


def test_any_json_object() -> None:
    for answer in engine().generate([ask(json_object(), i, max_tokens=200) for i in range(20)]):
        assert isinstance(json.loads(answer.text), dict)


@pytest.mark.parametrize("pattern", [r"(yes|no|也许)", r"\d{3}-\d{4}", r"[a-f]{2,6}!{1,2}", r"[\d,]{3}\\d"])
def test_regular_expressions(pattern: str) -> None:
    for answer in engine().generate([ask(regular_expression(pattern), i, temperature=2.0) for i in range(20)]):
        assert re.fullmatch(pattern, answer.text)


@needs_kernels
def test_the_same_answer_alone_and_beside_others() -> None:
    requests = [ask(json_schema(schema_of(6, random.Random(i))), i) for i in range(8)]
    plain = Request(prompt_ids=(11, 12), params=SamplingParams(seed=1, max_tokens=30, ignore_eos=True))
    together = engine().generate([*requests, plain])
    alone: list[Completion] = [engine().generate([request])[0] for request in [*requests, plain]]
    assert together == alone


@pytest.mark.parametrize("bad", ["(ab", "[z-a]"])
def test_a_pattern_that_is_none_is_one_clear_error(bad: str) -> None:
    with pytest.raises(InputError, match="response_format") as error:
        engine().submit(ask(regular_expression(bad), 0))
    assert "\n" not in error.value.message


def test_a_short_answer_may_hold_something() -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string"}},
        "required": ["name"],
        "additionalProperties": False,
    }
    answers = engine().generate([ask(json_schema(schema), i, max_tokens=36) for i in range(10)])
    assert all(answer.finish_reason == "stop" for answer in answers)
    assert any(json.loads(answer.text)["name"] for answer in answers)


def test_a_schema_nested_without_end_is_one_clear_error() -> None:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(3000):
        schema = {"type": "array", "items": schema}
    with pytest.raises(InputError, match="nested too deeply"):
        json_schema(schema)


def test_a_schema_that_is_none_is_one_clear_error() -> None:
    with pytest.raises(InputError, match=r"response_format: .*foo"):
        engine().submit(ask(json_schema({"type": "foo"}), 0))
