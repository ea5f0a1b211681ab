"""The rehearsal of the wheel, from its first chat to the last rollback, on a tiny model: that it goes through."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import TinyRun

SCRIPT = Path(__file__).parents[2] / "docs" / "rehearsal.py"


@pytest.mark.slow  # two servers and two turns; what a real model comes to is in docs/LOG.md
def test_the_wheel_turns_for_simulated_people(tiny_run: TinyRun, tmp_path: Path) -> None:
    found = tmp_path / "found.json"
    command = [sys.executable, str(SCRIPT), "--home", str(tiny_run.home), "--start", "tiny/sft", "--rounds", "1"]
    command += ["--size", "75", "--scratch", str(tmp_path / "homes"), "--json", str(found), "--rollouts", "1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    values = json.loads(found.read_text())
    for half in ("better", "flipped"):
        assert values[half]["turn"] == "wheel-1"
        assert values[half]["verdict"] in ("better", "not_shown", "worse", "no_judge")
        assert 0 <= values[half]["gold"]["preferred"] <= 1
    assert values["flipped"]["refused"] == (409 if values["flipped"]["verdict"] != "better" else 201)
    assert not (tiny_run.home / "runs" / "wheel-1").exists()  # the home itself is as it was
