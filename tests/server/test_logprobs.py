"""Log-probs in chats: right numbers, right bytes, and the tokens of a stream go with its text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.server.real import MODEL, Real, logprobs_of, run_real
from tests.tiny import tokenizer

QUESTION = "What is the capital of France? 法国的首都是什么?"
SHARED: Any = {"model": MODEL, "messages": [{"role": "user", "content": QUESTION}], "logprobs": True}


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Real]:
    with run_real(tmp_path_factory.mktemp("home")) as real:
        yield real


def text_of(tokens: list[Any]) -> str:
    return b"".join(bytes(token.bytes or ()) for token in tokens).decode("utf-8", "replace")


def test_numbers_and_bytes_are_the_models(real: Real) -> None:
    answer = real.client.chat.completions.create(**SHARED, top_logprobs=5, temperature=0, max_tokens=40)
    choice = answer.choices[0]
    assert choice.logprobs
    assert choice.logprobs.refusal is None
    content = choice.logprobs.content or []
    assert text_of(content) == choice.message.content
    ids = tokenizer().encode_prompt([{"role": "user", "content": QUESTION}])
    for place in content:
        row = logprobs_of(ids)[-1]
        best = row.topk(5)
        assert place.logprob == pytest.approx(float(best.values[0]), abs=1e-4)
        assert [top.logprob for top in place.top_logprobs] == pytest.approx(best.values.tolist(), abs=1e-4)
        assert place.token == place.top_logprobs[0].token
        piece = (tokenizer().pieces or [])[int(best.indices[0])]
        if piece:
            assert bytes(place.bytes or ()) == piece
            assert place.token == piece.decode("utf-8", "backslashreplace")
        else:  # a special token, which is no part of the text
            assert (place.token, place.bytes) == (tokenizer().backend.id_to_token(int(best.indices[0])), None)
        ids.append(int(best.indices[0]))


def test_without_likeliest_and_without_log_probs(real: Real) -> None:
    answer = real.client.chat.completions.create(**SHARED, seed=1, max_tokens=5, n=2)
    for choice in answer.choices:
        assert choice.logprobs
        assert all(place.top_logprobs == [] for place in choice.logprobs.content or [])
    plain = real.client.chat.completions.create(**(SHARED | {"logprobs": False}), seed=1, max_tokens=5)
    assert plain.choices[0].logprobs is None


@pytest.mark.parametrize("seed", range(8))
def test_a_streams_tokens_go_with_its_text_and_are_those_of_the_whole(real: Real, seed: int) -> None:
    fields = SHARED | {"top_logprobs": 2, "seed": seed, "max_tokens": 30, "temperature": 1.2}
    free = real.client.chat.completions.create(**fields).choices[0].message.content or ""
    middle = len(free) // 2
    for stop in ([free[middle : middle + 2], "\u4e0d\u4f1a\u6765"], []):  # the first one comes
        whole = real.client.chat.completions.create(**fields, stop=stop or None).choices[0]
        assert whole.logprobs
        text, tokens = "", []
        for chunk in real.client.chat.completions.create(**fields, stop=stop or None, stream=True):
            choice = chunk.choices[0]
            text += choice.delta.content or ""
            before = len(tokens)
            tokens += choice.logprobs.content or [] if choice.logprobs else []
            shown = text_of(tokens)
            assert len(shown) >= len(text)
            # The last token that came with it began in the text.
            assert len(tokens) == before or len(text_of(tokens[:-1]).rstrip("\ufffd")) < len(text)
        assert text == whole.message.content
        assert tokens == whole.logprobs.content
        assert text_of(tokens).startswith(text.rstrip("\ufffd"))
        if stop:
            assert text == free[: free.index(stop[0])]


def test_with_functions_all_tokens_of_the_answer_are_there(real: Real) -> None:
    tool: Any = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
    fields = SHARED | {"tools": [tool], "tool_choice": "required", "max_tokens": 60, "seed": 3}
    whole = real.client.chat.completions.create(**fields)
    assert whole.choices[0].message.tool_calls
    assert whole.choices[0].logprobs
    content = whole.choices[0].logprobs.content or []
    assert '"look"' in text_of(content)
    streamed = [
        place
        for chunk in real.client.chat.completions.create(**fields, stream=True)
        if chunk.choices[0].logprobs
        for place in chunk.choices[0].logprobs.content or []
    ]
    assert streamed == content


def test_a_prompt_that_was_there_before_is_counted(real: Real) -> None:
    fields = SHARED | {"messages": [{"role": "user", "content": QUESTION + " Say it again." * 3}], "max_tokens": 3}
    first, second = (real.client.chat.completions.create(**fields).usage for _ in range(2))
    assert first
    assert second
    assert second.prompt_tokens_details
    cached = second.prompt_tokens_details.cached_tokens or 0
    assert 0 < cached < second.prompt_tokens
    assert cached % 16 == 0
