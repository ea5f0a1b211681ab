"""`chatwheel db`: the database's schema, backups, and what comes back of them."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from chatwheel.cli.options import Home

app = typer.Typer(help="Upgrade, back up and restore the database and the uploaded files.", no_args_is_help=True)


@app.command("upgrade")
def upgrade(home: Home = None) -> None:
    """Bring an older schema to this version's, all of it or nothing."""
    from chatwheel.settings import Settings
    from chatwheel.store.database import Database

    before, after = Database.upgrade(Settings.load(home).database_url)
    print(f"the schema is version {after}" + (f", it was {before or 'not there'}" if before != after else " already"))


@app.command("backup")
def backup(
    file: Annotated[Path, typer.Argument(help="Where to: a .zip that is not there yet.")], home: Home = None
) -> None:
    """All rows and uploaded files as one .zip, while servers run; it fits SQLite and PostgreSQL."""
    from chatwheel.errors import ChatwheelError
    from chatwheel.settings import Settings
    from chatwheel.store.backup import save
    from chatwheel.store.database import Database
    from chatwheel.store.health import note_backup

    settings = Settings.load(home)
    rows, files = save(settings, file)
    with suppress(ChatwheelError):  # an older schema, or a disk that is full: the backup is there all the same
        database = Database.open(settings.database_url)
        try:
            database.transact(partial(note_backup, file=file.name, rows=rows, files=files))
        finally:
            database.close()
    print(f"{file}: {rows:,} rows, {files:,} files")


@app.command("restore")
def restore(file: Annotated[Path, typer.Argument(help="A backup.")], home: Home = None) -> None:
    """Into an installation that has no rows of its own yet, of the same version; SQLite or PostgreSQL."""
    from chatwheel.settings import Settings
    from chatwheel.store.backup import load

    rows, files = load(Settings.load(home), file)
    print(f"{rows:,} rows, {files:,} files are back")
