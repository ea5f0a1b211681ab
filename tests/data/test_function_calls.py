"""Demonstrations that call functions: read, imported, cleaned, cut and learned."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.model.tool_templates import STYLES, TOOLS, as_sent, call, conversation, written
from tests.tiny import tokenizer

from chatwheel.data.cleaning import Rules, clean_record, fault, texts, with_texts
from chatwheel.data.pii import mask
from chatwheel.data.preparation import _fitted
from chatwheel.data.records import Demonstration, Prompt, read_records, write_jsonl
from chatwheel.data.sources import load
from chatwheel.data.splits import digest_of
from chatwheel.errors import InputError
from chatwheel.model.tokenizer import Tokenizer
from chatwheel.training.sft import pack_demonstrations


def line(calls_at_once: int = 2) -> dict[str, Any]:
    """As OpenAI's fine-tuning files have it."""
    return {"messages": as_sent(conversation(calls_at_once)), "tools": TOOLS, "parallel_tool_calls": True}


def demonstration(*messages: dict[str, Any]) -> dict[str, Any]:
    return {"messages": as_sent([{"role": "user", "content": "q"}, *messages]), "tools": TOOLS}


CALL = {"role": "assistant", "content": "", "tool_calls": [call("c1", "add", {"a": 1, "b": 2})]}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "3"}
ANSWER = {"role": "assistant", "content": "3."}


def test_a_line_of_messages_and_tools_is_a_demonstration(tmp_path: Path) -> None:
    for messages in ([CALL], [CALL, RESULT, ANSWER], [CALL, RESULT, CALL, RESULT, ANSWER]):
        write_jsonl(tmp_path / "a.jsonl", [demonstration(*messages)])
        (found,) = read_records(tmp_path / "a.jsonl", Demonstration)
        assert [m.role for m in found.messages[1:]] == [m["role"] for m in messages]
        assert found.tools == TOOLS


@pytest.mark.parametrize(
    ("messages", "fault"),
    [
        ([RESULT, ANSWER], "no call before it waits"),
        ([CALL, ANSWER], "the call 'c1' has no result"),
        ([CALL, RESULT, RESULT, ANSWER], "no call before it waits"),
        ([CALL, RESULT], "last message must be the assistant's"),
        ([CALL, {**RESULT, "tool_call_id": None}, ANSWER], "needs the tool_call_id"),
        ([CALL, RESULT, ANSWER, ANSWER], "turns must alternate"),
    ],
)
def test_what_does_not_belong_together_is_named(messages: list[Any], fault: str, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [demonstration(*messages)])
    with pytest.raises(InputError, match=fault) as error:
        list(read_records(tmp_path / "a.jsonl", Demonstration))
    assert "a.jsonl, record 1" in error.value.message


def test_arguments_that_are_no_object_are_named(tmp_path: Path) -> None:
    broken = demonstration(CALL)
    broken["messages"][1]["tool_calls"][0]["function"]["arguments"] = "[1]"
    write_jsonl(tmp_path / "a.jsonl", [broken])
    with pytest.raises(InputError, match=r"messages\.1\.tool_calls\.0\.function\.arguments: expected a JSON object"):
        list(read_records(tmp_path / "a.jsonl", Demonstration))


def test_prompts_have_no_functions(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [{"messages": [{"role": "user", "content": "q"}], "tools": TOOLS}])
    with pytest.raises(InputError, match="functions are for demonstrations"):
        list(read_records(tmp_path / "a.jsonl", Prompt))


def test_an_import_keeps_calls_results_and_functions(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [line(), {"messages": line()["messages"][:-1], "tools": TOOLS}])
    whole, cut = load(tmp_path / "a.jsonl", "conversations")
    assert isinstance(whole, Demonstration)
    assert isinstance(cut, Demonstration)
    assert whole.tools == cut.tools == TOOLS
    assert [m.role for m in whole.messages] == [m["role"] for m in line()["messages"]]
    assert [c.id for c in whole.messages[2].tool_calls or []] == ["abcdefgh0", "abcdefgh1"]
    assert cut.messages == whole.messages[:-2]  # a result without an answer teaches nothing


def test_texts_in_arguments_are_cleaned_and_masked_and_stay_json() -> None:
    arguments = {"to": "ann@example.com", "note": ["a\u200b b \n", ""], "count": 3}
    found = Demonstration.model_validate(
        demonstration({"role": "assistant", "content": "", "tool_calls": [call("c1", "send", arguments)]})
    )
    assert texts(found) == ["q", "ann@example.com", "a\u200b b \n"]
    assert fault(found, Rules()) is None
    counts: Counter[str] = Counter()
    changed = with_texts(clean_record(found), lambda text: mask(text, counts))
    sent = json.loads((changed.messages[1].tool_calls or [])[0].function.arguments)
    assert sent["note"] == ["a b", ""]
    assert sent["count"] == 3
    assert "ann@example.com" not in sent["to"]
    assert counts.total() == 1


def test_calls_tell_records_apart() -> None:
    def digest(a: int) -> bytes:
        message = {"role": "assistant", "content": "", "tool_calls": [call("c1", "add", {"a": a})]}
        return digest_of(Demonstration.model_validate(demonstration(message)))

    assert digest(1) != digest(2)
    assert digest(1) == digest(1)


def test_what_is_too_long_is_cut_before_a_question() -> None:
    found = Demonstration.model_validate(line())
    size = sum(len(text.encode()) for text in texts(found))
    assert _fitted(found, size) is found
    cut = _fitted(found, size - 1)
    assert cut is not None
    assert cut.messages == found.messages[:6]
    assert _fitted(found, 20) is None


@pytest.mark.parametrize("style", ["our own", *STYLES])
def test_calls_are_learned_and_functions_and_results_are_not(style: str, tmp_path: Path) -> None:
    ours = tokenizer()
    if style != "our own":
        written(tmp_path, style)
        ours = Tokenizer.load(tmp_path)
    found = Demonstration.model_validate(line(1 if style == "bare" else 2))
    packed, dropped = pack_demonstrations([found], ours, 6000)
    assert (len(packed), dropped) == (1, 0)
    ids, mask = ours.encode_conversation(found.model_dump(include={"messages", "tools"}))
    said = ours.backend.decode([i for i, learned in zip(ids, mask, strict=True) if learned], skip_special_tokens=False)
    heard = ours.decode([i for i, learned in zip(ids, mask, strict=True) if not learned])
    for text in ('"add", "', '{"a": 1, "b": 1}', '{"city": "巴黎", "days": 2}', "巴黎 20.5 度。", "It is 2."):
        assert text in said
    for text in ("The weather of a <city>", '"minimum": 1', "20.5}"):
        assert text in heard.replace("\\", "")
        assert text not in said
    assert said.count(ours.backend.id_to_token(ours.end_id)) == 4
