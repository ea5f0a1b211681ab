"""How far a turn is, told by its files: also while another process works on it, and after it died."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from chatwheel.errors import InputError
from chatwheel.jobs.wheel.keeper import waiting
from chatwheel.jobs.wheel.state import (
    GATE,
    MOST_ATTEMPTS,
    TURN,
    NoSuchTurnError,
    NotPassedError,
    TurnFiles,
    TurnStoppedError,
    turn_files,
    turn_named,
)
from chatwheel.settings import Settings

HOLD = """
import sys, time
from pathlib import Path
from chatwheel.jobs.wheel.state import TurnFiles
turn = TurnFiles(Path(sys.argv[1]))
with turn.held():
    turn.note(doing="sft", attempts=turn.doing.get("attempts", 0) + 1)
    print("held", flush=True)
    time.sleep(60)
"""


def a_turn(runs: Path, name: str = "wheel-1", **verdict: Any) -> TurnFiles:
    directory = runs / name
    (directory / "results").mkdir(parents=True)
    recipe = {"name": name, "sft": {}, "reward": {}, "ppo": {}}
    (directory / "recipe.json").write_text(json.dumps(recipe))
    begun = {"current": "quickstart/sft", "material": {"rankings": 40}, "begun_at": 1.5, "begun_by": "user-1"}
    (directory / TURN).write_text(json.dumps(begun))
    if verdict:
        (directory / GATE).write_text(json.dumps(verdict))
    return TurnFiles(directory)


def test_from_waiting_to_done(tmp_path: Path) -> None:
    turn = a_turn(tmp_path)
    assert turn.state == "waiting"
    with turn.held():
        turn.note(doing="judge", attempts=1)
        found = turn.to_json()
        assert (found["state"], found["doing"]) == ("running", "judge")
        with pytest.raises(InputError, match="another process"), turn.held():
            pass
    assert turn.to_json()["doing"] is None  # nobody does it any more
    (turn.directory / GATE).write_text(json.dumps({"passed": True, "words": "better"}))
    found = turn.to_json()
    assert (found["state"], found["verdict"]["words"], found["candidate"]) == ("done", "better", "wheel-1/ppo")
    assert found["stages"] == ["data", "sft", "ranking", "reward", "ppo", "judge", "gate"]
    for change in (turn.stop, turn.resume):
        with pytest.raises(InputError, match="is done"):
            change()


def test_a_process_that_is_killed_frees_it_and_three_times_is_enough(tmp_path: Path) -> None:
    turn = a_turn(tmp_path)
    for attempt in range(1, MOST_ATTEMPTS + 1):
        command = [sys.executable, "-c", HOLD, str(turn.directory)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            assert turn.state == "running"
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert turn.state == ("waiting" if attempt < MOST_ATTEMPTS else "failed")
    assert "3 times without a word" in str(turn.error)
    turn.resume()
    assert (turn.state, turn.error) == ("waiting", None)


def test_it_stops_and_goes_on_and_what_failed_says_why(tmp_path: Path) -> None:
    turn = a_turn(tmp_path)
    with turn.held():
        turn.check()
        turn.stop()
        assert turn.state == "running"  # until its next step
        with pytest.raises(TurnStoppedError, match="resume it"):
            turn.check()
    assert turn.state == "stopped"
    turn.resume()
    assert turn.state == "waiting"
    turn.note(error="the disk is full")
    assert (turn.state, turn.error) == ("failed", "the disk is full")


def test_who_waits_longest_is_next(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, database_url="")
    assert waiting(settings) is None
    for number in (1, 2, 3):
        turn = a_turn(settings.runs, f"wheel-{number}")
        os.utime(turn.directory / TURN, (number, number))
    assert [turn.name for turn in turn_files(settings.runs)] == ["wheel-3", "wheel-2", "wheel-1"]
    turn_named(settings.runs, "wheel-1").stop()
    assert waiting(settings) == "wheel-2"


@pytest.mark.parametrize("name", ["nothing", "..", "../wheel-1", "", "a/b"])
def test_a_name_is_no_path(name: str, tmp_path: Path) -> None:
    a_turn(tmp_path / "runs")
    with pytest.raises(NoSuchTurnError):
        turn_named(tmp_path / "runs", name)


def test_only_what_passed_is_promoted_unless_somebody_insists(tmp_path: Path) -> None:
    begun = "quickstart/sft"
    with pytest.raises(NotPassedError, match="not come to its gate"):
        a_turn(tmp_path, "one").check_promotable(begun, anyway=True)
    refused = a_turn(tmp_path, "two", passed=False, words="worse: it lies")
    with pytest.raises(NotPassedError, match="worse: it lies"):
        refused.check_promotable(begun)
    refused.check_promotable(begun, anyway=True)
    better = a_turn(tmp_path, "three", passed=True, words="better")
    for answering in (begun, None, "three/ppo"):  # the last one: from a part to all
        better.check_promotable(answering)
    with pytest.raises(NotPassedError, match="held against quickstart/sft, but wheel-9/ppo answers now"):
        better.check_promotable("wheel-9/ppo")
    better.check_promotable("wheel-9/ppo", anyway=True)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    turn = a_turn(tmp_path)
    (turn.directory / GATE).write_text('{"passed": tr')
    with pytest.raises(InputError, match=r"gate\.json: damaged"):
        _ = turn.verdict
