"""`chatwheel train sft --ray --workers 2` with a save every second: python ray_start.py RECIPE HOME [key=value ...]."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from chatwheel.cli import train
from chatwheel.jobs.ray_workers import run_in_ray
from chatwheel.jobs.recipe import Recipe
from chatwheel.jobs.run import Run
from chatwheel.settings import Settings
from chatwheel.training.loop import Loop


def work(recipe: Recipe, settings: Settings) -> None:
    Loop.__init__.__kwdefaults__["save_seconds"] = 1.0
    train.work("sft", recipe, settings, True, None, None, None)


if __name__ == "__main__":
    from tests.training import ray_start  # importable by name, as the workers need it

    recipe, settings = Recipe.load(Path(sys.argv[1]), sys.argv[3:]), Settings.load(Path(sys.argv[2]))
    run_in_ray(partial(ray_start.work, recipe, settings), 2, Run.open(recipe, settings).directory / "ray")
