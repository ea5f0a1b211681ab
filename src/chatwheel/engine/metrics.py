"""How long requests took and what they were: what an engine's service knows about itself, for whoever watches it."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from chatwheel.engine.requests import Completion

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
"""Upper bounds of the classes in which durations are counted."""


@dataclass
class Histogram:
    """How many values fell into each class. counts: one more than bounds, for what is above all of them."""

    bounds: Sequence[float] = SECONDS
    counts: list[int] = field(default_factory=list)
    total: float = 0.0

    def __post_init__(self) -> None:
        """All classes are there from the beginning."""
        self.counts = self.counts or [0] * (len(self.bounds) + 1)

    def add(self, value: float) -> None:
        """One more value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


@dataclass
class Metrics:
    """Of all requests that have ended. In seconds: queue, until a request's first step; first_token (TTFT); per_token
    after the first (TPOT), one value a request; between_tokens (ITL), one value a token; whole requests.

    finished: requests by why they ended. prompt_tokens: of their prompts, cached ones too.
    """

    queue: Histogram = field(default_factory=Histogram)
    first_token: Histogram = field(default_factory=Histogram)
    per_token: Histogram = field(default_factory=Histogram)
    between_tokens: Histogram = field(default_factory=Histogram)
    whole: Histogram = field(default_factory=Histogram)
    finished: Counter[str] = field(default_factory=Counter)
    prompt_tokens: int = 0

    def observe(self, completion: Completion, now: float) -> None:
        """A request has ended. now: on the clock of its timing."""
        self.finished[completion.finish_reason] += 1
        self.prompt_tokens += completion.prompt_tokens
        timing = completion.timing
        if timing is None:
            return
        self.whole.add(now - timing.submitted)
        if timing.began is not None:
            self.queue.add(timing.began - timing.submitted)
        for histogram, value in ((self.first_token, timing.first_token), (self.per_token, timing.per_token)):
            if value is not None:
                histogram.add(value)
        for before, after in pairwise(timing.tokens):
            self.between_tokens.add(after - before)
