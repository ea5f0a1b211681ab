"""`chatwheel study`: what a method's result owes to its seed, and what becomes of it when it goes too far."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from chatwheel.cli.options import RecipeOption


def command(
    recipe: RecipeOption,
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value, as in ppo.rollouts=20")] = None,
    method: Annotated[str, typer.Option(help="What is studied: ppo, grpo, rloo or best_of_n.")] = "ppo",
    seeds: Annotated[int, typer.Option(min=1, help="How many, from the recipe's own on.")] = 5,
    far: Annotated[
        float, typer.Option(min=0, help="Times as many rollouts for the run that goes too far; 0 leaves it out.")
    ] = 3.0,
    coefficient: Annotated[float, typer.Option(min=0, help="Of that run's KL penalty.")] = 0.0,
    output: Annotated[Path, typer.Option(help="Where the pictures and the JSON are written.")] = Path("docs/figures"),
    home: Annotated[Path | None, typer.Option(help="Instead of $CHATWHEEL_HOME or ~/.chatwheel.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
) -> None:
    """Train a method with several seeds, and once too far, from a run's SFT and reward models; examine each, and draw
    it. Stop it at any moment: the same command goes on where it was."""
    import json

    from chatwheel.cli.display import Display
    from chatwheel.jobs.recipe import Recipe
    from chatwheel.jobs.study import Study, run_study
    from chatwheel.settings import Settings

    study = Study(
        recipe=Recipe.load(recipe, overrides or ()),
        settings=Settings.load(home),
        method=method,
        seeds=seeds,
        far=far,
        coefficient=coefficient,
        output=output,
    )
    with Display() as display:
        result = run_study(study, display, display.say)
        summary = result["summary"]
        if "accuracy" in summary:
            shown = [("right", summary["accuracy"]), *(summary["preferred"].items())]
            for name, numbers in shown:
                spread = "" if numbers["std"] is None else f" ± {numbers['std']:.1%}"
                display.say(f"{name}: {numbers['mean']:.1%}{spread} ({numbers['min']:.1%} to {numbers['max']:.1%})")
        display.say(f"collapsed: {', '.join(map(str, summary['collapsed'])) or 'none'}")
        if "over_optimisation" in result:
            display.say(result["over_optimisation"]["said"])
        display.say(f"Written: {output}/{method}-*")
    if as_json:
        print(json.dumps(result, ensure_ascii=False))
