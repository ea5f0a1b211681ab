"""The tokenizer against transformers' AutoTokenizer, opened from the directory that Chatwheel writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from chatwheel.errors import InputError
from chatwheel.model.chat_template import PLAIN_TEMPLATE, SPECIAL_TOKENS
from chatwheel.model.tokenizer import Tokenizer
from tests.tiny import TEXT, VOCAB, tokenizer

CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "one turn": [
        {"role": "user", "content": "What is the capital of France?"},
        {"role": "assistant", "content": "Paris."},
    ],
    "many turns": [
        {"role": "user", "content": "Hello  there\n\n"},
        {"role": "assistant", "content": "  Hi!\n"},
        {"role": "user", "content": "And 2 + 2?"},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": "Well?"},
        {"role": "assistant", "content": "4"},
    ],
    "a system message": [
        {"role": "system", "content": "You are brief."},
        {"role": "user", "content": "Who are you?"},
        {"role": "assistant", "content": "Chatwheel."},
    ],
    "Chinese": [
        {"role": "system", "content": "你是一个助手。"},
        {"role": "user", "content": "法国的首都是哪里?🙂"},
        {"role": "assistant", "content": "法国的首都是巴黎。é龘"},
    ],
}
each_conversation = pytest.mark.parametrize("messages", CONVERSATIONS.values(), ids=CONVERSATIONS.keys())


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    directory = tmp_path_factory.mktemp("tokenizer")
    tokenizer().save(directory, max_positions=256)
    (directory / "config.json").write_text('{"model_type": "qwen3"}')
    return AutoTokenizer.from_pretrained(directory)


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=60) | st.text("ab é中文🙂\n\t 0'", max_size=40)


@settings(max_examples=200, deadline=None)
@example("a\r\n\r\n b\u00a0\u3000 '", "\ufffd")
@given(texts, texts)
def test_text_comes_back(a: str, b: str) -> None:
    if any(token in a + b for token in SPECIAL_TOKENS):
        return
    ours = tokenizer()
    assert ours.decode(ours.encode(a + b)) == a + b
    assert ours.decode([*ours.encode(a), *ours.encode(b)]) == a + b
    assert ours.encode_batch([a, b]) == [ours.encode(a), ours.encode(b)]


@settings(max_examples=100, deadline=None)
@given(texts)
def test_ids_are_those_of_transformers(theirs: Any, text: str) -> None:
    assert tokenizer().encode(text) == theirs.encode(text, add_special_tokens=False)


@each_conversation
def test_conversations_are_those_of_transformers(theirs: Any, messages: list[dict[str, Any]]) -> None:
    ids, mask = tokenizer().encode_conversation(messages)
    expected = theirs.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
    assert ids == expected["input_ids"]
    assert [int(m) for m in mask] == expected["assistant_masks"]
    assert 0 < sum(mask) < len(mask)
    prompt = theirs.apply_chat_template(messages[:-1], add_generation_prompt=True, return_dict=True)["input_ids"]
    assert tokenizer().encode_prompt(messages[:-1]) == prompt
    assert ids[: len(prompt)] == prompt  # what training sees is what the engine continues


@each_conversation
def test_the_mask_covers_the_answers_and_their_ends(messages: list[dict[str, Any]]) -> None:
    ids, mask = tokenizer().encode_conversation(messages)
    said = [i for i, m in zip(ids, mask, strict=True) if m]
    answers = [m["content"] for m in messages if m["role"] == "assistant"]
    assert tokenizer().decode(said) == "".join(answers)
    assert said.count(tokenizer().end_id) == len(answers)
    assert said[-1] == tokenizer().end_id


def test_a_turn_of_weight_0_is_not_learnt() -> None:
    messages = [dict(m) for m in CONVERSATIONS["many turns"]]
    ids, everything = tokenizer().encode_conversation(messages)
    messages[1]["weight"] = 0
    messages[3]["weight"] = 1
    same_ids, mask = tokenizer().encode_conversation(messages)
    assert ids == same_ids
    assert tokenizer().decode(i for i, m in zip(ids, mask, strict=True) if m) == "4"
    assert sum(mask) == sum(everything) - len(tokenizer().encode("  Hi!\n")) - 1


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([*SPECIAL_TOKENS, "<|en", "d|>", "<|", "|>", "user", "x", "你"]), max_size=8))
def test_nobody_speaks_for_the_assistant_from_within_a_message(parts: list[str]) -> None:
    content = "".join(parts)
    special = [tokenizer().encode(token)[0] for token in SPECIAL_TOKENS]
    shape = [i for i in tokenizer().encode_prompt([{"role": "user", "content": "x"}]) if i in special]
    found = [i for i in tokenizer().encode_prompt([{"role": "user", "content": content}]) if i in special]
    assert found == shape


def test_special_tokens_are_single_and_silent() -> None:
    for token in SPECIAL_TOKENS:
        (only,) = tokenizer().encode(token)
        assert tokenizer().decode([only]) == ""
    assert len({tokenizer().encode(token)[0] for token in SPECIAL_TOKENS}) == 5


def test_the_vocabulary_is_as_large_as_asked(theirs: Any) -> None:
    assert tokenizer().vocab_size == VOCAB == len(theirs)
    assert all(i < VOCAB for text in TEXT for i in tokenizer().encode(text))


@pytest.mark.parametrize(("vocab_size", "fault"), [(260, "alone need 261"), (5000, "lower tokenizer.vocab_size")])
def test_an_impossible_vocabulary_is_refused(vocab_size: int, fault: str) -> None:
    with pytest.raises(InputError, match=fault):
        Tokenizer.train(TEXT, vocab_size)


def test_a_saved_tokenizer_comes_back_with_its_template(tmp_path: Path) -> None:
    tokenizer().with_template(PLAIN_TEMPLATE).save(tmp_path, max_positions=64)
    loaded = Tokenizer.load(tmp_path)
    assert loaded.template.source == PLAIN_TEMPLATE
    assert loaded.encode(TEXT[3]) == tokenizer().encode(TEXT[3])
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["model_max_length"] == 64
    text = loaded.decode(loaded.encode_prompt([{"role": "user", "content": "Once upon"}]))
    assert text == "Once upon\n"


FAULTS = {
    "truncated": ("tokenizer.json", lambda b: b[: len(b) // 2], "tokenizer.json: damaged"),
    "not JSON": ("tokenizer.json", lambda _: b"\x00\x01\x02", "tokenizer.json: damaged"),
    "not a tokenizer": ("tokenizer.json", lambda _: b"{}", "tokenizer.json: damaged"),
    "truncated configuration": ("tokenizer_config.json", lambda b: b[:40], "tokenizer_config.json: damaged"),
    "a list as configuration": ("tokenizer_config.json", lambda _: b"[]", "tokenizer_config.json: damaged"),
    "a broken template": (
        "tokenizer_config.json",
        lambda _: b'{"chat_template": "{% for %}"}',
        "the chat template is damaged",
    ),
    "no special tokens": ("tokenizer.json", lambda b: b.replace(b"<|end|>", b"<|fin|>"), "no token '<|end|>'"),
}


@pytest.mark.parametrize(("name", "damage", "message"), FAULTS.values(), ids=FAULTS.keys())
def test_a_damaged_tokenizer_is_one_line(name: str, damage: Any, message: str, tmp_path: Path) -> None:
    tokenizer().save(tmp_path, max_positions=64)
    (tmp_path / name).write_bytes(damage((tmp_path / name).read_bytes()))
    with pytest.raises(InputError) as caught:
        Tokenizer.load(tmp_path)
    assert message in caught.value.message


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_a_missing_file_is_named(name: str, tmp_path: Path) -> None:
    tokenizer().save(tmp_path, max_positions=64)
    (tmp_path / name).unlink()
    with pytest.raises(InputError, match=name):
        Tokenizer.load(tmp_path)


def test_a_chinese_word_is_the_same_tokens_wherever_it_stands() -> None:
    text = ["法国的首都是巴黎。", "罗马不是巴黎。", "他在巴黎吗？不，巴黎在法国。", "我说巴黎，他说罗马。"] * 20
    trained = Tokenizer.train(text, 300)
    word = trained.encode("巴黎")
    for sentence in text[:4]:
        ids = trained.encode(sentence)
        assert sentence.count("巴黎") == sum(ids[i : i + len(word)] == word for i in range(len(ids)))
    assert trained.decode(trained.encode("目的不是说明。")) == "目的不是说明。"
