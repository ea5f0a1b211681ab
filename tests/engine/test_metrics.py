"""How long requests took, counted."""

from __future__ import annotations

from chatwheel.engine.metrics import Histogram, Metrics
from chatwheel.engine.requests import Completion, Timing


def test_a_value_falls_into_the_class_that_it_does_not_exceed() -> None:
    histogram = Histogram(bounds=(1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 2.5, 9.0):
        histogram.add(value)
    assert (histogram.counts, histogram.total) == ([2, 2, 2], 16.5)


def test_an_answers_times_are_told_apart() -> None:
    metrics = Metrics()
    timing = Timing(submitted=10.0, began=10.5, tokens=(11.0, 11.25, 12.0))
    common = {"token_ids": (1, 2, 3), "logprobs": (0.0,) * 3, "text": "abc", "prompt_tokens": 7}
    metrics.observe(Completion(**common, finish_reason="length", timing=timing), now=12.5)  # type: ignore[arg-type]
    never_ran = Timing(submitted=1.0, tokens=())
    metrics.observe(Completion(**common, finish_reason="cancelled", timing=never_ran), now=2.0)  # type: ignore[arg-type]
    assert metrics.queue.total == 0.5
    assert metrics.first_token.total == 1.0
    assert metrics.per_token.total == 0.5
    assert (sum(metrics.between_tokens.counts), metrics.between_tokens.total) == (2, 1.0)
    assert metrics.whole.total == 3.5
    assert metrics.finished == {"length": 1, "cancelled": 1}
    assert metrics.prompt_tokens == 14
