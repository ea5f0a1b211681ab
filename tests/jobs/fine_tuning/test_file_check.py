"""The check of an uploaded file: what passes is what training reads, and what does not is named by line and field."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from chatwheel.data.records import Demonstration
from chatwheel.errors import InputError
from chatwheel.jobs.fine_tuning.examples import Kind, read_line
from chatwheel.jobs.fine_tuning.file_check import MOST_FAULTS, check, count_tokens, read_examples
from chatwheel.jobs.fine_tuning.lines import Limits, Line
from tests import tiny

USER = {"role": "user", "content": "What is the capital of France?"}
ANSWER = {"role": "assistant", "content": "Paris"}
CALL = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": '{"x": 1}'}}
CALLS = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "Paris"}


def _file(tmp_path: Path, *lines: object) -> Path:
    path = tmp_path / "train.jsonl"
    path.write_bytes(
        b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines) + b"\n"
    )
    return path


def _chat(*messages: Any, **more: Any) -> dict[str, Any]:
    return {"messages": list(messages), **more}


def _faults(tmp_path: Path, *lines: object, kind: Kind = "supervised") -> list[str]:
    return [str(fault) for fault in check(_file(tmp_path, *lines), kind).errors]


def test_a_right_file_gives_the_records_that_training_reads(tmp_path: Path) -> None:
    system = {"role": "developer", "content": [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}]}
    path = _file(
        tmp_path,
        _chat(system, USER, {**ANSWER, "weight": 0}, USER, {**ANSWER, "weight": 1, "name": "guide"}),
        _chat(USER, CALLS, RESULT, ANSWER, tools=[{"type": "function", "function": {"name": "look_up"}}]),
    )
    report = check(path, "supervised")
    assert (report.ok, report.examples, report.errors) == (True, 2, [])
    first, second = read_examples(path, "supervised")
    assert isinstance(first, Demonstration)
    assert isinstance(second, Demonstration)
    assert (first.messages[0].role, first.messages[0].content) == ("system", "Be brief.")
    assert [m.weight for m in first.messages if m.role == "assistant"] == [0, 1]
    assert second.messages[1].tool_calls is not None
    assert second.messages[1].tool_calls[0].function.name == "look_up"
    assert second.tools == [{"type": "function", "function": {"name": "look_up"}}]


def test_preferences_and_reinforcement(tmp_path: Path) -> None:
    good, bad = {"role": "assistant", "content": "Paris"}, {"role": "assistant", "content": "Rome"}
    path = _file(tmp_path, {"input": _chat(USER), "preferred_output": [good], "non_preferred_output": [bad]})
    assert check(path).kind == "preference"
    (ranking,) = read_examples(path, "preference")
    assert (ranking.answers, ranking.ranks) == (["Paris", "Rome"], [1, 2])  # type: ignore[union-attr]
    line = _chat(USER, answer="Paris", id=7)
    path = _file(tmp_path, line)
    assert check(path).kind == "reinforcement"
    (prompt,) = read_examples(path, "reinforcement")
    assert json.loads(prompt.reference) == line  # type: ignore[union-attr,arg-type]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"{", "line 1: not JSON (EOF while parsing an object at column 1); write one object a line"),
        (b"[1]", "line 1: expected an object, found a list"),
        ({}, "line 1, messages: is missing"),
        (_chat(), "line 1, messages: expected messages, found 0"),
        (_chat(USER), "line 1, messages[0].role: the last message must be the assistant's, which is what is learnt"),
        (_chat(ANSWER), "line 1, messages[0].role: expected the user's turn, found the assistant's; join neighbours"),
        (_chat(USER, {"role": "bot", "content": "a"}), "line 1, messages[1].role: 'bot' is no role; roles are system,"),
        (_chat(USER, {"content": "a"}), "line 1, messages[1].role: is missing"),
        (
            _chat(USER, {"role": "assistant", "content": 3}),
            "line 1, messages[1].content: expected text, found a number",
        ),
        (_chat(USER, {"role": "assistant"}), "line 1, messages[1].content: is missing; only a message with tool_calls"),
        (_chat(USER, {**ANSWER, "weight": 0.5}), "line 1, messages[1].weight: expected 0 or 1, found 0.5"),
        (_chat(USER, {**ANSWER, "weight": 0}), "line 1, messages: every answer has weight 0, so there is nothing"),
        (_chat({**USER, "weight": 1}, ANSWER), "line 1, messages[0].weight: only assistant messages of supervised"),
        (_chat(USER, ANSWER, functions=[]), "line 1, functions: is the old form; say it with tools"),
        (_chat(USER, ANSWER, mood="good"), "line 1, mood: is not known here; take it out"),
        (_chat(USER, {"role": "system", "content": ""}, ANSWER), "line 1, messages[1].role: a system message may only"),
        (_chat(USER, CALLS, ANSWER), "line 1, messages[2].role: the call 'c1' needs its result first"),
        (_chat(USER, RESULT, ANSWER), "line 1, messages[1].tool_call_id: no call before it waits for this result"),
        ({"prompt": "a", "completion": "b"}, "line 1, messages: is missing"),
        (b'{"messages": NaN}', "line 1, messages: expected a list, found a number"),
        (b'{"messages": [{"role": "user", "content": "\xff"}]}', "line 1: not valid UTF-8 (at byte 44 of the line, 43"),
        (b"[" * 100_000, "line 1: not JSON (recursion limit exceeded"),
        (b'{"a": "\\ud800"}', "line 1: not JSON ("),
    ],
)
def test_faults_are_told_by_line_and_field(tmp_path: Path, line: object, expected: str) -> None:
    assert _faults(tmp_path, line)[0].startswith(expected)


def test_pictures_are_refused_by_name(tmp_path: Path) -> None:
    picture = [{"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}]
    faults = _faults(tmp_path, _chat({"role": "user", "content": picture}, ANSWER))
    assert faults[0].startswith("line 1, messages[0].content[0].type: expected 'text', found 'image_url'; only text")


@pytest.mark.parametrize("number", ["1e400", "NaN", "-Infinity"])
def test_numbers_that_are_none_are_refused_wherever_anything_may_stand(tmp_path: Path, number: str) -> None:
    tools = f'[{{"type": "function", "function": {{"name": "f", "parameters": {{"maximum": [{number}]}}}}}}]'
    line = f'{{"messages": {json.dumps([USER, ANSWER])}, "tools": {tools}}}'.encode()
    assert _faults(tmp_path, line)[0].startswith("line 1, tools[0].function.parameters.maximum[0]: the number is not")
    line = f'{{"messages": {json.dumps([USER])}, "limits": {{"low": {number}}}}}'.encode()
    assert _faults(tmp_path, line, kind="reinforcement")[0].startswith("line 1, limits.low: the number is not finite")


def test_functions_are_for_supervised_examples_and_a_last_message_for_what_follows(tmp_path: Path) -> None:
    line = {"input": _chat(USER, ANSWER), "preferred_output": [ANSWER, ANSWER], "non_preferred_output": [CALLS]}
    faults = _faults(tmp_path, line, kind="preference")
    assert faults[0] == "line 1, preferred_output: expected one message, found 2"
    assert any(fault.startswith("line 1, non_preferred_output[0].tool_calls: cannot be here") for fault in faults)
    line = {"input": _chat(USER, ANSWER), "preferred_output": [ANSWER], "non_preferred_output": [ANSWER]}
    assert _faults(tmp_path, line, kind="preference")[0].startswith("line 1, input.messages[1].role: the last message")


def test_faults_are_counted_beyond_the_first_hundred(tmp_path: Path) -> None:
    report = check(_file(tmp_path, *([_chat(USER)] * 250), _chat(USER, ANSWER)), "supervised")
    assert (len(report.errors), report.num_errors, report.examples, report.ok) == (MOST_FAULTS, 250, 1, False)
    assert report.summary().endswith("(and 249 more errors)")
    assert json.loads(json.dumps(report.to_json()))["errors"][99]["line"] == 100


def test_line_numbers_count_blank_lines_and_other_ends_and_marks_are_read(tmp_path: Path) -> None:
    good, bad = json.dumps(_chat(USER, ANSWER)).encode(), json.dumps(_chat(USER)).encode()
    path = tmp_path / "windows.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + good + b"\r\n\r\n" + good + b"\r\n" + bad)
    report = check(path, "supervised")
    assert [fault.line for fault in report.errors] == [4]
    assert report.examples == 2
    assert {
        word for w in report.warnings for word in ("byte order mark", "CRLF", "repeated", "fewer") if word in w
    } == {
        "byte order mark",
        "CRLF",
        "repeated",
        "fewer",
    }


def test_what_is_no_text_file_is_named(tmp_path: Path) -> None:
    for content, expected in (
        (b"", "the file is empty; write one example a line"),
        (b"\n \r\n", "the file is empty; write one example a line"),
        ('{"messages": []}'.encode("utf-16"), "the file is UTF-16 text; save it as UTF-8"),
        (b"PK\x03\x04....", "the file is a zip (or an Excel) file; unpack it and upload JSON Lines"),
        (gzip.compress(b"{}\n" * 1000)[:-10], "damaged gzip file"),
    ):
        path = tmp_path / "odd.jsonl"
        path.write_bytes(content)
        report = check(path, "supervised")
        assert not report.ok
        assert report.errors[0].message.startswith(expected)


def test_gzip_is_read_and_a_bomb_is_not(tmp_path: Path) -> None:
    line = json.dumps(_chat(USER, ANSWER)).encode() + b"\n"
    path = tmp_path / "packed.jsonl.gz"
    path.write_bytes(gzip.compress(line * 20))
    assert check(path, "supervised").examples == 20
    limits = Limits(ratio_from=100_000)
    path.write_bytes(gzip.compress(b" " * 3_000_000 + b"\n"))
    assert "unpacks to more than 200 times" in check(path, "supervised", limits=limits).errors[0].message
    path.write_bytes(gzip.compress(line * 20_000))  # word for word the same, a hundredth
    assert "larger than 1 MB unpacked" in check(path, "supervised", limits=Limits(file_bytes=10**6)).errors[0].message


def test_a_line_without_end_takes_no_more_memory_than_a_line_may(tmp_path: Path) -> None:
    path = tmp_path / "endless.jsonl"
    with path.open("wb") as file:
        file.truncate(200_000_000)  # zeros, which take no room on the disk
        file.seek(0, 2)
        file.write(b"\n" + json.dumps(_chat(USER, ANSWER)).encode())
    tracemalloc.start()
    report = check(path, "supervised", limits=Limits(line_bytes=10**6))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [str(fault) for fault in report.errors] == [
        "line 1: the line is longer than 1 MB; is there a line for each example?"
    ]
    assert report.examples == 1
    assert peak < 8_000_000


def test_tokens_are_those_of_training(tmp_path: Path) -> None:
    tokenizer = tiny.tokenizer()
    long = {**ANSWER, "content": "Paris " * 50}
    lines = [_chat(USER, {**ANSWER, "weight": 0}, USER, ANSWER), _chat(USER, long)]
    path = _file(tmp_path, *lines)
    encoded = [tokenizer.encode_conversation(line["messages"]) for line in lines]
    report = check(path, "supervised", tokenizer=tokenizer, context=80)
    assert report.tokens is not None
    assert report.tokens.trained == sum(sum(mask) for _, mask in encoded)
    assert report.tokens.prompt + report.tokens.trained == sum(len(ids) for ids, _ in encoded)
    assert (report.tokens.too_long, report.tokens.first_too_long) == (1, 2)
    assert report.tokens.longest == len(encoded[1][0])
    assert any(w.startswith("1 examples are longer than 80 tokens") for w in report.warnings)
    alone = tokenizer.encode_conversation([USER, ANSWER])
    path = _file(
        tmp_path, {"input": _chat(USER, ANSWER, USER), "preferred_output": [ANSWER], "non_preferred_output": [long]}
    )
    counted = count_tokens(path, "preference", tokenizer)
    assert counted.trained == sum(alone[1]) + sum(encoded[1][1])  # the answer of the first turn is context
    path = _file(tmp_path, _chat(USER, answer="x"))
    counted = count_tokens(path, "reinforcement", tokenizer)
    assert (counted.prompt, counted.trained) == (len(tokenizer.encode_prompt([USER])), 0)


def test_training_is_told_the_line_of_a_fault(tmp_path: Path) -> None:
    path = _file(tmp_path, _chat(USER, ANSWER), _chat(USER))
    with pytest.raises(InputError, match=r"line 2, messages\[0\]\.role: the last message must be the assistant's"):
        list(read_examples(path, "supervised"))


def test_a_grader_may_have_its_say(tmp_path: Path) -> None:
    path = _file(tmp_path, _chat(USER, answer="Paris"), _chat(USER))
    report = check(path, "reinforcement", check_example=lambda item: None if "answer" in item else "no answer there")
    assert [str(fault) for fault in report.errors] == ["line 2: no answer there"]


_turn = st.sampled_from(
    [
        USER,
        ANSWER,
        {"role": "system", "content": "s"},
        CALLS,
        RESULT,
        {**ANSWER, "weight": 0},
        {"role": "tool", "content": "x"},
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(_turn, min_size=1, max_size=7))
def test_what_passes_is_what_the_records_take(messages: list[dict[str, Any]]) -> None:
    found = read_line(Line(1, 0, json.dumps(_chat(*messages)).encode()), "supervised")
    try:
        Demonstration.model_validate(_chat(*messages))
        learnt = any(m["role"] == "assistant" and m.get("weight") != 0 for m in messages)
    except ValidationError:
        learnt = False
    assert isinstance(found, dict) == learnt
