"""`chatwheel models`: what there is, and where it comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="List models and show where they come from.", no_args_is_help=True)
Home = Annotated[Path | None, typer.Option(help="Instead of $CHATWHEEL_HOME or ~/.chatwheel.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command("list")
def list_models(home: Home = None, as_json: Json = False) -> None:
    """All named models."""
    import json
    from datetime import UTC, datetime

    from chatwheel.settings import Settings
    from chatwheel.store.registry import Registry

    settings = Settings.load(home)
    entries = Registry(settings.models).list()
    if as_json:
        rows = [
            {"name": e.name, "kind": e.kind, "created": e.created, "stage": e.lineage.get("stage")} for e in entries
        ]
        print(json.dumps({"models": rows}))
        return
    if not entries:
        print(f"no models in {settings.models} yet; `chatwheel quickstart` makes some")
    for entry in entries:
        created = datetime.fromtimestamp(entry.created, UTC).strftime("%Y-%m-%d %H:%M")
        print(f"{entry.name:<32}{entry.kind:<8}{entry.lineage.get('stage', ''):<10}{created}")


@app.command("show")
def show(
    model: Annotated[str, typer.Argument(help="A model's name or directory.")], home: Home = None, as_json: Json = False
) -> None:
    """A model's lineage: parents, data, recipe, seed, metrics."""
    import json

    from chatwheel.settings import Settings
    from chatwheel.store.registry import Registry

    entry = Registry(Settings.load(home).models).entry(model)
    value = {"name": entry.name, "kind": entry.kind, "directory": str(entry.directory), **entry.lineage}
    print(json.dumps(value, ensure_ascii=False, indent=None if as_json else 2))
