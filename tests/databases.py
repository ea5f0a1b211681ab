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
    if _programs() is None:
        message = "PostgreSQL is not installed (apt install postgresql)"
        assert not os.environ.get("CI"), message
        pytest.skip(message)
    # Neither below pytest's directory, whose path is too long for a socket, nor readable by root alone.
    place = Path(tempfile.mkdtemp(prefix="pg"))
    if _user() is not None:
        shutil.chown(place, _user())
    try:
        _run(place, "initdb", "--auth=trust", "--username=chatwheel", "--no-sync", "--encoding=UTF8")
        _start(place)
        try:
            yield f"postgresql+psycopg://chatwheel@/{{name}}?host={place}"
        finally:
            _run(place, "pg_ctl", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(place, ignore_errors=True)


@contextmanager
def stopped(server: str) -> Iterator[None]:
    """The server is away while the block runs."""
    place = Path(server.rpartition("host=")[2])
    _run(place, "pg_ctl", "-w", "-m", "fast", "stop")
    try:
        yield
    finally:
        _start(place)


def _start(place: Path) -> None:
    options = f"-k {place} -c listen_addresses='' -c fsync=off -c max_connections=200"
    _run(place, "pg_ctl", "-w", "-o", options, "-l", str(place / "log"), "start")


def _run(place: Path, program: str, *arguments: str) -> None:
    programs = _programs()
    assert programs is not None
    command = [str(programs / program), "-D", str(place / "data"), *arguments]
    done = subprocess.run(command, user=_user(), cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{program}: {done.stdout}{done.stderr}"


def _user() -> str | None:
    return "postgres" if os.geteuid() == 0 else None  # it refuses root


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
