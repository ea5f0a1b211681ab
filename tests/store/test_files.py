"""Uploads and backups."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from chatwheel.errors import InputError, StorageError, UnavailableError
from chatwheel.settings import Settings
from chatwheel.store import accounts, backup, files, metering
from chatwheel.store import conversations as chats
from chatwheel.store.accounts import NotFoundError
from chatwheel.store.database import Database
from chatwheel.store.files import BlobStore
from tests.databases import new_database


def test_bytes_are_kept_once_by_their_hash(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path / "files")
    one, other = blobs.put([b"ab", b"c"]), blobs.put([b"abc"])
    assert one == other
    assert one.sha256 == hashlib.sha256(b"abc").hexdigest()
    assert blobs.path(one.sha256).read_bytes() == b"abc"
    assert [file.name for file in (tmp_path / "files").rglob("*") if file.is_file()] == [one.sha256]


def test_what_is_too_large_leaves_nothing(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path / "files")
    with pytest.raises(InputError, match="larger than 1 MB"):
        blobs.put(iter([b"x" * 2**20, b"y"]), most=2**20)
    with pytest.raises(InputError, match="damaged"):
        blobs.put([b"abc"], expected="0" * 64)
    assert [file for file in (tmp_path / "files").rglob("*") if file.is_file()] == []


def test_an_upload_that_is_killed_leaves_no_file_and_is_swept(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from chatwheel.store.files import BlobStore\n"
        "def chunks():\n"
        "    yield b'half of it'\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "BlobStore(Path(sys.argv[1])).put(chunks())\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".upload-")
    blobs = BlobStore(tmp_path)
    assert blobs.sweep() == 0
    os.utime(left, (0, time.time() - 2 * 86400))
    assert blobs.sweep() == 1


def test_a_file_is_its_projects(session: Session, tmp_path: Path) -> None:
    local = accounts.local_principal(session)
    other = accounts.create_project(session, "Other", local.user_id)
    blob = BlobStore(tmp_path / "blobs").put([b"{}\n"])
    row = files.add_file(session, local, blob, filename="../../etc/passwd", purpose="fine-tune")
    assert row.filename == "passwd"
    assert files.get_file(session, local.project_id, row.id) is row
    with pytest.raises(NotFoundError):
        files.get_file(session, other.id, row.id)
    assert files.list_files(session, other.id)[0] == []
    with pytest.raises(InputError, match="purpose"):
        files.add_file(session, local, blob, filename="x", purpose="evil")


def test_bytes_go_with_the_last_row(session: Session, tmp_path: Path) -> None:
    local = accounts.local_principal(session)
    blobs = BlobStore(tmp_path / "blobs")
    blob = blobs.put([b"{}\n"])
    one, other = (files.add_file(session, local, blob, filename="x", purpose="fine-tune") for _ in range(2))
    assert files.delete_file(session, local.project_id, one.id) == blob.sha256
    assert not files.remove_unused(session, blobs, blob.sha256)
    assert files.delete_file(session, local.project_id, other.id) == blob.sha256
    assert files.remove_unused(session, blobs, blob.sha256)
    assert not blobs.path(blob.sha256).exists()
    with pytest.raises(NotFoundError):
        files.delete_file(session, local.project_id, other.id)
    with pytest.raises(UnavailableError, match="upload the file again"):  # put before that, and named after it
        files.add_file(session, local, blob, filename="x", purpose="fine-tune", blobs=blobs)


def test_what_is_over_or_belongs_to_nobody_is_tidied_away(database_url: str, tmp_path: Path) -> None:
    database, blobs = Database.open(database_url), BlobStore(tmp_path / "blobs")
    kept, over, both, orphan = (blobs.put([text]) for text in (b"kept", b"over", b"both", b"orphan"))
    now = time.time()
    with database.write() as session:
        local = accounts.local_principal(session)
        for blob, expires_at in ((kept, None), (over, now + 5), (both, now + 5), (both, now + 3600)):
            files.add_file(session, local, blob, filename="x", purpose="fine-tune", expires_at=expires_at, blobs=blobs)
    assert files.tidy(database, blobs, now) == 0
    assert files.tidy(database, blobs, now + 10) == 2
    there = [blobs.path(blob.sha256).is_file() for blob in (kept, over, both, orphan)]
    assert there == [True, False, True, True]  # what no row names may be named in a moment
    assert files.tidy(database, blobs, now + 2 * files.UNFINISHED_SECONDS) == 2
    there = [blobs.path(blob.sha256).is_file() for blob in (kept, over, both, orphan)]
    assert there == [True, False, False, False]
    database.close()


def test_pages_of_files(session: Session, tmp_path: Path) -> None:
    local = accounts.local_principal(session)
    blob = BlobStore(tmp_path / "blobs").put([b"{}\n"])
    rows = [files.add_file(session, local, blob, filename=str(n), purpose="fine-tune") for n in range(5)]
    for age, row in enumerate(rows):
        row.created_at = 100.0 + (age // 2)
    rows[4].expires_at = time.time() + 100
    session.flush()
    seen: list[str] = []
    after = None
    while True:
        page, more = files.list_files(session, local.project_id, after=after, limit=2)
        seen += [row.id for row in page]
        if not more:
            break
        after = page[-1].id
    assert sorted(seen) == sorted(row.id for row in rows)
    assert len(seen) == 5
    rows[4].expires_at = time.time() - 1
    session.flush()
    assert len(files.list_files(session, local.project_id)[0]) == 4


@pytest.mark.parametrize("target", ["sqlite", "postgresql"])
def test_a_backup_comes_back_on_either_database(
    database_url: str, target: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    here = Settings(home=tmp_path / "here", database_url=database_url)
    blob = BlobStore(here.files).put([b"a file\n"])
    database = Database.open(database_url)
    with database.write() as session:
        local = accounts.local_principal(session)
        key = accounts.create_key(session, project_id=local.project_id, user_id=local.user_id, name="k")
        conversation = chats.create_conversation(session, local.user_id, "m", "标题 🙂")
        question = chats.add_user_message(session, conversation, "hi\x00there\n", None)
        answer = chats.add_answer(session, question, "m")
        chats.add_user_message(session, conversation, "and?", answer.id)
        files.add_file(session, local, blob, filename="train.jsonl", purpose="fine-tune")
        metering.begin(session, local, request_id="r", endpoint="chat", model="m", instance="i")
    with database.read() as session:  # servers go on
        rows, blobs = backup.save(here, tmp_path / "backup.zip")
    database.close()
    assert blobs == 1
    assert (tmp_path / "backup.zip").stat().st_mode & 0o077 == 0
    with pytest.raises(InputError, match="is there already"):
        backup.save(here, tmp_path / "backup.zip")

    url = f"sqlite:///{tmp_path / 'there.db'}"
    if target == "postgresql":
        url = new_database(request.getfixturevalue("postgresql_server"))
    there = Settings(home=tmp_path / "there", database_url=url)
    Database.open(url).close()  # a fresh one has its first user already
    assert backup.load(there, tmp_path / "backup.zip") == (rows, 1)
    assert BlobStore(there.files).path(blob.sha256).read_bytes() == b"a file\n"
    database = Database.open(url)
    with database.write() as session:
        found = accounts.authenticate(session, key.secret)
        assert found is not None
        assert found.user_id == local.user_id
        assert [row.title for row in chats.list_conversations(session, local.user_id)] == ["标题 🙂"]
        messages = chats.list_messages(session, conversation.id)
        assert [row.content for row in messages] == ["hi\ufffdthere\n", "", "and?"]
        metering.begin(session, local, request_id="r", endpoint="chat", model="m", instance="i")  # counts on
    database.close()
    with pytest.raises(InputError, match="has rows in"):
        backup.load(there, tmp_path / "backup.zip")
    with pytest.raises(InputError, match="is not a backup"):
        backup.load(there, tmp_path / "there" / "files" / blob.sha256[:2] / blob.sha256)


def test_a_backup_s_errors_do_not_tell_the_password(tmp_path: Path) -> None:
    away = Settings(home=tmp_path, database_url="postgresql://me:hunter2@127.0.0.1:9/nothing")
    with pytest.raises(StorageError) as caught:
        backup.save(away, tmp_path / "backup.zip")
    assert "me:***@" in caught.value.message
    assert "hunter2" not in caught.value.message


@pytest.mark.parametrize(
    ("about", "row", "said"),
    [
        ([1], "{}", "is not a backup of Chatwheel's .its backup.json is no JSON object"),
        ("text", "{}", "no JSON object"),
        (None, "{}", "no JSON object"),
        (7, "{}", "no JSON object"),
        ({}, "{}", "was written by a newer Chatwheel"),
        ({"format": 1}, "{}", "does not name a schema"),
        ({"format": 1, "schema": ["0002"]}, "{}", "does not name a schema"),
        ({"format": 1, "schema": "0002"}, "[1]", "is damaged"),
        ({"format": 1, "schema": "0002"}, "7", "is damaged"),
    ],
)
def test_a_backup_of_other_json_is_one_clear_line(tmp_path: Path, about: object, row: str, said: str) -> None:
    there = Settings(home=tmp_path / "there", database_url=f"sqlite:///{tmp_path / 'there.db'}")
    with zipfile.ZipFile(tmp_path / "odd.zip", "w") as archive:
        archive.writestr("backup.json", json.dumps(about))
        archive.writestr("rows/users.jsonl", row + "\n")
    with pytest.raises(InputError, match=said) as caught:
        backup.load(there, tmp_path / "odd.zip")
    assert "\n" not in caught.value.message
