"""What is written down of requests when servers are killed, clients leave, read slowly or cancel; and what never is:
secrets in logs."""

from __future__ import annotations

import json
import logging
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from chatwheel.errors import ChatwheelError
from chatwheel.store import accounts, limits, metering, prices
from chatwheel.store.accounts import SCOPES, Principal
from chatwheel.store.database import Database
from chatwheel.store.metering import ALIVE_SECONDS
from chatwheel.store.tables import AuditRow, UsageRow
from tests.server.fake_server import process
from tests.server.live import LiveServer, make_app, run_server

MODEL = "quickstart/ppo"
INPUT_PRICE, OUTPUT_PRICE = 7, 13
STREAMS = 6
Json = dict[str, Any]


@dataclass
class Heard:
    """What a client got of a stream."""

    request_id: str = ""
    tokens: int = 0
    whole: bool = False


@dataclass
class Site:
    """A key of a project with prices, and where the rows are."""

    database: Database
    key: str
    who: Principal
    heard: list[Heard] = field(default_factory=list)

    @property
    def headers(self) -> dict[str, str]:
        """Of every request."""
        return {"authorization": f"Bearer {self.key}"}

    def rows(self) -> dict[str, UsageRow]:
        """By the requests' ids."""
        with self.database.read() as session:
            return {row.request_id: row for row in session.scalars(select(UsageRow))}

    def ended(self, request_id: str) -> UsageRow:
        """A request's row, once it has ended."""
        return wait_for(lambda: self.rows()[request_id], lambda row: row.status != "running")

    def check_money(self) -> None:
        """Each row costs what its tokens do, and their sum is what the key and its project have spent."""
        rows = self.rows().values()
        for row in rows:
            assert row.cost == INPUT_PRICE * row.input_tokens + OUTPUT_PRICE * row.output_tokens
        with self.database.read() as session:
            month = limits.month_of(time.time())
            for subject in (self.who.key_id, self.who.project_id):
                assert limits.spent(session, str(subject), month) == sum(row.cost for row in rows)


def furnish(database: Database) -> Site:
    with database.write() as session:
        local = accounts.local_principal(session)
        prices.set_price(session, "*", input=INPUT_PRICE, output=OUTPUT_PRICE)
        made = accounts.create_key(session, project_id=local.project_id, user_id=local.user_id, name="k", scopes=SCOPES)
        who = accounts.authenticate(session, made.secret)
    assert who is not None
    return Site(database, made.secret, who)


def wait_for(look: Callable[[], Any], good: Callable[[Any], bool], seconds: float = 60.0) -> Any:
    deadline = time.monotonic() + seconds
    while not good(found := look()):
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return found


def body(content: str, **fields: Any) -> Json:
    return {"model": MODEL, "messages": [{"role": "user", "content": content}]} | fields


def listen(url: str, headers: dict[str, str], heard: Heard, number: int) -> None:
    """Reads a stream to its end, or as far as it came."""
    timeout = httpx.Timeout(60)
    asked = body(f"count to {number}", stream=True)
    try:
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=asked, headers=headers, timeout=timeout) as reply:
            assert reply.status_code == 200, reply.read()
            heard.request_id = reply.headers["x-request-id"]
            for line in reply.iter_lines():
                if line.startswith("data: {"):
                    choice = json.loads(line.removeprefix("data: "))["choices"][0]
                    heard.tokens += bool(choice["delta"].get("content"))
                heard.whole |= line == "data: [DONE]"
    except httpx.TransportError:
        pass


def kill_again_and_again(home: Path, times: int) -> None:
    database = Database.open(f"sqlite:///{home / 'chatwheel.db'}")
    site, chance = furnish(database), random.Random(times)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for _ in range(times):
        with process(home, port) as server:
            some = [Heard() for _ in range(STREAMS)]
            threads = [
                threading.Thread(target=listen, args=(f"http://127.0.0.1:{port}", site.headers, one, 10 + 10 * n))
                for n, one in enumerate(some)
            ]
            for thread in threads:
                thread.start()
            time.sleep(chance.uniform(0.0, 2.0))
            server.kill()
            server.wait()
            for thread in threads:
                thread.join()
            site.heard += some
    with process(home, port):
        wait_for(site.rows, lambda rows: all(row.status != "running" for row in rows.values()))
    rows = site.rows()
    begun = [heard for heard in site.heard if heard.request_id]
    assert any(heard.tokens and not heard.whole for heard in begun), "no stream was broken off"
    for heard in begun:
        row = rows[heard.request_id]
        assert heard.tokens <= row.output_tokens <= heard.tokens + 1, (heard, row.output_tokens, row.status)
        assert row.status == "completed" or not heard.whole
        assert row.input_tokens == 6
        assert row.project_id == site.who.project_id
    # What nobody heard of: the server died between a row and its first piece.
    silent = [row for request_id, row in rows.items() if request_id not in {heard.request_id for heard in begun}]
    assert all(row.output_tokens <= 1 for row in silent)
    site.check_money()
    database.close()


def test_killed_servers_lose_no_token(tmp_path: Path) -> None:
    kill_again_and_again(tmp_path, 4)


@pytest.mark.slow
def test_killed_servers_lose_no_token_fifty_times(tmp_path: Path) -> None:
    kill_again_and_again(tmp_path, 50)


def test_a_server_that_lives_keeps_what_it_works_on(tmp_path: Path) -> None:
    """Its rows are settled by nobody but itself, until it has been silent for too long."""
    database = Database.open(f"sqlite:///{tmp_path / 'chatwheel.db'}")
    site, now = furnish(database), time.time()
    with database.write() as session:
        metering.seen(session, "inst-1", "server", "here", now=now)
        row, _ = metering.begin(
            session, site.who, request_id="r", endpoint="chat", model=MODEL, instance="inst-1", now=now
        )
        assert metering.settle(session, now + ALIVE_SECONDS - 1) == 0
        assert metering.settle(session, now + 2, alive_seconds=1.0) == 1
        assert metering.settle(session, now + 2, alive_seconds=1.0) == 0
        assert session.get_one(UsageRow, row, populate_existing=True).status == "failed"
    database.close()


# -- clients


@pytest.fixture
def live(tmp_path: Path) -> Iterator[tuple[LiveServer, Site]]:
    app, database, models = make_app(tmp_path)
    site = furnish(database)
    with run_server(app) as url:
        yield LiveServer(url, database, models), site


def test_a_client_that_leaves_a_stream(live: tuple[LiveServer, Site]) -> None:
    server, site = live
    heard = 0
    asked = body("count to 100", stream=True)
    with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=asked, headers=site.headers) as reply:
        for line in reply.iter_lines():
            heard += '"content":"' in line and '"content":""' not in line
            if heard == 5:
                break
    row = site.ended(reply.headers["x-request-id"])
    assert row.status == "cancelled"
    assert 5 <= row.output_tokens < 100
    site.check_money()


def test_a_client_that_does_not_wait_for_the_answer(live: tuple[LiveServer, Site]) -> None:
    server, site = live
    url = f"{server.url}/v1/chat/completions"
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(url, json=body("count to 150"), headers=site.headers, timeout=httpx.Timeout(30, read=1.0))
    [row] = wait_for(lambda: list(site.rows().values()), lambda rows: rows and rows[0].status != "running")
    assert row.status == "cancelled"
    assert 0 < row.output_tokens < 150  # what was computed is paid, although nobody got it
    site.check_money()


def test_a_slow_reader_pays_for_the_whole(live: tuple[LiveServer, Site]) -> None:
    server, site = live
    host, port = server.url.removeprefix("http://").split(":")
    text = json.dumps(body("count to 60", stream=True)).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {site.key}\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(text)}\r\nconnection: close\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        connection.sendall(head.encode() + text)
        got = b""
        while part := connection.recv(1024):
            got += part
            time.sleep(0.02)
    assert got.count(b'"content":"') == 61  # the first has none
    [row] = site.rows().values()
    assert (row.status, row.output_tokens) == ("completed", 60)
    site.check_money()


def test_a_stopped_answer_of_the_page(live: tuple[LiveServer, Site]) -> None:
    server, site = live
    with httpx.Client(base_url=server.url, headers=site.headers, timeout=60) as client:
        conversation = client.post("/api/conversations", json={"model": MODEL}).json()["id"]
        asked = {"content": "count to 100"}
        with client.stream("POST", f"/api/conversations/{conversation}/messages", json=asked) as reply:
            lines = reply.iter_lines()
            start = json.loads(next(line for line in lines if line.startswith("data: ")).removeprefix("data: "))
            while '"text"' not in next(lines):
                pass
            client.post(f"/api/messages/{start['message']['id']}/stop")
    row = site.ended(reply.headers["x-request-id"])
    assert (row.status, row.endpoint) == ("cancelled", "conversations")
    assert row.output_tokens > 0


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("question", "tokens"), [("fail", 2), ("overload", 0)])
def test_what_fails_is_written_down(
    live: tuple[LiveServer, Site], question: str, tokens: int, stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    server, site = live
    url = f"{server.url}/v1/chat/completions"
    reply = httpx.post(url, json=body(question, stream=stream), headers=site.headers, timeout=60)
    row = site.ended(reply.headers["x-request-id"])
    assert (row.status, row.output_tokens) == ("failed", tokens)
    assert site.key not in caplog.text
    site.check_money()


# -- secrets


def test_no_secret_is_ever_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """All routes of the schema with a key, with bodies that are none, and with bugs; everything is logged."""
    caplog.set_level(logging.DEBUG)
    app, database, models = make_app(tmp_path, api_key="the-key-of-the-environment")
    site = furnish(database)
    (models.root / "broken").mkdir()
    models.write("broken", "sft", 1_700_000_000)
    secrets = {site.key, "the-key-of-the-environment", "a-wrong-key"}
    with TestClient(app, base_url="http://localhost", raise_server_exceptions=False) as client:
        schema = client.get("/openapi.json", headers=site.headers).json()["paths"]
        routes = [(m, p) for p, methods in schema.items() for m in methods if not p.endswith(("archive", "events"))]
        for key in secrets:
            headers = {"authorization": f"Bearer {key}"}
            for method, path in routes:
                for options in ({}, {"json": {"key": key}}, {"content": b"\xff{"}):
                    client.request(method, path.replace("{", "").replace("}", ""), headers=headers, **options)
        for question, model in (("fail", MODEL), ("overload", MODEL), ("hello", "broken")):
            for stream in (False, True):
                asked = body(question, stream=stream) | {"model": model}
                client.post("/v1/chat/completions", json=asked, headers=site.headers)
        project = f"/v1/organization/projects/{site.who.project_id}/api_keys"
        made = client.post(project, json={"name": "new"}, headers=site.headers).json()
        turned = client.post(f"{project}/{made['id']}/rotate", json={}, headers=site.headers).json()
        secrets |= {made["value"], turned["value"]}
    assert "secret detail of a bug" in caplog.text  # a bug's traceback is there
    printed = capfd.readouterr()
    with database.read() as session:
        record = str([(row.action, row.target, row.details) for row in session.scalars(select(AuditRow))])
    assert "api_key.rotated" in record
    for secret in secrets:
        for told in (caplog.text, printed.out, printed.err, record):
            assert secret not in told
            assert f"Bearer {secret[:8]}" not in told
    kept = b"".join(file.read_bytes() for file in tmp_path.glob("chatwheel.db*"))
    assert not any(secret.encode() in kept for secret in secrets)  # the database has their digests alone
    database.close()


def test_a_databases_password_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(ChatwheelError) as caught:
        Database.open("postgresql://ada:open-sesame@127.0.0.1:1/nothing?connect_timeout=2")
    assert "open-sesame" not in str(caught.value)
    assert "open-sesame" not in caplog.text
