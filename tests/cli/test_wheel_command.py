"""`chatwheel wheel`: what is there, what may be promoted, and a line where something is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from tests.server.fake_assistant import FakeModels
from tests.wheel_home import AGREEING, FAILING, SECOND, WheelHome, given, two_turns
from typer.testing import CliRunner, Result

from chatwheel.cli.app import app
from chatwheel.errors import ChatwheelError
from chatwheel.store.database import Database
from chatwheel.store.tables import AuditRow

Run = Callable[..., Result]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two turns have been; a third one is at its end and did not pass."""
    monkeypatch.delenv("CHATWHEEL_DATABASE_URL", raising=False)
    FakeModels(tmp_path / "models")
    database = Database.open(f"sqlite:///{tmp_path / 'chatwheel.db'}")
    place = WheelHome(tmp_path, database)
    two_turns(place)
    given(place, 12)
    place.begin("wheel-3")
    place.decided("wheel-3", FAILING, witnesses=AGREEING)
    place.begin("wheel-4", days=-0.01)
    database.close()
    return tmp_path


@pytest.fixture
def wheel(home: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    def run(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["chatwheel", "wheel", *arguments])  # by it the verb's file is found
        return CliRunner().invoke(app, ["wheel", *arguments, "--home", str(home)])

    return run


def told(result: Result) -> str:
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def refused(result: Result) -> str:
    """The line; the console script prints it (see below)."""
    assert isinstance(result.exception, ChatwheelError), result.output
    assert "\n" not in result.exception.message
    return result.exception.message


def test_list_and_show(wheel: Run) -> None:
    lines = told(wheel("list")).splitlines()
    assert [line.split()[:3] for line in lines] == [
        ["wheel-4", SECOND, "waiting"],
        ["wheel-3", SECOND, "done"],
        ["wheel-2", SECOND, "done"],
        ["wheel-1", "quickstart/ppo", "done"],
    ]
    assert lines[1].endswith("worse: preferred: 41%; praised: 37%")
    assert json.loads(told(wheel("list", "--json")))["turns"][0]["name"] == "wheel-4"
    shown: dict[str, Any] = json.loads(told(wheel("show", "wheel-3")))
    assert (shown["state"], shown["candidate"], shown["verdict"]["passed"]) == ("done", "wheel-3/ppo", False)
    assert [one["name"] for one in shown["verdict"]["judge"]["witnesses"]] == ["corrections", "thumbs"]


def test_ready(wheel: Run) -> None:
    said = told(wheel("ready"))
    assert [line.split() for line in said.splitlines() if line.startswith("ratings")] == [["ratings", "60", "0", "new"]]
    assert "rankings to learn from; 600 are enough" in said
    assert said.splitlines()[-1].startswith("not enough yet: ")
    found = json.loads(told(wheel("ready", "--json")))
    assert (found["since"]["turn"], found["material"]["corrections"]) == ("wheel-4", 24)


def test_stop(wheel: Run, home: Path) -> None:
    assert "go on with it: chatwheel wheel turn --name wheel-4" in told(wheel("stop", "wheel-4"))
    assert WheelHome(home, None).turn("wheel-4").state == "stopped"  # type: ignore[arg-type]
    assert "is done" in refused(wheel("stop", "wheel-3"))


def test_promote_goes_through_the_gate(wheel: Run, home: Path) -> None:
    assert "not come to its gate" in refused(wheel("promote", "wheel-4", "--anyway"))
    assert "say `anyway`" in refused(wheel("promote", "wheel-3"))
    said = told(wheel("promote", "wheel-3", "--anyway", "--share", "0.05"))
    assert "wheel-3/ppo" in said
    database = Database.open(f"sqlite:///{home / 'chatwheel.db'}")
    with database.read() as session:
        (row,) = session.scalars(select(AuditRow).where(AuditRow.action == "model.promoted"))
    database.close()
    assert (row.target, row.details) == ("wheel-3/ppo", {"share": 0.05, "turn": "wheel-3", "anyway": True})
    assert "share" in refused(wheel("promote", "wheel-3", "--anyway", "--share", "1.5"))
    nodes = {one["id"]: one for one in json.loads(told(wheel("lineage")))["nodes"]}
    assert nodes["model:wheel-3/ppo"]["deployed"] == 0.05
    assert nodes["people:wheel-3"]["people"] == 23


def test_bad_names(wheel: Run) -> None:
    for command in ("show", "stop", "promote"):
        for name in ("wheel-9", "../models", ""):
            assert "there is no such turn" in refused(wheel(command, name))
    assert "leave out the model and the changes" in refused(wheel("turn", "ppo.rollouts=3", "--name", "wheel-4"))
    assert "nothing/here" in refused(wheel("turn", "--model", "nothing/here"))


def test_an_error_is_a_line(home: Path) -> None:
    command = [sys.executable, "-m", "chatwheel", "wheel", "show", "wheel-9", "--home", str(home)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "wheel-9: there is no such turn of the wheel; `chatwheel wheel list` shows them" in done.stderr
