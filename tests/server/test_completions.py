"""POST /v1/completions, by the official client, with real models."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from openai import BadRequestError, NotFoundError

from chatwheel.errors import InputError
from chatwheel.model.fill_in_the_middle import fill_in_the_middle
from tests.server.real import CODE, MARKS, MODEL, REWARD, Real, code_tokenizer, logprobs_of, run_real
from tests.tiny import tokenizer

PROMPT = "The capital of France is Paris, and"
MIXED = "法国的首都 🙂 is naïve."


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Real]:
    with run_real(tmp_path_factory.mktemp("home")) as real:
        yield real


def create(real: Real, **fields: Any) -> Any:
    return real.client.completions.create(**({"model": MODEL, "prompt": PROMPT} | fields))


def test_a_text_goes_on_with_its_likeliest_tokens(real: Real) -> None:
    answer = create(real, temperature=0, logprobs=0)
    ids, expected = tokenizer().encode(PROMPT), []
    while len(expected) < 16:  # OpenAI's default
        expected.append(int(logprobs_of([*ids, *expected])[-1].argmax()))
    (choice,) = answer.choices
    assert answer.object == "text_completion"
    assert answer.id.startswith("cmpl-")
    assert answer.usage.prompt_tokens == len(ids)
    assert answer.usage.completion_tokens == len(choice.logprobs.tokens) == 16
    assert choice.text == tokenizer().decode(expected)
    assert choice.finish_reason == "length"


@pytest.mark.parametrize("prompt", [PROMPT, MIXED])
def test_echoed_log_probs_are_those_of_a_plain_forward_pass(real: Real, prompt: str) -> None:
    answer = create(real, prompt=prompt, echo=True, max_tokens=0, logprobs=3)
    ids = tokenizer().encode(prompt)
    rows = logprobs_of(ids)
    found = answer.choices[0].logprobs
    assert answer.choices[0].text == prompt
    assert (found.token_logprobs[0], found.top_logprobs[0]) == (None, None)
    expected = rows[:-1].gather(-1, torch.tensor(ids[1:])[:, None])[:, 0]
    torch.testing.assert_close(torch.tensor(found.token_logprobs[1:]), expected, atol=1e-4, rtol=0)
    for row, top in zip(rows, found.top_logprobs[1:], strict=False):
        assert sorted(top.values())[-3:] == pytest.approx(row.topk(3).values.flip(0).tolist(), abs=1e-4)
    assert answer.usage.completion_tokens == 0
    assert answer.choices[0].finish_reason == "length"
    pieces = tokenizer().pieces or []
    for i, token_id in enumerate(ids):
        # What stands before a token, in whole characters.
        assert prompt[: found.text_offset[i]] == b"".join(pieces[t] for t in ids[:i]).decode("utf-8", "ignore")
        try:
            assert found.tokens[i] == pieces[token_id].decode()
        except UnicodeDecodeError:
            assert found.tokens[i] == "bytes:" + pieces[token_id].decode("utf-8", "backslashreplace")


def test_echo_with_an_answer_and_without_numbers(real: Real) -> None:
    plain = create(real, seed=5, max_tokens=12)
    echoed = create(real, seed=5, max_tokens=12, echo=True, logprobs=1)
    assert echoed.choices[0].text == PROMPT + plain.choices[0].text
    found = echoed.choices[0].logprobs
    count = len(tokenizer().encode(PROMPT))
    assert len(found.tokens) == count + echoed.usage.completion_tokens
    assert found.text_offset[count] == len(PROMPT)
    assert create(real, echo=True, max_tokens=0).choices[0].text == PROMPT
    alone = create(real, seed=5, max_tokens=12, logprobs=1).choices[0].logprobs
    assert alone.token_logprobs == pytest.approx(found.token_logprobs[count:], abs=1e-5)
    assert [offset + len(PROMPT) for offset in alone.text_offset] == found.text_offset[count:]


def test_prompts_of_every_form(real: Real) -> None:
    ids, other = tokenizer().encode(PROMPT), tokenizer().encode(MIXED)
    shared: Any = {"seed": 7, "max_tokens": 10}
    texts = [create(real, prompt=prompt, **shared).choices[0].text for prompt in (PROMPT, MIXED)]
    assert texts[0] != texts[1]
    for prompt in ([PROMPT, MIXED], [ids, other]):
        answer = create(real, prompt=prompt, **shared)
        assert [choice.text for choice in answer.choices] == texts
        assert answer.usage.prompt_tokens == len(ids) + len(other)
    assert create(real, prompt=ids, **shared).choices[0].text == texts[0]
    assert create(real, prompt="", **shared).usage.prompt_tokens == 1  # where a document begins
    echoed = create(real, prompt=[*ids, tokenizer().end_id], echo=True, max_tokens=0)
    assert echoed.choices[0].text == PROMPT + tokenizer().backend.id_to_token(tokenizer().end_id)


def test_several_answers_and_the_best_of_them(real: Real) -> None:
    several = create(real, n=4, seed=11, max_tokens=9, logprobs=0)
    assert [choice.index for choice in several.choices] == [0, 1, 2, 3]
    singles = [create(real, seed=11 + i, max_tokens=9).choices[0].text for i in range(4)]
    assert [choice.text for choice in several.choices] == singles

    def mean(choice: Any) -> float:
        return float(sum(choice.logprobs.token_logprobs) / len(choice.logprobs.token_logprobs))

    ordered = sorted(several.choices, key=mean, reverse=True)
    best = create(real, n=2, best_of=4, seed=11, max_tokens=9)
    assert [choice.text for choice in best.choices] == [choice.text for choice in ordered[:2]]
    assert [choice.index for choice in best.choices] == [0, 1]
    assert best.usage.completion_tokens == several.usage.completion_tokens  # all that were written


def test_a_stream_is_the_whole_in_pieces(real: Real) -> None:
    fields: Any = {"prompt": [PROMPT, MIXED], "n": 2, "seed": 3, "max_tokens": 14, "logprobs": 2, "echo": True}
    whole = create(real, **fields)
    chunks = list(create(real, **fields, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].choices == []
    assert chunks[-1].usage.total_tokens == whole.usage.total_tokens
    for expected in whole.choices:
        own = [chunk.choices[0] for chunk in chunks if chunk.choices and chunk.choices[0].index == expected.index]
        assert "".join(choice.text for choice in own) == expected.text
        for name in ("tokens", "token_logprobs", "text_offset"):
            found = [value for choice in own for value in getattr(choice.logprobs, name)]
            assert found == getattr(expected.logprobs, name)
        assert [choice.finish_reason for choice in own] == [None] * (len(own) - 1) + [expected.finish_reason]


def test_how_to_sample_is_obeyed(real: Real) -> None:
    free = create(real, temperature=0, max_tokens=20).choices[0].text
    stop = free[4:6]
    stopped = create(real, temperature=0, max_tokens=20, stop=stop).choices[0]
    assert (stopped.text, stopped.finish_reason) == (free[: free.index(stop)], "stop")
    (token,) = tokenizer().encode("。")
    forced = create(real, max_tokens=6, logit_bias={str(token): 100}, presence_penalty=0, user="me")
    assert forced.choices[0].text == "。" * 6


def test_the_middle_of_a_text(real: Real) -> None:
    answer = create(real, model=CODE, prompt="def add(a, b):", suffix="    return c", max_tokens=8, seed=1)
    ids, ends = fill_in_the_middle(code_tokenizer(), "def add(a, b):", "    return c")
    assert answer.usage.prompt_tokens == len(ids)
    by_hand = create(real, model=CODE, prompt=ids, max_tokens=8, seed=1)
    assert answer.choices[0].text == by_hand.choices[0].text
    number = code_tokenizer().backend.token_to_id
    before, behind, middle, pad = map(number, MARKS)
    encode = tokenizer().encode
    assert ids == [before, *encode("def add(a, b):"), behind, *encode("    return c"), middle]
    assert set(ends) == {before, behind, middle, pad}
    with pytest.raises(InputError, match="can't fill in the middle"):
        fill_in_the_middle(tokenizer(), "a", "b")
    ended = create(real, model=CODE, suffix="x", max_tokens=8, logit_bias={str(pad): 100})
    assert (ended.choices[0].text, ended.choices[0].finish_reason) == ("", "stop")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"suffix": "x"}, "suffix"),
        ({"model": CODE, "suffix": "x", "prompt": [[5, 6]]}, "prompt"),
        ({"suffix": "x", "echo": True}, "echo"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt[0]"),
        ({"prompt": [5, "a"]}, "prompt[0]"),
        ({"prompt": [True]}, "prompt[0]"),
        ({"prompt": [-1]}, "prompt[0]"),
        ({"prompt": [10**9]}, "prompt"),
        ({"prompt": 5}, "prompt"),
        ({"prompt": "word " * 1200}, "prompt"),
        ({"max_tokens": 1100}, "prompt"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"logprobs": 6}, "logprobs"),
        ({"logprobs": True}, "logprobs"),
        ({"best_of": 2, "n": 3}, "best_of"),
        ({"best_of": 21}, "best_of"),
        ({"best_of": 2, "stream": True}, "best_of"),
        ({"prompt": ["a"] * 100, "n": 3}, "prompt"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"messages": []}, "messages"),
        ({"model": REWARD}, "model"),
    ],
)
def test_a_bad_field_is_named(real: Real, fields: dict[str, Any], param: str) -> None:
    body = {"model": MODEL, "prompt": PROMPT} | fields
    response = real.http.post("/v1/completions", json=body)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == param
    assert response.json()["error"]["type"] == "invalid_request_error"


def test_errors_are_the_clients_own(real: Real) -> None:
    with pytest.raises(NotFoundError):
        create(real, model="gpt-3")
    with pytest.raises(BadRequestError) as caught:
        create(real, prompt="word " * 1200, stream=True)
    assert caught.value.code == "context_length_exceeded"
