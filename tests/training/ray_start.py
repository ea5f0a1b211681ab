"""`chatwheel train sft --ray --workers 2` with a save every second: python ray_start.py RECIPE HOME [key=value ...]."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from chatwheel.cli import train
from chatwheel.errors import InputError
from chatwheel.jobs.ray_workers import run_in_ray
from chatwheel.jobs.recipe import Recipe
from chatwheel.jobs.run import Run
from chatwheel.settings import Settings
from chatwheel.training.distributed import ranks, wait_for_all
from chatwheel.training.loop import Loop


def work(recipe: Recipe, settings: Settings) -> None:
    Loop.__init__.__kwdefaults__["save_seconds"] = 1.0
    train.work("sft", recipe, settings, True, None, None, None)


def second_refuses(place: Path) -> None:
    """What only the second process says that the user must mend."""
    with (place / "starts").open("a") as starts:
        starts.write(f"{ranks().rank}\n")
    wait_for_all()
    if not ranks().first:
        raise InputError("no tokens here; mount the disk")
    wait_for_all()


if __name__ == "__main__":
    from tests.training import ray_start  # importable by name, as the workers need it

    recipe, settings = Recipe.load(Path(sys.argv[1]), sys.argv[3:]), Settings.load(Path(sys.argv[2]))
    run_in_ray(partial(ray_start.work, recipe, settings), 2, Run.open(recipe, settings).directory / "ray")
