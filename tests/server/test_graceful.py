"""A server that is ended finishes what it has begun, takes nothing new, and writes everything down."""

from __future__ import annotations

import http.client
import signal
import threading
import time
from pathlib import Path

import httpx
import pytest

from chatwheel.store import metering, usage
from chatwheel.store.tables import UsageRow
from tests.server.replicas import MODEL, Json, Site, site, wait_for

ASKED = {"model": MODEL, "messages": [{"role": "user", "content": "count to 100000"}], "stream": True}


def rows(shop: Site) -> list[UsageRow]:
    with shop.database.read() as session:
        return list(usage.usage_rows(session))


def streamed(shop: Site, numbers: int) -> tuple[threading.Thread, list[str]]:
    """A long answer that is being read: who reads it, and the lines so far."""
    lines: list[str] = []
    body = {"model": MODEL, "messages": [{"role": "user", "content": f"count to {numbers}"}], "stream": True}
    headers = {"authorization": f"Bearer {shop.admin}"}

    def read() -> None:
        with shop.replicas[0].client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as stream:
            lines.extend(line for line in stream.iter_lines() if line)

    thread = threading.Thread(target=read)
    thread.start()
    wait_for(lambda: any(row.output_tokens > 1 for row in rows(shop)))
    return thread, lines


def test_sigterm_finishes_streams_and_refuses_what_is_new(tmp_path: Path) -> None:
    with site(tmp_path, f"sqlite:///{tmp_path / 'chatwheel.db'}", 1, ["60"]) as shop:
        (replica,) = shop.replicas
        assert replica.client.get("/ready").status_code == 200
        thread, lines = streamed(shop, 150)
        replica.process.send_signal(signal.SIGTERM)
        wait_for(lambda: replica.client.get("/ready").status_code == 503)
        refused = replica.chat(shop.admin)
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "shutting_down"
        assert refused.headers["retry-after"] == "1"
        thread.join(60)
        assert lines[-1] == "data: [DONE]"
        assert '"content":"150 "' in "".join(lines)
        assert replica.process.wait(30) == 0
        (row,) = rows(shop)
        assert (row.status, row.output_tokens) == ("completed", 150)
        (said,) = shop.stop()
        assert "Finishing 1 answers" in said


def test_what_does_not_finish_in_time_is_broken_off_and_saved(tmp_path: Path) -> None:
    with site(tmp_path, f"sqlite:///{tmp_path / 'chatwheel.db'}", 1, ["1"]) as shop:
        (replica,) = shop.replicas
        conversation = replica.ask(shop.admin, "POST", "/api/conversations", json={"model": MODEL}).json()["id"]
        path = f"/api/conversations/{conversation}/messages"
        asked = threading.Thread(target=_read_in_vain, args=(shop, path, {"content": "count to 100000"}))
        asked.start()
        wait_for(lambda: any(row.output_tokens > 1 for row in rows(shop)))
        replica.process.send_signal(signal.SIGTERM)
        assert replica.process.wait(30) == 0
        asked.join(30)
        (row,) = rows(shop)
        assert row.status == "cancelled"
        # The page's answer is there, to the token that was counted.
        shop.replicas[0] = shop.start()
        shop.replicas.pop()
        shop.wait_until_ready()
        found = shop.replicas[0].ask(shop.admin, "GET", f"/api/conversations/{conversation}").json()
        answer = found["messages"][-1]
        assert answer["status"] == "partial"
        # A token is written down before it leaves: the last one may have been on its way.
        assert row.output_tokens - len(answer["content"].split()) in (0, 1)


def test_the_second_signal_ends_it_at_once_and_nothing_is_lost(tmp_path: Path) -> None:
    with site(tmp_path, f"sqlite:///{tmp_path / 'chatwheel.db'}", 1, ["60"]) as shop:
        (replica,) = shop.replicas
        thread = threading.Thread(target=_read_in_vain, args=(shop, "/v1/chat/completions", ASKED))
        thread.start()
        wait_for(lambda: any(row.output_tokens > 1 for row in rows(shop)))
        replica.process.send_signal(signal.SIGINT)
        wait_for(lambda: replica.client.get("/ready").status_code == 503)
        began = time.monotonic()
        replica.process.send_signal(signal.SIGINT)
        assert replica.process.wait(30) == 128 + signal.SIGINT
        assert time.monotonic() - began < 5
        thread.join(30)
        (row,) = rows(shop)
        assert row.status == "running"  # as after `kill -9`: whoever is up ends it, at what was counted
        with shop.database.write() as session:
            assert metering.settle(session, time.time() + 2 * metering.ALIVE_SECONDS) == 1


@pytest.mark.slow
def test_an_idle_connection_is_kept_for_longer_than_proxies_keep_theirs(tmp_path: Path) -> None:
    """uvicorn's own five seconds would end it under a proxy's next request."""
    with site(tmp_path, f"sqlite:///{tmp_path / 'chatwheel.db'}", 1) as shop:
        host, port = shop.replicas[0].url.removeprefix("http://").split(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=60)
        connection.auto_open = 0  # the same one, or none
        connection.connect()
        for idle in (0, 7):
            time.sleep(idle)
            connection.request("GET", "/health")
            answer = connection.getresponse()
            assert (answer.status, bool(answer.read())) == (200, True)
        connection.close()


def _read_in_vain(shop: Site, path: str, body: Json) -> None:
    headers = {"authorization": f"Bearer {shop.admin}"}
    with (
        pytest.raises(httpx.HTTPError),
        shop.replicas[0].client.stream("POST", path, json=body, headers=headers) as stream,
    ):
        stream.read()
