"""Graders' questions to other models of the installation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from chatwheel.data.records import Json
from chatwheel.engine.engine import Engine
from chatwheel.engine.requests import Request, SamplingParams
from chatwheel.jobs.fine_tuning.graders import Sampling
from chatwheel.model.transformer import CausalLM
from chatwheel.store.loading import open_model

MOST_TOKENS = 256
AT_ONCE = 32


class Asker:
    """Answers as `graders.Ask` wants them, by models that are opened when they are first asked and stay in memory.

    find: the directory of a model by its name; raises InputError or ModelNotFoundError.
    """

    def __init__(self, find: Callable[[str], Path]) -> None:
        self._find = find
        self._engines: dict[str, Engine] = {}

    def __call__(self, model: str, conversations: Sequence[list[Json]], sampling: Sampling) -> list[str]:
        """The answers' texts, in order."""
        engine = self._engines.get(model)
        if engine is None:
            opened, tokenizer = open_model(self._find(model), CausalLM)
            engine = self._engines[model] = Engine(opened, tokenizer, max_running=AT_ONCE)
        params = SamplingParams(
            temperature=0.0 if sampling.temperature is None else sampling.temperature,
            top_p=max(sampling.top_p or 1.0, 1e-9),
            max_tokens=sampling.max_completions_tokens or MOST_TOKENS,
            seed=sampling.seed or 0,
        )
        requests = [
            Request(prompt_ids=tuple(engine.tokenizer.encode_prompt(messages)), params=params)
            for messages in conversations
        ]
        return [completion.text for completion in engine.generate(requests)]
