"""Two replicas of a Ray Serve deployment on this machine, over one database (`pip install 'chatwheel[ray-serve]'`)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from chatwheel.model.checkpoint import save_model
from chatwheel.settings import Settings
from chatwheel.store import accounts, usage
from chatwheel.store.database import Database
from tests.databases import new_database
from tests.server.replicas import wait_for
from tests.tiny import causal, tokenizer

SERVE = """
import sys, time, ray
from ray import serve
from chatwheel.server.ray_serve import build
ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False)
serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
serve.run(build({"replicas": "2", "cpus": "1"}), name="chatwheel", route_prefix="/")
print("up", flush=True)
sys.stdin.read()
serve.shutdown()
ray.shutdown()
"""


@pytest.mark.slow
def test_two_replicas_keep_limits_together(tmp_path: Path, postgresql_server: str) -> None:
    settings = Settings(home=tmp_path, database_url=new_database(postgresql_server))
    save_model(settings.models / "tiny/sft", causal(), tokenizer(), {"stage": "sft"})
    database = Database.open(settings.database_url)
    with database.write() as session:
        who = accounts.local_principal(session)
        key = accounts.create_key(
            session, project_id=who.project_id, user_id=who.user_id, name="k", limits={"requests_per_minute": 12}
        )
    port = 8123
    environment = os.environ | {
        "CHATWHEEL_HOME": str(tmp_path),
        "CHATWHEEL_DATABASE_URL": settings.database_url,
        "RAY_TMPDIR": "/tmp",
    }
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    )
    try:
        assert process.stdout is not None
        while (line := process.stdout.readline()) != b"up\n":
            assert line, "it ended before it was up"
        client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120)
        headers = {"authorization": f"Bearer {key.secret}"}
        assert client.get("/ready").status_code == 200
        assert client.get("/v1/models").status_code == 401
        body = {"model": "tiny/sft", "messages": [{"role": "user", "content": "Say one"}], "max_tokens": 4}
        began = time.monotonic()
        replies = [client.post("/v1/chat/completions", json=body, headers=headers) for _ in range(24)]
        filled = (time.monotonic() - began) / 60 * 12
        ok = [reply for reply in replies if reply.status_code == 200]
        assert {reply.status_code for reply in replies} <= {200, 429}
        assert 12 <= len(ok) <= 12 + filled + 1
        with database.read() as session:
            rows = usage.usage_rows(session)
            assert len({row.instance for row in rows}) == 2
            assert {row.status for row in rows} == {"completed"}
            assert sum(row.output_tokens for row in rows) == sum(
                reply.json()["usage"]["completion_tokens"] for reply in ok
            )
        with database.write() as session:
            accounts.revoke_key(session, key.row.id)
        for _ in range(6):
            assert client.post("/v1/chat/completions", json=body, headers=headers).status_code == 401
        assert process.stdin is not None
        process.stdin.close()
        wait_for(lambda: process.poll() is not None, 120)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
        database.close()
