"""The database: opened if it has this version's schema, and handed out in short transactions.

SQLite in WAL mode by default (readers never wait for the writer), PostgreSQL by URL.
"""

from __future__ import annotations

import hashlib
import logging
import math
import random
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import (
    ArgumentError,
    DatabaseError,
    DataError,
    DBAPIError,
    IntegrityError,
    InterfaceError,
    NoSuchModuleError,
    OperationalError,
    ProgrammingError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session

from chatwheel.errors import InputError, StorageError, UnavailableError
from chatwheel.store.tables import Base

T = TypeVar("T")
D = TypeVar("D")
R = TypeVar("R", bound=Base)
Transaction = Session | Connection
"""What a function needs that runs statements within its caller's transaction and keeps no objects."""
logger = logging.getLogger(__name__)
BUSY_TIMEOUT_MS = 10_000
POOL = {"pool_size": 10, "max_overflow": 10}
"""Connections that one process opens at most: PostgreSQL takes 100 of all of them unless told otherwise."""
PATIENCE = {"connect_timeout": 5, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
"""Seconds (and times): a database's machine that vanishes without a word is noticed, and not waited for."""
TRIES = 4
"""How often a transaction is done that the database breaks off for the sake of another one (a deadlock)."""
UNKEEPABLE = (
    "a value is too large, or a text has the character NUL (\\u0000), which the database cannot keep; leave it out"
)
MIGRATION_LOCK = 0x63686174  # "chat": PostgreSQL's advisory lock while the schema changes


class Database:
    """Rows in short transactions. Every method blocks: call it from a thread, never from the event loop."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        # A write takes its lock at the start: a transaction that reads first and locks later could fail half-way.
        self._writer = engine.execution_options(sqlite_begin="IMMEDIATE")
        self._onlooker = engine.execution_options(sqlite_begin=None)

    @staticmethod
    def open(url: str) -> Database:
        """Opens the database; an empty one gets its tables. Raises StorageError, and InputError where the schema is not
        this version's: `upgrade` mends an older one."""
        return Database._open(url, upgrade=False)[0]

    @staticmethod
    def upgrade(url: str) -> tuple[str | None, str]:
        """Brings an older schema to this version's, all of it or nothing; the versions before and after. Raises as
        `open` does."""
        database, before, after = Database._open(url, upgrade=True)
        database.close()
        return before, after

    @staticmethod
    def _open(url: str, *, upgrade: bool) -> tuple[Database, str | None, str]:
        engine = connect(url)
        where = engine.url.render_as_string(hide_password=True)
        try:
            with engine.execution_options(sqlite_begin="IMMEDIATE").begin() as connection:
                before, after = _bring_to_head(connection, where, upgrade=upgrade)
        except DatabaseError as error:
            engine.dispose()
            raise StorageError(f"database {where}: cannot be opened ({error.orig})") from error
        except BaseException:
            engine.dispose()
            raise
        return Database(engine), before, after

    @property
    def url(self) -> URL:
        """Where it is, with its password."""
        return self._engine.url

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A look at the rows. Raises StorageError if they cannot be read, UnavailableError if the database is away,
        InputError for values that it knows nothing like."""
        with self._reading(), Session(self._engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def look(self) -> Iterator[Connection]:
        """For one statement that reads, which takes half as long as with `read`. Raises as that does."""
        with self._reading(), self._onlooker.connect() as connection:
            yield connection

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except DataError as error:
            raise InputError(UNKEEPABLE) from error
        except (ProgrammingError, IntegrityError):
            raise  # a bug
        except (DatabaseError, InterfaceError, PoolTimeoutError) as error:
            raise self._told(error, "cannot be read") from error

    @contextmanager
    def write(self) -> Iterator[Session]:
        """All of the block's changes or none. Raises StorageError if the disk refuses them, UnavailableError if the
        database is away, InputError for values that cannot be kept."""
        with self._writing(), Session(self._writer, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def change(self) -> Iterator[Connection]:
        """`write` without a session around it, which takes longer than the few statements that a request needs."""
        with self._writing(), self._writer.begin() as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except DataError as error:
            raise InputError(UNKEEPABLE) from error
        except (DatabaseError, InterfaceError, PoolTimeoutError) as error:
            raise self._told(error, "not saved") from error

    def transact(self, work: Callable[[Session], T]) -> T:
        """`work` in a transaction, once more where the database broke it off for the sake of another one. Raises as
        `write` does, and what `work` raises."""
        return self._patiently(self.write, work)

    def transact_change(self, work: Callable[[Connection], T]) -> T:
        """`transact` in a `change`."""
        return self._patiently(self.change, work)

    def _patiently(self, transaction: Callable[[], AbstractContextManager[D]], work: Callable[[D], T]) -> T:
        for _ in range(TRIES - 1):
            try:
                with transaction() as within:
                    return work(within)
            except UnavailableError as error:
                if not _is_conflict(error.__cause__):
                    raise
            time.sleep(0.02 * random.random())
        with transaction() as within:
            return work(within)

    def _told(self, error: SQLAlchemyError, what: str) -> StorageError:
        where = self._engine.url.render_as_string(hide_password=True)
        reason = " ".join(str(error.orig if isinstance(error, DBAPIError) else error).split())
        if _is_away(error):
            logger.warning("database %s: %s (%s)", where, what, reason)
            return UnavailableError(
                "The database is away or too busy; nothing was changed. Try again in a moment.",
                code="database_unavailable",
            )
        return StorageError(f"database {where}: {what} ({reason}); what was there is unharmed")

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
        if url.drivername == "postgresql":
            url = url.set(drivername="postgresql+psycopg")  # the driver that comes with chatwheel[postgresql]
        # REPEATABLE READ would refuse what two servers write at once; rows that are read to be changed are locked.
        patience = {name: value for name, value in PATIENCE.items() if name not in url.query}
        return create_engine(url, pool_pre_ping=True, connect_args=patience, **POOL)
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
    connection.create_function("floor", 1, math.floor, deterministic=True)  # not every SQLite has it


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
    if kind := connection.get_execution_options().get("sqlite_begin", "DEFERRED"):
        connection.exec_driver_sql(f"BEGIN {kind}")


def dialect_of(session: Transaction) -> str:
    """ "sqlite" or "postgresql"."""
    return (session if isinstance(session, Connection) else session.get_bind()).dialect.name


def either_insert(session: Transaction) -> Callable[[Any], Any]:
    """PostgreSQL's and SQLite's word for inserting or changing, `ON CONFLICT`, is the same."""
    return postgresql.insert if dialect_of(session) == "postgresql" else sqlite.insert


def upsert(session: Session, kind: type[R], key: dict[str, Any], values: dict[str, Any]) -> R:
    """The row with that key, with these values: new, or changed; also where somebody else makes it meanwhile."""
    statement = either_insert(session)(kind).values(key | values)
    session.execute(statement.on_conflict_do_update(index_elements=list(key), set_=values))
    found = select(kind).filter_by(**key).execution_options(populate_existing=True)
    return session.scalars(found).one()


def lock(session: Transaction, names: Iterable[str]) -> None:
    """Keeps out other transactions that lock one of these names, until this one ends. SQLite has one writer at a time
    anyway; on PostgreSQL, whoever changes rows that many share (limits, spending, files) locks what they belong
    to first of all, and in the same order, so that no two wait for each other."""
    if dialect_of(session) == "postgresql":
        digests = {hashlib.blake2b(name.encode(), digest_size=8).digest() for name in names}
        keys = sorted(int.from_bytes(digest, "big", signed=True) for digest in digests)
        if keys:
            locked = text("SELECT count(pg_advisory_xact_lock(key)) FROM unnest(CAST(:keys AS bigint[])) AS key")
            session.execute(locked, {"keys": keys})


def _is_away(error: SQLAlchemyError) -> bool:
    """Whether it may go well a moment later."""
    if isinstance(error, PoolTimeoutError) or _is_conflict(error):
        return True
    if not isinstance(error, DBAPIError):
        return False
    if isinstance(error.orig, sqlite3.Error):
        return getattr(error.orig, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
    state = getattr(error.orig, "sqlstate", None)  # none where it said nothing, as it was gone
    kind = isinstance(error, (OperationalError, InterfaceError))
    return error.connection_invalidated or (kind and (state is None or state[:2] in ("08", "57") or state == "53300"))


def _is_conflict(error: BaseException | None) -> bool:
    """Whether PostgreSQL broke a transaction off for the sake of another one."""
    return isinstance(error, DBAPIError) and (getattr(error.orig, "sqlstate", None) or "").startswith("40")


def connect(url: str) -> Engine:
    """An engine for a database of whatever schema. Raises InputError, StorageError."""
    parsed = _parse(url)
    try:
        return _engine(parsed)
    except (NoSuchModuleError, ImportError) as error:
        where = parsed.render_as_string(hide_password=True)
        raise InputError(
            f"database {where}: its driver is not installed ({error}); pip install 'chatwheel[postgresql]'"
        ) from None


def schema_version(connection: Connection) -> str | None:
    """Which version's schema a database has; None where it has none."""
    return MigrationContext.configure(connection).get_current_revision()


def make_schema(connection: Connection, version: str, where: str) -> None:
    """Gives an empty database the tables of a version. Raises InputError for one that is not known, or not older than
    what is there."""
    config, script = _migrations(connection)
    if version not in {revision.revision for revision in script.walk_revisions()}:
        raise InputError(f"its schema is version {version!r}, which this Chatwheel does not know; install a newer one")
    current = schema_version(connection)
    if current is None:
        _refuse_foreign_tables(connection, where)
        command.upgrade(config, version)
    elif current != version:
        raise InputError(
            f"database {where}: its schema is version {current}, and {version} is wanted; take one that is not there "
            "yet, then `chatwheel db upgrade`"
        )


def _migrations(connection: Connection) -> tuple[Config, ScriptDirectory]:
    config = Config()
    config.set_main_option("script_location", "chatwheel.store:migrations")
    config.attributes["connection"] = connection
    return config, ScriptDirectory.from_config(config)


def _bring_to_head(connection: Connection, where: str, *, upgrade: bool) -> tuple[str | None, str]:
    """Makes the tables of an empty database, and upgrades older ones if asked to; the versions before and after."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
    config, script = _migrations(connection)
    known = {revision.revision for revision in script.walk_revisions()}
    head = script.get_current_head()
    assert head is not None
    current = schema_version(connection)
    if current is None:
        _refuse_foreign_tables(connection, where)
    elif current not in known:
        raise InputError(
            f"database {where}: its schema is version {current!r}, which this Chatwheel does not know "
            f"(newest known: {head}); install the newer Chatwheel that made it"
        )
    elif current != head and not upgrade:
        raise InputError(
            f"database {where}: its schema is version {current}, this Chatwheel's is {head}; make a backup of it "
            "(`chatwheel db backup`), then run `chatwheel db upgrade`"
        )
    if current != head:
        command.upgrade(config, "head")
    return current, head


def _refuse_foreign_tables(connection: Connection, where: str) -> None:
    ours = set(inspect(connection).get_table_names()) & set(Base.metadata.tables)
    if ours:
        raise InputError(
            f"database {where}: has tables ({', '.join(sorted(ours))}) that Chatwheel did not make; use another one"
        )
