"""The arithmetic of the benchmarks, and one contender for real."""

from __future__ import annotations

import importlib.util
import statistics
from typing import Any

import pytest

from chatwheel.benchmarks import compare as module
from chatwheel.benchmarks.compare import compare
from chatwheel.benchmarks.contenders import CONTENDERS, Result, matrix_peak
from chatwheel.benchmarks.workloads import LONGEST, MEDIAN, NANO, SHORTEST, Settings, conversations
from chatwheel.errors import ChatwheelError, InputError

SPEEDS = {
    "matrix_peak": [{"gflops": 100.0, "peak_memory_mb": 1.0}] * 3,
    "pretrain_chatwheel": [{"tokens_per_second": s, "peak_memory_mb": 500.0} for s in (900.0, 1000.0, 5000.0)],
    "pretrain_transformers": [{"tokens_per_second": s, "peak_memory_mb": 1000.0} for s in (1.0, 500.0, 600.0)],
    "pretrain_transformers_compiled": [{"tokens_per_second": 800.0, "peak_memory_mb": 750.0}] * 3,
}


def test_medians_of_interleaved_runs_become_ratios(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def run(contender: str, settings: Settings) -> Result:  # noqa: ARG001
        order.append(contender)
        return SPEEDS[contender][order.count(contender) - 1]

    monkeypatch.setattr(module, "_run", run)
    result = compare("pretrain", ["transformers"], Settings(), 3)
    assert order == list(SPEEDS) * 3
    (workload,) = result["workloads"]
    assert (workload["name"], workload["rounds"]) == ("NANO", 3)
    assert workload["ours"]["tokens_per_second"] == 1000
    plain, compiled = workload["peers"]["transformers"], workload["peers"]["transformers-compiled"]
    assert (plain["ratio"], plain["memory_ratio"]) == (2.0, 2.0)
    assert (compiled["ratio"], compiled["memory_ratio"]) == (1.25, 1.5)
    share = 1000 * nano_flops(256) / 100e9
    assert workload["ours"]["share_of_peak"] == pytest.approx(share, rel=1e-3)


def nano_flops(length: int) -> float:
    """Of a token, counted by hand."""
    assert (NANO.hidden_size, NANO.num_layers, NANO.intermediate_size, NANO.vocab_size) == (256, 6, 672, 4096)
    matrices = 6 * (4 * 256 * 256 + 3 * 256 * 672) + 4096 * 256
    # Scores and values: 2 products of 2 x T/2 x D each, forwards, and twice that backwards.
    attention = 6 * 3 * 2 * 2 * length // 2 * 256
    return 6 * matrices + attention


def test_lengths_are_log_normal() -> None:
    lengths = [len(c) for c in conversations(Settings(conversations=2000))]
    assert abs(statistics.median(lengths) - MEDIAN) < 5
    assert min(lengths) >= SHORTEST
    assert max(lengths) == LONGEST
    assert statistics.mean(lengths) > MEDIAN + 5


def test_an_unknown_or_absent_peer_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="knows trl"):
        compare("sft", ["nanochat"], Settings(), 1)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"not installed; pip install 'chatwheel\[bench\]'"):
        compare("sft", ["trl"], Settings(), 1)


def test_a_contender_that_fails_says_why() -> None:
    with pytest.raises(ChatwheelError, match="sft_nobody ended with 1: KeyError: 'sft_nobody'"):
        module._run("sft_nobody", Settings())


def test_the_peak_is_a_rate() -> None:
    peak = matrix_peak(Settings())["gflops"]
    assert 1 < peak < 100_000


@pytest.mark.parametrize("name", ["pretrain_chatwheel", "sft_chatwheel"])
def test_our_contenders_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    small: dict[str, Any] = {"rows": 2, "row_length": 256, "steps": 1, "warmup": 1, "conversations": 12}
    monkeypatch.setattr("torch.nn.Module.compile", lambda *_, **__: None)  # compiling is tested elsewhere
    assert CONTENDERS[name](Settings(**small))["tokens_per_second"] > 0
