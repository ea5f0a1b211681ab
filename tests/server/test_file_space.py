"""What a project's files may take: of those that are there and those that come, on any server."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from chatwheel.errors import InputError
from chatwheel.settings import FILE_BYTES, Settings
from chatwheel.store import accounts, file_space, files
from chatwheel.store.database import Database
from chatwheel.store.files import BlobStore
from chatwheel.store.tables import InstanceRow, UploadRow
from tests.server.live import make_app, run_server

KB = 1000


@dataclass
class Two:
    """Two servers over one database and one home."""

    urls: list[str]
    database: Database
    home: Path
    project_id: str
    answers: list[Any] = field(default_factory=list)

    def limit(self, size: int | None) -> None:
        reply = httpx.post(
            f"{self.urls[0]}/v1/organization/projects/{self.project_id}", json={"file_bytes": size}, timeout=60
        )
        assert reply.json()["file_bytes"] == size

    def upload(self, server: int, size: int) -> httpx.Response:
        form = {"file": ("a.txt", b"x" * size), "purpose": (None, "user_data")}
        return httpx.post(f"{self.urls[server]}/v1/files", files=form, timeout=60)

    def taken(self) -> tuple[int, int]:
        """Bytes of files, and those that are reserved."""
        with self.database.read() as session:
            reserved = session.scalar(select(func.coalesce(func.sum(UploadRow.bytes), 0)))
            return file_space.used(session, self.project_id), int(reserved or 0)

    def kept(self) -> list[Path]:
        return [file for file in (self.home / "files").rglob("*") if file.is_file()]


@pytest.fixture
def two(tmp_path: Path, database_url: str) -> Iterator[Two]:
    apps = [make_app(tmp_path, database_url=database_url) for _ in range(2)]
    with apps[0][1].read() as session:
        project = accounts.local_principal(session).project_id
    with ExitStack() as stack:
        yield Two([stack.enter_context(run_server(app)) for app, _, _ in apps], apps[0][1], tmp_path, project)


def refused(reply: httpx.Response) -> bool:
    error = reply.json().get("error")
    if error is None:
        return False
    assert (reply.status_code, error["type"]) == (400, "invalid_request_error")
    assert (error["code"], error["param"]) == ("storage_limit_exceeded", "file")
    return True


def test_files_may_take_so_much_and_no_more(two: Two) -> None:
    two.limit(100 * KB)
    first = two.upload(0, 60 * KB)
    assert first.status_code == 200
    assert refused(two.upload(1, 60 * KB))
    assert "0.000 GB" in two.upload(1, 60 * KB).json()["error"]["message"]
    assert len(two.kept()) == 1
    assert two.upload(1, 30 * KB).status_code == 200
    assert two.taken() == (90 * KB, 0)
    with two.database.write() as session:
        accounts.create_project(session, "Other", accounts.local_principal(session).user_id)
    httpx.delete(f"{two.urls[1]}/v1/files/{first.json()['id']}", timeout=60)
    assert two.upload(0, 60 * KB).status_code == 200
    assert refused(two.upload(0, 60 * KB))
    two.limit(None)  # the installation's default
    assert two.upload(0, 60 * KB).status_code == 200


def slow_form(go_on: threading.Event, size: int) -> Iterator[bytes]:
    yield b'--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nuser_data\r\n'
    yield b'--b\r\ncontent-disposition: form-data; name="file"; filename="a.txt"\r\n\r\n'
    go_on.wait(60)
    yield b"y" * size
    yield b"\r\n--b--\r\n"


def begin(two: Two, go_on: threading.Event, size: int, *, announced: bool) -> threading.Thread:
    """An upload that waits in the middle."""
    headers = {"content-type": "multipart/form-data; boundary=b"}
    if announced:
        done = threading.Event()
        done.set()
        headers["content-length"] = str(sum(map(len, slow_form(done, size))))

    def send() -> None:
        body = slow_form(go_on, size)
        two.answers.append(httpx.post(f"{two.urls[0]}/v1/files", content=body, headers=headers, timeout=60))

    before = two.taken()[1]
    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while two.taken()[1] == before:
        assert time.monotonic() < deadline, "nothing was reserved"
        time.sleep(0.02)
    return thread


@pytest.mark.parametrize("announced", [True, False])
def test_uploads_under_way_count(two: Two, announced: bool) -> None:
    two.limit(100 * KB)
    go_on = threading.Event()
    thread = begin(two, go_on, 60 * KB, announced=announced)
    assert refused(two.upload(1, 60 * KB))
    go_on.set()
    thread.join(60)
    assert two.answers[0].status_code == 200
    assert two.taken() == (60 * KB, 0)
    assert two.upload(1, 30 * KB).status_code == 200


def test_a_body_that_announced_nothing_and_is_too_large_is_not_kept(two: Two) -> None:
    two.limit(50 * KB)
    go_on = threading.Event()
    go_on.set()
    headers = {"content-type": "multipart/form-data; boundary=b"}
    reply = httpx.post(f"{two.urls[0]}/v1/files", content=slow_form(go_on, 60 * KB), headers=headers, timeout=60)
    assert refused(reply)
    assert two.kept() == []
    assert two.taken() == (0, 0)


def test_what_ends_without_a_file_gives_its_room_back(two: Two) -> None:
    two.limit(100 * KB)
    form = {"file": ("a.txt", b"x" * 60 * KB), "purpose": (None, "nonsense")}
    assert httpx.post(f"{two.urls[0]}/v1/files", files=form, timeout=60).status_code == 400
    assert two.taken() == (0, 0)
    client = httpx.Client(timeout=60)

    def broken() -> Iterator[bytes]:
        yield b"--b\r\n"
        raise RuntimeError("the client is gone")

    headers = {"content-type": "multipart/form-data; boundary=b", "content-length": str(90 * KB)}
    with pytest.raises(RuntimeError):
        client.post(f"{two.urls[0]}/v1/files", content=broken(), headers=headers)
    client.close()
    deadline = time.monotonic() + 30
    while two.taken()[1]:
        assert time.monotonic() < deadline, "its room was not given back"
        time.sleep(0.02)
    assert two.upload(0, 90 * KB).status_code == 200


def test_what_a_dead_server_had_reserved_counts_no_more(two: Two) -> None:
    two.limit(100 * KB)
    with two.database.write() as session:
        session.add(InstanceRow(id="inst-dead", kind="server", place="there", seen_at=time.time()))
        session.add(UploadRow(project_id=two.project_id, bytes=90 * KB, instance="inst-dead"))
    assert refused(two.upload(0, 60 * KB))
    with two.database.write() as session:
        session.get_one(InstanceRow, "inst-dead").seen_at = time.time() - 1000
    assert two.upload(0, 60 * KB).status_code == 200
    with two.database.write() as session:
        if (row := session.get(InstanceRow, "inst-dead")) is not None:
            session.delete(row)
    files.tidy(two.database, BlobStore(two.home / "files"))
    assert two.taken() == (60 * KB, 0)


def test_many_uploads_at_once_take_no_more_than_there_is(two: Two) -> None:
    two.limit(100 * KB)
    threads = [threading.Thread(target=lambda i=i: two.answers.append(two.upload(i % 2, 30 * KB))) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(reply.status_code for reply in two.answers) == [200] * 3 + [400] * 5
    assert two.taken() == (90 * KB, 0)


def test_the_default_is_openais_and_the_environment_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CHATWHEEL_FILE_BYTES", raising=False)
    assert Settings.load(tmp_path).file_bytes == FILE_BYTES == 100 * 10**9
    monkeypatch.setenv("CHATWHEEL_FILE_BYTES", "5000")
    assert Settings.load(tmp_path).file_bytes == 5000
    monkeypatch.setenv("CHATWHEEL_FILE_BYTES", "5 GB")
    with pytest.raises(InputError, match="CHATWHEEL_FILE_BYTES: '5 GB' is no number of bytes"):
        Settings.load(tmp_path)
