"""`bench fine-tune`: how long a customer waits, from the file to the tuned model's first answer, and what many adapters
side by side cost. A server process and its worker, asked over HTTP as clients do; no peer does all of it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import torch

from chatwheel.benchmarks import serving
from chatwheel.benchmarks.compare import machine, medians_of, rounded, run_contender
from chatwheel.benchmarks.serving_adapters import RANK, write_adapters
from chatwheel.benchmarks.workloads import NANO
from chatwheel.errors import ChatwheelError
from chatwheel.model.checkpoint import load_model, save_model
from chatwheel.model.tokenizer import Tokenizer
from chatwheel.model.transformer import CausalLM, initialise

BASE = "nano/sft"
AIMS = {"job_seconds": 60.0, "first_answer_ms": 1000.0, "swap_ms": 200.0, "check_mb_per_second": 20.0}
SYLLABLES = [consonant + vowel for consonant in "bdfghklmnprstvw" for vowel in "aeiou"]
Result = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """examples: of a job, with so many words each. jobs: how many, one after the other; the first one's worker opens
    PyTorch. check_megabytes: of the file that is checked. adapters: side by side, in batches of `concurrency`."""

    examples: int = 100
    words: int = 40
    jobs: int = 3
    check_megabytes: int = 40
    adapters: tuple[int, ...] = (1, 4, 16, 64)
    concurrency: int = 32
    answer_tokens: int = 64
    rounds: int = 3


def bench(settings: Settings, on_part: Callable[[str], None] = lambda _part: None) -> dict[str, Any]:
    """Medians, and how much of a limit is used: a ratio above 1 means that the aim is met."""
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        tokenizer = _write_base(home / "models" / BASE)
        with _serving(home) as client:
            ours: Result = _jobs(client, settings, on_part)
            on_part(f"a file of {settings.check_megabytes} MB is checked")
            ours |= _check(client, settings)
    adapted = _side_by_side(settings, on_part)
    shown = {
        **dataclasses.asdict(settings),
        "adapters": list(settings.adapters),
        "rank": RANK,
        "vocabulary": tokenizer.vocab_size,
    }
    workload = {
        "name": "NANO",
        "settings": shown,
        "ours": ours,
        "peers": {},
        "limit": AIMS,
        "ratios": _ratios(ours),
        "adapters": adapted,
        "load": os.getloadavg()[0],
    }
    result: dict[str, Any] = rounded({"benchmark": "fine-tune", "machine": machine(), "workloads": [workload]})
    return result


def _ratios(ours: Result) -> Result:
    return {name: ours[name] / aim if name.endswith("per_second") else aim / ours[name] for name, aim in AIMS.items()}


def _write_base(directory: Path) -> Tokenizer:
    """NANO with random weights: what it says does not matter, how long it takes does."""
    tokenizer = Tokenizer.train(list(_texts(2000, 40, seed=1)), NANO.vocab_size)
    model = CausalLM(NANO)
    initialise(model, torch.Generator().manual_seed(0))
    save_model(directory, model, tokenizer, {"stage": "sft"})
    return tokenizer


def _texts(count: int, words: int, seed: int) -> Iterator[str]:
    """Of invented words, of one to four syllables: a tokenizer finds as much in them as it is asked for."""
    generator = np.random.default_rng(seed)
    for _ in range(count):
        lengths = generator.integers(1, 5, words)
        yield " ".join("".join(generator.choice(SYLLABLES, length).tolist()) for length in lengths)


def examples(count: int, words: int, seed: int = 0) -> bytes:
    """A training file: half of the words ask, half answer."""
    texts = _texts(2 * count, max(1, words // 2), seed)
    lines = []
    for asked, answered in zip(texts, texts, strict=True):
        messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
        lines.append(json.dumps({"messages": messages}) + "\n")
    return "".join(lines).encode()


@contextmanager
def _serving(home: Path) -> Iterator[httpx.Client]:
    """A server and its worker until the block ends."""
    log = home / "server.log"
    command = [sys.executable, "-m", "chatwheel", "serve", "--home", str(home), "--port", "0"]
    environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
    environment.pop("CHATWHEEL_API_KEY", None)
    with log.open("wb") as said:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=environment)
    try:
        with httpx.Client(base_url=_address(process, log), timeout=600) as client:
            yield client
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            for one in psutil.Process(process.pid).children(recursive=True):
                one.kill()
            process.kill()
            process.wait()


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        found = re.search(r"Page\s+(http://\S+)", log.read_text())
        if found is not None:
            try:
                httpx.get(f"{found[1]}/health", timeout=5)
            except httpx.HTTPError:
                pass
            else:
                return found[1]
        time.sleep(0.05)
    last = (log.read_text().strip() or "no message").splitlines()[-1]
    raise ChatwheelError(f"the server did not start: {last}")


def _jobs(client: httpx.Client, settings: Settings, on_part: Callable[[str], None]) -> Result:
    _first_token(client, BASE)  # the base is in memory
    results = []
    for number in range(settings.jobs):
        on_part(f"job {number + 1} of {settings.jobs}")
        results.append(_job(client, settings, number))
    return {"first_job_seconds": results[0]["job_seconds"], **medians_of(results)}


def _job(client: httpx.Client, settings: Settings, number: int) -> Result:
    file = _upload(client, examples(settings.examples, settings.words, seed=number))
    began = time.perf_counter()
    job = _sent(client.post("/v1/fine_tuning/jobs", json={"model": BASE, "training_file": file, "seed": number}))
    while job["status"] not in ("succeeded", "failed"):
        time.sleep(0.02)
        job = _sent(client.get(f"/v1/fine_tuning/jobs/{job['id']}"))
    seconds = time.perf_counter() - began
    if job["status"] == "failed":
        raise ChatwheelError(f"the job failed: {job['error']['message']}")
    first = _first_token(client, job["fine_tuned_model"])
    checkpoints = _sent(client.get(f"/v1/fine_tuning/jobs/{job['id']}/checkpoints?limit=100"))["data"]
    swaps = []
    for checkpoint in checkpoints[1:]:  # each is an adapter that the server has not seen yet
        cold, warm = (_first_token(client, checkpoint["fine_tuned_model_checkpoint"]) for _ in range(2))
        swaps.append(cold - warm)
    return {
        "job_seconds": seconds,
        "tokens_per_second": job["trained_tokens"] / seconds,
        "first_answer_ms": 1000 * first,
        "swap_ms": 1000 * statistics.median(swaps),
        "swap_max_ms": 1000 * max(swaps),
    }


def _first_token(client: httpx.Client, model: str) -> float:
    """Seconds until something of an answer is there."""
    body = {"model": model, "messages": [{"role": "user", "content": "time"}], "max_tokens": 2, "stream": True}
    began = time.perf_counter()
    with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        if answer.status_code != 200:
            answer.read()
            _sent(answer)
        next(answer.iter_bytes())
        return time.perf_counter() - began


def _check(client: httpx.Client, settings: Settings) -> Result:
    """With shapes and duplicates, without tokens."""
    some = examples(2000, settings.words, seed=7)
    content = b"".join(
        some.replace(b'"content": "', f'"content": "{part} '.encode())
        for part in range(-(-settings.check_megabytes * 10**6 // len(some)))
    )
    file = _upload(client, content)
    rates = []
    for _ in range(settings.rounds):
        began = time.perf_counter()
        report = _sent(client.post(f"/v1/files/{file}/check", json={"method": "supervised"}))
        rates.append(len(content) / 1e6 / (time.perf_counter() - began))
        if not report["ok"]:
            raise ChatwheelError(f"the file's check found {report['errors'][0]}")
    return {"check_mb_per_second": statistics.median(rates)}


def _upload(client: httpx.Client, content: bytes) -> str:
    files = {"file": ("train.jsonl", content)}
    return str(_sent(client.post("/v1/files", data={"purpose": "fine-tune"}, files=files))["id"])


def _sent(answer: httpx.Response) -> Any:
    body = answer.json()
    if answer.status_code != 200:
        raise ChatwheelError(f"the server answered {answer.status_code}: {body['error']['message']}")
    return body


def _side_by_side(settings: Settings, on_part: Callable[[str], None]) -> dict[str, Result]:
    """By the number of adapters that a batch is spread over: its speed, as a share of the speed without any, and memory
    beyond that of one adapter, for each further one."""
    with tempfile.TemporaryDirectory() as directory:
        at = serving.Settings(
            directory=directory,
            concurrency=settings.concurrency,
            requests=3 * settings.concurrency,
            answer_tokens=settings.answer_tokens,
            threads=torch.get_num_threads(),
        )
        place = Path(directory)
        save_model(place, serving.model_of(at), Tokenizer.train([" ".join(map(chr, range(33, 127)))], 262), {})
        write_adapters(load_model(place, CausalLM)[0], place, max(settings.adapters))
        counts = (0, *settings.adapters)
        runs: dict[int, list[Result]] = {count: [] for count in counts}
        for number in range(settings.rounds):
            for count in _turned(counts, number):  # nobody is always first
                on_part(f"round {number + 1} of {settings.rounds}: {count} adapters")
                asked = dataclasses.replace(at, adapters=count, requests=max(at.requests, count))
                runs[count].append(run_contender("serving", "chatwheel", serving.as_json(asked)))
    medians = {count: medians_of(results) for count, results in runs.items()}
    return {str(count): _row(count, medians, min(settings.adapters)) for count in counts}


def _turned(counts: Sequence[int], number: int) -> Sequence[int]:
    first = number % len(counts)
    return [*counts[first:], *counts[:first]]


def _row(count: int, medians: dict[int, Result], fewest: int) -> Result:
    row = {name: medians[count][name] for name in ("tokens_per_second", "ttft_ms", "tpot_ms", "peak_memory_mb")}
    if count:
        row["ratio"] = row["tokens_per_second"] / medians[0]["tokens_per_second"]
    if count > fewest:
        more = row["peak_memory_mb"] - medians[fewest]["peak_memory_mb"]
        row["memory_mb_per_adapter"] = more / (count - fewest)
    return row
