"""GET /v1/runs: the training runs of this home, done, running or left behind.

Server-sent events of a run: as they are written, `metrics` {stage, points} and `samples` {stage, samples}; `run`, its
view, at first, with these, and whenever a stage changes; `reset` {stage} where a stage's file was replaced, as when a
run goes on from its last save: what was read of it is to be read again; `error` {error} and the end, where the key ends
or the run's files cannot be read.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, Depends, Query, Response

from chatwheel.server.errors import logged_body
from chatwheel.server.identity import needs
from chatwheel.server.services import Services, ServicesDep
from chatwheel.server.streaming import KEEP_ALIVE, Feed, FeedResponse, sse
from chatwheel.store.curves import parse_rows, thinned
from chatwheel.store.growing import KEPT, Growing
from chatwheel.store.runs import SAMPLING, RunFiles, RunNotFoundError, Runs, Tail, parse_samples
from chatwheel.training.diagnosis import Finding, Reading

router = APIRouter(prefix="/v1/runs", dependencies=[Depends(needs("runs"))])

MOST_POINTS = 500
POLL_SECONDS = 1.0
STREAM_SECONDS = 3600.0
"""After an hour a stream ends; whoever still watches connects again."""

Json = dict[str, Any]
Event = tuple[str, Json]


@router.get("")
def list_runs(services: ServicesDep) -> Json:
    """All runs, the last active first."""
    runs = Runs(services.settings.runs)
    views = []
    for name in runs.names():
        with suppress(RunNotFoundError):  # it may be removed meanwhile
            views.append(runs.open(name).view())
    return {"object": "list", "data": views}


@router.get("/{name}")
def get_run(name: str, services: ServicesDep) -> Json:
    """One run, with its recipe."""
    run = Runs(services.settings.runs).open(name)
    return {**run.view(), "recipe": run.recipe()}


@router.get("/{name}/stages/{stage}/metrics")
def get_metrics(
    name: str,
    stage: str,
    services: ServicesDep,
    after: Annotated[int | None, Query(ge=-1)] = None,
    points: Annotated[int, Query(ge=2, le=10_000)] = MOST_POINTS,
) -> Json:
    """A stage's curves, from the step behind `after` on. Where there are more than `points`, neighbours become their
    mean."""
    run = Runs(services.settings.runs).open(name)
    rows, curves = run.metrics(run.check_stage(stage), points, after)
    return {"object": "list", "stage": stage, "rows": rows, "data": curves}


@router.get("/{name}/stages/{stage}/samples")
def get_samples(name: str, stage: str, services: ServicesDep) -> Json:
    """What the stage's model said to always the same prompts; `step` counts the steps that were done."""
    run = Runs(services.settings.runs).open(name)
    return {"object": "list", "stage": stage, "data": run.samples(run.check_stage(stage))}


@router.get("/{name}/stages/{stage}/findings")
def get_findings(name: str, stage: str, services: ServicesDep) -> Json:
    """What looks wrong in a stage that learns from its own answers, in words; nothing in other stages."""
    run = Runs(services.settings.runs).open(name)
    settings = run.recipe().get(run.check_stage(stage))
    found = []
    if stage in SAMPLING:
        found = _diagnosed(run.metrics_file(stage)).findings(settings if isinstance(settings, dict) else {})
    return {"object": "list", "stage": stage, "data": [finding.as_json() for finding in found]}


class _Diagnosed(Growing):
    """A stage's metrics by rollout: as much as its diagnosis needs."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._reading = Reading()

    def forget(self) -> None:
        self._reading = Reading()

    def add(self, offset: int, line: bytes) -> None:  # noqa: ARG002
        for row in parse_rows(line):
            self._reading.add(row)

    def findings(self, settings: Json) -> list[Finding]:
        """With what is new."""
        with self.lock:
            self.follow()
            return self._reading.findings(settings)


@lru_cache(maxsize=KEPT)
def _diagnosed(path: Path) -> _Diagnosed:
    return _Diagnosed(path)


@router.get("/{name}/stages/{stage}/rollouts")
def get_rollouts(name: str, stage: str, services: ServicesDep, step: Annotated[int | None, Query(ge=0)] = None) -> Json:
    """The best and the worst answers of the rollout from which a step learnt, the last one unless given; and the steps
    with which rollouts begin."""
    run = Runs(services.settings.runs).open(name)
    steps, rollout = run.rollout(run.check_stage(stage), step)
    return {"object": "rollout", "stage": stage, "steps": steps, "data": rollout}


@router.get("/{name}/events")
async def get_events(name: str, services: ServicesDep) -> Response:
    """What happens from now on, until the client leaves."""
    run = await anyio.to_thread.run_sync(Runs(services.settings.runs).open, name)
    feed = Feed[Event](lambda put: _watch(services, run, put))
    return FeedResponse(feed, _events(feed))


async def _watch(services: Services, run: RunFiles, put: Callable[[Event], None]) -> None:
    """Looks once a second: at a handful of small files, and at a megabyte of new lines at most."""
    follower = await anyio.to_thread.run_sync(Follower, run)
    until = asyncio.get_running_loop().time() + STREAM_SECONDS
    while not services.closing.is_set() and asyncio.get_running_loop().time() < until:
        for event in await anyio.to_thread.run_sync(follower.look):
            put(event)
        await asyncio.sleep(POLL_SECONDS)


async def _events(feed: Feed[Event]) -> AsyncIterator[str]:
    try:
        async for event in feed.events():
            yield KEEP_ALIVE if event is None else sse(event[1], event[0])
    except Exception as error:
        yield sse(logged_body(error, "the events of a run"), "error")


class Follower:
    """What is new of a run since one looked last. Blocks."""

    def __init__(self, run: RunFiles) -> None:
        self._run = run
        self._seen: Any = None
        self._metrics = {stage: Tail(run.metrics_file(stage)) for stage in run.stages()}
        self._samples = {stage: Tail(run.samples_file(stage)) for stage in run.stages()}

    def look(self) -> list[Event]:
        """Events in the order in which they are to be told."""
        events: list[Event] = []
        for stage, tail in self._metrics.items():
            lines = tail.read()
            if lines is None:
                events.append(("reset", {"stage": stage}))
            elif rows := parse_rows(lines or b""):
                events.append(("metrics", {"stage": stage, "points": thinned(rows, MOST_POINTS)}))
        for stage, tail in self._samples.items():
            lines = tail.read()
            if lines is None:
                events.append(("reset", {"stage": stage}))
            elif samples := parse_samples(lines):
                events.append(("samples", {"stage": stage, "samples": samples}))
        with suppress(OSError):
            view = self._run.view()
            seen = (view["state"], view["examining"], view["report"], [s["state"] for s in view["stages"]])
            # Progress goes with the points: the view is told with them, and when something else changes.
            if events or seen != self._seen:
                self._seen = seen
                events.append(("run", view))
        return events
