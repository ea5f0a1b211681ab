"""What Prometheus reads: each loaded model's engine, in its own words (vLLM's names, with our prefix)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from chatwheel.engine.engine import Counts
    from chatwheel.engine.metrics import Histogram, Metrics

COUNTERS = {
    "steps": "Steps that the engine has computed.",
    "computed_tokens": "Positions that were computed, of prompts and answers.",
    "cached_tokens": "Positions of prompts that an earlier request had computed.",
    "generation_tokens": "Tokens of answers.",
    "preemptions": "Times that a request gave its place in the cache to another one.",
    "guessed_tokens": "Tokens that were guessed (speculative decoding).",
    "accepted_tokens": "Guesses that came true.",
}
GAUGES = {
    "requests_running": "Requests in the batch.",
    "requests_waiting": "Requests in the queue.",
    "cache_blocks": "Blocks of the key-value cache.",
    "cache_blocks_held": "Blocks that running requests hold.",
}
OWN = {"computed_tokens", "preemptions", "guessed_tokens", "accepted_tokens", "cache_blocks", "cache_blocks_held"}
DURATIONS = {
    "request_queue_seconds": "Until a request's first step.",
    "time_to_first_token_seconds": "Until an answer's first token (TTFT).",
    "time_per_output_token_seconds": "A token after the first, mean of an answer (TPOT).",
    "inter_token_latency_seconds": "Between one token and the next (ITL).",
    "request_duration_seconds": "Until a request's end.",
}


def registry(engines: Callable[[], Mapping[str, tuple[Counts, Metrics]]]) -> CollectorRegistry:
    """What is read at the moment that somebody asks. engines: the loaded models' counts and metrics, by name."""
    found = CollectorRegistry()
    found.register(_Engines(engines))
    return found


class _Engines(Collector):
    def __init__(self, engines: Callable[[], Mapping[str, tuple[Counts, Metrics]]]) -> None:
        self._engines = engines

    def collect(self) -> Iterable[Metric]:
        """All of them, as they are now."""
        counters = {n: CounterMetricFamily(f"chatwheel_{n}", text, labels=["model"]) for n, text in COUNTERS.items()}
        gauges = {n: GaugeMetricFamily(f"chatwheel_{n}", text, labels=["model"]) for n, text in GAUGES.items()}
        durations = {
            n: HistogramMetricFamily(f"chatwheel_{n}", text, labels=["model"]) for n, text in DURATIONS.items()
        }
        prompts = CounterMetricFamily("chatwheel_prompt_tokens", "Tokens of ended requests' prompts.", labels=["model"])
        ended = CounterMetricFamily("chatwheel_requests", "Ended requests.", labels=["model", "finish_reason"])
        for model, (counts, metrics) in self._engines().items():
            prompts.add_metric([model], metrics.prompt_tokens)
            for reason, count in dict(metrics.finished).items():  # the engine goes on meanwhile
                ended.add_metric([model, reason], count)
            for name, value in _counted(counts).items():
                if name in OWN and not counts.blocks:  # another engine, which does not tell
                    continue
                (counters if name in counters else gauges)[name].add_metric([model], value)
            for name, histogram in _measured(metrics).items():
                buckets = _buckets(histogram)
                durations[name].add_metric([model], buckets=buckets, sum_value=histogram.total)
        return [*counters.values(), *gauges.values(), *durations.values(), prompts, ended]


def _counted(counts: Counts) -> dict[str, int]:
    return {
        "steps": counts.steps,
        "computed_tokens": counts.computed_tokens,
        "cached_tokens": counts.cached_tokens,
        "generation_tokens": counts.generated_tokens,
        "preemptions": counts.preemptions,
        "guessed_tokens": counts.guesses,
        "accepted_tokens": counts.accepted_guesses,
        "requests_running": counts.running,
        "requests_waiting": counts.waiting,
        "cache_blocks": counts.blocks,
        "cache_blocks_held": counts.blocks_held,
    }


def _measured(metrics: Metrics) -> dict[str, Histogram]:
    measured = (metrics.queue, metrics.first_token, metrics.per_token, metrics.between_tokens, metrics.whole)
    return dict(zip(DURATIONS, measured, strict=True))


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    bounds = [*map(str, histogram.bounds), "+Inf"]
    return list(zip(bounds, map(float, accumulate(histogram.counts)), strict=True))
