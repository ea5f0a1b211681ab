"""`bench ppo` and `bench grpo`: Chatwheel and every way of a peer once a round, medians, ratios."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

from chatwheel.benchmarks.compare import machine, medians_of, rounded, run_contender
from chatwheel.benchmarks.contenders import Result
from chatwheel.benchmarks.rlhf import Settings, as_json, update_flops
from chatwheel.errors import InputError

WAYS = {name: {"trl": ("trl", "trl_float32", "trl_bfloat16")} for name in ("ppo", "grpo")}
"""By benchmark, what `--against` may name, and the ways in which each is run."""
OURS = {"ppo": ("chatwheel", "chatwheel_head"), "grpo": ("chatwheel",)}
"""Ways in which Chatwheel is run; the first one does a peer's work."""


def compare_rlhf(
    benchmark: str,
    against: Sequence[str],
    settings: Settings,
    rounds: int,
    on_run: Callable[[str, int], None] = lambda _name, _round: None,
) -> dict[str, Any]:
    """A ratio above 1 means that Chatwheel is better. Raises InputError for a peer that is unknown or not installed."""
    for peer in against:
        _check(benchmark, peer)
    ways = [way for peer in against for way in WAYS[benchmark][peer]]
    runs: dict[str, list[Result]] = {name: [] for name in ("matrix_peak", *OURS[benchmark], *ways)}
    for number in range(rounds):
        for name in runs:
            on_run(name, number)
            contender = name if name == "matrix_peak" else f"{benchmark}_{name}"
            runs[name].append(run_contender("rlhf", contender, as_json(settings)))
    medians = {name: medians_of(results) for name, results in runs.items()}
    peak, ours = medians.pop("matrix_peak")["gflops"], medians.pop("chatwheel")
    flops, head = update_flops(benchmark, settings), medians.pop("chatwheel_head", None)
    for figures in (ours, *medians.values()):
        figures["update_share_of_peak"] = flops / 1e9 / figures["update_seconds"] / peak
    peers = {}
    for name, theirs in medians.items():
        peers[name.replace("_", "-")] = {
            **theirs,
            "ratio": ours["answers_per_second"] / theirs["answers_per_second"],
            "memory_ratio": theirs["peak_memory_mb"] / ours["peak_memory_mb"],
        }
        if head is not None:
            peers[name.replace("_", "-")]["ratio_head"] = head["answers_per_second"] / theirs["answers_per_second"]
    workload = {
        "name": "NANO",
        "settings": {**dataclasses.asdict(settings), "dtype": str(settings.dtype).removeprefix("torch.")},
        "rounds": rounds,
        "ours": ours,
        **({"ours_head": head} if head is not None else {}),
        "peers": peers,
        "limit": {"matrix_gflops": peak},
    }
    result: dict[str, Any] = rounded({"benchmark": benchmark, "machine": machine(), "workloads": [workload]})
    return result


def _check(benchmark: str, peer: str) -> None:
    known = WAYS[benchmark]
    if peer not in known:
        raise InputError(f"--against {peer}: `bench {benchmark}` knows {', '.join(known)}")
    if importlib.util.find_spec(peer) is None:
        raise InputError(f"--against {peer}: not installed; pip install 'trl<1.13' datasets")
    if benchmark != "ppo":
        return
    # Newer ones have no PPO. Looked for without importing it, which takes seconds.
    parents = [peer, f"{peer}.experimental", f"{peer}.experimental.{benchmark}"]
    if any(importlib.util.find_spec(module) is None for module in parents):
        raise InputError(f"--against {peer}: this version has no PPO, which left it after 1.12; pip install 'trl<1.13'")
