"""A key that ends while requests with it are answered: they end too, on every server, within about a second."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import event, select

from chatwheel.store import accounts
from chatwheel.store.accounts import SCOPES, USUAL
from chatwheel.store.database import Database
from chatwheel.store.tables import ApiKeyRow, FileRow, ProjectRow, UploadRow, UsageRow
from tests.server.conftest import MODEL
from tests.server.fake_assistant import FakeModels
from tests.server.live import make_app, run_server

Json = dict[str, Any]
ABOUT_A_SECOND = 1.5
"""A look every half second, on a machine that has other things to do."""


@dataclass
class Two:
    """Two servers, and a member's key in a project of theirs."""

    urls: list[str]
    database: Database
    models: list[FakeModels]
    user_id: str
    project_id: str
    key: accounts.NewKey

    def usage(self) -> list[UsageRow]:
        with self.database.read() as session:
            return list(session.scalars(select(UsageRow).order_by(UsageRow.id)))


@pytest.fixture
def two(tmp_path: Path, database_url: str) -> Iterator[Two]:
    apps = [make_app(tmp_path, database_url=database_url) for _ in range(2)]
    database = apps[0][1]
    with database.write() as session:
        ada = accounts.create_user(session, "Ada", "admin")
        project = accounts.create_project(session, "Physics", ada.id)
        scopes = [*USUAL, "runs"]
        key = accounts.create_key(session, project_id=project.id, user_id=ada.id, name="k", scopes=scopes)
    directory = tmp_path / "runs/try"
    directory.mkdir(parents=True)
    (directory / "recipe.json").write_text(json.dumps({"name": "try", "pretrain": {"steps": 100}}))
    with ExitStack() as stack:
        urls = [stack.enter_context(run_server(app)) for app, _, _ in apps]
        yield Two(urls, database, [models for _, _, models in apps], ada.id, project.id, key)


@dataclass
class Reader:
    """A request, and what comes of it, read by a thread of its own."""

    url: str
    key: str
    method: str
    path: str
    body: Json | None
    lines: list[str] = field(default_factory=list)
    status: int = 0
    ended: float = 0.0

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def headers(self) -> dict[str, str]:
        """Who asks."""
        return {"authorization": f"Bearer {self.key}"}

    def _read(self) -> None:
        url, headers = self.url + self.path, self.headers()
        with httpx.stream(self.method, url, json=self.body, headers=headers, timeout=30) as response:
            self.status = response.status_code
            for line in response.iter_lines():
                self.lines.append(line)
        self.ended = time.monotonic()

    def data(self) -> list[Any]:
        """What the lines say."""
        found = [line.removeprefix("data: ") for line in self.lines if line.startswith(("data: ", "{"))]
        return [json.loads(text) for text in found]


CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "count to 5000"}]}
STREAMS: dict[str, tuple[str, str, Json | None]] = {
    "chat": ("POST", "/v1/chat/completions", {**CHAT, "stream": True}),
    "completions": (
        "POST",
        "/v1/completions",
        {"model": MODEL, "prompt": "one", "max_tokens": 190, "stream": True},
    ),
    "runs": ("GET", "/v1/runs/try/events", None),
    "page": ("POST", "/api/conversations/{conversation}/messages", {"content": "count to 5000"}),
    "whole": ("POST", "/v1/chat/completions", CHAT),
}


def begin(two: Two, server: int, kind: str) -> Reader:
    """A request whose answer has begun."""
    method, path, body = STREAMS[kind]
    url = two.urls[server]
    if kind == "page":
        headers = {"authorization": f"Bearer {two.key.secret}"}
        made = httpx.post(f"{url}/api/conversations", json={"model": MODEL}, headers=headers).json()
        path = path.format(conversation=made["id"])
    reader = Reader(url, two.key.secret, method, path, body)
    if kind == "whole":
        wait_for(lambda: any(model.prompts for model in two.models[server].loaded))
    else:
        wait_for(lambda: sum(line.startswith("data: ") for line in reader.lines) >= (1 if kind == "runs" else 5))
    return reader


def wait_for(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


@pytest.mark.parametrize("kind", list(STREAMS))
def test_what_is_under_way_ends_with_its_key_on_every_server(two: Two, kind: str) -> None:
    readers = [begin(two, server, kind) for server in range(2)]
    with two.database.write() as session:
        accounts.revoke_key(session, two.key.row.id)
    revoked = time.monotonic()
    for reader in readers:
        reader.thread.join(10)
        assert 0 < reader.ended - revoked < ABOUT_A_SECOND
        last = reader.data()[-2 if kind == "page" else -1]
        assert last["error"]["code"] == "invalid_api_key"
        assert last["error"]["type"] == "invalid_request_error"
        assert last["error"].keys() == {"message", "type", "param", "code"}
        assert reader.status == (401 if kind == "whole" else 200)
        assert "data: [DONE]" not in reader.lines
    if kind == "page":
        assert reader.lines[-2].startswith('data: {"id":')
        assert '"status":"partial"' in reader.lines[-2]
    if kind == "runs":
        assert two.usage() == []
        return
    wait_for(lambda: all(row.status == "cancelled" for row in two.usage()))
    rows = two.usage()
    assert len(rows) == 2
    for reader, row in zip(readers, rows, strict=True):
        texts = [told(line) for line in reader.data()]
        sent = sum(text != "" for text in texts)
        if kind == "whole":
            assert row.output_tokens > 0
        else:  # what was counted left, but for what the end overtook
            assert 0 < sent <= row.output_tokens <= sent + 2


def told(line: Json) -> str:
    """The text that a piece of a stream brings."""
    if line.get("choices"):
        choice = line["choices"][0]
        return str(choice["text"] if "text" in choice else choice["delta"].get("content") or "")
    return str(line.get("text", ""))


def expire(two: Two) -> None:
    with two.database.write() as session:
        session.get_one(ApiKeyRow, two.key.row.id).expires_at = time.time() - 1


def disable(two: Two) -> None:
    with two.database.write() as session:
        accounts.change_user(session, two.user_id, disabled=True)


def remove(two: Two) -> None:
    with two.database.write() as session:
        accounts.remove_member(session, two.project_id, two.user_id)


def archive(two: Two) -> None:
    with two.database.write() as session:
        session.get_one(ProjectRow, two.project_id).archived_at = time.time()


@pytest.mark.parametrize("end", [expire, disable, remove, archive])
def test_every_way_in_which_a_key_ends(two: Two, end: Callable[[Two], None]) -> None:
    reader = begin(two, 1, "chat")
    end(two)
    ended = time.monotonic()
    reader.thread.join(10)
    assert 0 < reader.ended - ended < ABOUT_A_SECOND
    assert reader.data()[-1]["error"]["code"] == "invalid_api_key"


def test_a_key_that_ends_in_the_middle_of_an_upload_keeps_no_file(two: Two, tmp_path: Path) -> None:
    def body() -> Iterator[bytes]:
        yield b'--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nuser_data\r\n'
        yield b'--b\r\ncontent-disposition: form-data; name="file"; filename="a.txt"\r\n\r\nsome text'
        wait_for(lambda: bool(reserved()))  # the key has been let in
        with two.database.write() as session:
            accounts.revoke_key(session, two.key.row.id)
        yield b"\r\n--b--\r\n"

    def reserved() -> list[UploadRow]:
        with two.database.read() as session:
            return list(session.scalars(select(UploadRow)))

    headers = {"authorization": f"Bearer {two.key.secret}", "content-type": "multipart/form-data; boundary=b"}
    reply = httpx.post(f"{two.urls[0]}/v1/files", content=body(), headers=headers, timeout=30)
    assert reply.status_code == 401
    assert reply.json()["error"]["code"] == "invalid_api_key"
    with two.database.read() as session:
        assert session.scalars(select(FileRow)).all() == []
    assert reserved() == []
    assert [place for place in (tmp_path / "files").rglob("*") if place.is_file()] == []


def test_other_keys_streams_go_on_and_one_query_asks_for_all(two: Two) -> None:
    with two.database.write() as session:
        local = accounts.local_principal(session)
        other = accounts.create_key(
            session, project_id=local.project_id, user_id=local.user_id, name="other", scopes=SCOPES
        )
    body = {**CHAT, "stream": True}
    going = [Reader(two.urls[0], other.secret, "POST", "/v1/chat/completions", body) for _ in range(3)]
    ending = [begin(two, 0, "chat") for _ in range(3)]
    asked: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if "api_keys" in statement and "digest =" not in statement:
            asked.append(statement)

    event.listen(two.database._engine, "before_cursor_execute", note)
    time.sleep(2)
    event.remove(two.database._engine, "before_cursor_execute", note)
    assert 2 <= len(asked) <= 5  # a look every half second
    with two.database.write() as session:
        accounts.revoke_key(session, two.key.row.id)
    for reader in ending:
        reader.thread.join(10)
        assert reader.ended
    seen = [len(reader.lines) for reader in going]
    wait_for(lambda: all(len(reader.lines) > before for reader, before in zip(going, seen, strict=True)))
    with two.database.write() as session:
        accounts.revoke_key(session, other.row.id)
    for reader in going:
        reader.thread.join(10)
