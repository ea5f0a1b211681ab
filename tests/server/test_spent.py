"""A request's tokens are counted however it ends."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

from chatwheel.assistant.orchestrator import Assistant
from chatwheel.engine.requests import Completion, Delta, SamplingParams
from chatwheel.model.checkpoint import save_model
from chatwheel.server.spent import Spent
from tests.tiny import causal, tokenizer


def ended(tokens: int, cached: int) -> Delta:
    completion = Completion(
        token_ids=(5,) * tokens,
        logprobs=(0.0,) * tokens,
        text="",
        finish_reason="stop",
        prompt_tokens=40,
        cached_tokens=cached,
    )
    return Delta(text="", num_tokens=tokens, completion=completion)


def test_all_answers_count_and_a_prompt_was_cached_as_its_first_answer_found_it() -> None:
    spent = Spent(prompt_tokens=80)
    spent.note(0, ended(7, 16), 0)
    spent.note(1, ended(5, 32), 0)  # found what the first one had computed
    spent.note(2, ended(3, 0), 1)
    usage = spent.usage()
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (80, 15, 95)
    assert usage["prompt_tokens_details"]["cached_tokens"] == 16


def test_a_stream_that_is_broken_off_has_cost_what_came(tmp_path: Path) -> None:
    save_model(tmp_path / "model", causal(), tokenizer(), {})
    assistant = Assistant.load(tmp_path / "model")
    params = SamplingParams(seed=1, max_tokens=30, ignore_eos=True, logprobs=True)

    async def run() -> tuple[Spent, int, int]:
        broken, shown, whole = Spent(), 0, Spent()
        prompt = assistant.tokenizer.encode_text("Hello")
        async with aclosing(assistant.go_on(prompt, params)) as deltas:  # type: ignore[type-var]
            async for delta in deltas:
                broken.note(0, delta)
                shown += len(delta.tokens)
                if shown >= 9:
                    break
        total = 0
        async for delta in assistant.go_on(prompt, params):
            whole.note(0, delta)
            total = delta.num_tokens
        return broken, shown, total if whole.completion_tokens == total else -1

    try:
        broken, shown, total = asyncio.run(run())
    finally:
        assistant.close()
    assert total == 30
    assert shown <= broken.completion_tokens < total
