"""The database file: made, upgraded, refused."""

from __future__ import annotations

import os
import sqlite3
import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from chatwheel.errors import InputError, StorageError
from chatwheel.store.conversations import create_conversation, list_conversations
from chatwheel.store.database import Database
from chatwheel.store.tables import Base


def url_of(file: Path) -> str:
    return f"sqlite:///{file}"


def test_the_migrations_make_exactly_the_tables_of_the_models(tmp_path: Path) -> None:
    database = Database.open(url_of(tmp_path / "new.db"))
    with database.read() as session:
        context = MigrationContext.configure(session.connection(), opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
        assert context.get_current_revision() == "0001"


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
        create_conversation(session, "m", "kept")
    database.close()
    with Database.open(url_of(tmp_path / "new.db")).read() as session:
        assert [row.title for row in list_conversations(session)] == ["kept"]


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
            create_conversation(session, "m", "half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        half()
    with database.read() as session:
        assert list_conversations(session) == []


def test_what_the_disk_refuses_is_a_storage_error(tmp_path: Path) -> None:
    database = Database.open(url_of(tmp_path / "new.db"))

    def write() -> None:
        with database.write() as session:
            session.execute(text("PRAGMA query_only = ON"))
            create_conversation(session, "m")

    with pytest.raises(StorageError, match="not saved"):
        write()


def test_writers_wait_for_each_other(tmp_path: Path) -> None:
    database = Database.open(url_of(tmp_path / "new.db"))

    def write() -> None:
        for _ in range(10):
            with database.write() as session:
                list_conversations(session)  # read, then write: the pattern that fails without an early lock
                create_conversation(session, "m")

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.read() as session:
        assert len(list_conversations(session)) == 40
