"""`chatwheel keys`: API keys, made and taken back on this machine, whoever they are for."""

from __future__ import annotations

from typing import Annotated

import typer

from chatwheel.cli.options import Home, Json

app = typer.Typer(help="Create, list, rotate and revoke API keys.", no_args_is_help=True)


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(help="What it is for, such as the application's name.")],
    project: Annotated[
        str | None, typer.Option(help="The project's id or name. [default: the first one]", show_default=False)
    ] = None,
    user: Annotated[
        str | None, typer.Option(help="Whose: id or name. [default: the first admin]", show_default=False)
    ] = None,
    scope: Annotated[
        list[str] | None,
        typer.Option(
            help="What it may do; may be repeated. `all` is everything. [default: all but runs, project, admin]"
        ),
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="The only models it may ask; may be repeated. [default: all]")
    ] = None,
    expires_in_days: Annotated[float | None, typer.Option(min=0.0, help="After so many days it ends.")] = None,
    requests_per_minute: Annotated[int | None, typer.Option(min=1)] = None,
    tokens_per_minute: Annotated[int | None, typer.Option(min=1)] = None,
    monthly_budget: Annotated[
        float | None, typer.Option(min=0.0, help="In dollars, by the prices that are set.")
    ] = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Make a key and show it, this once. From the first one on, the server asks everybody for a key."""
    import json
    import sys
    import time

    from chatwheel.cli.options import opened
    from chatwheel.store import accounts
    from chatwheel.store.prices import DOLLAR

    scopes = accounts.SCOPES if scope == ["all"] else tuple(scope or accounts.USUAL)
    with opened(home) as database, database.write() as session:
        first = not accounts.has_keys(session)
        local = accounts.local_principal(session)
        made = accounts.create_key(
            session,
            project_id=accounts.get_project(session, project).id if project else local.project_id,
            user_id=accounts.get_user(session, user).id if user else local.user_id,
            name=name,
            scopes=scopes,
            models=model or None,
            expires_at=time.time() + expires_in_days * 86400 if expires_in_days is not None else None,
            limits={
                "requests_per_minute": requests_per_minute,
                "tokens_per_minute": tokens_per_minute,
                "budget": None if monthly_budget is None else round(monthly_budget * DOLLAR),
            },
        )
        accounts.record(session, None, "api_key.created", made.row.id, name=name, scopes=made.row.scopes)
    if as_json:
        print(json.dumps({"id": made.row.id, "value": made.secret, "scopes": made.row.scopes}))
        return
    print(made.secret)
    print("This is the only time it is shown: keep it where secrets are kept.", file=sys.stderr)
    if first:
        print("It is the first key: the server asks for one from now on, on this machine too.", file=sys.stderr)


@app.command("list")
def list_keys(home: Home = None, as_json: Json = False) -> None:
    """All keys, the newest first; never what opens."""
    import json

    from chatwheel.cli.options import opened
    from chatwheel.store import accounts

    with opened(home) as database, database.read() as session:
        names = {user.id: user.name for user in accounts.list_users(session)}
        projects = {project.id: project.name for project in accounts.list_projects(session)}
        rows = [
            {
                "id": row.id,
                "hint": row.hint,
                "name": row.name,
                "user": names[row.user_id],
                "project": projects[row.project_id],
                "scopes": row.scopes,
                "state": accounts.state_of(row),
                "last_used_at": row.last_used_at,
            }
            for row in accounts.list_keys(session)
        ]
    if as_json:
        print(json.dumps({"keys": rows}, ensure_ascii=False))
        return
    if not rows:
        print("no keys yet; `chatwheel keys create NAME` makes one")
    for row in rows:
        print(f"{row['id']:<30}{row['hint']:<18}{row['state']:<9}{row['user']:<16}{row['project']:<16}{row['name']}")


@app.command("rotate")
def rotate(
    key: Annotated[str, typer.Argument(help="Its id, or its first and last letters as `list` shows them.")],
    keep_hours: Annotated[float, typer.Option(min=0.0, help="How long the old one still opens.")] = 0.0,
    home: Home = None,
) -> None:
    """Another secret with the same rights."""
    from chatwheel.cli.options import opened
    from chatwheel.store import accounts

    with opened(home) as database, database.write() as session:
        old = accounts.get_key(session, key)
        made = accounts.rotate_key(session, old.id, keep_hours * 3600)
        accounts.record(session, None, "api_key.rotated", old.id, successor=made.row.id)
    print(made.secret)


@app.command("revoke")
def revoke(
    key: Annotated[str, typer.Argument(help="Its id, or its first and last letters as `list` shows them.")],
    home: Home = None,
) -> None:
    """It opens nothing from now on, on any server."""
    from chatwheel.cli.options import opened
    from chatwheel.store import accounts

    with opened(home) as database, database.write() as session:
        row = accounts.revoke_key(session, accounts.get_key(session, key).id)
        accounts.record(session, None, "api_key.revoked", row.id)
    print(f"{row.hint} is revoked")
