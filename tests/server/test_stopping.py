"""Stopping an answer of the page's through another server than the one that writes it."""

from __future__ import annotations

import time

import httpx

from chatwheel.store.tables import MessageRow
from tests.server.conftest import read_events
from tests.server.test_key_ends import Two, begin, two, wait_for

__all__ = ["two"]
SOON = 6.0  # seconds: a second, where nothing else runs


def message_of(lines: list[str]) -> str:
    return str(read_events("\n".join(lines[:2]) + "\n\n")[0][1]["message"]["id"])


def stop(two: Two, server: int, message: str) -> httpx.Response:
    headers = {"authorization": f"Bearer {two.key.secret}"}
    return httpx.post(f"{two.urls[server]}/api/messages/{message}/stop", headers=headers, timeout=20)


def test_a_stop_reaches_the_server_that_writes(two: Two) -> None:
    reader, other = begin(two, 1, "page"), begin(two, 1, "page")
    message = message_of(reader.lines)
    asked = time.monotonic()
    reply = stop(two, 0, message)
    assert time.monotonic() - asked < SOON
    reader.thread.join(10)
    assert reader.ended - asked < SOON
    text = "".join(line.get("text", "") for line in reader.data())
    assert text.startswith("1 2 3 4 ")
    assert (reply.json()["status"], reply.json()["content"]) == ("partial", text)
    assert reader.lines[-2] == f'data: {{"id":"{message}","status":"partial"}}'
    assert not any('"error"' in line for line in reader.lines)
    seen = len(other.lines)
    wait_for(lambda: len(other.lines) > seen)  # nobody wanted that one stopped
    assert stop(two, 1, message_of(other.lines)).json()["status"] == "partial"
    wait_for(lambda: all(row.status == "cancelled" for row in two.usage()))
    with two.database.read() as session:
        assert session.get_one(MessageRow, message).writer is None


def test_what_nobody_writes_is_stopped_at_once(two: Two) -> None:
    """It has ended, or its server has gone."""
    reader = begin(two, 1, "page")
    message = message_of(reader.lines)
    first = stop(two, 1, message).json()
    for writer in (None, "inst-gone"):
        with two.database.write() as session:
            session.get_one(MessageRow, message).writer = writer
        asked = time.monotonic()
        assert stop(two, 0, message).json() == first
        assert time.monotonic() - asked < SOON  # nobody is waited for; others may have the processor
