"""`chatwheel quickstart`: from nothing to an aligned assistant."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from chatwheel.cli.options import Track


def command(
    home: Annotated[Path | None, typer.Option(help="Instead of $CHATWHEEL_HOME or ~/.chatwheel.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Minutes to train on two cores: 22 unless given.")] = None,
    serve: Annotated[bool, typer.Option("--serve/--no-serve", help="Serve the result when it is trained.")] = True,
    language: Annotated[Literal["en", "zh", "both"] | None, typer.Option(help="What it learns: both.")] = None,
    track: Track = None,
    host: Annotated[str, typer.Option(help="The address to serve at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port to serve at.")] = 8000,
) -> None:
    """Train a base model, SFT, a reward model and PPO on data that ships with the package, then serve the result.

    Stop it at any moment: the same command goes on where it was.
    """
    from chatwheel.cli.display import Display
    from chatwheel.jobs.pipeline import run_recipe
    from chatwheel.jobs.quickstart import quickstart_recipe
    from chatwheel.jobs.run import Run
    from chatwheel.jobs.tracking import tracked
    from chatwheel.settings import Settings

    settings = Settings.load(home)
    if serve:
        from chatwheel.cli.serve import KEY_VARIABLE, listen

        # Minutes from now would be too late to say that the port is taken.
        listen(host, port, os.environ.get(KEY_VARIABLE)).close()
    run = Run.open(quickstart_recipe(settings, minutes, language), settings)
    with Display() as display, tracked(display, run, track or ()) as observer:
        display.say("[bold]Chatwheel[/]: text → base model → SFT → reward model → PPO → chat")
        run_recipe(run, observer)
    display.say(f"\nReport: {run.directory / 'report.html'}")
    if serve:
        from chatwheel.cli.serve import serve as serve_models

        serve_models(settings, host=host, port=port)
