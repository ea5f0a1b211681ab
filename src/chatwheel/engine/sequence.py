"""A request on its way: how it wants its tokens, and what it has so far."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from chatwheel.engine.batch import FloatArray
from chatwheel.engine.detokenizer import Detokenizer
from chatwheel.engine.pooling import Pooling
from chatwheel.engine.requests import Completion, Delta, FinishReason, Request, SamplingParams, Timing, TokenLogprobs
from chatwheel.engine.sampling import adjusts
from chatwheel.engine.speculation import NgramDrafter
from chatwheel.engine.structured import Matcher


@dataclass(kw_only=True, slots=True, eq=False)
class Sequence:
    """number: its id. stops: tokens that end it. adapter: the number of its own, -1 for none.

    adjusts: whether its scores are changed before a token is drawn from them.
    """

    number: int
    request: Request
    seed: int
    max_tokens: int
    stops: frozenset[int]
    text: Detokenizer
    pooling: Pooling | None = None
    adapter: int = -1
    matcher: Matcher | None = None
    drafter: NgramDrafter | None = None
    params: SamplingParams = field(init=False)
    adjusts: bool = field(init=False)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    top: list[tuple[tuple[int, float], ...]] = field(default_factory=list)
    prompt: list[TokenLogprobs] = field(default_factory=list)
    cached_tokens: int = 0
    submitted: float = field(default_factory=time.monotonic)
    began: float | None = None
    times: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        """What is asked at every token is looked up once."""
        self.params = self.request.params
        self.adjusts = adjusts(self.params)

    def begin(self, cached_tokens: int) -> None:
        """It runs for the first time. cached_tokens: of the prompt, that need no computing."""
        self.cached_tokens, self.began = cached_tokens, time.monotonic()

    def append(self, token_id: int, logprob: float, now: float) -> FinishReason | None:
        """One more token; why it is the last one, if it is."""
        self.token_ids.append(token_id)
        self.logprobs.append(logprob)
        self.times.append(now)
        if self.drafter is not None:
            self.drafter.add(token_id)
        if self.matcher is not None:
            self.matcher.take(token_id)
        count = len(self.token_ids)
        if token_id in self.stops and count > self.params.min_tokens:
            return "stop"
        self.text.add(token_id, may_stop=count > self.params.min_tokens)
        if self.text.stopped:
            return "stop"
        if self.matcher is not None and self.matcher.complete:
            return "length" if self.matcher.failed else "stop"  # what broke off must not be taken for whole
        return "length" if count >= self.max_tokens else None

    def read_again(self) -> None:
        """What was noted of its prompt holds no more."""
        self.prompt.clear()
        if self.pooling is not None:
            self.pooling = Pooling(self.request.task, len(self.request.prompt_ids))

    def piece(self, text: str) -> Delta:
        """What there is to send now."""
        return Delta(
            text=text,
            num_tokens=len(self.token_ids),
            num_prompt_tokens=len(self.request.prompt_ids),
            num_cached_tokens=self.cached_tokens,
        )

    def finish(
        self, reason: FinishReason, *, embedding: FloatArray | None = None, score: float | None = None
    ) -> Completion:
        """The answer as it is now."""
        return Completion(
            token_ids=tuple(self.token_ids),
            logprobs=tuple(self.logprobs),
            text=self.text.text,
            finish_reason=reason,
            prompt_tokens=len(self.request.prompt_ids),
            top=tuple(self.top),
            prompt=tuple(self.prompt),
            embedding=None if embedding is None else tuple(embedding.tolist()),
            score=score,
            cached_tokens=self.cached_tokens,
            timing=Timing(submitted=self.submitted, began=self.began, tokens=tuple(self.times)),
        )
