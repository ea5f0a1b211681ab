"""Keeps a worker beside a server: a process of its own, begun again when it dies, ended with the server."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import AbstractContextManager

from chatwheel.jobs.beside import kept, run_beside
from chatwheel.settings import Settings

logger = logging.getLogger(__name__)
LONGEST_WAIT = 30.0


def worker_beside(settings: Settings, ending: threading.Event) -> AbstractContextManager[None]:
    """A worker while the block runs, or until `ending` is set: it lets its job go while answers are finished."""
    return kept(_keep, settings, ending)


def _keep(settings: Settings, ending: threading.Event) -> None:
    wait = 0.5
    while not ending.is_set():
        began = time.monotonic()
        status = run_beside(["worker"], settings, ending)
        if status is None:
            return
        logger.warning("the fine-tuning worker ended (%s); another one starts", status)
        wait = 0.5 if time.monotonic() - began > 60 else min(LONGEST_WAIT, 2 * wait)
        ending.wait(wait)
