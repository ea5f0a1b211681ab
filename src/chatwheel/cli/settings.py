"""`chatwheel settings`: what holds for the whole installation."""

from __future__ import annotations

from typing import Annotated

import typer

from chatwheel.cli.options import Home, Json

app = typer.Typer(help="Show and set how long chats and the audit log are kept.", no_args_is_help=True)
Days = Annotated[str | None, typer.Option(metavar="DAYS", help="Or 'off': for ever.", show_default="as it is")]


@app.command("show")
def show(home: Home = None, as_json: Json = False) -> None:
    """How long things are kept, and what falls under that now."""
    import json
    from dataclasses import asdict

    from chatwheel.cli.options import opened
    from chatwheel.store import retention

    with opened(home) as database, database.read() as session:
        rule = retention.retention(session)
        found = retention.due(session, rule)
    if as_json:
        print(json.dumps({"retention": asdict(rule), "due": asdict(found)}))
        return
    print(f"chats without a new turn are deleted {_after(rule.chat_days)}: {found.chats:,} now")
    print(f"lines of the audit log are deleted {_after(rule.audit_days)}: {found.audit:,} now")


@app.command("set")
def set_(
    chat_days: Days = None,
    audit_days: Days = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    home: Home = None,
) -> None:
    """How long things are kept; says what would be deleted, and asks. Servers do it within an hour."""
    from dataclasses import asdict

    from chatwheel.cli.options import opened
    from chatwheel.store import accounts, retention

    with opened(home) as database:
        with database.read() as session:
            before = retention.retention(session)
            rule = retention.Retention(
                chat_days=_days("--chat-days", chat_days, before.chat_days),
                audit_days=_days("--audit-days", audit_days, before.audit_days),
            )
            found = retention.due(session, rule)
        print(f"would delete now: {found.chats:,} chats, {found.audit:,} lines of the audit log")
        if found and not yes:
            typer.confirm("They do not come back but from a backup. Go on?", abort=True)
        with database.write() as session:
            retention.set_retention(session, rule)
            accounts.record(session, None, "settings.updated", retention.NAME, **asdict(rule))
    print(f"saved: chats are deleted {_after(rule.chat_days)}, the audit log {_after(rule.audit_days)}")


def _after(days: int | None) -> str:
    return "never" if days is None else f"after {days} days"


def _days(option: str, said: str | None, before: int | None) -> int | None:
    from chatwheel.errors import InputError

    if said is None or said == "off":
        return before if said is None else None
    if not (said.isascii() and said.isdecimal() and len(said) <= 6):
        raise InputError(f"{option}: {said!r} is no number of days; 'off' keeps them for ever")
    return int(said)
