"""uvicorn, which ends in order: what is under way is finished first, for a bounded time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from types import FrameType

import uvicorn
from fastapi import FastAPI

from chatwheel.server.services import Services

CANCEL_SECONDS = 1
"""That answers have which are broken off, to end in order."""
KEEP_ALIVE_SECONDS = 130
"""That a connection may be idle. Longer than proxies keep theirs (nginx 60, Caddy 120): who closes first cannot meet a
request that is on its way, which the proxy could not tell from one that was begun."""


class GracefulServer(uvicorn.Server):
    """At the first signal the server takes nothing new and waits for what is under way, for `grace` seconds; then it
    breaks that off, saves it, and ends. It listens meanwhile, so that `/ready` can say 503 to whoever divides requests
    among servers. At the second signal the process is gone: nothing is lost that was sent, as after `kill -9`."""

    def __init__(self, app: FastAPI, grace: float, say: Callable[[str], None] = lambda _: None) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_level="warning",
                access_log=False,
                lifespan="on",
                timeout_graceful_shutdown=CANCEL_SECONDS,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
            )
        )
        self._services: Services = app.state.services
        self._grace, self._say = grace, say
        self._deadline: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Called by SIGTERM and Ctrl+C."""
        if self._services.closing.is_set():
            os._exit(128 + sig)
        self._services.closing.set()

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second. Whether it is time to end."""
        if self._services.closing.is_set():
            num = self._services.under_way.num
            if self._deadline is None:
                self._deadline = time.monotonic() + self._grace
                if num and self._grace:
                    self._say(f"Finishing {num} answers, for at most {self._grace:g} s; once more ends it at once.")
            if not num or time.monotonic() >= self._deadline:
                return True
        return await super().on_tick(counter)
