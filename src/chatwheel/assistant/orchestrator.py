"""One answer: a conversation goes in, the engine's text comes out. The doors (server, terminal) know only this."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from chatwheel.data.records import Message
from chatwheel.engine.requests import Completion, Delta, SamplingParams


class Assistant:
    """A model that is ready to answer conversations."""

    @staticmethod
    def load(directory: Path) -> Assistant:
        """Opens a model directory in Hugging Face layout."""
        raise NotImplementedError

    @property
    def context_length(self) -> int:
        """How many tokens a prompt and its answer may have together."""
        raise NotImplementedError

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """The prompt's tokens after the chat template."""
        raise NotImplementedError

    def chat(self, message: str | Sequence[Message], params: SamplingParams | None = None) -> str:
        """The answer's text; greedy unless `params` says otherwise. Blocks."""
        raise NotImplementedError

    async def stream(self, messages: Sequence[Message], params: SamplingParams) -> AsyncIterator[Delta]:
        """The answer in pieces; concurrent calls share the engine's batch. Closing the iterator cancels."""
        raise NotImplementedError
        yield

    async def complete(self, messages: Sequence[Message], params: SamplingParams) -> Completion:
        """The whole answer."""
        raise NotImplementedError

    def close(self) -> None:
        """Stops the engine's thread."""
        raise NotImplementedError
