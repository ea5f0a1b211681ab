"""Options that several verbs have."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from chatwheel.store.database import Database

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8000

RecipeOption = Annotated[
    Path, typer.Option("--recipe", "-r", help="A YAML recipe, or the name of one that comes with Chatwheel.")
]
Track = Annotated[list[str] | None, typer.Option(help="Also write curves to tensorboard or wandb; may be repeated.")]


def where_to_watch(run: str, home: Path | None, host: str = DEFAULT_HOST, port: int = DEFAULT_PORT) -> str:
    """The line that says so when a run begins. home: `--home`, if it was given."""
    options = f" --home {quote(str(home))}" if home else ""
    options += f" --host {host}" if host != DEFAULT_HOST else ""
    options += f" --port {port}" if port != DEFAULT_PORT else ""
    url = f"{address(host, port)}/#/runs/{run}"
    return f"[dim]Watch it: `chatwheel serve{options}` in another terminal, then[/] [cyan]{url}[/]"


def address(host: str, port: int) -> str:
    """The page's URL."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


Home = Annotated[Path | None, typer.Option(help="Instead of $CHATWHEEL_HOME or ~/.chatwheel.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@contextmanager
def opened(home: Path | None) -> Iterator[Database]:
    """The installation's database; servers may run beside."""
    from chatwheel.settings import Settings
    from chatwheel.store.database import Database

    database = Database.open(Settings.load(home).database_url)
    try:
        yield database
    finally:
        database.close()
