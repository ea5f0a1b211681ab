"""How far a turn is, told by its files: also while another process works on it, and after it died."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from chatwheel.errors import InputError
from chatwheel.jobs.wheel.state import (
    GATE,
    TURN,
    TurnFiles,
)

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
