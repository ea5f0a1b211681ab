"""`chatwheel models`: who answers those who ask for the latest model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.server.fake_assistant import FakeModels

SFT, PPO = "quickstart/sft", "quickstart/ppo"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("CHATWHEEL_DATABASE_URL", raising=False)
    FakeModels(tmp_path / "models")
    return tmp_path


def models(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "chatwheel", "models", *arguments, "--home", str(home)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def shares(home: Path, *arguments: str) -> Any:
    done = models(home, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["deployed"]


def test_promoted_to_a_part_to_all_and_back(home: Path) -> None:
    assert shares(home, "deployed") == {}
    assert shares(home, "promote", SFT) == {SFT: 1.0}
    assert shares(home, "promote", PPO, "--share", "0.05") == {SFT: 0.95, PPO: 0.05}
    assert shares(home, "promote", PPO) == {PPO: 1.0}
    assert shares(home, "rollback") == {SFT: 1.0}
    assert "quickstart/sft" in models(home, "deployed").stdout


def test_what_cannot_answer_is_not_promoted(home: Path) -> None:
    elsewhere = home / "elsewhere"
    (home / "models" / SFT).rename(elsewhere)
    for model, message in (
        ("quickstart/reward", "is a reward model"),
        ("quickstart/none", "not found"),
        (str(elsewhere), "move it there"),
    ):
        done = models(home, "promote", model)
        assert done.returncode == 2
        assert message in done.stderr
        assert done.stderr.count("\n") == 1
    assert shares(home, "deployed") == {}
    assert models(home, "rollback").returncode == 2
