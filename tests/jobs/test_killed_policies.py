"""PPO and GRPO killed by SIGKILL at chosen places, life after life: the last one ends with the same weights."""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from chatwheel.jobs.recipe import Recipe
from chatwheel.jobs.run import Run
from chatwheel.settings import Settings
from chatwheel.training.loop import read_metrics
from tests.conftest import TinyRun
from tests.jobs.tiny_recipe import chatwheel, finish, run

WAITING = """
import functools, pathlib, time
from chatwheel.model import checkpoint
from chatwheel.training.loop import Loop
from chatwheel.training.policy import Policy
from chatwheel.training.policy_gradient import PolicyGradientObjective

Loop.__init__.__kwdefaults__["save_seconds"] = -1.0  # as a run of hours would have saved by now

def wait_in(owner, name, number, which=lambda *_: True):
    plain, calls = getattr(owner, name), []
    @functools.wraps(plain)
    def waiting(*arguments, **more):
        if which(*arguments):
            calls.append(1)
            if len(calls) == number:
                pathlib.Path({marker!r}).touch()
                time.sleep(300)
        return plain(*arguments, **more)
    setattr(owner, name, waiting)

wait_in({place})
"""
PLACES = {
    "rollout": "Policy, 'sample', {number}",
    "judging": "PolicyGradientObjective, '_read', {number}",
    "update": "PolicyGradientObjective, 'policy_loss', {number}",
    # The weights are written, what else is known of them is not.
    "a half-written save": "checkpoint, 'save_json', {number}, lambda path, _: path.name == 'state.json'",
    # The old save has made room, the new one has not taken it.
    "between two renames": "pathlib.Path, 'rename', {number}, lambda _, target: target.name == 'state'",
}
LIVES = {
    "ppo": [("rollout", 2), ("update", 2), ("a half-written save", 1), ("between two renames", 1), ("judging", 1)],
    "grpo": [("rollout", 1), ("update", 1), ("a half-written save", 1), ("between two renames", 2)],
}


def kill_at(place: str, number: int, command: list[Any], home: Path, marker: Path) -> None:
    """Starts the command and kills it in the so-manyth call of what happens there."""
    marker.unlink(missing_ok=True)
    process = chatwheel(
        *command, home=home, before=WAITING.format(marker=str(marker), place=PLACES[place].format(number=number))
    )
    deadline = time.monotonic() + 300
    while not marker.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    result = finish(process)
    assert result.returncode == -signal.SIGKILL, result.stderr
    assert marker.exists()


@pytest.mark.slow  # tests/jobs/test_pipeline.py has some of it
@pytest.mark.parametrize(("stage", "lives"), LIVES.items(), ids=LIVES)
def test_killed_wherever_it_may_be_it_ends_with_the_same_weights(
    stage: str, lives: list[tuple[str, int]], tiny_run: TinyRun, tmp_path: Path
) -> None:
    home = shutil.copytree(tiny_run.home, tmp_path / "home")
    Run.open(Recipe.load(tiny_run.recipe), Settings.load(home)).restart({stage: stage})
    command = ["train", stage, "--recipe", tiny_run.recipe]
    state = home / "runs" / "tiny" / stage / "state"
    for place, number in lives:
        kill_at(place, number, command, home, tmp_path / "there")
        assert not (home / "models" / "tiny" / stage).exists()
        if place == "between two renames":
            assert not state.exists()
            assert len(list(state.parent.glob("*state*"))) == 2
    result = run(command, home)
    assert result.returncode == 0, result.stderr
    ours, whole = (h / "models" / "tiny" / stage / "model.safetensors" for h in (home, tiny_run.home))
    assert ours.read_bytes() == whole.read_bytes()
    rewards = [[row.get("reward") for row in read_metrics(h / "runs" / "tiny" / stage)] for h in (home, tiny_run.home)]
    assert rewards[0] == rewards[1]
