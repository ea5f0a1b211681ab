"""Options that several verbs have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RecipeOption = Annotated[
    Path, typer.Option("--recipe", "-r", help="A YAML recipe, or the name of one that comes with Chatwheel.")
]
Track = Annotated[list[str] | None, typer.Option(help="Also write curves to tensorboard or wandb; may be repeated.")]
