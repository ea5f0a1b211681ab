"""A request on its way: how it wants its tokens, and what it has so far."""

from __future__ import annotations

import time
from bisect import bisect_left
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

    begins: where in the text each token begins, if that is wanted. told: how many of them somebody knows.
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
    begins: list[int] = field(default_factory=list)
    prompt: list[TokenLogprobs] = field(default_factory=list)
    told: int = 0
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
        ends = token_id in self.stops and count > self.params.min_tokens
        if self.params.logprobs:
            self.begins.append(len(self.text.text) if ends else self.text.length)
        if ends:
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

    def delta(self, reason: FinishReason | None = None) -> Delta:
        """The text that can be shown now. reason: why it has ended, if it has."""
        first = not self.text.num_given
        text = self.text.take(final=reason is not None)
        begin = self.told
        if self.params.logprobs:
            self.told = bisect_left(self.begins, self.text.num_given)
        return Delta(
            text=text,
            tokens=self._tokens(begin, self.told),
            prompt=tuple(self.prompt) if first else (),
            num_tokens=len(self.token_ids),
            completion=None if reason is None else self.finish(reason),
        )

    def _tokens(self, begin: int, end: int) -> tuple[TokenLogprobs, ...]:
        return tuple(
            TokenLogprobs(
                token_id=self.token_ids[i],
                logprob=self.logprobs[i],
                top=self.top[i] if self.top else (),
                begin=self.begins[i],
            )
            for i in range(begin, end)
        )

    def finish(
        self, reason: FinishReason, *, embedding: FloatArray | None = None, score: float | None = None
    ) -> Completion:
        """The answer as it is now."""
        text = self.text.text
        return Completion(
            token_ids=tuple(self.token_ids),
            logprobs=tuple(self.logprobs),
            text=text,
            finish_reason=reason,
            prompt_tokens=len(self.request.prompt_ids),
            top=tuple(self.top),
            tokens=self._tokens(0, len(self.begins)),
            shown=bisect_left(self.begins, len(text)),
            prompt=tuple(self.prompt),
            embedding=None if embedding is None else tuple(embedding.tolist()),
            score=score,
            cached_tokens=self.cached_tokens,
            timing=Timing(submitted=self.submitted, began=self.began, tokens=tuple(self.times)),
        )
