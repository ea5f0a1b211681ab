"""An application over fake models, asked without a network, and a real server for what needs one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from chatwheel.store.database import Database
from tests.server.fake_assistant import FakeModels
from tests.server.live import LiveServer, make_app, run_server

MODEL = "quickstart/ppo"
Json = dict[str, Any]


@dataclass(frozen=True)
class Site:
    """A client, and what is behind it."""

    client: TestClient
    database: Database
    models: FakeModels

    def chat(self, content: Any = "hello there", **fields: Any) -> Any:
        """POST /v1/chat/completions."""
        body = {"model": MODEL, "messages": [{"role": "user", "content": content}]} | fields
        return self.client.post("/v1/chat/completions", json=body)

    def new_conversation(self) -> str:
        """An empty one's id."""
        return str(self.client.post("/api/conversations", json={"model": MODEL}).json()["id"])

    def ask(self, conversation: str, content: str, **fields: Any) -> list[tuple[str, Json]]:
        """The events of an answer."""
        path = f"/api/conversations/{conversation}/messages"
        return read_events(self.client.post(path, json={"content": content} | fields).text)

    def messages(self, conversation: str) -> list[Json]:
        """As the page gets them."""
        return list(self.client.get(f"/api/conversations/{conversation}").json()["messages"])


def read_events(text: str) -> list[tuple[str, Json]]:
    """(name, data) of each server-sent event that has a name."""
    events = []
    for block in text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        if "event" in fields:
            events.append((fields["event"], json.loads(fields["data"])))
    return events


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    app, database, models = make_app(tmp_path)
    with TestClient(app, base_url="http://localhost:8000") as client:
        yield Site(client, database, models)


@pytest.fixture
def live_server(tmp_path: Path) -> Iterator[LiveServer]:
    app, database, models = make_app(tmp_path)
    with run_server(app) as url:
        yield LiveServer(url, database, models)
