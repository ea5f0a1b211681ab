"""The database file: made, upgraded, refused."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from chatwheel.errors import InputError, StorageError
from chatwheel.store import accounts
from chatwheel.store.accounts import local_principal
from chatwheel.store.conversations import create_conversation, list_conversations
from chatwheel.store.database import Database
from chatwheel.store.tables import Base, UserRow
from tests.databases import new_database


def owner(session: Session) -> str:
    return local_principal(session).user_id


def url_of(file: Path) -> str:
    return f"sqlite:///{file}"


def not_of_the_search(name: str | None, _kind: str, _parents: object) -> bool:
    """Its index is each database's own."""
    return name is None or not name.startswith("search_index")


def test_the_migrations_make_exactly_the_tables_of_the_models(database_url: str) -> None:
    database = Database.open(database_url)
    with database.read() as session:
        context = MigrationContext.configure(
            session.connection(), opts={"compare_type": True, "include_name": not_of_the_search}
        )
        found = compare_metadata(context, Base.metadata)
        if database.url.get_backend_name() == "sqlite":
            # A key that came later stands in its column's line, of which SQLAlchemy reads neither name nor ON DELETE.
            assert [(kind, key.parent.name) for kind, key in found] == [
                ("remove_fk", "conversations"),
                ("add_fk", "conversations"),
            ]
            keys = session.execute(text("PRAGMA foreign_key_list(conversations)")).mappings().all()
            assert [(key["table"], key["from"], key["on_delete"]) for key in keys] == [("users", "user_id", "CASCADE")]
        else:
            assert found == []
        assert context.get_current_revision() == "0009"
    database.close()


def older_database(url: str) -> None:
    """One of version 0001, with a conversation, as Chatwheel 0.1 left it."""
    engine = create_engine(url)
    statements = [
        "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)",
        "INSERT INTO alembic_version VALUES ('0001')",
        "CREATE TABLE conversations (id VARCHAR(40) NOT NULL CONSTRAINT pk_conversations PRIMARY KEY, "
        "title TEXT NOT NULL, model TEXT NOT NULL, language VARCHAR(16), created_at DOUBLE PRECISION NOT NULL, "
        "updated_at DOUBLE PRECISION NOT NULL)",
        "CREATE INDEX ix_conversations_updated_at ON conversations (updated_at)",
        "CREATE TABLE messages (id VARCHAR(40) NOT NULL CONSTRAINT pk_messages PRIMARY KEY, "
        "conversation_id VARCHAR(40) NOT NULL CONSTRAINT fk_messages_conversation_id REFERENCES conversations (id) "
        "ON DELETE CASCADE, parent_id VARCHAR(40) CONSTRAINT fk_messages_parent_id REFERENCES messages (id) "
        "ON DELETE CASCADE, role VARCHAR(16) NOT NULL, content TEXT NOT NULL, model TEXT, status VARCHAR(16) NOT NULL, "
        "created_at DOUBLE PRECISION NOT NULL)",
        "CREATE TABLE ratings (id INTEGER NOT NULL PRIMARY KEY, message_id VARCHAR(40) NOT NULL UNIQUE REFERENCES "
        "messages (id) ON DELETE CASCADE, value INTEGER NOT NULL, comment TEXT, created_at DOUBLE PRECISION NOT NULL)",
        "INSERT INTO conversations VALUES ('conv-1', 'old', 'm', 'en', 1.0, 1.0)",
        "INSERT INTO messages VALUES ('msg-1', 'conv-1', NULL, 'user', 'hello', NULL, 'complete', 1.0)",
        "INSERT INTO messages VALUES ('msg-2', 'conv-1', 'msg-1', 'assistant', 'hi', 'm', 'complete', 2.0)",
        "INSERT INTO ratings VALUES (1, 'msg-2', 1, NULL, 3.0)",
    ]
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


def test_an_older_schema_is_refused_and_upgraded_when_asked(database_url: str) -> None:
    older_database(database_url)
    with pytest.raises(InputError, match=r"version 0001.*chatwheel db upgrade"):
        Database.open(database_url)
    assert Database.upgrade(database_url) == ("0001", "0009")
    assert Database.upgrade(database_url) == ("0009", "0009")
    database = Database.open(database_url)
    with database.read() as session:
        owner = local_principal(session)
        assert [row.title for row in list_conversations(session, owner.user_id)] == ["old"]
        assert session.scalars(text("SELECT content FROM messages ORDER BY id")).all() == ["hello", "hi"]
        assert session.scalar(text("SELECT value FROM ratings")) == 1
    database.close()


KILLED_AT = {  # of each migration: operations before which it is killed
    "0002": ("create_table tuned_models",),
    "0003": ("add_column projects", "create_table uploads"),
    "0004": ("add_column users", "create_table comparisons", "create_table reports"),
    "0005": ("create_table deployments",),
    "0006": ("create_table search_texts",),
    "0007": ("create_table sign_in_attempts",),
    "0008": ("create_table labelling_queues", "create_table labelling_judgements"),
    "0009": ("add_column conversations", "create_table briefs"),
}


KILLED = """
import json, os, signal, sys
from alembic import op
from chatwheel.errors import InputError
from chatwheel.store.database import Database
url, moments = sys.argv[1], json.loads(sys.argv[2])
def deadly(name, moment):
    work = getattr(op, name)
    def instead(table, *arguments, **options):
        if [sys._getframe(1).f_globals["revision"], f"{name} {table}"] == moment:
            os.kill(os.getpid(), signal.SIGKILL)
        return work(table, *arguments, **options)
    setattr(op, name, instead)
for moment in moments:
    child = os.fork()
    if not child:
        deadly("create_table", moment)
        deadly("add_column", moment)
        Database.upgrade(url)
        os._exit(0)
    killed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    try:
        Database.open(url)
    except InputError as error:
        refused = "refused" if "version 0001" in str(error) else error
        print("killed" if killed else moment, refused, sep=", ", flush=True)
"""


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_an_upgrade_that_is_killed_changes_nothing(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    from tests.databases import new_database

    url = url_of(tmp_path / "old.db")
    if kind == "postgresql":
        url = new_database(request.getfixturevalue("postgresql_server"))
    older_database(url)
    moments = [[version, operation] for version, operations in KILLED_AT.items() for operation in operations]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, url, json.dumps(moments)], check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "killed, refused\n" * len(moments)), done.stderr
    assert Database.upgrade(url) == ("0001", "0009")


def test_sqlite_is_in_wal_mode_with_foreign_keys_and_patience(tmp_path: Path) -> None:
    database = Database.open(url_of(tmp_path / "deep" / "new.db"))
    with database.read() as session:
        assert session.scalar(text("PRAGMA journal_mode")) == "wal"
        assert session.scalar(text("PRAGMA foreign_keys")) == 1
        assert session.scalar(text("PRAGMA busy_timeout")) >= 5000


def test_the_file_is_private(tmp_path: Path) -> None:
    Database.open(url_of(tmp_path / "new.db")).close()
    assert (tmp_path / "new.db").stat().st_mode & 0o077 == 0


def test_opening_again_keeps_the_rows(tmp_path: Path) -> None:
    database = Database.open(url_of(tmp_path / "new.db"))
    with database.write() as session:
        create_conversation(session, owner(session), "m", "kept")
    database.close()
    with Database.open(url_of(tmp_path / "new.db")).read() as session:
        assert [row.title for row in list_conversations(session, owner(session))] == ["kept"]


def test_two_servers_may_open_a_new_database_at_once(tmp_path: Path) -> None:
    errors: list[BaseException] = []

    def open_it() -> None:
        try:
            Database.open(url_of(tmp_path / "new.db")).close()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "newer.db"
    Database.open(url_of(file)).close()
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    before = sqlite3.connect(file).execute("SELECT sql FROM sqlite_master").fetchall()
    with pytest.raises(InputError, match=r"version '9999'.*install the newer Chatwheel") as caught:
        Database.open(url_of(file))
    assert "\n" not in caught.value.message
    assert sqlite3.connect(file).execute("SELECT sql FROM sqlite_master").fetchall() == before


def test_another_programs_tables_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "other.db"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE messages (id INTEGER)")
    with pytest.raises(InputError, match="did not make"):
        Database.open(url_of(file))


def test_a_file_that_is_no_database_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("this is not a database, " * 100)
    with pytest.raises(StorageError, match="not a database"):
        Database.open(url_of(tmp_path / "text.db"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_directory_is_one_clear_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match="cannot be written"):
        Database.open(url_of(tmp_path / "new.db"))


@pytest.mark.parametrize("url", ["nonsense", "mysql://host/name", "sqlite+nothing:///x"])
def test_an_unusable_url_is_one_clear_line(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError):
        Database.open(url)
    assert list(tmp_path.iterdir()) == []


def test_a_password_is_never_shown() -> None:
    with pytest.raises((InputError, StorageError)) as caught:
        Database.open("postgresql+psycopg://me:sesame@127.0.0.1:1/none")
    assert "sesame" not in caught.value.message


def test_a_failed_transaction_leaves_nothing(tmp_path: Path) -> None:
    database = Database.open(url_of(tmp_path / "new.db"))

    def half() -> None:
        with database.write() as session:
            create_conversation(session, owner(session), "m", "half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        half()
    with database.read() as session:
        assert list_conversations(session, owner(session)) == []


def test_what_the_disk_refuses_is_a_storage_error(tmp_path: Path) -> None:
    database = Database.open(url_of(tmp_path / "new.db"))

    def write() -> None:
        with database.write() as session:
            session.execute(text("PRAGMA query_only = ON"))
            create_conversation(session, owner(session), "m")

    with pytest.raises(StorageError, match="not saved"):
        write()


def test_writers_wait_for_each_other(tmp_path: Path) -> None:
    database = Database.open(url_of(tmp_path / "new.db"))

    def write() -> None:
        for _ in range(10):
            with database.write() as session:
                list_conversations(
                    session, owner(session)
                )  # read, then write: the pattern that fails without an early lock
                create_conversation(session, owner(session), "m")

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.read() as session:
        assert len(list_conversations(session, owner(session))) == 40


def test_a_nul_is_the_sender_s_fault(postgresql_server: str) -> None:
    """PostgreSQL has no such text; SQLite finds nothing, and keeps it."""
    database = Database.open(new_database(postgresql_server))
    with pytest.raises(InputError, match="NUL"), database.read() as session:
        session.get(UserRow, "user-\x00")
    with pytest.raises(InputError, match="NUL"), database.write() as session:
        accounts.create_user(session, "Ada\x00")
    database.close()
