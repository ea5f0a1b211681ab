"""Who serves: Chatwheel's engine and its peers on the same weights, each in a process of its own.

Requests with prompts of mixed lengths, none like another, so that no cache flatters; answers of a fixed length. At a
fixed concurrency a request is sent when another has ended; at a rate they come at random (Poisson), and wait where too
many run. Times from there to the first token (TTFT) and for each further one (TPOT), and between two tokens (ITL), are
of requests; tokens per second are of the whole.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import psutil
import torch

from chatwheel.benchmarks.contenders import peak_memory_mb
from chatwheel.benchmarks.workloads import MID, NANO
from chatwheel.engine.requests import Request, SamplingParams
from chatwheel.engine.service import Speaking
from chatwheel.model.transformer import CausalLM, initialise

Result = dict[str, float]
T = TypeVar("T")

MODELS = {"nano": NANO, "mid": MID}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """model: a name in MODELS. precision: of the weights: float32, bfloat16, int8 or int4. prompt_tokens: mean of the
    prompts' lengths, which are from half to one and a half times that. answer_tokens: of each answer. rate: requests a
    second that come at random; 0: one when another has ended. directory: with the weights. adapters: how many LoRA
    adapters the requests are spread over."""

    model: str = "nano"
    precision: str = "float32"
    concurrency: int = 1
    rate: float = 0.0
    requests: int = 8
    prompt_tokens: int = 128
    answer_tokens: int = 64
    threads: int = 2
    adapters: int = 0
    directory: str = ""


def prompts(settings: Settings, count: int, seed: int = 0) -> list[list[int]]:
    """Random tokens; lengths from half to one and a half times the mean."""
    generator = np.random.default_rng((seed, settings.concurrency))
    mean, vocab = settings.prompt_tokens, MODELS[settings.model].vocab_size
    return [
        generator.integers(10, vocab, int(n)).tolist() for n in generator.integers(mean // 2, mean * 3 // 2 + 1, count)
    ]


class Arrivals(Generic[T]):
    """Requests that wait to be sent, each with the second in which it comes, from when this is made."""

    def __init__(self, items: Sequence[T], rate: float = 0.0) -> None:
        gaps = np.random.default_rng(4).exponential(1 / rate, len(items)) if rate else np.zeros(len(items))
        self._began = time.monotonic()
        self._waiting = deque(zip((self._began + np.cumsum(gaps)).tolist(), items, strict=True))
        self._at_will = not rate

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def take(self, room: int, *, idle: bool) -> list[tuple[float, T]]:
        """Those that have come and find room, with the time when they were sent. idle: waits for the next one."""
        if idle and self._waiting:
            time.sleep(max(0.0, self._waiting[0][0] - time.monotonic()))
        now = time.monotonic()
        taken: list[tuple[float, T]] = []
        while self._waiting and len(taken) < room and self._waiting[0][0] <= now:
            due, item = self._waiting.popleft()
            taken.append((now if self._at_will else due, item))
        return taken


def model_of(settings: Settings) -> CausalLM:
    """The weights that all contenders have: random, the same each time."""
    model = CausalLM(MODELS[settings.model])
    initialise(model, torch.Generator().manual_seed(0))
    return model.eval()


@dataclass
class Clock:
    """One request's times."""

    sent: float
    tokens: list[float]


def summary(clocks: list[Clock], seconds: float) -> Result:
    """The figures of some requests that took so long together."""
    first = [c.tokens[0] - c.sent for c in clocks]
    per_token = [(c.tokens[-1] - c.tokens[0]) / (len(c.tokens) - 1) for c in clocks if len(c.tokens) > 1]
    between = [b - a for c in clocks for a, b in zip(c.tokens, c.tokens[1:], strict=False)]
    result = {"tokens_per_second": sum(len(c.tokens) for c in clocks) / seconds}
    for name, values in (("ttft", first), ("tpot", per_token), ("itl", between)):
        result[f"{name}_ms"] = 1000 * float(np.median(values))
        result[f"{name}_p99_ms"] = 1000 * float(np.quantile(values, 0.99))
    return result


def serve_chatwheel(settings: Settings) -> Result:
    """The engine, as the server drives it."""
    from chatwheel.benchmarks.serving_adapters import write_adapters
    from chatwheel.engine.engine import Engine
    from chatwheel.model.checkpoint import load_model

    began = time.perf_counter()
    torch.set_num_threads(settings.threads)
    model, tokenizer = load_model(Path(settings.directory), CausalLM)
    find = write_adapters(model, Path(settings.directory), settings.adapters)
    engine = Engine(
        model,
        tokenizer,
        max_running=max(8, settings.concurrency),
        weights=settings.precision,
        release=True,
        adapters=find,
    )
    return _timed(engine, settings, began)


def serve_vllm(settings: Settings) -> Result:
    """vLLM, driven as our engine is, with a cache of 1 GB; its processes' memory at the end is counted too."""
    from chatwheel.engine.vllm_engine import VllmEngine
    from chatwheel.model.checkpoint import load_tokenizer

    began = time.perf_counter()
    os.environ["OMP_NUM_THREADS"] = str(settings.threads)
    config, directory = MODELS[settings.model], Path(settings.directory)
    engine = VllmEngine(
        directory,
        config,
        load_tokenizer(directory, config),
        max_running=max(8, settings.concurrency),
        weights=settings.precision,
        cache_memory=2**30,
    )
    result = _timed(engine, settings, began)
    others = sum(process.memory_info().rss for process in psutil.Process().children(recursive=True)) / 2**20
    engine.close()
    return {**result, "peak_memory_mb": peak_memory_mb() + others}


def _timed(engine: Speaking, settings: Settings, began: float) -> Result:
    def ask(number: int, ids: list[int], answer_tokens: int) -> Request:
        params = SamplingParams(temperature=0.0, max_tokens=answer_tokens, ignore_eos=True)
        adapter = f"a{number % settings.adapters}" if settings.adapters else None
        return Request(prompt_ids=tuple(ids), params=params, adapter=adapter)

    def run(requests: list[Request], concurrency: int, rate: float = 0.0) -> list[Clock]:
        """Keeps at most so many requests going until all are answered."""
        waiting, done = Arrivals(requests, rate), []
        running: dict[int, float] = {}  # when each was sent
        while waiting or running:
            for sent, request in waiting.take(concurrency - len(running), idle=not running):
                running[engine.submit(request)] = sent
            for request_id, delta in engine.step():
                if delta.completion is not None and delta.completion.timing is not None:
                    done.append(Clock(running.pop(request_id), list(delta.completion.timing.tokens)))
        return done

    run([ask(0, ids, 1) for ids in prompts(settings, 1, seed=2)], 1)
    start_seconds = time.perf_counter() - began
    run([ask(i, ids, 4) for i, ids in enumerate(prompts(settings, max(4, settings.adapters), seed=3))], 4)
    requests = [ask(i, ids, settings.answer_tokens) for i, ids in enumerate(prompts(settings, settings.requests))]
    began = time.perf_counter()
    clocks = run(requests, settings.concurrency, settings.rate)
    result = summary(clocks, time.perf_counter() - began)
    many = prompts(settings, 8, seed=1)
    began = time.perf_counter()
    run([ask(i, ids, 1) for i, ids in enumerate(many)], 1)
    result["prompt_tokens_per_second"] = sum(map(len, many)) / (time.perf_counter() - began)
    return {**result, "start_seconds": start_seconds}


def serve_transformers(settings: Settings) -> Result:
    """`generate` on a batch of so many prompts, padded on the left; its first token is not told."""
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(settings.threads)
    dtype = torch.bfloat16 if settings.precision == "bfloat16" else torch.float32
    model = AutoModelForCausalLM.from_pretrained(settings.directory, dtype=dtype).eval()

    def generate(some: list[list[int]], answer_tokens: int) -> None:
        longest = max(map(len, some))
        ids = torch.tensor([[0] * (longest - len(p)) + p for p in some])
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in some])
        model.generate(
            ids,
            attention_mask=mask,
            do_sample=False,
            max_new_tokens=answer_tokens,
            min_new_tokens=answer_tokens,
            pad_token_id=0,
        )

    generate(prompts(settings, 1, seed=3), 4)
    waiting = prompts(settings, settings.requests)
    began = time.perf_counter()
    for first in range(0, len(waiting), settings.concurrency):
        generate(waiting[first : first + settings.concurrency], settings.answer_tokens)
    seconds = time.perf_counter() - began
    many = prompts(settings, 8, seed=1)
    began = time.perf_counter()
    for ids in many:
        generate([ids], 1)
    return {
        "tokens_per_second": settings.requests * settings.answer_tokens / seconds,
        "prompt_tokens_per_second": sum(map(len, many)) / (time.perf_counter() - began),
    }


def serve_llama_cpp(settings: Settings) -> Result:
    """llama.cpp's library: each step decodes a token of every running sequence, and the prompts of new ones."""
    from chatwheel.benchmarks.llama_cpp import LlamaCpp

    began = time.perf_counter()
    longest = settings.prompt_tokens * 3 // 2 + settings.answer_tokens + 1
    llama = LlamaCpp(Path(settings.directory) / f"{settings.precision}.gguf", settings, longest)

    def run(asked: list[list[int]], concurrency: int, answer_tokens: int, rate: float = 0.0) -> list[Clock]:
        """Keeps at most so many sequences going until all prompts are answered."""
        waiting, free, done = Arrivals(asked, rate), list(range(concurrency)), []
        running: dict[int, tuple[Clock, int, int]] = {}  # by sequence: times, last token, position
        while waiting or running:
            fresh = {free.pop(): sent for sent in waiting.take(len(free), idle=not running)}
            entries = [(number, [token], at) for number, (_, token, at) in running.items()]
            entries += [(number, ids, 0) for number, (_, ids) in fresh.items()]
            chosen = llama.step(entries)
            now = time.monotonic()
            for (number, ids, at), token in zip(entries, chosen, strict=True):
                clock = running[number][0] if number in running else Clock(fresh[number][0], [])
                clock.tokens.append(now)
                running[number] = (clock, token, at + len(ids))
                if len(clock.tokens) == answer_tokens:
                    done.append(running.pop(number)[0])
                    llama.forget(number)
                    free.append(number)
        return done

    run(prompts(settings, 1, seed=2), 1, 1)
    start_seconds = time.perf_counter() - began
    run(prompts(settings, 4, seed=3), min(4, settings.concurrency), 4)
    began = time.perf_counter()
    clocks = run(prompts(settings, settings.requests), settings.concurrency, settings.answer_tokens, settings.rate)
    result = summary(clocks, time.perf_counter() - began)
    many = prompts(settings, 8, seed=1)
    total = sum(map(len, many))
    began = time.perf_counter()
    run(many, 1, 1)
    result["prompt_tokens_per_second"] = total / (time.perf_counter() - began)
    return {**result, "start_seconds": start_seconds}


def memory_bandwidth(settings: Settings) -> Result:
    """The rate at which all threads together read memory, in GB/s: sums over more than any cache holds."""
    torch.set_num_threads(settings.threads)
    numbers = torch.ones(64 * 2**20)  # 256 MB
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        numbers.sum()
        best = min(best, time.perf_counter() - began)
    return {"gigabytes_per_second": 4 * numbers.numel() / best / 1e9}


CONTENDERS: dict[str, Callable[[Settings], Result]] = {
    "chatwheel": serve_chatwheel,
    "transformers": serve_transformers,
    "llama.cpp": serve_llama_cpp,
    "vllm": serve_vllm,
    "memory_bandwidth": memory_bandwidth,
}


def main() -> None:
    """Runs one contender and prints its result as the last line."""
    name, settings = sys.argv[1], Settings(**json.loads(sys.argv[2]))
    result = CONTENDERS[name](settings)
    result.setdefault("peak_memory_mb", peak_memory_mb())
    print(json.dumps(result))


def as_json(settings: Settings) -> str:
    """Settings for another process."""
    return json.dumps(asdict(settings))


def weights_mb(settings: Settings) -> float:
    """Of the weights at their precision."""
    size: dict[str, Any] = {"float32": 4, "bfloat16": 2, "int8": 1, "int4": 4.5 / 8}
    return float(MODELS[settings.model].num_parameters * size[settings.precision] / 2**20)


if __name__ == "__main__":
    main()
