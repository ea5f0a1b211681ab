"""Works on turns of the wheel beside a server: a process for each, one after the other, ended with the server.

A turn that its process left behind, however that ended, waits again, and goes on from what was saved. Several servers
with one home may all try: the turn's lock lets one in.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from chatwheel.errors import ChatwheelError
from chatwheel.jobs.wheel.state import turn_files
from chatwheel.settings import Settings

logger = logging.getLogger(__name__)
LOOK_SECONDS = 1.0
END_SECONDS = 15.0


@contextmanager
def turns_beside(settings: Settings, ending: threading.Event) -> Iterator[None]:
    """Turns are worked on while the block runs, or until `ending` is set."""
    thread = threading.Thread(target=_keep, args=(settings, ending), name="wheel's keeper", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()


def waiting(settings: Settings) -> str | None:
    """The turn that waits longest."""
    found = [turn.name for turn in turn_files(settings.runs) if turn.state == "waiting"]
    return found[-1] if found else None


def _keep(settings: Settings, ending: threading.Event) -> None:
    while not ending.wait(LOOK_SECONDS):
        try:
            name = waiting(settings)
            if name is not None:
                _work(settings, name, ending)
        except (ChatwheelError, OSError) as error:  # such as too many processes; there may be room again
            logger.warning("nobody could work on turns of the wheel: %s", error)


def _work(settings: Settings, name: str, ending: threading.Event) -> None:
    command = [sys.executable, "-m", "chatwheel", "wheel", "turn", "--name", name, "--beside"]
    # A group of its own: Ctrl+C is the server's, which then ends it in order.
    process = subprocess.Popen(
        [*command, "--home", str(settings.home)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "CHATWHEEL_DATABASE_URL": settings.database_url},
        start_new_session=True,
    )
    while process.poll() is None and not ending.wait(0.2):
        pass
    if process.poll() is not None:
        if process.returncode:
            logger.warning("%s: its process ended (%s)", name, process.returncode)
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:  # in the middle of a long step: what it had saved is there
        process.kill()
        process.wait()
