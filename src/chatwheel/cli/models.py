"""`chatwheel models`: what there is, where it comes from, who answers, and adapters made whole."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    help="List models, show where they come from, promote them, and make adapters whole.", no_args_is_help=True
)
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


@app.command("promote")
def promote(
    model: Annotated[str, typer.Argument(help="A model's name.")],
    share: Annotated[float, typer.Option(help="Of those who ask for chatwheel-latest; the others keep theirs.")] = 1.0,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Let a model answer those who ask for `chatwheel-latest`: a part of them, or all."""
    promote_noted(model, share, home, as_json=as_json)


def promote_noted(
    model: str,
    share: float,
    home: Path | None,
    *,
    as_json: bool = False,
    note: dict[str, Any] | None = None,
    **details: Any,
) -> None:
    """note: why, kept with the deployment. details: what the audit log says beside the share."""
    from chatwheel.cli.options import opened
    from chatwheel.errors import InputError
    from chatwheel.settings import Settings
    from chatwheel.store import accounts, deployments
    from chatwheel.store.registry import Registry, check_answers

    registry = Registry(Settings.load(home).models)
    entry = check_answers(registry.entry(model))
    if not entry.directory.is_relative_to(registry.root):
        raise InputError(f"{model}: servers know models by their names in {registry.root}; move it there")
    name = entry.name
    with opened(home) as database, database.write() as session:
        deployments.promote(session, name, share=share, note=note)
        accounts.record(session, None, "model.promoted", name, share=share, **details)
    _print_deployed(home, as_json=as_json)


@app.command("rollback")
def rollback(home: Home = None, as_json: Json = False) -> None:
    """Take the candidate back, or, where there is none, the current model in favour of the one before it."""
    from chatwheel.cli.options import opened
    from chatwheel.store import deployments

    with opened(home) as database, database.write() as session:
        deployments.rollback(session)
    _print_deployed(home, as_json=as_json)


@app.command("deployed")
def show_deployed(home: Home = None, as_json: Json = False) -> None:
    """Which models answer those who ask for `chatwheel-latest`."""
    _print_deployed(home, as_json=as_json)


def _print_deployed(home: Path | None, *, as_json: bool) -> None:
    import json

    from chatwheel.cli.options import opened
    from chatwheel.store import deployments

    with opened(home) as database, database.read() as session:
        now = deployments.deployed(session)
    part = now.candidate.share if now.candidate else 0.0
    shares = {row.model: share for row, share in ((now.current, 1 - part), (now.candidate, part)) if row is not None}
    if as_json:
        print(json.dumps({"deployed": shares}))
    elif not shares:
        print("no model is deployed yet; `chatwheel models promote NAME` does it")
    for model, share in {} if as_json else shares.items():
        print(f"{model:<40}{share:.0%}")


@app.command("merge")
def merge(
    model: Annotated[str, typer.Argument(help="An adapter's name or directory.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The directory of the whole model.")],
    home: Home = None,
) -> None:
    """Write an adapter and what it is on as one whole model."""
    from chatwheel.settings import Settings
    from chatwheel.store.loading import save_merged
    from chatwheel.store.registry import Registry

    save_merged(Registry(Settings.load(home).models, hub=True).entry(model), output)
    print(output)
