"""`kill -9` at random moments, and disks that are full: nothing is half there, nothing that was there is lost."""

from __future__ import annotations

import hashlib
import os
import random
import resource
import signal
import subprocess
import sys
import time
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy import select

from chatwheel.errors import InputError, StorageError
from chatwheel.settings import Settings
from chatwheel.store import accounts, backup, files
from chatwheel.store import conversations as chats
from chatwheel.store.database import Database
from chatwheel.store.files import BlobStore
from chatwheel.store.tables import FileRow, MessageRow
from tests.databases import new_database

TIMES = pytest.mark.parametrize("times", [1, pytest.param(50, marks=pytest.mark.slow)])
BEGIN = """
import itertools, os, sys
from pathlib import Path
from chatwheel.settings import Settings
from chatwheel.store import accounts, backup, files
from chatwheel.store.database import Database
from chatwheel.store.files import BlobStore
settings = Settings(home=Path(sys.argv[1]), database_url=sys.argv[2])
"""
UPLOAD = """
database, blobs = Database.open(settings.database_url), BlobStore(settings.files)
with database.read() as session:
    who = accounts.local_principal(session)
print("go", flush=True)
for _ in itertools.count():
    block = os.urandom(1000)
    blob = blobs.put(block for _ in range(500))
    with database.write() as session:
        files.add_file(session, who, blob, filename="x", purpose="user_data", blobs=blobs)
"""
BACKUP = """
print("go", flush=True)
for number in itertools.count():
    backup.save(settings, settings.home / f"{os.getpid()}-{number}.zip")
"""
RESTORE = """
print("go", flush=True)
backup.load(settings, Path(sys.argv[3]))
print("done", flush=True)
"""


def kill(code: str, *arguments: str, within: float) -> bool:
    """Runs it and kills it at a random moment; whether it was still running."""
    command = [sys.executable, "-c", BEGIN + code, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "go\n"
        time.sleep(random.uniform(0, within))
        process.send_signal(signal.SIGKILL)
        return process.wait() == -signal.SIGKILL


def installation(home: Path, url: str, messages: int = 0) -> tuple[Settings, Database]:
    settings = Settings(home=home, database_url=url)
    database, blobs = Database.open(url), BlobStore(settings.files)
    with database.write() as session:
        who = accounts.local_principal(session)
        conversation = chats.create_conversation(session, who.user_id, "m")
        for number in range(messages):
            chats.add_user_message(session, conversation, f"message {number}", None)
        for number in range(5):
            blob = blobs.put([f"file {number}\n".encode() * 1000])
            files.add_file(session, who, blob, filename="x", purpose="user_data", blobs=blobs)
    return settings, database


def check_files(settings: Settings, database: Database) -> int:
    """Each row has its bytes, and all bytes that are there are whole."""
    blobs = BlobStore(settings.files)
    with database.read() as session:
        rows = session.scalars(select(FileRow)).all()
    for row in rows:
        assert blobs.path(row.sha256).stat().st_size == row.bytes
    for file in settings.files.glob("??/*"):
        assert hashlib.sha256(file.read_bytes()).hexdigest() == file.name
    return len(rows)


@TIMES
def test_uploads_that_are_killed(times: int, database_url: str, tmp_path: Path) -> None:
    settings, database = installation(tmp_path, database_url)
    before = check_files(settings, database)
    for _ in range(times):
        assert kill(UPLOAD, str(tmp_path), database_url, within=0.3)
        check_files(settings, database)
    later = time.time() + 2 * files.UNFINISHED_SECONDS
    files.tidy(database, BlobStore(settings.files), later)
    rows = check_files(settings, database)
    assert rows >= before
    with database.read() as session:
        named = set(session.scalars(select(FileRow.sha256)))
    assert {file.name for file in settings.files.rglob("*") if file.is_file()} == named  # nothing else is left
    database.close()


@TIMES
def test_backups_that_are_killed(times: int, database_url: str, tmp_path: Path) -> None:
    settings, database = installation(tmp_path, database_url, messages=500)
    database.close()
    for _ in range(times):
        assert kill(BACKUP, str(tmp_path), database_url, within=0.5)
    backup.save(settings, tmp_path / "last.zip")
    for file in tmp_path.glob("*.zip"):
        with zipfile.ZipFile(file) as archive:
            assert archive.testzip() is None
            assert "backup.json" in archive.namelist()
            assert archive.read("rows/messages.jsonl").count(b"\n") == 500


@TIMES
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_restores_that_are_killed(times: int, kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    here, database = installation(tmp_path / "here", f"sqlite:///{tmp_path / 'here.db'}", messages=2000)
    database.close()
    file = tmp_path / "backup.zip"
    backup.save(here, file)

    def empty(number: int) -> Settings:
        url = f"sqlite:///{tmp_path / f'{number}.db'}"
        if kind == "postgresql":
            url = new_database(request.getfixturevalue("postgresql_server"))
        return Settings(home=tmp_path / str(number), database_url=url)

    began = time.monotonic()
    assert backup.load(empty(-1), file)[1] == 5
    takes = time.monotonic() - began
    for number in range(times):
        there = empty(number)
        if kill(RESTORE, str(there.home), there.database_url, str(file), within=takes):
            with suppress(InputError):  # it was done before it was killed
                backup.load(there, file)
        database = Database.open(there.database_url)
        assert check_files(there, database) == 5
        with database.read() as session:
            assert len(session.scalars(select(MessageRow.id)).all()) == 2000
        database.close()


def test_a_damaged_backup_restores_nothing(database_url: str, tmp_path: Path) -> None:
    here, database = installation(tmp_path / "here", f"sqlite:///{tmp_path / 'here.db'}", messages=300)
    database.close()
    backup.save(here, tmp_path / "good.zip")
    whole = (tmp_path / "good.zip").read_bytes()
    there = Settings(home=tmp_path / "there", database_url=database_url)
    generator = random.Random(7)
    for _ in range(6):
        broken = bytearray(whole)
        place = generator.randrange(len(whole) // 2)
        broken[place : place + 64] = bytes(64)
        (tmp_path / "bad.zip").write_bytes(broken)
        with pytest.raises(InputError) as caught:
            backup.load(there, tmp_path / "bad.zip")
        assert "\n" not in caught.value.message
    assert backup.load(there, tmp_path / "good.zip")[1] == 5  # the database was still empty


def test_a_backup_begins_again_where_a_file_is_deleted_under_it(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, database = installation(tmp_path, database_url)
    blobs, write = BlobStore(settings.files), zipfile.ZipFile.write

    def delete_first(self: zipfile.ZipFile, name: Path, *rest: str) -> None:
        if name.exists() and len(list(settings.files.glob("??/*"))) == 5:
            with database.write() as session:
                row = session.scalars(select(FileRow).where(FileRow.sha256 == name.name)).one()
                files.delete_file(session, row.project_id, row.id)
            with database.write() as session:
                assert files.remove_unused(session, blobs, name.name)
        write(self, name, *rest)

    monkeypatch.setattr(zipfile.ZipFile, "write", delete_first)
    assert backup.save(settings, tmp_path / "backup.zip")[1] == 4
    database.close()


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    """A file may not grow beyond 300 KB here, which programs meet as they meet a full disk."""
    settings, database = installation(tmp_path, f"sqlite:///{tmp_path / 'chatwheel.db'}", messages=200)
    blobs = BlobStore(settings.files)
    with database.write() as session:
        who = accounts.local_principal(session)
        conversation = chats.create_conversation(session, who.user_id, "m")
        for number in range(20):  # what cannot be compressed
            blob = blobs.put([os.urandom(20_000)])
            files.add_file(session, who, blob, filename=f"{number}", purpose="user_data", blobs=blobs)

    def write_much() -> None:
        with database.write() as session:
            chats.add_user_message(session, session.merge(conversation), "x" * 500_000, None)

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, before[1]))
    try:
        with pytest.raises(StorageError, match="not saved"):
            blobs.put(os.urandom(100_000) for _ in range(5))
        with pytest.raises(StorageError, match=r"not saved .*what was there is unharmed"):
            write_much()
        with pytest.raises(StorageError, match="cannot be written"):
            backup.save(settings, tmp_path / "backup.zip")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert check_files(settings, database) == 25
    assert not [file for file in tmp_path.rglob("*") if file.suffix in (".part", ".zip") or ".upload" in file.name]
    write_much()  # there is room again
    with database.read() as session:
        assert len(session.scalars(select(MessageRow.id)).all()) == 201
    database.close()
