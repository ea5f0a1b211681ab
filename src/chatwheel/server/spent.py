"""What a request has had of a model by now, however it ends: whole, streamed, broken off or failed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from chatwheel.engine.requests import Delta


@dataclass
class Spent:
    """The one place that counts a request's tokens. prompt_tokens: of its prompts, each once however many answers it
    got; 0 before they have been read."""

    prompt_tokens: int = 0
    _answers: dict[int, int] = field(default_factory=dict)
    _cached: dict[int, int] = field(default_factory=dict)

    def note(self, answer: int, delta: Delta, prompt: int = 0) -> None:
        """A piece of one of the answers has come. prompt: which of the prompts it is to."""
        self._answers[answer] = max(self._answers.get(answer, 0), delta.num_tokens)
        if delta.completion is not None:
            self._answers[answer] = len(delta.completion.token_ids)
            # Later answers find the prompt that the first one had computed.
            found = delta.completion.cached_tokens
            self._cached[prompt] = min(self._cached.get(prompt, found), found)

    @property
    def completion_tokens(self) -> int:
        """Of all answers, those too that nobody was shown (`best_of`)."""
        return sum(self._answers.values())

    @property
    def cached_tokens(self) -> int:
        """Of the prompts, that an earlier request had computed."""
        return sum(self._cached.values())

    def usage(self) -> dict[str, Any]:
        """OpenAI's `usage`."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": 0,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        }

    def reading(self) -> dict[str, Any]:
        """The `usage` of texts that were only read."""
        return {"prompt_tokens": self.prompt_tokens, "total_tokens": self.prompt_tokens}


Noting = Callable[[int, Delta], None]
