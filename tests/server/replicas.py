"""Several servers over one database, each a process of its own, with fake models."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from chatwheel.server.running import GracefulServer
from chatwheel.settings import Settings
from chatwheel.store import accounts
from chatwheel.store.accounts import SCOPES
from chatwheel.store.database import Database
from tests.server.fake_assistant import FakeModels
from tests.server.live import make_app

MODEL = "quickstart/ppo"
Json = dict[str, Any]


@dataclass
class Replica:
    """One of them."""

    url: str
    process: subprocess.Popen[str]
    client: httpx.Client

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def chat(self, key: str, content: str = "hello there", **fields: Any) -> httpx.Response:
        """POST /v1/chat/completions."""
        body = {"model": MODEL, "messages": [{"role": "user", "content": content}]} | fields
        return self.ask(key, "POST", "/v1/chat/completions", json=body)

    def ask(self, key: str, method: str, path: str, **options: Any) -> httpx.Response:
        return self.client.request(method, path, headers={"authorization": f"Bearer {key}"}, **options)


@dataclass
class Site:
    """The servers, what they share, and an admin's key."""

    settings: Settings
    database: Database
    admin: str
    replicas: list[Replica] = field(default_factory=list)

    def new_key(self, project_id: str | None = None, **limits: int) -> accounts.NewKey:
        """Of a project, or of the first one."""
        with self.database.write() as session:
            local = accounts.local_principal(session)
            return accounts.create_key(
                session,
                project_id=project_id or local.project_id,
                user_id=local.user_id,
                name="k",
                limits=limits,
            )

    def new_project(self, **limits: int) -> str:
        """The admin's."""
        with self.database.write() as session:
            local = accounts.local_principal(session)
            row = accounts.create_project(session, "P", local.user_id)
            accounts.change_project(session, row.id, limits=limits)
            return row.id

    def start(self, *arguments: str) -> Replica:
        """One more."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            handle = listener.fileno()
            command = [sys.executable, "-m", "tests.server.replicas", str(self.settings.home), str(handle), *arguments]
            environment = {**os.environ, "CHATWHEEL_DATABASE_URL": self.settings.database_url}
            process = subprocess.Popen(
                command, env=environment, pass_fds=[handle], stderr=subprocess.PIPE, text=True, cwd=ROOT
            )
        limits = httpx.Limits(max_connections=100)
        replica = Replica(url, process, httpx.Client(base_url=url, timeout=60, limits=limits))
        self.replicas.append(replica)
        return replica

    def wait_until_ready(self) -> None:
        for replica in self.replicas:
            # The socket is there: the answer waits for it, on a busy machine for long.
            assert replica.client.get("/health", timeout=240).status_code == 200

    def stop(self) -> list[str]:
        """Ends all that still run, in order; what they said."""
        for replica in self.replicas:
            if replica.process.poll() is None:
                replica.process.send_signal(signal.SIGTERM)
        said = []
        for replica in self.replicas:
            try:
                said.append(replica.process.communicate(timeout=120)[1])
            finally:
                replica.process.kill()
                replica.client.close()
        return said


ROOT = Path(__file__).parent.parent.parent


@contextmanager
def site(home: Path, database_url: str, count: int = 2, arguments: Sequence[str] = ()) -> Iterator[Site]:
    """So many servers; none of them may have an internal error."""
    settings = Settings(home=home, database_url=database_url)
    FakeModels(settings.models)
    database = Database.open(database_url)
    with database.write() as session:
        local = accounts.local_principal(session)
        admin = accounts.create_key(
            session, project_id=local.project_id, user_id=local.user_id, name="admin", scopes=SCOPES
        )
    shop = Site(settings, database, admin.secret)
    try:
        for _ in range(count):
            shop.start(*arguments)
        shop.wait_until_ready()
        yield shop
    finally:
        said = shop.stop()
        database.close()
    assert not [text for text in said if "Traceback" in text], said


def wait_for(condition: Any, seconds: float = 30.0) -> float:
    """How long it took, in seconds."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, "it did not happen"
        time.sleep(0.02)
    return time.monotonic() - began


def main(home: str, handle: str, grace: str = "5") -> None:
    """Serves, as `chatwheel serve` does."""
    url = os.environ["CHATWHEEL_DATABASE_URL"]
    app, _, _ = make_app(Path(home), database_url=url)
    with socket.socket(fileno=int(handle)) as listener:
        GracefulServer(app, float(grace), say=lambda line: print(line, file=sys.stderr)).run(sockets=[listener])


if __name__ == "__main__":
    main(*sys.argv[1:])
