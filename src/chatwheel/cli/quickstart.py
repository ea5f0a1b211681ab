"""`chatwheel quickstart`: from nothing to an aligned assistant."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from chatwheel.cli.options import DEFAULT_HOST, DEFAULT_PORT, Track, address, where_to_watch


def command(
    home: Annotated[Path | None, typer.Option(help="Instead of $CHATWHEEL_HOME or ~/.chatwheel.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Minutes to train on two cores: 22 unless given.")] = None,
    serve: Annotated[bool, typer.Option("--serve/--no-serve", help="Serve the result when it is trained.")] = True,
    language: Annotated[Literal["en", "zh", "both"] | None, typer.Option(help="What it learns: both.")] = None,
    track: Track = None,
    host: Annotated[str, typer.Option(help="The address to serve at.")] = DEFAULT_HOST,
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port to serve at.")] = DEFAULT_PORT,
) -> None:
    """Train a base model, SFT, a reward model and PPO on data that ships with the package, then serve the result.

    Stop it at any moment: the same command goes on where it was.
    """
    from chatwheel.cli.display import Display
    from chatwheel.jobs.pipeline import run_recipe
    from chatwheel.jobs.quickstart import quickstart_recipe
    from chatwheel.jobs.run import Run
    from chatwheel.jobs.tracking import tracked
    from chatwheel.jobs.watching import Command
    from chatwheel.settings import Settings

    settings = Settings.load(home)
    if serve:
        from chatwheel.cli.serve import check_door, is_chatwheel, listen

        # Minutes from now would be too late to say that the port is taken; unless by a server that people watch with.
        if not is_chatwheel(host, port):
            check_door(settings, host)
            listen(host, port).close()
    run = Run.open(quickstart_recipe(settings, minutes, language), settings)
    with Display() as display, tracked(display, run, track or ()) as observer:
        display.say("[bold]Chatwheel[/]: text → base model → SFT → reward model → PPO → chat")
        display.say(where_to_watch(run.recipe.name, home, host, port or DEFAULT_PORT))
        run_recipe(run, observer, command=Command.given(sys.argv[1:]))
    display.say(f"\nReport: {run.directory / 'report.html'}")
    if serve and is_chatwheel(host, port):
        display.say(f"The server at {address(host, port)} has the new models, if it is of this home.")
    elif serve:
        from chatwheel.cli.serve import serve as serve_models

        serve_models(settings, host=host, port=port)
