"""What the API costs over the engine, and what it does with many streams: the real server, as a process of its own.

The server answers through a key with limits, a price and a budget, so that every request is looked up, limited and
metered. Its model has random weights. Overhead: the same request through `Assistant` in this process and through HTTP,
in turn, so that a machine that slows down slows both. Streams: 32 that answer beside 200 that only watch a run, while
another process asks for /health.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import torch

from chatwheel.assistant.orchestrator import Assistant
from chatwheel.benchmarks.compare import machine, medians_of, rounded
from chatwheel.benchmarks.workloads import NANO
from chatwheel.data.records import Message
from chatwheel.engine.requests import SamplingParams
from chatwheel.errors import ChatwheelError
from chatwheel.model.checkpoint import save_model
from chatwheel.model.tokenizer import Tokenizer
from chatwheel.model.transformer import CausalLM, initialise
from chatwheel.store import accounts, prices
from chatwheel.store.database import Database

Result = dict[str, float]
MODEL, RUN = "bench", "bench"
START_SECONDS = 180.0
LIMITS = {"overhead_p50_ms": 5.0, "overhead_p99_ms": 20.0}
HEALTH_LIMITS = {"health_p99_ms": 50.0, "wrong_answers": 0.0, "idle_dropped": 0.0}
WORDS = ("red", "boat", "seven", "under", "glass", "river", "talks", "cold", "bread", "moon")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """requests: of each kind, after a few that are not timed. answer_tokens: of a short answer. busy, idle: streams at
    a time. stream_tokens: of each busy one."""

    requests: int = 200
    answer_tokens: int = 8
    busy: int = 32
    idle: int = 200
    stream_tokens: int = 96


@dataclass(frozen=True)
class Server:
    """Where it is, what opens it, and its process."""

    host: str
    port: int
    key: str
    process: psutil.Process

    @property
    def headers(self) -> dict[str, str]:
        """Of every request."""
        return {"authorization": f"Bearer {self.key}", "content-type": "application/json"}

    def cpu_seconds(self) -> float:
        """What its threads have computed for so far."""
        times = self.process.cpu_times()
        return times.user + times.system


def measure_api(
    settings: Settings, rounds: int, on_run: Callable[[str, int], None] = lambda _name, _round: None
) -> dict[str, Any]:
    """Medians over the rounds. Raises ChatwheelError if the server does not start or ends."""
    with tempfile.TemporaryDirectory() as home, serving(Path(home)) as server:
        assistant = Assistant.load(Path(home) / "models" / MODEL)
        try:
            expected = asyncio.run(_alone(assistant, settings))
            runs: dict[str, list[Result]] = {"whole": [], "streamed": [], "streams": []}
            for number in range(rounds):
                for name, results in runs.items():
                    on_run(name, number)
                    if name == "streams":
                        results.append(asyncio.run(_streams(server, settings, expected)))
                    else:
                        results.append(_overhead(server, assistant, settings, name == "streamed", number))
        finally:
            assistant.close()
    workloads = []
    for name, results in runs.items():
        found = medians_of(results)
        engine = {key.removeprefix("engine_"): found.pop(key) for key in list(found) if key.startswith("engine_")}
        workloads.append(
            {
                "name": name,
                "settings": asdict(settings),
                "rounds": rounds,
                "ours": found,
                "peers": {"engine": engine} if engine else {},
                "limit": HEALTH_LIMITS if name == "streams" else LIMITS,
            }
        )
    result: dict[str, Any] = rounded({"benchmark": "api", "machine": machine(), "workloads": workloads})
    return result


# -- the server


@contextmanager
def serving(home: Path) -> Iterator[Server]:
    """A server with one model, one run to watch and one key, until the block ends."""
    key = _furnish(home)
    with socket.create_server(("127.0.0.1", 0)) as free:
        host, port = free.getsockname()
    environment = {k: v for k, v in os.environ.items() if k not in ("CHATWHEEL_API_KEY", "CHATWHEEL_DATABASE_URL")}
    environment |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, "-m", "chatwheel", "serve", "--home", str(home), "--port", str(port)]
    log = home / "server.log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environment)
        try:
            deadline = time.monotonic() + START_SECONDS
            while not _answers(host, port):
                if process.poll() is not None or time.monotonic() > deadline:
                    last = log.read_text(errors="replace").strip().splitlines()[-1:] or ["no message"]
                    raise ChatwheelError(f"the server did not start: {last[0]}")
                time.sleep(0.05)
            yield Server(host, port, key, psutil.Process(process.pid))
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _answers(host: str, port: int) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def _furnish(home: Path) -> str:
    """The model, the run and the key."""
    generator = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = ["".join(letters[generator.integers(0, 26, n)]) for n in generator.integers(3, 9, 20_000)]
    tokenizer = Tokenizer.train([" ".join(words)], NANO.vocab_size)
    model = CausalLM(NANO)
    initialise(model, torch.Generator().manual_seed(0))
    save_model(home / "models" / MODEL, model, tokenizer, {"stage": "sft"})
    run = home / "runs" / RUN
    run.mkdir(parents=True)
    (run / "recipe.json").write_text(json.dumps({"name": RUN, "pretrain": {}}))
    database = Database.open(f"sqlite:///{home / 'chatwheel.db'}")
    with database.write() as session:
        who = accounts.local_principal(session)
        limits = {"requests_per_minute": 10**6, "tokens_per_minute": 10**8, "budget": 10**6 * prices.DOLLAR}
        accounts.change_project(session, who.project_id, limits=limits)
        prices.set_price(session, "*", input=1, output=2)
        made = accounts.create_key(
            session,
            project_id=who.project_id,
            user_id=who.user_id,
            name="bench",
            scopes=accounts.SCOPES,
            limits=limits,
        )
    database.close()
    return made.secret


# -- overhead


def _overhead(server: Server, assistant: Assistant, settings: Settings, stream: bool, number: int) -> Result:
    """The same requests through the engine and through the API, each first in every second pair."""
    params = SamplingParams(temperature=0.0, max_tokens=settings.answer_tokens, ignore_eos=True)
    connection = http.client.HTTPConnection(server.host, server.port, timeout=60)
    times: dict[str, list[float]] = {"engine": [], "api": []}
    computed = {"engine": 0.0, "api": 0.0}
    warmup = 10
    with asyncio.Runner() as runner:

        def engine(question: str) -> int:
            return len(runner.run(assistant.answer([Message(role="user", content=question)], params)).token_ids)

        def api(question: str) -> int:
            body = _body(question, settings.answer_tokens, stream=stream, temperature=0.0)
            connection.request("POST", "/v1/chat/completions", json.dumps(body), server.headers)
            answer = connection.getresponse()
            text = answer.read()
            if answer.status != 200:
                raise ChatwheelError(f"the server said {answer.status}: {text[:200]!r}")
            last = json.loads(text.split(b"\n\n")[-3].removeprefix(b"data: ")) if stream else json.loads(text)
            return int(last["usage"]["completion_tokens"])

        for i in range(warmup + settings.requests):
            question = _question(i + 10_000 * number)
            for name in ("engine", "api") if i % 2 else ("api", "engine"):
                ask = engine if name == "engine" else api
                busy, began = _cpu(server, name), time.perf_counter()
                tokens = ask(question)
                seconds = time.perf_counter() - began
                if tokens != settings.answer_tokens:
                    raise ChatwheelError(f"the {name} gave {tokens} tokens, {settings.answer_tokens} were asked for")
                if i >= warmup:
                    times[name].append(1000 * seconds)
                    computed[name] += 1000 * (_cpu(server, name) - busy) / settings.requests
    connection.close()
    found: Result = {}
    for name, label in (("api", ""), ("engine", "engine_")):
        for key, quantile in (("p50_ms", 0.5), ("p99_ms", 0.99)):
            found[label + key] = float(np.quantile(times[name], quantile))
        found[f"{label}cpu_ms"] = computed[name]
    for key in ("p50_ms", "p99_ms", "cpu_ms"):
        found[f"overhead_{key}"] = found[key] - found[f"engine_{key}"]
    return found


def _cpu(server: Server, name: str) -> float:
    """Seconds computed by the process that answers."""
    return server.cpu_seconds() if name == "api" else time.process_time()


def _question(number: int) -> str:
    """None like another, and of the same length."""
    digits = f"{number:08d}"
    return " ".join(WORDS[int(digit)] for digit in digits)


def _body(question: str, tokens: int, **more: Any) -> dict[str, Any]:
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": question}],
        "max_tokens": tokens,
        "ignore_eos": True,
        **more,
    }
    return body | ({"stream_options": {"include_usage": True}} if more.get("stream") else {})


# -- streams


async def _alone(assistant: Assistant, settings: Settings) -> list[str]:
    """What each busy stream has to say: the same seeds, one after the other, without a server."""
    texts = []
    for number in range(settings.busy):
        params = SamplingParams(seed=number, max_tokens=settings.stream_tokens, ignore_eos=True)
        texts.append((await assistant.answer([Message(role="user", content=_question(number))], params)).text)
    return texts


async def _streams(server: Server, settings: Settings, expected: Sequence[str]) -> Result:
    """Busy and idle streams at once, and how long /health takes meanwhile."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    base = f"http://{server.host}:{server.port}"
    watching, dropped = asyncio.Semaphore(0), 0

    async with httpx.AsyncClient(base_url=base, headers=server.headers, limits=limits, timeout=120) as client:

        async def watch() -> None:
            nonlocal dropped
            async with client.stream("GET", f"/v1/runs/{RUN}/events") as answer:
                told = False
                async for line in answer.aiter_lines():
                    if line.startswith("event: run") and not told:
                        told = True
                        watching.release()
            dropped += 1  # it ends only when it is cancelled

        async def speak(number: int) -> tuple[str, int, list[float]]:
            body = _body(_question(number), settings.stream_tokens, stream=True, temperature=1.0, seed=number)
            pieces, times, tokens = [], [time.perf_counter()], 0
            async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
                async for line in answer.aiter_lines():
                    if not line.startswith("data: {"):
                        continue
                    chunk = json.loads(line.removeprefix("data: "))
                    if "error" in chunk:
                        raise ChatwheelError(f"a stream broke off: {chunk['error']}")
                    if chunk["choices"] and (text := chunk["choices"][0]["delta"].get("content")):
                        pieces.append(text)
                        times.append(time.perf_counter())
                    tokens = (chunk.get("usage") or {}).get("completion_tokens", tokens)
            return "".join(pieces), tokens, times

        idle = [asyncio.create_task(watch()) for _ in range(settings.idle)]
        try:
            for _ in idle:
                await asyncio.wait_for(watching.acquire(), 60)
            probe = _start_probe(server)
            await asyncio.sleep(0.5)  # its interpreter starts
            computed, began = server.cpu_seconds(), time.perf_counter()
            spoken = await asyncio.gather(*(speak(number) for number in range(settings.busy)))
            seconds, computed = time.perf_counter() - began, server.cpu_seconds() - computed
            health = await asyncio.to_thread(_end_probe, probe)
        finally:
            for task in idle:
                task.cancel()
            await asyncio.gather(*idle, return_exceptions=True)
    wrong = sum(
        text != wanted or tokens != settings.stream_tokens
        for (text, tokens, _), wanted in zip(spoken, expected, strict=True)
    )
    gaps = [b - a for _, _, times in spoken for a, b in pairwise(times[1:])]
    return {
        "wrong_answers": float(wrong),
        "idle_dropped": float(dropped),
        "tokens_per_second": settings.busy * settings.stream_tokens / seconds,
        "first_piece_ms": 1000 * statistics.median(times[1] - times[0] for _, _, times in spoken),
        "between_pieces_p99_ms": 1000 * float(np.quantile(gaps, 0.99)),
        "server_cores": computed / seconds,
        "health_p50_ms": 1000 * float(np.quantile(health, 0.5)),
        "health_p99_ms": 1000 * float(np.quantile(health, 0.99)),
        "health_requests": float(len(health)),
    }


def _start_probe(server: Server) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "chatwheel.benchmarks.health_probe", server.host, str(server.port)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _end_probe(probe: subprocess.Popen[str]) -> list[float]:
    told, _ = probe.communicate()
    if probe.returncode:
        raise ChatwheelError(f"the probe of /health ended with {probe.returncode}")
    seconds: list[float] = json.loads(told)
    return seconds
