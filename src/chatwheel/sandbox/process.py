"""Runs a program of Python in a confined process, and says what it wrote and how it ended.

Linux only: Landlock (5.13) for files and seccomp for all else, which need neither root nor a setting of the machine's,
and work in containers. `confinement.py` is what happens inside. A program that cannot be confined is not run.
"""

from __future__ import annotations

import ctypes
import functools
import json
import os
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from chatwheel.errors import InputError

INSIDE = Path(__file__).with_name("confinement.py").read_text(encoding="utf-8")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """seconds: of the clock. cpu_seconds: of the processor, which depends less on what else runs. memory: bytes of
    address space, of which Python itself takes 30 MB. output: bytes of each of the two streams, after which the program
    is killed."""

    seconds: float = 10.0
    cpu_seconds: int = 10
    memory: int = 512 * 2**20
    output: int = 2**16


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """ended: by itself, or killed for its time or its output. exit: its code, negative for a signal."""

    ended: Literal["by itself", "timed out", "wrote too much"]
    exit: int
    stdout: bytes
    stderr: bytes
    seconds: float

    @property
    def succeeded(self) -> bool:
        """The program came to its end, or to its exit, without an error. Only what a trusted program says so is to be
        believed: `os._exit(0)` looks the same."""
        return self.ended == "by itself" and self.exit == 0


def run(source: str, *, stdin: bytes = b"", partner: str | None = None, limits: Limits = Limits()) -> Outcome:
    """Runs `source` as `__main__`, without arguments, environment, files, threads, child processes and network; the
    standard library can be imported.

    partner: a program to run beside it in a process of its own, as confined. Each then finds in `CHANNEL` the file
    descriptors from which it reads what the other one wrote, and to which it writes. When the program ends, so does the
    partner. May be called by many threads at a time. Raises InputError where there is no sandbox.
    """
    check_available()
    return _run(source, stdin, partner, limits)


@functools.cache
def check_available() -> None:
    """Raises InputError, with what is missing, where programs cannot be confined."""
    if sys.platform != "linux":
        raise InputError("code is run in a sandbox, and this system has none for it: use Linux, or Docker")
    if _library() is None:
        raise InputError("code is run in a sandbox, which needs libseccomp: apt install libseccomp2")
    outcome = _run("print('confined')", b"", None, Limits())
    if outcome.stdout != b"confined\n":
        said = outcome.stderr.decode(errors="replace").strip().splitlines() or ["it did not start"]
        raise InputError(f"code is run in a sandbox, which does not work here ({said[-1]}); it needs Linux 5.13")


@functools.cache
def _library() -> str | None:
    name = "libseccomp.so.2"
    try:
        ctypes.CDLL(name)
    except OSError:
        return None
    return name


def _run(source: str, stdin: bytes, partner: str | None, limits: Limits) -> Outcome:
    began = time.monotonic()
    with tempfile.TemporaryFile() as given, _channels(partner) as channels:
        given.write(stdin)
        given.seek(0)
        process = _start(source, channels[:2], limits, stdin=given)
        other = None
        try:
            if partner is not None:
                other = _start(partner, channels[2:], limits)
            for end in channels:
                os.close(end)
            channels.clear()
            ended, stdout, stderr = _listen(process, limits, began + limits.seconds)
        finally:
            for each in (process, other):
                if each is not None:
                    each.kill()  # it has no children: it cannot make any
                    each.wait()
            for pipe in (process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()
    return Outcome(ended=ended, exit=process.returncode, stdout=stdout, stderr=stderr, seconds=time.monotonic() - began)


@contextmanager
def _channels(partner: str | None) -> Iterator[list[int]]:
    """File descriptors: where the program reads and writes, and where its partner does. Closed at the end, unless the
    list has been emptied."""
    ends: list[int] = []
    if partner is not None:
        (from_partner, to_program), (from_program, to_partner) = os.pipe(), os.pipe()
        ends += [from_partner, to_partner, from_program, to_program]
    try:
        yield ends
    finally:
        for end in ends:
            os.close(end)


def _start(source: str, channel: list[int], limits: Limits, stdin: IO[bytes] | None = None) -> subprocess.Popen[bytes]:
    """stdin: a file; without one, the process is a partner, and heard through its channel only."""
    job = {
        "source": source,
        "channel": channel,
        "limits": {"cpu_seconds": limits.cpu_seconds, "memory": limits.memory},
        "readable": _readable(),
        "library": _library(),
        "parent": os.getpid(),
    }
    with tempfile.TemporaryFile() as file:
        file.write(json.dumps(job).encode())
        file.seek(0)
        return subprocess.Popen(
            [
                getattr(sys, "_base_executable", None) or sys.executable,
                *("-S", "-s", "-P", "-B", "-X", "utf8"),
                *("-c", f"{INSIDE}\nmain({file.fileno()})"),
            ],
            stdin=subprocess.DEVNULL if stdin is None else stdin,
            stdout=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stderr=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            pass_fds=[file.fileno(), *channel],
            cwd="/",
            env={"PYTHONHASHSEED": "0"},  # the same answer gets the same reward each time
            start_new_session=True,
        )


@functools.cache
def _readable() -> list[str]:
    """Python's library and the system's, which it loads on demand."""
    prefixes = {sys.base_prefix, sys.base_exec_prefix}
    return [
        *sorted(f"{prefix}/lib" for prefix in prefixes),
        *("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share/zoneinfo", "/dev/null", "/dev/urandom"),
    ]


def _listen(
    process: subprocess.Popen[bytes], limits: Limits, until: float
) -> tuple[Literal["by itself", "timed out", "wrote too much"], bytes, bytes]:
    assert process.stdout is not None and process.stderr is not None  # noqa: PT018 -- both or neither
    heard = {process.stdout: b"", process.stderr: b""}
    with selectors.DefaultSelector() as selector:
        for pipe in heard:
            selector.register(pipe, selectors.EVENT_READ, pipe)
        ended: Literal["by itself", "timed out", "wrote too much"] = "by itself"
        while selector.get_map() and ended == "by itself":
            ready = selector.select(max(0.0, until - time.monotonic()))
            if not ready:
                ended = "timed out"
            for key, _ in ready:
                part = os.read(key.fd, 2**16)
                if not part:
                    selector.unregister(key.data)
                heard[key.data] += part
                if len(heard[key.data]) > limits.output:
                    ended = "wrote too much"
    if ended == "by itself":
        try:
            process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            ended = "timed out"
    stdout, stderr = (text[: limits.output] for text in heard.values())
    return ended, stdout, stderr
