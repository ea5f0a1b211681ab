"""The databases that tests run on: SQLite, and a PostgreSQL of their own where its programs are installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text


@contextmanager
def postgresql() -> Iterator[str]:
    """A server on a socket of its own, gone afterwards; gives a URL whose database's name is still to be put in.

    Skips where PostgreSQL is not installed, but not in CI, which installs it.
    """
    programs = _programs()
    if programs is None:
        message = "PostgreSQL is not installed (apt install postgresql)"
        assert not os.environ.get("CI"), message
        pytest.skip(message)
    # Neither below pytest's directory, whose path is too long for a socket, nor readable by root alone.
    place = Path(tempfile.mkdtemp(prefix="pg"))
    user = "postgres" if os.geteuid() == 0 else None  # it refuses root
    if user is not None:
        shutil.chown(place, user)

    def run(program: str, *arguments: str) -> None:
        command = [str(programs / program), "-D", str(place / "data"), *arguments]
        done = subprocess.run(command, user=user, cwd=place, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{program}: {done.stdout}{done.stderr}"

    try:
        run("initdb", "--auth=trust", "--username=chatwheel", "--no-sync", "--encoding=UTF8")
        options = f"-k {place} -c listen_addresses='' -c fsync=off -c max_connections=200"
        run("pg_ctl", "-w", "-o", options, "-l", str(place / "log"), "start")
        try:
            yield f"postgresql+psycopg://chatwheel@/{{name}}?host={place}"
        finally:
            run("pg_ctl", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(place, ignore_errors=True)


def new_database(server: str) -> str:
    """The URL of an empty database."""
    name = f"test_{uuid.uuid4().hex}"
    engine = create_engine(server.format(name="postgres"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return server.format(name=name)


def _programs() -> Path | None:
    found = shutil.which("initdb")
    places = [Path(found).parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((place for place in places if (place / "initdb").exists() and (place / "pg_ctl").exists()), None)
