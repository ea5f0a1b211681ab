"""The databases that tests run on: SQLite, and a PostgreSQL of their own where its programs are installed."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
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


def new_database(server: str, template: str = "template1") -> str:
    """The URL of an empty database, or of a copy of another one."""
    name = f"test_{uuid.uuid4().hex}"
    engine = create_engine(server.format(name="postgres"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {template}"))
    engine.dispose()
    return server.format(name=name)


def with_schema(server: str) -> str:
    """The URL of a database that has this version's schema: to copy it takes a fifth of the time of making it."""
    return new_database(server, _template(server))


@cache
def _template(server: str) -> str:
    url = new_database(server)
    _migrate(url)
    return url.partition("@/")[2].partition("?")[0]


def file_with_schema(file: Path) -> str:
    """As `with_schema`, with SQLite."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(_migrated_file(), file)
    return f"sqlite:///{file}"


@cache
def _migrated_file() -> Path:
    place = tempfile.TemporaryDirectory(prefix="schema")
    atexit.register(place.cleanup)
    file = Path(place.name) / "chatwheel.db"
    _migrate(f"sqlite:///{file}")
    return file


def _migrate(url: str) -> None:
    from chatwheel.store.database import Database

    Database.open(url).close()


def _programs() -> Path | None:
    found = shutil.which("initdb")
    places = [Path(found).parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((place for place in places if (place / "initdb").exists() and (place / "pg_ctl").exists()), None)
