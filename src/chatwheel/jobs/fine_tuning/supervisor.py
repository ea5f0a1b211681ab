"""Keeps a worker beside a server: a process of its own, begun again when it dies, ended with the server."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from chatwheel.settings import Settings

logger = logging.getLogger(__name__)
END_SECONDS = 15.0
LONGEST_WAIT = 30.0
PARENT_SECONDS = 1.0


@contextmanager
def worker_beside(settings: Settings, ending: threading.Event) -> Iterator[None]:
    """A worker while the block runs, or until `ending` is set: it lets its job go while answers are finished."""
    thread = threading.Thread(target=_keep, args=(settings, ending), name="worker's keeper", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()


def end_with_parent(stop: threading.Event) -> None:
    """Sets `stop` when the process that started this one is gone, however it went: `kill -9` tells nobody."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_SECONDS)
        stop.set()

    threading.Thread(target=watch, name="parent", daemon=True).start()


def _keep(settings: Settings, ending: threading.Event) -> None:
    wait = 0.5
    while not ending.is_set():
        began = time.monotonic()
        process = _start(settings)
        while process.poll() is None and not ending.wait(0.2):
            pass
        if ending.is_set():
            _end(process)
            return
        logger.warning("the fine-tuning worker ended (%s); another one starts", process.returncode)
        wait = 0.5 if time.monotonic() - began > 60 else min(LONGEST_WAIT, 2 * wait)
        ending.wait(wait)


def _start(settings: Settings) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "chatwheel", "worker", "--beside", "--home", str(settings.home)]
    # A group of its own: Ctrl+C is the server's, which then ends the worker in order.
    environment = {**os.environ, "CHATWHEEL_DATABASE_URL": settings.database_url}
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, env=environment, start_new_session=True)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:  # in the middle of a long step: what it had saved is there
        process.kill()
        process.wait()
