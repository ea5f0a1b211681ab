"""`chatwheel serve` in a process of its own, with its worker, and the official client for it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from openai import OpenAI

ENDED = ("succeeded", "failed", "cancelled")


@dataclass(frozen=True)
class Served:
    """Where it answers, and what it has said."""

    url: str
    log: Path

    def client(self, key: str = "unused") -> OpenAI:
        """One that tries nothing twice."""
        return OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=120)


@contextmanager
def serving(home: Path, *options: str) -> Iterator[Served]:
    """Serves a home on a free port until the block ends, and then ends in order."""
    log = home / "server.log"
    command = [sys.executable, "-m", "chatwheel", "serve", "--home", str(home), "--port", "0", *options]
    environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
    with log.open("wb") as said:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=environment)
    try:
        yield Served(_address(process, log), log)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in log.read_text(), log.read_text()


def _address(process: subprocess.Popen[bytes], log: Path, seconds: float = 90.0) -> str:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        found = re.search(r"Page\s+(http://\S+)", log.read_text())
        if found:
            try:
                httpx.get(f"{found[1]}/health", timeout=5).raise_for_status()
            except httpx.HTTPError:
                pass
            else:
                return found[1]
        time.sleep(0.05)
    raise AssertionError(f"it did not start: {log.read_text()}")


def wait_for(client: OpenAI, job: str, *statuses: str, seconds: float = 240.0) -> Any:
    """The job, once it has one of the statuses (one of those that end it, unless said otherwise). Looks often, as who
    measures does."""
    deadline = time.monotonic() + seconds
    while True:
        found = client.fine_tuning.jobs.retrieve(job)
        if found.status in (statuses or ENDED):
            return found
        assert found.status not in ENDED, found
        assert time.monotonic() < deadline, found
        time.sleep(0.02)
