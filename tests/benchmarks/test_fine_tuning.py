"""The fine-tuning benchmark: its arithmetic, and a small one for real."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from chatwheel.benchmarks.fine_tuning import Settings, _row, _turned, bench, examples
from chatwheel.jobs.fine_tuning.file_check import check
from tests.engine.compiled import needs_kernels


def test_its_files_are_right(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_bytes(examples(50, 40))
    report = check(path, "supervised")
    assert (report.ok, report.examples, report.warnings) == (True, 50, [])
    assert examples(50, 40) == path.read_bytes() != examples(50, 40, seed=1)


def test_adapters_are_compared_with_none_and_with_the_fewest() -> None:
    figures = {"ttft_ms": 1.0, "tpot_ms": 1.0}
    medians = {
        0: {"tokens_per_second": 200.0, "peak_memory_mb": 100.0, **figures},
        1: {"tokens_per_second": 150.0, "peak_memory_mb": 110.0, **figures},
        5: {"tokens_per_second": 100.0, "peak_memory_mb": 118.0, **figures},
    }
    assert "ratio" not in _row(0, medians, 1)
    assert _row(1, medians, 1)["ratio"] == 0.75
    assert "memory_mb_per_adapter" not in _row(1, medians, 1)
    assert _row(5, medians, 1)["memory_mb_per_adapter"] == 2.0
    assert [_turned((0, 1, 5), number) for number in range(3)] == [[0, 1, 5], [1, 5, 0], [5, 0, 1]]


@pytest.mark.slow
@needs_kernels
def test_a_small_one_for_real() -> None:
    settings = Settings(
        examples=8, jobs=1, check_megabytes=1, adapters=(1, 2), concurrency=2, answer_tokens=4, rounds=1
    )
    (workload,) = bench(settings)["workloads"]
    assert {"job_seconds", "first_answer_ms", "swap_ms", "check_mb_per_second"} <= workload["ours"].keys()
    assert workload["ours"]["job_seconds"] > 0
    assert workload["ratios"]["job_seconds"] == pytest.approx(60 / workload["ours"]["job_seconds"], rel=1e-2)
    assert list(workload["adapters"]) == ["0", "1", "2"]
    assert json.loads(json.dumps(workload)) == workload


def test_numbers_of_adapters_that_are_none() -> None:
    command = [sys.executable, "-m", "chatwheel", "bench", "fine-tune", "--adapters", "1,many"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "--adapters 1,many: expected numbers by commas" in done.stderr
