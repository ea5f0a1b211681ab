"""How far a turn of the wheel is, told by files, so that whoever looks needs neither its process nor PyTorch.

    turn.json             how it began; written once
    results/gate.json     the verdict: it is done
    turn.lock             held by the process that works on it, and let go of by the system when that dies
    doing.json            what that does now, how often one has begun, and why it failed; the process's alone
    stop                  somebody wants it to stop; theirs alone

Each has one writer, so that nobody undoes what another wrote.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from chatwheel.atomic import write_atomically
from chatwheel.errors import InputError
from chatwheel.store.runs import NAME, SAMPLING, RunFiles, is_locked

State = Literal["waiting", "running", "stopped", "failed", "done"]
TURN, GATE, DOING, STOP, LOCK = "turn.json", "results/gate.json", "doing.json", "stop", "turn.lock"
MOST_ATTEMPTS = 3
"""How often in a row a process may end without a word before nobody tries any more."""


class TurnStoppedError(InputError):
    """Somebody wants the turn to stop here."""


class NotPassedError(InputError):
    """The gate did not let it pass, or it has not come there."""

    status = 409


class NoSuchTurnError(InputError):
    """There is none of that name."""

    status = 404


@dataclass(frozen=True)
class TurnFiles:
    """A turn on disk."""

    directory: Path

    @property
    def name(self) -> str:
        return self.directory.name

    @property
    def begun(self) -> dict[str, Any]:
        """`turn.json`: current, material, begun_at, begun_by."""
        return self._read(TURN) or {}

    @property
    def verdict(self) -> dict[str, Any] | None:
        """The gate's, if it has come there."""
        return self._read(GATE)

    @property
    def doing(self) -> dict[str, Any]:
        """`doing`: a stage, `judge` or `gate`; attempts; error; ended_at."""
        return self._read(DOING) or {}

    @property
    def wants_stop(self) -> bool:
        return (self.directory / STOP).exists()

    @property
    def state(self) -> State:
        """What it is now."""
        if (self.directory / GATE).is_file():
            return "done"
        if is_locked(self.directory / LOCK):
            return "running"
        if self.wants_stop:
            return "stopped"
        found = self.doing
        return "failed" if found.get("error") or found.get("attempts", 0) >= MOST_ATTEMPTS else "waiting"

    @property
    def error(self) -> str | None:
        """Why it failed, in a line."""
        found = self.doing
        if found.get("error"):
            return str(found["error"])
        if self.state == "failed":
            return f"its process ended {found['attempts']} times without a word; the server's log may say why"
        return None

    @property
    def recipe(self) -> dict[str, Any]:
        """As it was begun."""
        return self._read("recipe.json") or {}

    @property
    def stages(self) -> list[str]:
        """What is done, in order."""
        return [*RunFiles(self.directory).stages(), "judge", "gate"]

    @property
    def candidate(self) -> str:
        """The model that the turn makes, by its name."""
        made = [stage for stage in self.stages if stage in (*SAMPLING, "dpo", "kto")]
        return f"{self.name}/{made[-1] if made else 'sft'}"

    def check_promotable(self, answering: str | None, *, anyway: bool = False) -> None:
        """Raises NotPassedError where the gate did not let it pass, or held it against another model than that which
        answers now; anyway: that is somebody's wish all the same, which needs a verdict."""
        verdict = self.verdict
        if verdict is None:
            raise NotPassedError(f"{self.name} has not come to its gate yet", param="name")
        if not verdict["passed"] and not anyway:
            raise NotPassedError(
                f"{self.name} did not pass its gate: {verdict['words']}; say `anyway` to promote it all the same",
                param="anyway",
            )
        current = self.begun.get("current")
        if answering not in (None, current, self.candidate) and not anyway:
            raise NotPassedError(
                f"{self.name} was held against {current}, but {answering} answers now: turn the wheel again, or say "
                "`anyway`",
                param="anyway",
            )

    def to_json(self) -> dict[str, Any]:
        """All of it, without the recipe."""
        doing, begun = self.doing, self.begun
        state = self.state
        return {
            "object": "wheel.turn",
            "name": self.name,
            "state": state,
            "doing": doing.get("doing") if state == "running" else None,
            "stopping": state == "running" and self.wants_stop,
            "stages": self.stages,
            "current": begun.get("current"),
            "candidate": self.candidate,
            "material": begun.get("material"),
            "verdict": self.verdict,
            "error": self.error,
            "begun_at": begun.get("begun_at"),
            "ended_at": doing.get("ended_at") if state in ("done", "failed") else None,
            "begun_by": begun.get("begun_by"),
        }

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keeps other processes from working on it. Raises InputError where one does; a crash frees it."""
        lock = FileLock(self.directory / LOCK)
        try:
            lock.acquire(timeout=0.5)  # whoever looks takes it for a moment
        except Timeout:
            raise InputError(f"{self.name}: another process works on this turn; it goes on there") from None
        try:
            yield
        finally:
            lock.release()

    def note(self, **changes: Any) -> None:
        """Changes `doing.json`; only whoever holds the turn may."""
        value = self.doing | changes
        write_atomically(self.directory / DOING, [json.dumps(value, ensure_ascii=False).encode()])

    def check(self) -> None:
        """Raises TurnStoppedError where it is to stop."""
        if self.wants_stop:
            raise TurnStoppedError(f"{self.name} was stopped; resume it, and it goes on")

    def stop(self) -> None:
        """It stops at its next step. Raises InputError where there is nothing left to stop."""
        if self.state == "done":
            raise InputError(f"{self.name} is done; there is nothing to stop")
        write_atomically(self.directory / STOP, [b""])

    def resume(self) -> None:
        """It goes on when somebody has time for it. Raises InputError where it is done."""
        if self.state == "done":
            raise InputError(f"{self.name} is done; turn the wheel again")
        (self.directory / STOP).unlink(missing_ok=True)
        with suppress(InputError), self.held():  # nobody works on it: what failed may be tried again
            self.note(attempts=0, error=None)

    def _read(self, name: str) -> dict[str, Any] | None:
        path = self.directory / name
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: damaged ({error}); remove the turn, and turn the wheel again") from None
        return value if isinstance(value, dict) else None


def turn_files(runs: Path) -> list[TurnFiles]:
    """All turns, the one that was begun last first."""
    found = [TurnFiles(path.parent) for path in runs.glob(f"*/{TURN}") if NAME.fullmatch(path.parent.name)]
    return sorted(found, key=lambda turn: (-(turn.directory / TURN).stat().st_mtime, turn.name))


def turn_named(runs: Path, name: str) -> TurnFiles:
    """Raises NoSuchTurnError."""
    if not NAME.fullmatch(name) or not (runs / name / TURN).is_file():
        raise NoSuchTurnError(f"{name}: there is no such turn of the wheel; `chatwheel wheel list` shows them")
    return TurnFiles(runs / name)
