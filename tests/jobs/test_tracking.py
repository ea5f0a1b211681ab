"""Curves in TensorBoard's files: every step of a stage once, also after a kill."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from chatwheel.errors import InputError
from chatwheel.jobs.pipeline import run_recipe
from chatwheel.jobs.recipe import Recipe
from chatwheel.jobs.run import Run
from chatwheel.jobs.tracking import tracked
from chatwheel.settings import Settings
from chatwheel.training.loop import read_metrics
from tests.conftest import TinyRun
from tests.jobs.test_pipeline import Recorder, copy_of, kill_in
from tests.jobs.tiny_recipe import chatwheel, finish


def curve(run: Run, stage: str, name: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(run.directory / "tensorboard" / stage), size_guidance={"scalars": 0})
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


def expected(run: Run, stage: str, name: str) -> list[tuple[int, float]]:
    return [(int(row["step"]), pytest.approx(row[name], rel=1e-5)) for row in read_metrics(run.stage(stage))]


def test_every_step_is_in_the_curves(tiny_run: TinyRun, tmp_path: Path) -> None:
    run = Run.open(Recipe.load(tiny_run.recipe), Settings.load(copy_of(tiny_run, tmp_path)))
    run.restart({"sft": "sft"})
    recorder = Recorder()
    with tracked(recorder, run, ["tensorboard"]) as observer:
        run_recipe(run, observer, only="sft")
    assert recorder.begun == ["sft"]
    for name in ("loss", "learning_rate", "tokens_per_second"):
        assert curve(run, "sft", name) == expected(run, "sft", name)


@pytest.mark.slow
def test_a_killed_stage_s_steps_are_there_once(tiny_run: TinyRun, tmp_path: Path) -> None:
    home = copy_of(tiny_run, tmp_path)
    run = Run.open(Recipe.load(tiny_run.recipe), Settings.load(home))
    run.restart({"ppo": "ppo"})
    command: list[Any] = ["train", "ppo", "--recipe", tiny_run.recipe, "--track", "tensorboard"]
    kill_in("ppo", 6, command, home)  # saved at 4: steps 4 and 5 are done again
    result = finish(chatwheel(*command, home=home))
    assert result.returncode == 0, result.stderr
    assert curve(run, "ppo", "loss") == expected(run, "ppo", "loss")


def test_a_tracker_that_is_not_there_is_one_line(tiny_run: TinyRun, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="choose tensorboard or wandb"), tracked(Recorder(), tiny_run.run, ["mlflow"]):
        pass
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with (
        pytest.raises(InputError, match=r"pip install 'chatwheel\[wandb\]'"),
        tracked(Recorder(), tiny_run.run, ["wandb"]),
    ):
        pass


def test_without_trackers_nothing_is_between(tiny_run: TinyRun) -> None:
    recorder = Recorder()
    with tracked(recorder, tiny_run.run, []) as observer:
        assert observer is recorder
