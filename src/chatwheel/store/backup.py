"""Backups: all rows and uploaded files as one .zip, from SQLite or PostgreSQL, back into either.

`rows/<table>.jsonl` has a row a line, `files/<sha256>` the bytes of uploads, `tuned/` the models of fine-tuning jobs
(adapters; their bases are not in it), `backup.json` the schema's version. Rows
are read in one transaction, so that they are of one moment while servers go on.
"""

from __future__ import annotations

import json
import os
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, MetaData, Table, func, insert, inspect, select, text
from sqlalchemy.exc import DatabaseError

from chatwheel import __version__
from chatwheel.atomic import write_atomically
from chatwheel.errors import InputError, StorageError
from chatwheel.settings import Settings
from chatwheel.store.database import connect, make_schema, schema_version
from chatwheel.store.files import BlobStore

FORMAT = 1
TOGETHER = 500
TRIES = 3
TRANSIENT = ("instances", "uploads", "alembic_version")
"""What says something about running servers, or is made with the schema."""
INDEX = "search_index"
"""SQLite shows the index of the search as tables, whose names begin so; it follows what it is an index of."""


def save(settings: Settings, file: Path) -> tuple[int, int]:
    """Writes a backup; the numbers of rows and files. Raises InputError, StorageError."""
    if file.exists():
        raise InputError(f"{file}: is there already; choose another name")
    engine = connect(settings.database_url)
    temporary = file.with_name(f".{file.name}.part")
    try:
        temporary.touch(mode=0o600)  # as private as the database
        for left in reversed(range(TRIES)):
            try:
                with temporary.open("wb") as out:
                    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, allowZip64=True) as archive:
                        counts = _write(engine, settings, archive)
                    out.flush()
                    os.fsync(out.fileno())
                break
            except _GoneError as gone:  # deleted since the rows were read: they are read again
                if not left:
                    raise StorageError(
                        f"{settings.home}: the bytes of {gone} are missing; nothing was written"
                    ) from None
        temporary.replace(file)
    except OSError as error:
        raise StorageError(f"{file}: cannot be written ({error.strerror})") from error
    except DatabaseError as error:
        raise StorageError(f"{_shown(engine)}: cannot be read ({error.orig})") from error
    finally:
        temporary.unlink(missing_ok=True)
        engine.dispose()
    return counts


def load(settings: Settings, file: Path) -> tuple[int, int]:
    """Puts a backup back; the numbers of rows and files. Files come first: a row never names one that is not there.

    Raises InputError where the installation has rows of its own already, or the file is no backup.
    """
    try:
        archive = zipfile.ZipFile(file)
        about = json.loads(archive.read("backup.json"))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{file}: is not a backup of Chatwheel's ({error})") from None
    if not isinstance(about, dict):
        raise InputError(f"{file}: is not a backup of Chatwheel's (its backup.json is no JSON object)")
    if about.get("format") != FORMAT:
        raise InputError(f"{file}: was written by a newer Chatwheel ({about.get('version')}); install that one")
    if not isinstance(about.get("schema"), str):
        raise InputError(f"{file}: is damaged (its backup.json does not name a schema); nothing was restored")
    with archive:
        blobs = BlobStore(settings.files)
        names = [name for name in archive.namelist() if name.startswith("files/")]
        engine = connect(settings.database_url)
        try:
            _put_tuned(settings, archive)
            for name in names:
                with archive.open(name) as source:
                    blobs.put(iter(partial(source.read, 1 << 20), b""), expected=name.removeprefix("files/"))
            with engine.execution_options(sqlite_begin="IMMEDIATE").begin() as connection:
                _refuse_rows(connection)
                make_schema(connection, about["schema"], _shown(engine))
                rows = _read(connection, archive)
        except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, KeyError) as error:
            raise InputError(f"{file}: is damaged ({error}); nothing was restored") from None
        except DatabaseError as error:
            raise StorageError(f"{_shown(engine)}: not restored ({error.orig}); nothing was changed") from error
        finally:
            engine.dispose()
    return rows, len(names)


def _put_tuned(settings: Settings, archive: zipfile.ZipFile) -> None:
    """Tuned models, each file whole or not at all. Raises ValueError for a name that leads elsewhere."""
    for name in archive.namelist():
        parts = name.split("/")
        if parts[0] != "tuned":
            continue
        if len(parts) != 4 or not all(NAME.fullmatch(part) for part in parts[1:]):
            raise ValueError(f"{name!r} is no file of a model")
        with archive.open(name) as source:
            write_atomically(settings.tuned.joinpath(*parts[1:]), iter(partial(source.read, 1 << 20), b""))


NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
"""Of a directory or a file: nothing hidden, nothing above."""


class _GoneError(Exception):
    """The bytes of a file or of a tuned model are not there."""


def _shown(engine: Engine) -> str:
    return engine.url.render_as_string(hide_password=True)


def _write(engine: Engine, settings: Settings, archive: zipfile.ZipFile) -> tuple[int, int]:
    options = {"isolation_level": "REPEATABLE READ"} if engine.dialect.name == "postgresql" else {}
    rows = 0
    digests: list[str] = []
    tuned: set[str] = set()
    with engine.connect().execution_options(**options) as connection, connection.begin():
        version = schema_version(connection)
        if version is None:
            raise InputError("there is no database yet; nothing to back up")
        for table in _tables(connection):
            with archive.open(f"rows/{table.name}.jsonl", "w", force_zip64=True) as out:
                found = connection.execution_options(yield_per=TOGETHER).execute(select(table)).mappings()
                for row in found:
                    out.write(json.dumps(dict(row), ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")
                    rows += 1
                    if table.name == "files":
                        digests.append(row["sha256"])
                    elif table.name == "tuned_models":
                        tuned.add(row["directory"])
    for digest in sorted(set(digests)):
        try:
            archive.write(BlobStore(settings.files).path(digest), f"files/{digest}")
        except FileNotFoundError:
            raise _GoneError(digest) from None
    for directory in sorted(tuned):
        place = settings.tuned / directory
        parts = sorted(place.iterdir()) if place.is_dir() else []
        if not parts:
            raise _GoneError(directory)
        for file in parts:
            archive.write(file, f"tuned/{directory}/{file.name}")
    about = {"format": FORMAT, "schema": version, "version": __version__}
    archive.writestr("backup.json", json.dumps(about))
    return rows, len(set(digests))


def _read(connection: Connection, archive: zipfile.ZipFile) -> int:
    tables = _tables(connection)
    for table in reversed(tables):
        connection.execute(table.delete())  # the first user, who comes with the schema
    count = 0
    there = set(archive.namelist())
    for table in tables:
        name = f"rows/{table.name}.jsonl"
        if name not in there:
            continue
        with archive.open(name) as lines:
            # A message may be the answer to one that stands behind it.
            for together in _batches(_parents_first(table, map(_row, lines))):
                connection.execute(insert(table), together)
                count += len(together)
        _count_on(connection, table)
    return count


def _row(line: bytes) -> dict[str, Any]:
    row = json.loads(line)
    if not isinstance(row, dict):
        raise ValueError(f"{line[:40]!r} is no row")
    return row


def _tables(connection: Connection) -> list[Table]:
    """As they are in the database, those that others refer to first."""
    metadata = MetaData()
    metadata.reflect(connection, only=lambda name, _: not name.startswith(INDEX))
    return [table for table in metadata.sorted_tables if table.name not in TRANSIENT]


def _parents_first(table: Table, rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Rows of a table that refers to itself, each behind the one that it refers to."""
    own = [key.parent.name for key in table.foreign_keys if key.column.table is table]
    if not own:
        yield from rows
        return
    (reference,) = own
    (primary,) = (column.name for column in table.primary_key)
    waiting: dict[Any, list[dict[str, Any]]] = {}
    for row in rows:
        waiting.setdefault(row[reference], []).append(row)
    ready = waiting.pop(None, [])
    while ready:
        row = ready.pop()
        yield row
        ready += waiting.pop(row[primary], [])


def _batches(rows: Iterable[Mapping[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Rows of the same columns together; what is null is left out, as a JSON column would make the word of it."""
    filled = ({name: value for name, value in row.items() if value is not None} for row in rows)
    for _, together in groupby(filled, key=tuple[str, ...]):
        while batch := list(islice(together, TOGETHER)):
            yield batch


def _count_on(connection: Connection, table: Table) -> None:
    """PostgreSQL counts rows of its own apart from those that were given numbers."""
    if connection.dialect.name != "postgresql":
        return
    for column in table.primary_key:
        sequence = connection.scalar(
            text("SELECT pg_get_serial_sequence(:table, :column)"), {"table": f'"{table.name}"', "column": column.name}
        )
        if sequence is not None:
            last = connection.scalar(select(func.max(column)))
            connection.execute(
                text("SELECT setval(CAST(:sequence AS regclass), :last, :is_called)"),
                {"sequence": sequence, "last": last or 1, "is_called": last is not None},
            )


def _refuse_rows(connection: Connection) -> None:
    """Nothing that is there is ever overwritten: only the first user, who comes with the schema, may be."""
    names = {name for name in inspect(connection).get_table_names() if not name.startswith(INDEX)}
    allowed = {"users": 1, "projects": 1, "members": 1, "alembic_version": 1, "instances": 10**9}
    for name in sorted(names):
        table = Table(name, MetaData(), autoload_with=connection)
        if (connection.scalar(select(func.count()).select_from(table)) or 0) > allowed.get(name, 0):
            raise InputError(
                f"the database has rows in {name!r} already; restore into an empty one (another --home, or another "
                "CHATWHEEL_DATABASE_URL)"
            )
