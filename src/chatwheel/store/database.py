"""The database: opened, brought to this version's schema, and handed out in short transactions.

SQLite in WAL mode by default (readers never wait for the writer), PostgreSQL by URL.
"""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import ArgumentError, DatabaseError, NoSuchModuleError
from sqlalchemy.orm import Session

from chatwheel.errors import InputError, StorageError
from chatwheel.store.tables import Base

BUSY_TIMEOUT_MS = 10_000
MIGRATION_LOCK = 0x63686174  # "chat": PostgreSQL's advisory lock while the schema changes


class Database:
    """Rows in short transactions. Every method blocks: call it from a thread, never from the event loop."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        # A write takes its lock at the start: a transaction that reads first and locks later could fail half-way.
        self._writer = engine.execution_options(sqlite_begin="IMMEDIATE")

    @staticmethod
    def open(url: str) -> Database:
        """Opens or creates the database and upgrades an older schema. Raises InputError, StorageError."""
        parsed = _parse(url)
        where = parsed.render_as_string(hide_password=True)
        try:
            engine = _engine(parsed)
        except (NoSuchModuleError, ImportError) as error:
            raise InputError(f"database {where}: its driver is not installed ({error})") from None
        try:
            with engine.execution_options(sqlite_begin="IMMEDIATE").begin() as connection:
                _upgrade(connection, where)
        except DatabaseError as error:
            engine.dispose()
            raise StorageError(f"database {where}: cannot be opened ({error.orig})") from error
        except BaseException:
            engine.dispose()
            raise
        return Database(engine)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """One consistent look at the rows."""
        with Session(self._engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """All of the block's changes or none. Raises StorageError if the disk refuses them."""
        try:
            with Session(self._writer, expire_on_commit=False) as session, session.begin():
                yield session
        except DatabaseError as error:
            where = self._engine.url.render_as_string(hide_password=True)
            raise StorageError(f"database {where}: not saved ({error.orig}); what was there is unharmed") from error

    def close(self) -> None:
        """Closes the connections."""
        self._engine.dispose()


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise InputError(
            "CHATWHEEL_DATABASE_URL is not a URL like sqlite:////path/file.db or postgresql://..."
        ) from None
    if parsed.get_backend_name() not in ("sqlite", "postgresql"):
        raise InputError(f"CHATWHEEL_DATABASE_URL: {parsed.drivername} is not supported; use sqlite or postgresql")
    return parsed


def _engine(url: URL) -> Engine:
    if url.get_backend_name() != "sqlite":
        return create_engine(url, pool_pre_ping=True)
    engine = create_engine(url)  # connects later
    if url.database:
        file = Path(url.database)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch(mode=0o600)  # private: it holds people's conversations
        except OSError as error:
            raise StorageError(f"database {file}: cannot be written ({error.strerror})") from error
    event.listen(engine, "connect", _configure_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _configure_sqlite(connection: Any, _record: Any) -> None:
    """WAL, foreign keys, patience; and no transactions begun behind our back, so that schema changes are atomic."""
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    _switch_to_wal(connection)
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA foreign_keys = ON")


def _switch_to_wal(connection: Any) -> None:
    """WAL from now on. SQLite does not wait here while others open or close the file, whatever its busy timeout says:
    waiting in vain for each other would be possible. So we let go and ask again."""
    deadline = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01 + 0.02 * random.random())


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql(f"BEGIN {connection.get_execution_options().get('sqlite_begin', 'DEFERRED')}")


def _upgrade(connection: Connection, where: str) -> None:
    """Brings the schema to this version's head; refuses a schema that this version does not know."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
    config = Config()
    config.set_main_option("script_location", "chatwheel.store:migrations")
    config.attributes["connection"] = connection
    script = ScriptDirectory.from_config(config)
    known = {revision.revision for revision in script.walk_revisions()}
    current = MigrationContext.configure(connection).get_current_revision()
    if current is None:
        _refuse_foreign_tables(connection, where)
    elif current not in known:
        raise InputError(
            f"database {where}: its schema is version {current!r}, which this Chatwheel does not know "
            f"(newest known: {script.get_current_head()}); install the newer Chatwheel that made it"
        )
    if current != script.get_current_head():
        command.upgrade(config, "head")


def _refuse_foreign_tables(connection: Connection, where: str) -> None:
    ours = set(inspect(connection).get_table_names()) & set(Base.metadata.tables)
    if ours:
        raise InputError(
            f"database {where}: has tables ({', '.join(sorted(ours))}) that Chatwheel did not make; use another one"
        )
