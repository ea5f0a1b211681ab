"""Answers of the current policy to a batch of prompts."""

from __future__ import annotations

from collections.abc import Sequence

from chatwheel.engine.engine import Engine
from chatwheel.engine.requests import Completion, Request, SamplingParams


def sample_answers(
    engine: Engine,
    prompts: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    seeds: Sequence[int],
    temperature: float = 1.0,
    adapter: str | None = None,
) -> list[Completion]:
    """One answer a prompt from the policy's own distribution: no truncation, so that log-probs mean what they say."""
    requests = [
        Request(
            prompt_ids=tuple(prompt),
            params=SamplingParams(temperature=temperature, max_tokens=max_tokens, seed=seed),
            adapter=adapter,
        )
        for prompt, seed in zip(prompts, seeds, strict=True)
    ]
    return engine.generate(requests)
