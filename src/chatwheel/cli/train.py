"""`chatwheel train STAGE`: one stage of a recipe."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from chatwheel.cli.options import RecipeOption, Track, where_to_watch

app = typer.Typer(help="Run one stage of a recipe; what it reads must be there.", no_args_is_help=True)

Overrides = Annotated[list[str] | None, typer.Argument(help="key=value, as in sft.epochs=3")]
Home = Annotated[Path | None, typer.Option(help="Instead of $CHATWHEEL_HOME or ~/.chatwheel.")]
Resume = Annotated[bool, typer.Option(help="Go on from the last save; --no-resume begins the stage again.")]


def _train(
    stage: str,
    recipe: Path,
    overrides: list[str] | None,
    home: Path | None,
    resume: bool,
    track: list[str] | None,
) -> None:
    from chatwheel.cli.display import Display
    from chatwheel.jobs.pipeline import run_recipe
    from chatwheel.jobs.recipe import Recipe
    from chatwheel.jobs.run import Run
    from chatwheel.jobs.tracking import tracked
    from chatwheel.settings import Settings
    from chatwheel.training.distributed import processes

    run = Run.open(Recipe.load(recipe, overrides or ()), Settings.load(home))
    with (
        processes() as ranks,
        Display(quiet=not ranks.first) as display,
        tracked(display, run, track or () if ranks.first else ()) as observer,
    ):
        display.say(where_to_watch(run.recipe.name, home))
        run_recipe(run, observer, only=stage, restart=not resume, command=sys.argv[1:])


def _add(stage: str, text: str) -> None:
    @app.command(stage, help=text)
    def _(
        recipe: RecipeOption,
        overrides: Overrides = None,
        home: Home = None,
        resume: Resume = True,
        track: Track = None,
    ) -> None:
        _train(stage, recipe, overrides, home, resume, track)


for _stage, _text in {
    "pretrain": "A base model from text (makes the data and the tokenizer first).",
    "sft": "An assistant from the base model and demonstrations.",
    "reward": "A reward model from rankings (the world's are sampled and ranked first).",
    "ppo": "A better assistant, from the SFT model and the reward model.",
}.items():
    _add(_stage, _text)
