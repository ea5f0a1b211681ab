"""Processes that work beside a server: begun by it in a thread of its own, and gone when it goes, however that is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from chatwheel.settings import Settings

END_SECONDS = 15.0
LOOK_SECONDS = 0.2
PARENT_SECONDS = 1.0


@contextmanager
def kept(
    keep: Callable[[Settings, threading.Event], None], settings: Settings, ending: threading.Event
) -> Iterator[None]:
    """`keep` runs in a thread while the block does, or until `ending` is set, which it looks at."""
    thread = threading.Thread(target=keep, args=(settings, ending), name=keep.__module__, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()


def run_beside(
    arguments: Sequence[str], settings: Settings, ending: threading.Event, *, silent: bool = False
) -> int | None:
    """Runs `chatwheel ... --beside` to its end; its exit status, or None where `ending` came first: then it has a
    moment to end in order. silent: what it writes besides errors is nobody's to read. Raises OSError where no process
    can be begun."""
    process = subprocess.Popen(
        [sys.executable, "-m", "chatwheel", *arguments, "--beside", "--home", str(settings.home)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL if silent else None,
        env={**os.environ, "CHATWHEEL_DATABASE_URL": settings.database_url},
        start_new_session=True,  # Ctrl+C is the server's, which then ends it
    )
    while process.poll() is None and not ending.wait(LOOK_SECONDS):
        pass
    if not ending.is_set():
        return process.returncode
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:  # in the middle of a long step: what it had saved is there
        process.kill()
        process.wait()
    return None


def end_with_parent(stop: threading.Event) -> None:
    """Sets `stop` when the process that started this one is gone, however it went: `kill -9` tells nobody."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_SECONDS)
        stop.set()

    threading.Thread(target=watch, name="parent", daemon=True).start()
