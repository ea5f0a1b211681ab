"""vLLM in the engine's place, beside our own engine; where vLLM is installed, which wants an environment of its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm")

from chatwheel.assistant.orchestrator import Assistant
from chatwheel.data.records import Message
from chatwheel.engine.engine import Engine
from chatwheel.engine.requests import Completion, Request, SamplingParams
from chatwheel.engine.structured import json_schema, regular_expression
from chatwheel.engine.vllm_engine import VllmEngine
from chatwheel.errors import ContextLengthError, InputError, OverloadedError
from chatwheel.model.checkpoint import save_model
from tests.tiny import causal, tokenizer, tokens

pytestmark = pytest.mark.slow
SHAPE = {"hidden_size": 128, "num_heads": 2, "num_kv_heads": 1, "head_dim": 64}
MEMORY = 64 * 2**20


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("models") / "tiny"
    save_model(place, causal(**SHAPE), tokenizer(), {})
    return place


@pytest.fixture(scope="module")
def machine(directory: Path) -> Iterator[VllmEngine]:
    model = causal(**SHAPE)
    engine = VllmEngine(
        directory, model.config, tokenizer(), max_running=4, max_waiting=20, weights="float32", cache_memory=MEMORY
    )
    yield engine
    engine.close()


def ask(length: int, seed: int = 0, **params: Any) -> Request:
    values = {"temperature": 0.0, "max_tokens": 30, "seed": seed, "ignore_eos": True} | params
    return Request(prompt_ids=tuple(tokens(length, seed=seed).tolist()), params=SamplingParams(**values))


def run(machine: VllmEngine, requests: list[Request]) -> tuple[list[Completion], list[str]]:
    """Answers, and what was streamed of each."""
    ids = [machine.submit(request) for request in requests]
    done: dict[int, Completion] = {}
    texts = dict.fromkeys(ids, "")
    while len(done) < len(ids):
        for number, delta in machine.step():
            texts[number] += delta.text
            if delta.completion is not None:
                done[number] = delta.completion
    assert machine.idle
    return [done[i] for i in ids], [texts[i] for i in ids]


def test_greedy_answers_and_log_probs_are_ours(machine: VllmEngine) -> None:
    requests = [ask(n, n, top_logprobs=3, prompt_logprobs=True) for n in (3, 40, 17, 90, 5, 60)]
    ours = Engine(causal(**SHAPE), tokenizer()).generate(requests)
    theirs, texts = run(machine, requests)
    for a, b, text in zip(ours, theirs, texts, strict=True):
        assert (b.token_ids, b.text, b.finish_reason, b.prompt_tokens) == (
            a.token_ids,
            a.text,
            "length",
            a.prompt_tokens,
        )
        assert text == b.text
        assert b.logprobs == pytest.approx(a.logprobs, abs=1e-3)
        assert [[t for t, _ in place] for place in b.top] == [[t for t, _ in place] for place in a.top]
        assert [p.token_id for p in b.prompt] == [p.token_id for p in a.prompt]
        assert [p.logprob for p in b.prompt] == pytest.approx([p.logprob for p in a.prompt], abs=1e-3)


def test_what_ends_an_answer_is_the_same(machine: VllmEngine) -> None:
    free = ask(30, 1)
    (answer,), _ = run(machine, [free])
    word = answer.text[10:13]
    assert word
    stopped = [
        replace(free, params=replace(free.params, stop=(word,))),
        replace(free, params=replace(free.params, stop_token_ids=(answer.token_ids[7],))),
        replace(free, params=replace(free.params, stop_token_ids=(answer.token_ids[7],), min_tokens=12)),
        replace(free, params=replace(free.params, logit_bias={answer.token_ids[0]: -100.0})),
        replace(free, params=replace(free.params, repetition_penalty=1.4, frequency_penalty=0.3, presence_penalty=0.2)),
    ]
    ours = Engine(causal(**SHAPE), tokenizer()).generate(stopped)
    theirs, _ = run(machine, stopped)
    assert [(b.text, b.token_ids, b.finish_reason) for b in theirs] == [
        (a.text, a.token_ids, a.finish_reason) for a in ours
    ]


def test_drawn_answers_follow_their_seed(machine: VllmEngine) -> None:
    request = ask(20, 5, temperature=1.0, top_p=0.9, top_k=50)
    (first,), _ = run(machine, [request])
    (again,), _ = run(machine, [request])
    (other,), _ = run(machine, [replace(request, params=replace(request.params, seed=6))])
    assert first.token_ids == again.token_ids != other.token_ids


def test_grammars_hold(machine: VllmEngine) -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 9}},
        "required": ["n"],
        "additionalProperties": False,
    }
    asked = [
        ask(9, 2, temperature=1.0, grammar=json_schema(schema), ignore_eos=False, max_tokens=60),
        ask(9, 3, temperature=1.0, grammar=regular_expression("[ab]{3}\\d"), ignore_eos=False, max_tokens=60),
    ]
    (first, second), _ = run(machine, asked)
    assert 0 <= json.loads(first.text)["n"] <= 9
    assert len(second.text) == 4
    assert set(second.text[:3]) <= {"a", "b"}
    assert (first.finish_reason, second.finish_reason) == ("stop", "stop")


def test_who_leaves_or_comes_too_late_is_gone(machine: VllmEngine) -> None:
    numbers = [machine.submit(ask(10, i, max_tokens=100)) for i in range(3)]
    late = machine.submit(replace(ask(10, 9, max_tokens=100), timeout=0.0))
    found = dict(machine.step())
    assert found[late].completion is not None
    assert found[late].completion.finish_reason == "cancelled"
    partial = machine.cancel(numbers[0])
    assert partial is not None
    assert partial.finish_reason == "cancelled"
    assert machine.cancel(numbers[0]) is None
    rest: set[int] = set()
    while not machine.idle:
        rest |= {number for number, delta in machine.step() if delta.completion is not None}
    assert rest == set(numbers[1:])


def test_what_cannot_be_is_one_line(machine: VllmEngine, directory: Path) -> None:
    with pytest.raises(InputError, match="the prompt is empty"):
        machine.submit(Request(prompt_ids=()))
    with pytest.raises(ContextLengthError):
        machine.submit(ask(256))
    with pytest.raises(InputError, match="vLLM answers here, and nothing else"):
        machine.submit(Request(prompt_ids=(5,), task="mean"))
    with pytest.raises(InputError, match="at most 50"):
        machine.submit(ask(5, top_logprobs=51))
    numbers = [machine.submit(ask(5, i)) for i in range(24)]
    with pytest.raises(OverloadedError):
        machine.submit(ask(5))
    for number in numbers:
        machine.cancel(number)
    with pytest.raises(InputError, match="not int8"):
        Assistant.load(directory, "int8", backend="vllm")
    with pytest.raises(InputError, match="speculate"):
        Assistant.load(directory, speculate=2, backend="vllm")


def test_an_assistant_speaks_through_it(directory: Path) -> None:
    hello, params = [Message(role="user", content="Hello")], SamplingParams(temperature=0.0, max_tokens=20)
    ours = Assistant.load(directory)
    theirs = Assistant.load(directory, "float32", backend="vllm")
    try:
        expected = asyncio.run(ours.answer(hello, params))
        found = asyncio.run(theirs.answer(hello, params))
        assert (found.text, found.token_ids) == (expected.text, expected.token_ids)
        counts, metrics = theirs.metrics
        assert counts.generated_tokens == len(found.token_ids)
        assert metrics.finished == {found.finish_reason: 1}
    finally:
        ours.close()
        theirs.close()
