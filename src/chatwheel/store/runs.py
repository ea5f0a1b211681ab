"""Training runs as they lie on disk, for those who watch: what is done, what runs, what a crash left behind.

Only reads, and without PyTorch. The files are written by `jobs/run.py`, `training/loop.py`, `training/samples.py` and
`jobs/watching.py`; any of them may be missing, cut short or damaged, and then the rest is told.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from chatwheel.errors import ChatwheelError
from chatwheel.store.curves import Json, Row, finite, parse_object, parse_rows, read_curves
from chatwheel.store.growing import rollout_index

State = Literal["waiting", "running", "done", "interrupted"]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
"""What `Recipe.name` allows and a file system takes: one segment of a path, and none that leads up."""

STAGES = {
    "data": (),
    "tokenizer": ("pretrain",),
    "pretrain": ("pretrain",),
    "sft": ("sft",),
    "ranking": ("reward", "dpo", "kto"),
    "reward": ("reward",),
    "ppo": ("ppo",),
    "grpo": ("grpo",),
    "rloo": ("rloo",),
    "best_of_n": ("best_of_n",),
    "dpo": ("dpo",),
    "kto": ("kto",),
}
"""The stages of the wheel in order (`jobs/pipeline.py`), and the keys of the recipe without all of which a run has no
such stage."""

SAMPLING = ("ppo", "grpo", "rloo", "best_of_n")
"""Those that learn from their own answers."""

EXAMINED = {"pretrain": "base", "sft": "sft"} | {name: name for name in (*SAMPLING, "dpo", "kto")}
"""The models that are examined after a stage."""

TAIL_BYTES = 128 * 1024
RECENT = 20
"""Rows over which speed is averaged."""


class RunNotFoundError(ChatwheelError):
    """There is no such run, or no such stage in it."""

    status = 404


@dataclass(frozen=True)
class Runs:
    """The runs of an installation."""

    root: Path

    def names(self) -> list[str]:
        """Those that have begun, the last active first."""
        try:
            found = [entry.name for entry in os.scandir(self.root) if NAME.fullmatch(entry.name)]
        except OSError:
            return []
        runs = [RunFiles(self.root / name) for name in found if (self.root / name / "recipe.json").is_file()]
        return [run.name for run in sorted(runs, key=lambda run: (-run.updated(), run.name))]

    def open(self, name: str) -> RunFiles:
        """One run. Raises RunNotFoundError; a name is never more than one segment of a path."""
        if not NAME.fullmatch(name) or not (self.root / name / "recipe.json").is_file():
            raise RunNotFoundError(f"there is no run {name!r} here; GET /v1/runs lists those that are", param="name")
        return RunFiles(self.root / name)


@dataclass(frozen=True)
class RunFiles:
    """One run's directory."""

    directory: Path

    @property
    def name(self) -> str:
        return self.directory.name

    def recipe(self) -> Json:
        """The recipe that it was begun with; empty if it cannot be read."""
        return _read_object(self.directory / "recipe.json") or {}

    def stages(self) -> list[str]:
        """The stages that it has, in order."""
        recipe = self.recipe()
        return [name for name, keys in STAGES.items() if not keys or any(recipe.get(key) is not None for key in keys)]

    def check_stage(self, stage: str) -> str:
        """The stage's name. Raises RunNotFoundError if the run has no such stage."""
        if stage not in self.stages():
            known = ", ".join(self.stages())
            raise RunNotFoundError(f"the run {self.name!r} has no stage {stage!r}; it has {known}", param="stage")
        return stage

    def view(self) -> Json:
        """State, stages, times, the command that goes on with it; without recipe and curves."""
        command = _read_object(self.directory / "command.json") or {}
        locked = is_locked(self.directory / ".lock")
        stages = self._stages(locked, stopped="began" in command and "ended" not in command)
        states = [stage["state"] for stage in stages]
        state: State = "waiting"
        if locked:
            state = "running"
        elif all(one == "done" for one in states):
            state = "done"
        elif "interrupted" in states:
            state = "interrupted"
        fallback = "chatwheel quickstart" if self.name == "quickstart" else None
        return {
            "name": self.name,
            "object": "run",
            "state": state,
            "created": _mtime(self.directory / "recipe.json"),
            "updated": self.updated(),
            "stages": stages,
            "examining": self._examining(stages) if locked else None,
            "command": command.get("command", fallback) if state in ("interrupted", "waiting") else None,
            "directory": command.get("directory") if state in ("interrupted", "waiting") else None,
            "report": (self.directory / "report.html").is_file(),
        }

    def updated(self) -> float:
        """When something was last written, in seconds of Unix time."""
        files = [self.directory / name for name in ("recipe.json", "command.json", "report.html")]
        files += [self.metrics_file(stage) for stage in STAGES]
        files += [self._result_file(stage) for stage in STAGES]
        return max(map(_mtime, files))

    def metrics_file(self, stage: str) -> Path:
        """Where a stage writes a line a step."""
        return self.directory / stage / "metrics.jsonl"

    def samples_file(self, stage: str) -> Path:
        """Where a stage writes what its model says."""
        return self.directory / stage / "samples.jsonl"

    def metrics(self, stage: str, most: int, after: int | None = None) -> tuple[int, list[Row]]:
        """How many rows a stage's metrics have, perhaps only of later steps, and at most `most` points of them."""
        return read_curves(self.metrics_file(stage), most, after)

    def rollout(self, stage: str, step: int | None = None) -> tuple[list[int], Json | None]:
        """The steps with which a stage's rollouts begin, and the best and worst answers of the one that a step learnt
        from, the last unless given."""
        steps, chosen = rollout_index(self.directory / stage / "rollouts.jsonl").look(step)
        if chosen is None:
            return steps, None
        shown = {key: chosen.get(key) for key in ("best", "worst")}
        answers = {k: [_cleaned(a) for a in v if isinstance(a, dict)] for k, v in shown.items() if isinstance(v, list)}
        return steps, {"step": chosen.get("step"), "best": [], "worst": [], **answers}

    def samples(self, stage: str) -> list[Json]:
        """The lines of a stage's samples, the oldest first."""
        return parse_samples(_read(self.samples_file(stage)))

    def stage_view(self, stage: str, state: State) -> Json:
        """How far a stage is and how fast: times in seconds, `remaining` and a running stage's `seconds` estimated."""
        result = _read_object(self._result_file(stage)) if state == "done" else None
        recent = parse_rows(_read_tail(self.metrics_file(stage)))[-RECENT:]
        view: Json = {"name": stage, "state": state, "step": 0, "steps": None, "seconds": None, "remaining": None}
        if recent:
            view |= _progress(recent)
        if result is not None:
            view |= {
                "seconds": finite(result.get("seconds")),
                "remaining": None,
                "finished": _mtime(self._result_file(stage)),
                "result": _cleaned(result),
            }
        return view

    def _stages(self, locked: bool, *, stopped: bool) -> list[Json]:
        names = self.stages()
        done = {name: self._result_file(name).is_file() for name in names}
        first = next((name for name in names if not done[name]), None)
        views = []
        for name in names:
            state: State = "done" if done[name] else "waiting"
            if name == first:
                if locked:
                    state = "running"
                elif stopped or self._has_begun(name):
                    state = "interrupted"
            views.append(self.stage_view(name, state))
        return views

    def _has_begun(self, stage: str) -> bool:
        """For runs of before `command.json` was written."""
        return self.metrics_file(stage).is_file() or (self.directory / stage / "state").is_dir()

    def _examining(self, stages: Iterable[Json]) -> str | None:
        """The model that sits its examination just now: between two stages."""
        done = [stage["name"] for stage in stages if stage["state"] == "done" and stage["name"] in EXAMINED]
        model = EXAMINED[done[-1]] if done else None
        return model if model and not (self.directory / f"results/model.{model}.json").is_file() else None

    def _result_file(self, stage: str) -> Path:
        return self.directory / "results" / f"stage.{stage}.json"


class Tail:
    """What is appended to a file of lines, from its end at the beginning on, at most a megabyte at a time."""

    LIMIT = 2**20

    def __init__(self, path: Path) -> None:
        self.path = path
        self._inode, self._offset = _identity(path)
        # The last line may be half written.
        tail = _read_tail(path)
        self._offset -= len(tail) - (tail.rfind(b"\n") + 1)

    def read(self) -> bytes | None:
        """New whole lines; None if the file was replaced or cut, as when a run goes on: then all of it is new."""
        inode, size = _identity(self.path)
        if inode != self._inode or size < self._offset:
            replaced = self._inode is not None
            self._inode, self._offset = inode, 0
            if replaced:
                self._offset = size - (size and len(_read_tail(self.path).rpartition(b"\n")[2]))
                return None
        if size == self._offset:
            return b""
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                new = file.read(self.LIMIT)
        except OSError:
            return b""
        whole = new[: new.rfind(b"\n") + 1]
        if not whole and len(new) == self.LIMIT:
            whole = new  # no line is that long: damage, to be passed over
        self._offset += len(whole)
        return whole


def parse_samples(lines: bytes) -> list[Json]:
    """The samples among lines: {"step", "samples"} or {"step", "error"}."""
    found = []
    for line in lines.splitlines():
        value = parse_object(line)
        if value and isinstance(value.get("step"), int) and ("samples" in value or "error" in value):
            samples = value.get("samples")
            kept = [_cleaned(s) for s in samples if isinstance(s, dict)] if isinstance(samples, list) else []
            found.append({"step": value["step"], "samples": kept, "error": value.get("error")})
    return found


def _progress(recent: Sequence[Row]) -> Json:
    last = recent[-1]
    step, steps = int(last["step"]) + 1, last.get("steps")
    pace = sum(row.get("seconds", 0.0) for row in recent) / len(recent)
    tokens = sum(row.get("tokens_per_second", 0.0) * row.get("seconds", 0.0) for row in recent)
    shares = [(row["share_of_peak"], row["seconds"]) for row in recent if {"share_of_peak", "seconds"} <= row.keys()]
    weight = sum(seconds for _, seconds in shares)
    return {
        "step": step,
        "steps": None if steps is None else int(steps),
        "seconds": pace * step,
        "remaining": None if steps is None else pace * max(0.0, steps - step),
        "seconds_per_step": pace,
        "tokens_per_second": tokens / (pace * len(recent)) if pace else None,
        "share_of_peak": sum(share * seconds for share, seconds in shares) / weight if weight else None,
        "metrics": {key: value for row in recent for key, value in row.items() if key not in ("step", "steps")},
    }


def is_locked(path: Path) -> bool:
    """Whether a process works on the run: it holds this lock, and the system frees it when the process dies."""
    try:
        import fcntl
    except ImportError:  # Windows
        return _is_locked_on_windows(path)
    try:
        with path.open("rb") as file:
            # Shared: two who look do not see each other. It is let go of at once.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _is_locked_on_windows(path: Path) -> bool:
    from filelock import FileLock, Timeout

    if not path.is_file():
        return False
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True


def _cleaned(value: Any) -> Any:
    """The same without what JSON and UTF-8 cannot say: NaN and infinities become null, half characters "?"."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {str(key): _cleaned(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_cleaned(item) for item in value]
    return value if not isinstance(value, float) or math.isfinite(value) else None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _read_tail(path: Path) -> bytes:
    """The last bytes of a file; what is before its first whole line fails to parse and is passed over."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL_BYTES))
            return file.read(TAIL_BYTES)
    except OSError:
        return b""


def _read_object(path: Path) -> Json | None:
    return parse_object(_read(path))


def _mtime(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _identity(path: Path) -> tuple[int | None, int]:
    """(inode, size); (None, 0) if it is not there."""
    try:
        stat = path.stat()
    except OSError:
        return None, 0
    return stat.st_ino, stat.st_size
