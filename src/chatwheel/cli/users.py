"""`chatwheel users`: who uses this installation."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from chatwheel.cli.options import Home, Json

app = typer.Typer(help="Add, list and change users.", no_args_is_help=True)
Role = Literal["admin", "member"]
User = Annotated[str, typer.Argument(help="Id or name.")]


@app.command("add")
def add(
    name: Annotated[str, typer.Argument(help="What to call them; nobody else has that name.")],
    role: Annotated[Role, typer.Option(help="Admins may do everything.")] = "member",
    project: Annotated[str | None, typer.Option(help="Take them into this project: id or name.")] = None,
    home: Home = None,
) -> None:
    """A user; what they may, their keys say (`chatwheel keys create --user`)."""
    from chatwheel.cli.options import opened
    from chatwheel.store import accounts

    with opened(home) as database, database.write() as session:
        row = accounts.create_user(session, name, role)
        accounts.record(session, None, "user.added", row.id, name=row.name, role=role)
        if project is not None:
            accounts.set_member(session, accounts.get_project(session, project).id, row.id)
    print(row.id)


@app.command("list")
def list_users(home: Home = None, as_json: Json = False) -> None:
    """All of them, the first one first."""
    import json

    from chatwheel.cli.options import opened
    from chatwheel.store import accounts

    with opened(home) as database, database.read() as session:
        rows = [
            {"id": row.id, "name": row.name, "role": row.role, "disabled": row.disabled_at is not None}
            for row in accounts.list_users(session)
        ]
    if as_json:
        print(json.dumps({"users": rows}, ensure_ascii=False))
        return
    for row in rows:
        print(f"{row['id']:<32}{row['role']:<8}{'disabled' if row['disabled'] else '':<10}{row['name']}")


@app.command("password")
def password(
    user: User,
    stdin: Annotated[bool, typer.Option("--stdin", help="Read it from the first line of the input.")] = False,
    home: Home = None,
) -> None:
    """Give somebody a password: they sign in to the page by their name and it. Their sessions end."""
    import sys

    from chatwheel.cli.options import opened
    from chatwheel.settings import Settings
    from chatwheel.store import accounts, attempts, passwords

    with opened(home) as database:
        with database.read() as session:
            row = accounts.get_user(session, user)
        value = sys.stdin.readline().rstrip("\r\n") if stdin else _asked(row.name)
        passwords.check(value, row.name, None)
        digest = passwords.Hasher(Settings.load(home).password_kib).digest(value)
        with database.write() as session:
            first = not accounts.is_guarded(session)
            passwords.put(session, row.id, digest)
            attempts.forget(session, row.name)
            accounts.record(session, None, "password.set", row.id)
    print(f"{row.name} can sign in")
    if first:
        print("It is the first password: the page asks for one from now on, on this machine too.", file=sys.stderr)


def _asked(name: str) -> str:
    from getpass import getpass

    from chatwheel.errors import InputError

    value = getpass(f"Password for {name}: ")
    if getpass("Once more: ") != value:
        raise InputError("the two are not the same; nothing was changed")
    return value


@app.command("change")
def change(
    user: User,
    role: Annotated[Role | None, typer.Option(help="From now on.")] = None,
    disabled: Annotated[
        bool | None, typer.Option("--disable/--enable", help="Their keys open nothing any more.")
    ] = None,
    home: Home = None,
) -> None:
    """Another role; or out, or in again."""
    from chatwheel.cli.options import opened
    from chatwheel.errors import InputError
    from chatwheel.store import accounts

    if role is None and disabled is None:
        raise InputError("nothing to change: give --role, --disable or --enable")
    with opened(home) as database, database.write() as session:
        row = accounts.change_user(session, accounts.get_user(session, user).id, role=role, disabled=disabled)
        accounts.record(session, None, "user.updated", row.id, role=role, disabled=disabled)
    print(f"{row.name}: {row.role}{', disabled' if row.disabled_at else ''}")
