"""An answer asked for on an event loop, with a real engine behind it."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from chatwheel.assistant import orchestrator
from chatwheel.assistant.orchestrator import Assistant
from chatwheel.data.records import FunctionCall, Message, ToolCall
from chatwheel.engine.requests import SamplingParams
from chatwheel.engine.tools import ToolUse
from chatwheel.model.checkpoint import save_model
from tests.tiny import causal, tokenizer


def test_what_takes_long_to_encode_is_not_encoded_on_the_event_loop(tmp_path: Path) -> None:
    save_model(tmp_path / "model", causal(), tokenizer(), {})
    assistant = Assistant.load(tmp_path / "model")
    called = ToolCall(id="c", function=FunctionCall(name="f", arguments=json.dumps({"text": "x " * 1000})))
    asked = Message(role="user", content="Hi")
    result = Message(role="tool", content="", tool_call_id="c")
    short = [asked]
    long = {
        "words": [Message(role="user", content="word " * 1000)],
        "turns": [asked, Message(role="assistant", content="")] * 100 + [asked],
        "calls": [asked, Message(role="assistant", content="", tool_calls=[called]), result],
    }
    threads: list[int] = []
    encode = assistant._encode

    def noted(messages: Sequence[Message], tools: ToolUse | None = None) -> tuple[int, ...]:
        threads.append(threading.get_ident())
        return encode(messages, tools)

    assistant._encode = noted  # type: ignore[method-assign]
    try:
        asyncio.run(assistant.encode(short))
        assert threads.pop() == threading.get_ident()
        for name, messages in long.items():
            asyncio.run(assistant.encode(messages))
            assert threads.pop() != threading.get_ident(), name
    finally:
        assistant.close()


def test_while_a_prompt_is_rendered_the_event_loop_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_model(tmp_path / "model", causal(), tokenizer(), {})
    assistant = Assistant.load(tmp_path / "model")
    rendering, others_went_on = threading.Event(), threading.Event()
    encode = assistant._encode

    def long_rendering(messages: Sequence[Message], tools: ToolUse | None = None) -> tuple[int, ...]:
        rendering.set()
        assert others_went_on.wait(30)
        return encode(messages, tools)

    async def both() -> str:
        monkeypatch.setattr(assistant, "_encode", long_rendering)
        monkeypatch.setattr(orchestrator, "SHORT", 1)
        hello = [Message(role="user", content="Hi")]
        asked = asyncio.create_task(assistant.answer(hello, SamplingParams(temperature=0.0, max_tokens=5)))
        while not rendering.is_set():
            await asyncio.sleep(0.001)
        others_went_on.set()
        return (await asked).text

    try:
        expected = assistant.chat("Hi", SamplingParams(temperature=0.0, max_tokens=5))
        assert asyncio.run(both()) == expected
    finally:
        assistant.close()
