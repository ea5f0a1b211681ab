"""`chatwheel run`: all stages of a recipe."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from chatwheel.cli.options import RecipeOption, Track, where_to_watch


def command(
    recipe: RecipeOption,
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value, as in sft.epochs=3")] = None,
    home: Annotated[Path | None, typer.Option(help="Instead of $CHATWHEEL_HOME or ~/.chatwheel.")] = None,
    track: Track = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as one JSON object.")] = False,
) -> None:
    """Run all stages of a recipe. Stop it at any moment: the same command goes on where it was."""
    from chatwheel.cli.display import Display
    from chatwheel.jobs.pipeline import run_recipe
    from chatwheel.jobs.recipe import Recipe
    from chatwheel.jobs.run import Run
    from chatwheel.jobs.tracking import tracked
    from chatwheel.jobs.watching import Command
    from chatwheel.settings import Settings
    from chatwheel.training.distributed import processes

    run = Run.open(Recipe.load(recipe, overrides or ()), Settings.load(home))
    with (
        processes() as ranks,
        Display(quiet=not ranks.first) as display,
        tracked(display, run, track or () if ranks.first else ()) as observer,
    ):
        display.say(where_to_watch(run.recipe.name, home))
        results = run_recipe(run, observer, command=Command.given(sys.argv[1:]))
    display.say(f"Report: {run.directory / 'report.html'}")
    if as_json and ranks.first:
        hidden = {"greedy", "sampled"}
        print(json.dumps({k: {n: v for n, v in r.items() if n not in hidden} for k, r in results.items()}))
