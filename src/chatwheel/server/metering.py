"""What a request uses is written down as it is used: before the work, before each piece leaves, and at its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from fastapi import Request
from sqlalchemy.orm import Session

from chatwheel.engine.requests import Completion, Delta
from chatwheel.server.streaming import ClientGoneError
from chatwheel.store import metering
from chatwheel.store.accounts import Principal
from chatwheel.store.ledger import Ledger
from chatwheel.store.metering import Left, LimitError, Tokens

T = TypeVar("T")
Status = Literal["completed", "cancelled", "failed"]
NOTHING = Tokens()


@dataclass
class Bill:
    """A request's tokens, by prompt and choice."""

    usage_id: int
    ledger: Ledger
    parts: dict[tuple[int, int], Tokens] = field(default_factory=dict)

    @property
    def tokens(self) -> Tokens:
        """All of them. A prompt counts once, however many choices it has."""
        read: dict[int, Tokens] = {}
        for (prompt, _), part in self.parts.items():
            if part.input > read.get(prompt, NOTHING).input:
                read[prompt] = Tokens(part.input, part.cached)
        return sum(read.values(), NOTHING) + Tokens(output=sum(part.output for part in self.parts.values()))

    def add(self, completions: Iterable[Completion], prompt: int = 0) -> None:
        """Whole answers to a prompt."""
        for choice, completion in enumerate(completions):
            self.parts[prompt, choice] = tokens_of(completion)

    async def take(self, choice: int, delta: Delta, prompt: int = 0) -> None:
        """A piece that is about to leave."""
        tokens = Tokens(delta.num_prompt_tokens, delta.num_cached_tokens, delta.num_tokens)
        await self.count(choice, tokens_of(delta.completion) if delta.completion else tokens, prompt)

    async def count(self, choice: int, tokens: Tokens, prompt: int = 0) -> None:
        """So much of a choice is about to leave: it is written down first."""
        if self.parts.get((prompt, choice)) != tokens:
            self.parts[prompt, choice] = tokens
            total = self.tokens
            await _done(self.ledger.write(lambda session: metering.count(session, self.usage_id, total)))


def tokens_of(completion: Completion) -> Tokens:
    """Of an answer."""
    return Tokens(completion.prompt_tokens, completion.cached_tokens, len(completion.token_ids))


class Meter:
    """Writes for one server, which `instance` names."""

    def __init__(self, ledger: Ledger, instance: str) -> None:
        self._ledger, self._instance = ledger, instance

    @asynccontextmanager
    async def request(
        self,
        principal: Principal,
        *,
        endpoint: str,
        model: str,
        priced_as: Sequence[str] = (),
        http: Request | None = None,
        request_id: str | None = None,
    ) -> AsyncIterator[Bill]:
        """A request while it is worked on; what the block raises says how it ended.

        http: whose headers tell what is left of limits. Raises LimitError before anything is done.
        """
        state = http.scope["state"] if http is not None else {}
        named = request_id or state.get("request_id") or "none"

        def begin(session: Session) -> tuple[int, Left]:
            return metering.begin(
                session,
                principal,
                request_id=named,
                endpoint=endpoint,
                model=model,
                instance=self._instance,
            )

        try:
            usage_id, state["left"] = await _done(self._ledger.write(begin))
        except LimitError as error:
            state["left"] = error.left
            raise
        bill = Bill(usage_id, self._ledger)
        status: Status = "failed"
        try:
            yield bill
            status = "completed"
        except (asyncio.CancelledError, ClientGoneError, GeneratorExit):
            status = "cancelled"
            raise
        finally:
            ended = self._ledger.write(
                lambda session: metering.finish(
                    session,
                    usage_id,
                    status,
                    bill.tokens,
                    allowances=principal.allowances,
                    priced_as=priced_as,
                )
            )
            # Not given up when the client goes away: what was used is used.
            await asyncio.shield(_done(ended))


async def _done(written: Future[T]) -> T:
    return await asyncio.wrap_future(written)
