"""What the wheel's routes share: requests, views, and forecasts that are made in the background."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Annotated, Any

from pydantic import Field
from sqlalchemy.orm import Session

from chatwheel.evaluation.forecast import Forecast
from chatwheel.jobs.wheel.gathering import gather, stamp
from chatwheel.jobs.wheel.readiness import kept_forecast, look
from chatwheel.jobs.wheel.state import TurnFiles, turn_files
from chatwheel.server.shapes import Body
from chatwheel.settings import Settings
from chatwheel.store.tables import DeploymentRow

Json = dict[str, Any]


class NewTurn(Body):
    """POST /v1/wheel/turns. model: the one to begin with; the deployed one unless given. changes: of the turn's recipe,
    as in {"ppo": {"rollouts": 40}}. everybody: also of people who have neither agreed nor refused."""

    name: str | None = Field(None, min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    model: str | None = Field(None, min_length=1, max_length=1000)
    changes: dict[str, Any] = Field(default_factory=dict)
    everybody: bool = False


class TurnPromotion(Body):
    """POST /v1/wheel/turns/{name}/promote. share: of those who ask for the latest model. anyway: also what the gate did
    not let pass."""

    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    anyway: bool = False


def turn_view(turn: TurnFiles, history: Mapping[str, list[DeploymentRow]], names: Mapping[str, str]) -> Json:
    """A turn, with when its model answered whom, and the name of who began it; None where nobody of the page did, or
    where they are gone."""
    values = turn.to_json()
    values["begun_by"] = names.get(values["begun_by"] or "")
    rows = history.get(turn.candidate, [])
    values["deployments"] = [
        {"share": row.share, "started_at": row.started_at, "ended_at": row.ended_at, "outcome": row.outcome}
        for row in rows
    ]
    return values


def by_model(rows: list[DeploymentRow]) -> dict[str, list[DeploymentRow]]:
    """The deployments of each model, in the order given."""
    found: dict[str, list[DeploymentRow]] = {}
    for row in rows:
        found.setdefault(row.model, []).append(row)
    return found


@dataclass
class Looking:
    """What people gave and whether that is enough, read again where something of it has changed: the page asks often,
    and a thousand rankings take seconds."""

    _known: tuple[Any, Json, str] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def look(self, settings: Settings, session: Session) -> tuple[Json, str]:
        """What `Readiness.to_json` gives, and what the rankings say, by its digest."""
        from chatwheel.jobs.wheel.doubling import digest

        last = turn_files(settings.runs)[:1]
        now = (stamp(session), [turn.name for turn in last], kept_forecast(settings), date.today())
        with self._lock:
            if self._known is None or self._known[0] != now:
                gathered = gather(session)
                self._known = now, look(settings, session, gathered).to_json(), digest(gathered.rankings)
            return self._known[1], self._known[2]


@dataclass
class Forecasting:
    """One forecast at a time, by a process of its own, so that those who chat keep the engine for themselves."""

    process: asyncio.subprocess.Process | None = None
    error: str | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def running(self) -> bool:
        """Whether one is made now."""
        return bool(self._tasks)

    def begin(self, settings: Settings) -> None:
        """Begins one, unless one is made already."""
        if self.running:
            return
        self.error = None
        task = asyncio.create_task(self._make(settings))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def end(self) -> None:
        """What is being made is given up."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _make(self, settings: Settings) -> None:
        command = [sys.executable, "-m", "chatwheel", "wheel", "forecast", "--json", "--home", str(settings.home)]
        self.process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "CHATWHEEL_DATABASE_URL": settings.database_url, "COLUMNS": "1000", "NO_COLOR": "1"},
        )
        try:
            _, said = await self.process.communicate()
        except asyncio.CancelledError:
            self.process.kill()
            raise
        if self.process.returncode:
            lines = said.decode("utf-8", "replace").replace("chatwheel: ", "").strip().splitlines()
            self.error = lines[-1] if lines else f"the forecast's process ended ({self.process.returncode})"

    def view(self, settings: Settings, *, model: str | None, digest: str | None) -> Json:
        """What there is. model, digest: the deployed model and what the rankings say now; another forecast is not
        fresh."""
        kept = kept_forecast(settings)
        found: Json = {"state": "none", "words": "", "points": [], "curve": [], "doubled": None, "error": self.error}
        if kept is not None:
            forecast = Forecast.from_json(kept["forecast"])
            found |= {
                "state": "done",
                "words": forecast.sentence,
                "model": kept["model"],
                "rankings": forecast.examples,
                "made_at": kept["made_at"],
                "fresh": (kept["model"], kept["digest"]) == (model, digest),
                "points": [
                    {
                        "rankings": one.examples,
                        "error": one.error,
                        "interval": [
                            max(0.0, one.error - 1.96 * one.standard_error),
                            one.error + 1.96 * one.standard_error,
                        ],
                    }
                    for one in forecast.measured
                ],
                "curve": [
                    {"rankings": n, "low": low, "error": middle, "high": high}
                    for n, low, middle, high in forecast.curve
                ],
                "doubled": {
                    "rankings": 2 * forecast.examples,
                    "before": forecast.error,
                    "error": forecast.forecast,
                    "interval": list(forecast.forecast_interval),
                },
            }
        if self.error is not None:
            found["state"] = "failed"
        if self.running:
            found["state"] = "running"
        return found


def deployed_view(row: DeploymentRow | None) -> Json | None:
    """Who answers a part, or all."""
    return None if row is None else {"model": row.model, "share": row.share, "started_at": row.started_at}
