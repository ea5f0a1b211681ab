"""Works on turns of the wheel beside a server: a process for each, one after the other, ended with the server.

A turn that its process left behind, however that ended, waits again, and goes on from what was saved. Several servers
with one home may all try: the turn's lock lets one in.
"""

from __future__ import annotations

import logging
import threading
from contextlib import AbstractContextManager

from chatwheel.errors import ChatwheelError
from chatwheel.jobs.beside import kept, run_beside
from chatwheel.jobs.wheel.state import turn_files
from chatwheel.settings import Settings

logger = logging.getLogger(__name__)
LOOK_SECONDS = 1.0


def turns_beside(settings: Settings, ending: threading.Event) -> AbstractContextManager[None]:
    """Turns are worked on while the block runs, or until `ending` is set."""
    return kept(_keep, settings, ending)


def waiting(settings: Settings) -> str | None:
    """The turn that waits longest."""
    found = [turn.name for turn in turn_files(settings.runs) if turn.state == "waiting"]
    return found[-1] if found else None


def _keep(settings: Settings, ending: threading.Event) -> None:
    while not ending.wait(LOOK_SECONDS):
        try:
            name = waiting(settings)
            command = ["wheel", "turn", "--name", name or ""]
            if name is not None and (status := run_beside(command, settings, ending, silent=True)):
                logger.warning("%s: its process ended (%s)", name, status)
        except (ChatwheelError, OSError) as error:  # such as too many processes; there may be room again
            logger.warning("nobody could work on turns of the wheel: %s", error)
