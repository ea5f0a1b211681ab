"""The serving benchmark: its arithmetic, its prompts, and Chatwheel's contender for real."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from chatwheel.benchmarks import compare_serving as module
from chatwheel.benchmarks.compare_serving import compare_serving
from chatwheel.benchmarks.serving import (
    Arrivals,
    Clock,
    Result,
    Settings,
    prompts,
    serve_chatwheel,
    summary,
    weights_mb,
)
from chatwheel.errors import InputError
from tests.engine.compiled import needs_kernels

# As many threads as the process has: other tests compare bits.
SMALL = Settings(requests=3, prompt_tokens=20, answer_tokens=5, concurrency=2, threads=torch.get_num_threads())


def test_figures_of_requests_by_hand() -> None:
    clocks = [Clock(0.0, [0.5, 0.6, 0.8]), Clock(1.0, [1.1, 1.3, 1.5])]
    result = summary(clocks, 2.0)
    assert result["tokens_per_second"] == 3.0
    assert result["ttft_ms"] == pytest.approx(300)
    assert result["tpot_ms"] == pytest.approx(175)
    assert result["itl_ms"] == pytest.approx(200)
    assert result["ttft_p99_ms"] == pytest.approx(496)


def test_requests_at_a_rate_come_at_random_and_wait_from_then_on() -> None:
    rate, count = 2000.0, 400
    waiting, sent = Arrivals(range(count), rate), []
    while waiting:
        some = waiting.take(3, idle=True)
        assert len(some) <= 3
        assert all(due <= time.monotonic() for due, _ in some)
        sent += some
    assert [item for _, item in sent] == list(range(count))
    gaps = np.diff([due for due, _ in sent])
    assert gaps.min() >= 0
    assert gaps.mean() == pytest.approx(1 / rate, rel=0.2)
    assert gaps.std() == pytest.approx(1 / rate, rel=0.3)  # an exponential's deviation is its mean
    assert [item for _, item in Arrivals("abc").take(2, idle=True)] == ["a", "b"]


def test_no_two_prompts_begin_alike() -> None:
    many = [tuple(p) for seed in range(4) for p in prompts(dataclasses.replace(SMALL, prompt_tokens=128), 20, seed)]
    assert len({p[:16] for p in many}) == len(many)
    lengths = [len(p) for p in many]
    assert min(lengths) >= 64
    assert max(lengths) <= 192


def test_ratios_above_one_are_good(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = {"tokens_per_second": 300.0, "prompt_tokens_per_second": 50.0, "ttft_ms": 10.0, "peak_memory_mb": 100.0}
    theirs = {"tokens_per_second": 100.0, "prompt_tokens_per_second": 100.0, "ttft_ms": 40.0, "peak_memory_mb": 50.0}

    def run(_: str, contender: str, __: str) -> Result:
        return {"memory_bandwidth": {"gigabytes_per_second": 10.0}, "chatwheel": ours, "transformers": theirs}[
            contender
        ]

    monkeypatch.setattr(module, "run_contender", run)
    monkeypatch.setattr(module, "_write", lambda *_: None)
    (workload,) = compare_serving(["transformers"], SMALL, [1], 3)["workloads"]
    assert workload["peers"]["transformers"]["ratios"] == {
        "tokens_per_second": 3.0,
        "prompt_tokens_per_second": 0.5,
        "ttft_ms": 4.0,
        "peak_memory_mb": 0.5,
    }
    read = 300 * weights_mb(SMALL) * 2**20 / 1e9
    assert workload["ours"]["share_of_memory_bandwidth"] == pytest.approx(read / 10, rel=1e-3)


@needs_kernels
@pytest.mark.parametrize("changes", [{}, {"precision": "int8"}, {"adapters": 2}, {"rate": 50.0}])
def test_chatwheel_for_real(changes: dict[str, Any], tmp_path: Path) -> None:
    settings = dataclasses.replace(SMALL, directory=str(tmp_path), **changes)
    module._write(settings, [])
    result = serve_chatwheel(settings)
    assert all(value > 0 for value in result.values())
    assert {"tokens_per_second", "ttft_ms", "tpot_ms", "itl_p99_ms", "prompt_tokens_per_second"} <= result.keys()


def test_unknown_peers_are_refused() -> None:
    with pytest.raises(InputError, match=r"knows llama.cpp, transformers, vllm"):
        compare_serving(["ollama"], SMALL, [1], 1)


def test_comparisons_that_would_not_be_fair_are_refused() -> None:
    with pytest.raises(InputError, match="--adapters"):
        compare_serving(["transformers"], dataclasses.replace(SMALL, adapters=2), [1], 1)
    with pytest.raises(InputError, match="leave out --rate"):
        compare_serving(["transformers"], dataclasses.replace(SMALL, rate=1.0), [1], 1)
    with pytest.raises(InputError, match="no int8 weights"):
        compare_serving(["transformers"], dataclasses.replace(SMALL, precision="int8"), [1], 1)
