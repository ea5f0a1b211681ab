"""Too much, too slow, half, in the wrong form: a clear error for whoever sends it, and no harm to others."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import psutil
import pytest
from fastapi import HTTPException
from fastapi.responses import PlainTextResponse

from chatwheel.server.limits import MAX_BODY_BYTES, BodyLimit
from chatwheel.store.files import MOST_BYTES
from tests.server.fake_server import process

MODEL = "quickstart/ppo"
MEGABYTE = 2**20
Json = dict[str, Any]


class Server:
    """A process over fake models, and where it is."""

    def __init__(self, port: int, pid: int) -> None:
        self.port, self.url = port, f"http://127.0.0.1:{port}"
        self._process = psutil.Process(pid)
        self.client = httpx.Client(base_url=self.url, timeout=120)

    def memory(self) -> int:
        """Bytes that it holds now."""
        return int(self._process.memory_info().rss)

    def post(self, path: str, **options: Any) -> httpx.Response:
        """A request that is made at once."""
        return self.client.post(path, **options)

    def raw(self, head: str, body: bytes = b"") -> socket.socket:
        """A connection over which so much has been sent."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=120)
        connection.sendall(f"{head}\r\nhost: localhost\r\n".encode() + b"\r\n" + body)
        return connection

    @contextmanager
    def others_unharmed(self, most_seconds: float = 5.0) -> Iterator[None]:
        """While the block runs, /health answers all the time."""
        ends, worst, asked = threading.Event(), [0.0], [0]

        def ask() -> None:
            with httpx.Client(base_url=self.url, timeout=60) as client:
                while True:
                    began = time.monotonic()
                    assert client.get("/health").status_code == 200
                    worst[0], asked[0] = max(worst[0], time.monotonic() - began), asked[0] + 1
                    if ends.wait(0.02):
                        return

        asking = threading.Thread(target=ask)
        asking.start()
        try:
            yield
        finally:
            ends.set()
            asking.join()
        assert asked[0] > 0
        assert worst[0] < most_seconds, f"/health took {worst[0]:.1f} s"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("home")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with process(home, port) as running:
        yield Server(port, running.pid)
        assert "Traceback" not in (home / "server.log").read_text()


def error_of(reply: httpx.Response) -> Json:
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    return dict(error)


def chat(content: Any) -> Json:
    return {"model": MODEL, "messages": [{"role": "user", "content": content}]}


def test_a_prompt_of_ten_megabytes(server: Server) -> None:
    """One that fits the body's limit is too long for the model; one that does not is refused unread."""
    with server.others_unharmed():
        long = server.post("/v1/chat/completions", json=chat("a " * (MAX_BODY_BYTES // 2 - 1000)))
        assert (long.status_code, error_of(long)["code"]) == (400, "context_length_exceeded")
        assert len(long.content) < 1000
        too_long = server.post("/v1/chat/completions", json=chat("a" * MAX_BODY_BYTES))
        assert too_long.status_code == 413
        assert "10 MB" in error_of(too_long)["message"]


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 200_000,
        b'{"a":' * 100_000,
        b'{"model": "quickstart/ppo", "messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"model": 1' + b"0" * 100_000 + b"}",
        b'{"model": "quickstart/ppo", "messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"model": "quickstart/ppo", "messages": [{"role": "user", "content": "\\u0000"}], "temperature": NaN}',
        b'{"model": "quickstart/ppo", "messages": [{"role": "user", "content": "a"}], "temperature": 1e400}',
        b'{"model": "quickstart/ppo", "messages": [{"role": "user", "content": "a"}], "temperature": -Infinity}',
        b'{"model": "\\u0000", "messages": [{"role": "user", "content": "a"}]}',
        b'{"model": "\\udfff", "messages": [{"role": "user", "content": "a"}]}',
        b'{"model": "quickstart/ppo", "messages": [{"role": "user", "content": "a"}], "seed": 1' + b"0" * 5000 + b"}",
        b"\xff\xfe{}",
        b"\xef\xbb\xbf{}",
        b"",
        b"null",
        b"3",
    ],
)
def test_json_that_is_none(server: Server, text: bytes) -> None:
    headers = {"content-type": "application/json"}
    reply = server.post("/v1/chat/completions", content=text, headers=headers)
    assert 400 <= reply.status_code < 500, reply.text
    assert error_of(reply)["type"] == "invalid_request_error"
    assert len(reply.content) < 2000


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/xml", "multipart/form-data", "application/json; charset=x"]
)
def test_a_wrong_content_type(server: Server, kind: str) -> None:
    body = json.dumps(chat("hello")).encode()
    reply = server.post("/v1/chat/completions", content=body, headers={"content-type": kind})
    if "json" in kind:
        assert reply.status_code == 200
    else:
        assert reply.status_code == 400
        assert "application/json" in error_of(reply)["message"]


def test_a_compressed_body_is_not_unpacked(server: Server) -> None:
    """A bomb of a gigabyte in a megabyte costs a megabyte: what is compressed is no JSON."""
    bomb = gzip.compress(b" " * (256 * MEGABYTE))
    before = server.memory()
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    with server.others_unharmed():
        reply = server.post("/v1/chat/completions", content=bomb, headers=headers)
    assert reply.status_code in (400, 415)
    assert error_of(reply)
    assert server.memory() - before < 64 * MEGABYTE


@pytest.mark.parametrize("announced", [True, False])
def test_an_upload_of_a_gigabyte(server: Server, announced: bool) -> None:
    """Refused at once if its length is announced, else when it is too large; memory stays as it is."""
    before, most = server.memory(), [0]
    part = os.urandom(1024) * 1024
    head = b'--x\r\ncontent-disposition: form-data; name="file"; filename="f"\r\n\r\n'

    def pieces() -> Iterator[bytes]:
        yield head
        for _ in range(1024):
            most[0] = max(most[0], server.memory() - before)
            yield part

    headers = {"content-type": "multipart/form-data; boundary=x"}
    if announced:
        headers["content-length"] = str(2**30 + len(head))
    with server.others_unharmed():
        try:
            reply = httpx.post(f"{server.url}/v1/files", content=pieces(), headers=headers, timeout=120)
        except (httpx.WriteError, httpx.ReadError, httpx.RemoteProtocolError):
            pass  # it hung up, as one may on a client that does not stop sending
        else:
            assert reply.status_code == 413
            assert str(MOST_BYTES // MEGABYTE) in error_of(reply)["message"]
    assert most[0] < 128 * MEGABYTE
    assert server.client.get("/v1/files").json()["data"] == []


@pytest.mark.parametrize(
    "form",
    [
        b"".join(b'--x\r\ncontent-disposition: form-data; name="f%d"\r\n\r\n1\r\n' % n for n in range(50_000))
        + b"--x--",
        b"".join(
            b'--x\r\ncontent-disposition: form-data; name="file"; filename="%d"\r\n\r\n1\r\n' % n for n in range(50_000)
        )
        + b"--x--",
        b'--x\r\ncontent-disposition: form-data; name="purpose"\r\n\r\n' + b"a" * (64 * MEGABYTE) + b"\r\n--x--",
        b'--x\r\ncontent-disposition: form-data; name="' + b"a" * (8 * MEGABYTE) + b'"\r\n\r\n1\r\n--x--',
        b"--x\r\n" + b"".join(b"h%d: 1\r\n" % n for n in range(100_000)) + b"\r\n1\r\n--x--",
        b'--x\r\ncontent-disposition: form-data; name="file"; filename="f"\r\n\r\nhalf',
        b"no form",
        b"",
    ],
    ids=["fields", "files", "long field", "long name", "headers", "half", "none", "empty"],
)
def test_a_form_that_is_a_bomb(server: Server, form: bytes) -> None:
    before = server.memory()
    headers = {"content-type": "multipart/form-data; boundary=x"}
    with server.others_unharmed():
        reply = server.post("/v1/files", content=form, headers=headers)
    assert 400 <= reply.status_code < 500
    assert error_of(reply)
    assert len(reply.content) < 2000
    assert server.memory() - before < 128 * MEGABYTE
    assert server.client.get("/v1/files").json()["data"] == []


def test_slow_and_half_bodies_hold_up_nobody(server: Server) -> None:
    """A hundred clients that send a byte and wait; and such as announce more than they send, and hang up."""
    head = "POST /v1/chat/completions HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: 1000"
    with server.others_unharmed():
        slow = [server.raw(head, b"{") for _ in range(100)]
        for _ in range(5):
            for connection in slow:
                connection.sendall(b" ")
            time.sleep(0.1)
        assert server.post("/v1/chat/completions", json=chat("hello")).status_code == 200
        for connection in slow:
            connection.close()
        for _ in range(20):
            server.raw(head, b'{"model": ').close()
            server.raw(head.partition("\r\n")[0]).close()
    usage = server.client.get("/v1/organization/usage.csv").text
    assert ",running," not in usage


def test_a_body_that_does_not_go_on_is_given_up() -> None:
    async def read_all(scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        await receive()  # as a route that watches whether its client leaves
        await PlainTextResponse("read")(scope, receive, send)

    async def status(pieces: list[Json], leaves_after: float) -> str:
        async def receive() -> Json:
            if pieces:
                return pieces.pop(0)
            await asyncio.sleep(leaves_after)
            return {"type": "http.disconnect"}

        sent: list[Json] = []

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "path": "/v1/chat/completions", "headers": [], "method": "POST"}
        try:
            await BodyLimit(read_all, patience_seconds=0.05)(scope, receive, send)
        except HTTPException as error:
            return str(error.status_code)
        return str(sent[0]["status"])

    half = {"type": "http.request", "body": b"{", "more_body": True}
    rest = {"type": "http.request", "body": b"}", "more_body": False}
    assert asyncio.run(status([half], 30.0)) == "408"
    assert asyncio.run(status([half, rest], 0.3)) == "200"  # an answer may take its time


def test_a_body_that_trickles_is_cut_off_and_a_slow_one_is_not() -> None:
    """A byte now and then is never silence; what comes at the least rate may take as long as its size needs."""

    async def status(pause: float, piece: int, pieces: int) -> tuple[str, float]:
        left = pieces

        async def read_all(_scope: Any, receive: Any, send: Any) -> None:
            while (await receive()).get("more_body", False):
                pass
            await send({"type": "http.response.start", "status": 200, "headers": []})

        async def receive() -> Any:
            nonlocal left
            await asyncio.sleep(pause)
            left -= 1
            return {"type": "http.request", "body": b"x" * piece, "more_body": left > 0}

        sent: list[Json] = []

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "path": "/v1/chat/completions", "headers": [], "method": "POST"}
        began = time.monotonic()
        try:
            await BodyLimit(read_all, patience_seconds=0.3, least_rate=1000)(scope, receive, send)
        except HTTPException as error:
            return str(error.status_code), time.monotonic() - began
        return str(sent[0]["status"]), time.monotonic() - began

    cut, seconds = asyncio.run(status(0.05, 1, 40))  # 20 bytes a second: 2 s, all in all
    assert cut == "408"
    assert 0.25 < seconds < 1.0
    done, seconds = asyncio.run(status(0.05, 100, 40))  # 2000 bytes a second
    assert done == "200"
    assert seconds > 1.5


@pytest.mark.parametrize(
    "head",
    [
        "GET /v1/models/" + "a" * 60_000 + " HTTP/1.1",
        "GET /v1/models/%00%ff%fe HTTP/1.1",
        "GET /v1/files/%00 HTTP/1.1",
        "GET /api/conversations/%ED%A0%80 HTTP/1.1",
        "GET /v1/organization/audit_logs?after=" + "9" * 5000 + " HTTP/1.1",
        "GET /v1/organization/usage/completions?start_time=9223372036854775808 HTTP/1.1",
        "GET /api/conversations?before=1e999 HTTP/1.1",
        "GET /v1/models HTTP/1.1\r\nauthorization: Bearer \xff\xfe",
        "GET /v1/models HTTP/1.1\r\nauthorization: Bearer " + "a" * 50_000,
        "GET /report?ticket=%ff.%00 HTTP/1.1",
        "GET /report?ticket=" + "9" * 5000 + ".x HTTP/1.1",
        "POST /v1/chat/completions HTTP/1.1\r\ncontent-length: -1",
        "POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 99999999999999999999",
        "POST /v1/chat/completions HTTP/1.1\r\ncontent-length: \xb2",
        "BREW /v1/models HTTP/1.1",
        "GET /../../etc/passwd HTTP/1.1",
        "GET /assets/..%2f..%2f__init__.py HTTP/1.1",
    ],
)
def test_odd_requests(server: Server, head: str) -> None:
    connection = server.raw(f"{head}\r\nconnection: close")
    got = b""
    while part := connection.recv(65536):
        got += part
    connection.close()
    status = int(got.split(b" ", 2)[1])
    assert status < 500, got[:500]
    assert b"import annotations" not in got
    if b"application/json" in got and status >= 400:
        assert set(json.loads(got.partition(b"\r\n\r\n")[2])["error"]) == {"message", "type", "param", "code"}


def test_it_still_answers(server: Server) -> None:
    assert server.post("/v1/chat/completions", json=chat("hello")).json()["choices"][0]["finish_reason"] == "stop"
