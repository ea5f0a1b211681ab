"""`chatwheel projects`: what keys, files and tuned models belong to, with their limits."""

from __future__ import annotations

from itertools import starmap
from typing import Annotated, Any

import typer

from chatwheel.cli.options import Home, Json

app = typer.Typer(help="Create, list and limit projects.", no_args_is_help=True)


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(help="What to call it.")],
    owner: Annotated[str | None, typer.Option(help="Id or name of a user. [default: the first admin]")] = None,
    home: Home = None,
) -> None:
    """A project with its owner."""
    from chatwheel.cli.options import opened
    from chatwheel.store import accounts

    with opened(home) as database, database.write() as session:
        user = accounts.get_user(session, owner).id if owner else accounts.local_principal(session).user_id
        row = accounts.create_project(session, name, user)
        accounts.record(session, None, "project.created", row.id, name=row.name)
    print(row.id)


@app.command("list")
def list_projects(home: Home = None, as_json: Json = False) -> None:
    """All of them, with what each has spent this month."""
    import json
    import time

    from chatwheel.cli.options import opened
    from chatwheel.store import accounts
    from chatwheel.store.file_space import used
    from chatwheel.store.limits import month_of, spent
    from chatwheel.store.prices import DOLLAR

    with opened(home) as database, database.read() as session:
        rows = [
            {
                "id": row.id,
                "name": row.name,
                "archived": row.archived_at is not None,
                "requests_per_minute": row.requests_per_minute,
                "tokens_per_minute": row.tokens_per_minute,
                "monthly_budget": None if row.budget is None else row.budget / DOLLAR,
                "file_bytes": row.file_bytes,
                "bytes_of_files": used(session, row.id),
                "spent_this_month": spent(session, row.id, month_of(time.time())) / DOLLAR,
            }
            for row in accounts.list_projects(session)
        ]
    if as_json:
        print(json.dumps({"projects": rows}, ensure_ascii=False))
        return
    for row in rows:
        budget = f" of {row['monthly_budget']:.2f}" if row["monthly_budget"] is not None else ""
        state = "archived" if row["archived"] else f"${row['spent_this_month']:.2f}{budget} this month"
        print(f"{row['id']:<32}{state:<32}{row['name']}")


@app.command("limit")
def limit(
    project: Annotated[str, typer.Argument(help="Id or name.")],
    requests_per_minute: Annotated[int | None, typer.Option(min=0, help="0 is no limit.")] = None,
    tokens_per_minute: Annotated[int | None, typer.Option(min=0, help="0 is no limit.")] = None,
    monthly_budget: Annotated[float | None, typer.Option(help="In dollars; below 0 is no limit.")] = None,
    file_bytes: Annotated[
        int | None,
        typer.Option(help="That its files may take; below 0 is the default ($CHATWHEEL_FILE_BYTES, 100 GB)."),
    ] = None,
    home: Home = None,
) -> None:
    """What may be used of the installation."""
    from chatwheel.cli.options import opened
    from chatwheel.store import accounts
    from chatwheel.store.prices import DOLLAR

    limits: dict[str, Any] = {}
    if requests_per_minute is not None:
        limits["requests_per_minute"] = requests_per_minute or None
    if tokens_per_minute is not None:
        limits["tokens_per_minute"] = tokens_per_minute or None
    if monthly_budget is not None:
        limits["budget"] = None if monthly_budget < 0 else round(monthly_budget * DOLLAR)
    if file_bytes is not None:
        limits["file_bytes"] = None if file_bytes < 0 else min(file_bytes, 10**18)
    with opened(home) as database, database.write() as session:
        row = accounts.change_project(session, accounts.get_project(session, project).id, limits=limits)
        accounts.record(session, None, "project.updated", row.id, **limits)
    print(f"{row.name}: {', '.join(starmap(_shown, limits.items())) or 'as it was'}")


def _shown(name: str, value: int | None) -> str:
    return f"{name} {'the default' if name == 'file_bytes' and value is None else f'{value or 0:,}'}"
