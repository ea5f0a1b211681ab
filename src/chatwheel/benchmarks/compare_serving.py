"""`bench serve`: every contender once a round at every concurrency, medians, ratios."""

from __future__ import annotations

import dataclasses
import importlib.util
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from chatwheel.benchmarks.compare import machine, medians_of, rounded, run_contender
from chatwheel.benchmarks.llama_cpp import write_gguf
from chatwheel.benchmarks.serving import Result, Settings, as_json, model_of, weights_mb
from chatwheel.errors import InputError
from chatwheel.model.checkpoint import save_model
from chatwheel.model.tokenizer import Tokenizer

PEERS = {"llama.cpp": ("llama_cpp", "gguf"), "transformers": ("transformers",), "vllm": ("vllm",)}
"""What `--against` may name, and the modules that it needs."""


def compare_serving(
    against: Sequence[str],
    settings: Settings,
    concurrencies: Sequence[int],
    rounds: int,
    on_run: Callable[[str, int], None] = lambda _name, _round: None,
) -> dict[str, Any]:
    """A ratio above 1 means that Chatwheel is better. Raises InputError for a peer that is unknown or not installed."""
    for peer in against:
        if peer not in PEERS:
            raise InputError(f"--against {peer}: `bench serve` knows {', '.join(PEERS)}")
        if any(importlib.util.find_spec(module) is None for module in PEERS[peer]):
            raise InputError(f"--against {peer}: not installed; pip install {' '.join(PEERS[peer])}".replace("_", "-"))
    if settings.adapters and against:
        raise InputError(
            "--adapters: the peers here speak through none; compare with `--against ''` and without adapters"
        )
    if settings.rate and "transformers" in against:
        raise InputError("--against transformers: it answers batches, and takes nobody in between; leave out --rate")
    for peer in {"transformers", "vllm"} & set(against):
        if settings.precision in ("int8", "int4"):
            raise InputError(
                f"--against {peer}: it has no {settings.precision} weights on a CPU; choose another precision"
            )
    with tempfile.TemporaryDirectory() as directory:
        settings = dataclasses.replace(settings, directory=directory, threads=torch.get_num_threads())
        _write(settings, against)
        bandwidth = run_contender("serving", "memory_bandwidth", as_json(settings))["gigabytes_per_second"]
        workloads = []
        for concurrency in concurrencies:
            # Long enough to measure, and each one's turn comes several times.
            requests = max(12, 3 * concurrency)
            at = dataclasses.replace(settings, concurrency=concurrency, requests=requests)
            runs: dict[str, list[Result]] = {name: [] for name in ("chatwheel", *against)}
            for number in range(rounds):
                names = list(runs)
                for name in names[number % len(names) :] + names[: number % len(names)]:  # nobody is always first
                    on_run(f"{name} at {concurrency}", number)
                    runs[name].append(run_contender("serving", name, as_json(at)))
            medians = {name: medians_of(results) for name, results in runs.items()}
            ours = medians.pop("chatwheel")
            if concurrency == 1:
                read = weights_mb(at) * 2**20 / 1e9  # each token reads all weights once
                ours["share_of_memory_bandwidth"] = ours["tokens_per_second"] * read / bandwidth
            peers = {name: {**theirs, "ratios": _ratios(ours, theirs)} for name, theirs in medians.items()}
            workloads.append({"concurrency": concurrency, "rounds": rounds, "ours": ours, "peers": peers})
    shown = {
        key: value for key, value in dataclasses.asdict(settings).items() if key not in ("directory", "concurrency")
    }
    result: dict[str, Any] = rounded(
        {
            "benchmark": "serve",
            "machine": machine(),
            "settings": shown,
            "limit": {"memory_gigabytes_per_second": bandwidth, "weights_mb": weights_mb(settings)},
            "workloads": workloads,
        }
    )
    return result


def _write(settings: Settings, against: Sequence[str]) -> None:
    """The weights, as each contender reads them."""
    model, directory = model_of(settings), Path(settings.directory)
    # Prompts are tokens already; any vocabulary does.
    tokenizer = Tokenizer.train([" ".join(map(chr, range(33, 127)))], 262)
    save_model(directory, model, tokenizer, {})
    if "llama.cpp" in against:
        write_gguf(model, directory / f"{settings.precision}.gguf", settings.precision)


def _ratios(ours: Result, theirs: Result) -> Result:
    """How many times as many tokens, and how many times sooner."""
    ratios = {name: ours[name] / theirs[name] for name in ("tokens_per_second", "prompt_tokens_per_second")}
    for name in ("ttft_ms", "tpot_ms", "itl_p99_ms", "start_seconds", "peak_memory_mb"):
        if name in theirs:
            ratios[name] = theirs[name] / ours[name]
    return ratios
