"""`chatwheel train STAGE`: one stage of a recipe."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from chatwheel.cli.options import RecipeOption, Track, where_to_watch

if TYPE_CHECKING:
    from chatwheel.jobs.recipe import Recipe
    from chatwheel.jobs.watching import Command
    from chatwheel.settings import Settings

app = typer.Typer(help="Run one stage of a recipe; what it reads must be there.", no_args_is_help=True)

Overrides = Annotated[list[str] | None, typer.Argument(help="key=value, as in sft.epochs=3")]
Home = Annotated[Path | None, typer.Option(help="Instead of $CHATWHEEL_HOME or ~/.chatwheel.")]
Resume = Annotated[bool, typer.Option(help="Go on from the last save; --no-resume begins the stage again.")]
Ray = Annotated[bool, typer.Option("--ray", help="In processes that Ray starts, here or on $RAY_ADDRESS's cluster.")]
Workers = Annotated[int | None, typer.Option(min=1, help="How many of them.")]
Explain = Annotated[
    bool, typer.Option("--explain", help="At the end say what looks wrong and what to do; at once, if it is done.")
]


def _train(
    stage: str,
    recipe: Path,
    overrides: list[str] | None,
    home: Path | None,
    resume: bool,
    track: list[str] | None,
    ray: bool,
    workers: int | None,
    explain: bool,
) -> None:
    from chatwheel.jobs.recipe import Recipe
    from chatwheel.settings import Settings

    loaded, settings = Recipe.load(recipe, overrides or ()), Settings.load(home)
    if not explain:
        _start(stage, loaded, settings, resume, track, home, ray, workers)
        return
    from chatwheel.jobs.explaining import check_explained, explained, is_finished
    from chatwheel.jobs.run import Run

    check_explained(loaded, stage)
    run = Run.open(loaded, settings)
    try:
        if not (resume and is_finished(run, stage)):
            _start(stage, loaded, settings, resume, track, home, ray, workers)
    finally:  # of what failed, too: that is when one asks
        print(explained(run, stage))


def _start(
    stage: str,
    loaded: Recipe,
    settings: Settings,
    resume: bool,
    track: list[str] | None,
    home: Path | None,
    ray: bool,
    workers: int | None,
) -> None:
    from chatwheel.errors import InputError
    from chatwheel.jobs.recipe import SAMPLING
    from chatwheel.jobs.watching import Command

    if ray and stage in SAMPLING:
        _sampled_in_ray(stage, loaded, settings, resume, track, home, workers)
    elif ray:
        _in_ray(stage, loaded, settings, resume, track, home, workers or 1)
    elif workers is not None:
        raise InputError("--workers is for --ray; without Ray, torchrun starts several processes")
    else:
        work(stage, loaded, settings, resume, track, home, Command.given(sys.argv[1:]))


def _in_ray(
    stage: str,
    recipe: Recipe,
    settings: Settings,
    resume: bool,
    track: list[str] | None,
    home: Path | None,
    workers: int,
) -> None:
    from chatwheel.jobs.pipeline import check, forget
    from chatwheel.jobs.ray_workers import run_in_ray
    from chatwheel.jobs.run import STARTING, Run
    from chatwheel.jobs.watching import Command

    run = Run.open(recipe, settings)
    check(run, stage, workers)  # what can be refused is refused at once
    with run.locked(
        name=STARTING
    ):  # the directory for Ray is this command's until its end, not until its workers begin
        with run.locked():
            if not resume:
                forget(run, stage)
        # Workers that are started again go on, whatever the first ones were told.
        each = partial(work, stage, recipe, settings, True, track, home, Command.given(sys.argv[1:]))
        run_in_ray(each, workers, run.directory / "ray")


def _sampled_in_ray(
    stage: str,
    recipe: Recipe,
    settings: Settings,
    resume: bool,
    track: list[str] | None,
    home: Path | None,
    workers: int | None,
) -> None:
    """This process learns, others sample for it."""
    from chatwheel.jobs.ray_workers import ray_joined
    from chatwheel.jobs.watching import Command

    recipe, number = recipe.sampled_by(stage, workers)
    with ray_joined(number):
        work(stage, recipe, settings, resume, track, home, Command.given(sys.argv[1:]))


def work(
    stage: str,
    recipe: Recipe,
    settings: Settings,
    resume: bool,
    track: list[str] | None,
    home: Path | None,
    command: Command | None,
) -> None:
    """What each process does, alone or under torchrun or Ray. command: the user's, which goes on with the run."""
    from chatwheel.cli.display import Display
    from chatwheel.jobs.pipeline import run_recipe
    from chatwheel.jobs.run import Run
    from chatwheel.jobs.tracking import tracked
    from chatwheel.training.distributed import processes

    run = Run.open(recipe, settings)
    with (
        processes() as ranks,
        Display(quiet=not ranks.first) as display,
        tracked(display, run, track or () if ranks.first else ()) as observer,
    ):
        display.say(where_to_watch(run.recipe.name, home))
        run_recipe(run, observer, only=stage, restart=not resume, command=command)


def _add(stage: str, text: str) -> None:
    @app.command(stage, help=text)
    def _(
        recipe: RecipeOption,
        overrides: Overrides = None,
        home: Home = None,
        resume: Resume = True,
        track: Track = None,
        ray: Ray = False,
        workers: Workers = None,
        explain: Explain = False,
    ) -> None:
        _train(stage, recipe, overrides, home, resume, track, ray, workers, explain)


for _stage, _text in {
    "pretrain": "A base model from text (makes the data and the tokenizer first).",
    "sft": "An assistant from the base model and demonstrations.",
    "reward": "A reward model from rankings (the world's are sampled and ranked first).",
    "ppo": "A better assistant, from the SFT model and the reward model.",
    "grpo": "The same without a critic: answers to one prompt are compared (Dr. GRPO and DAPO by options).",
    "rloo": "The same by plain REINFORCE, with the other answers to a prompt as the baseline.",
    "best_of_n": "The same by imitating the best of its own answers (rejection sampling).",
    "dpo": "A better assistant, from the SFT model (or the recipe's model) and rankings: no reward model.",
    "kto": "A better assistant, from the same and good and bad answers: rankings, or thumbs.",
}.items():
    _add(_stage, _text)
