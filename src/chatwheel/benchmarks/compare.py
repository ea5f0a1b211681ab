"""Runs contenders in turn, several times, and puts medians and ratios side by side."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch

from chatwheel.benchmarks.contenders import Result, as_json
from chatwheel.benchmarks.workloads import NANO, Settings, conversations
from chatwheel.errors import ChatwheelError, InputError
from chatwheel.model.transformer import CausalLM
from chatwheel.training.throughput import Work, training_flops

PEERS: dict[str, dict[str, tuple[str, ...]]] = {
    "pretrain": {"transformers": ("transformers", "transformers_compiled")},
    "sft": {"trl": ("trl", "trl_grouped", "trl_wrapped")},
}
"""By benchmark, what `--against` may name, and the ways in which each is run."""


def compare(
    benchmark: str,
    against: Sequence[str],
    settings: Settings,
    rounds: int,
    on_run: Callable[[str, int], None] = lambda _name, _round: None,
) -> dict[str, Any]:
    """Every contender once a round, so that a machine that slows down slows all of them: medians over the rounds.

    A ratio above 1 means that Chatwheel is better. Raises InputError for a peer that is unknown or not installed.
    """
    ways = [way for peer in against for way in _ways(benchmark, peer)]
    runs: dict[str, list[Result]] = {name: [] for name in ("matrix_peak", "chatwheel", *ways)}
    for number in range(rounds):
        for name in runs:
            on_run(name, number)
            contender = name if name == "matrix_peak" else f"{benchmark}_{name}"
            runs[name].append(_run(contender, settings))
    medians = {name: medians_of(results) for name, results in runs.items()}
    peak, ours = medians.pop("matrix_peak")["gflops"], medians.pop("chatwheel")
    length = settings.row_length
    if benchmark == "sft":
        lengths = [len(c) for c in conversations(settings)]
        length = round(sum(n * n for n in lengths) / sum(lengths))  # of the conversation that a token is in, on average
    ours["share_of_peak"] = _share(ours, length, peak)
    peers = {}
    for name, theirs in medians.items():
        peers[name.replace("_", "-")] = {
            **theirs,
            "share_of_peak": _share(theirs, length, peak),
            "ratio": ours["tokens_per_second"] / theirs["tokens_per_second"],
            "memory_ratio": theirs["peak_memory_mb"] / ours["peak_memory_mb"],
        }
    workload = {
        "name": "NANO",
        "settings": {**json.loads(as_json(settings)), "dtype": str(settings.dtype).removeprefix("torch.")},
        "rounds": rounds,
        "ours": ours,
        "peers": peers,
        "limit": {"matrix_gflops": peak},
    }
    result: dict[str, Any] = rounded({"benchmark": benchmark, "machine": machine(), "workloads": [workload]})
    return result


def _ways(benchmark: str, peer: str) -> tuple[str, ...]:
    known = PEERS[benchmark]
    if peer not in known:
        raise InputError(f"--against {peer}: `bench {benchmark}` knows {', '.join(known)}")
    if importlib.util.find_spec(peer) is None:
        raise InputError(f"--against {peer}: not installed; pip install 'chatwheel[bench]'")
    return known[peer]


def _run(contender: str, settings: Settings) -> Result:
    return run_contender("contenders", contender, as_json(settings))


def run_contender(module: str, contender: str, settings: str) -> Result:
    """One contender in a process of its own. Raises ChatwheelError with its last words if it fails."""
    command = [sys.executable, "-m", f"chatwheel.benchmarks.{module}", contender, settings]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    outcome = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if outcome.returncode:
        last = (outcome.stderr.strip() or "no message").splitlines()[-1]
        raise ChatwheelError(f"{contender} ended with {outcome.returncode}: {last}")
    result: Result = json.loads(outcome.stdout.strip().splitlines()[-1])
    return result


def medians_of(results: Sequence[Result]) -> Result:
    """Of each figure."""
    return {key: statistics.median(r[key] for r in results) for key in results[0]}


def _share(result: Result, length: int, peak: float) -> float:
    with torch.device("meta"):
        model = CausalLM(NANO)
    # On average a token sees half of what it is in.
    flops = training_flops(model, Work(tokens=1, seen=length / 2, predicted=1))
    return result["tokens_per_second"] * flops / 1e9 / peak


def machine() -> dict[str, Any]:
    """Where the figures come from."""
    return {
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "capability": torch.backends.cpu.get_cpu_capability(),
    }


def rounded(value: Any) -> Any:
    """Four digits of every number."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value
