"""Models by their name on the Hub, from a server that speaks the Hub's protocol: downloaded, resumed, found offline."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import errors

from chatwheel.errors import InputError
from chatwheel.model.checkpoint import save_model
from chatwheel.store.hub import _explained, is_hub_name
from tests.tiny import causal, tokenizer


@dataclass
class Hub:
    """Repositories in memory: {name: {file: content}}. gated: names that ask for consent. cut: a file whose first
    download breaks off in the middle."""

    url: str = ""
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    cut: str = ""
    requests: list[str] = field(default_factory=list)

    def commit(self, name: str) -> str:
        """Another one for other content."""
        return hashlib.sha1(b"".join(self.repositories[name].values())).hexdigest()

    def handler(hub) -> type[BaseHTTPRequestHandler]:  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_HEAD(self) -> None:
                self.do_GET(body=False)

            def do_GET(self, body: bool = True) -> None:
                hub.requests.append(f"{self.command} {self.path} {self.headers.get('Range', '')}".strip())
                path = self.path.partition("?")[0]
                api = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/[^/]+)?", path)
                tree = re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/[^/]+", path)
                file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path)
                name = next((m.group(1) for m in (api, tree, file) if m), "")
                if name in hub.gated:
                    return self.answer(403, b"{}", {"X-Error-Code": "GatedRepo"}, body)
                if name not in hub.repositories:
                    return self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"}, body)
                files = hub.repositories[name]
                if api:
                    siblings = [{"rfilename": f, "size": len(c)} for f, c in files.items()]
                    value = {
                        "id": name,
                        "modelId": name,
                        "sha": hub.commit(name),
                        "private": False,
                        "siblings": siblings,
                    }
                    return self.answer(200, json.dumps(value | {"tags": [], "downloads": 0}).encode(), {}, body)
                if tree:
                    listed = [{"type": "file", "path": f, "size": len(c), "oid": "0"} for f, c in files.items()]
                    return self.answer(200, json.dumps(listed).encode(), {}, body)
                assert file is not None
                if file.group(2) not in files:
                    return self.answer(404, b"{}", {"X-Error-Code": "EntryNotFound"}, body)
                return self.send_file(name, file.group(2), files[file.group(2)], body)

            def send_file(self, repository: str, name: str, content: bytes, body: bool) -> None:
                commit = hub.commit(repository)
                headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": commit}
                begin = int(re.sub(r"\D", "", (self.headers.get("Range") or "0-").partition("-")[0]) or 0)
                if body and begin:
                    headers["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
                    return self.answer(206, content[begin:], headers, body)
                if body and name == hub.cut:
                    hub.cut = ""
                    self.send_response(200)
                    for key, value in (headers | {"Content-Length": str(len(content))}).items():
                        self.send_header(key, value)
                    self.end_headers()
                    self.wfile.write(content[: len(content) // 2])
                    self.wfile.flush()
                    self.connection.close()
                    return None
                return self.answer(200, content, headers, body)

            def answer(self, status: int, content: bytes, headers: dict[str, str], body: bool) -> None:
                self.send_response(status)
                for key, value in ({"Content-Length": str(len(content))} | headers).items():
                    self.send_header(key, value)
                self.end_headers()
                if body:
                    self.wfile.write(content)

        return Handler


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    save_model(tmp_path / "made", causal(), tokenizer(), {})
    files = {p.name: p.read_bytes() for p in (tmp_path / "made").iterdir() if p.name != "chatwheel.json"}
    files["pytorch_model.bin"] = b"pickled"
    files["README.md"] = b"# A model"
    hub = Hub(repositories={"tiny-org/tiny": files})
    server = ThreadingHTTPServer(("127.0.0.1", 0), hub.handler())
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield hub
    server.shutdown()


def generate(hub: Hub, home: Path, name: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command, in a process whose Hub is this one."""
    values = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(home / "cache"), "CHATWHEEL_HOME": str(home)}
    values |= {"OMP_NUM_THREADS": "1", "HF_HUB_DISABLE_XET": "1"} | environment
    values.pop("HF_TOKEN", None)
    if "HF_HUB_OFFLINE" not in environment:
        values.pop("HF_HUB_OFFLINE", None)  # the other tests are run with it
    arguments = ["generate", "--model", name, "Hi", "--max-tokens", "4"]
    script = "from chatwheel.cli.app import main; main()"
    return subprocess.run(
        [sys.executable, "-c", script, *arguments], env=values, capture_output=True, text=True, timeout=120, check=False
    )


def test_a_model_is_downloaded_once_and_found_offline(hub: Hub, tmp_path: Path) -> None:
    first = generate(hub, tmp_path, "tiny-org/tiny")
    assert first.returncode == 0, first.stderr
    fetched = {line.split("/")[-1] for line in hub.requests if line.startswith("GET") and "resolve" in line}
    assert "model.safetensors" in fetched
    assert not fetched & {"pytorch_model.bin", "README.md"}
    hub.requests.clear()
    again = generate(hub, tmp_path, "tiny-org/tiny")
    assert again.stdout == first.stdout
    assert not [line for line in hub.requests if line.startswith("GET") and "safetensors" in line]
    hub.requests.clear()
    offline = generate(hub, tmp_path, "tiny-org/tiny", HF_HUB_OFFLINE="1")
    assert offline.stdout == first.stdout
    assert hub.requests == []


@pytest.mark.slow  # a large model
def test_a_download_that_broke_off_goes_on(hub: Hub, tmp_path: Path) -> None:
    # Large enough that a part of it was stored before the break: the library writes 10 MB at a time.
    save_model(tmp_path / "large", causal(hidden_size=512, intermediate_size=2048), tokenizer(), {})
    for name in ("config.json", "model.safetensors"):
        hub.repositories["tiny-org/tiny"][name] = (tmp_path / "large" / name).read_bytes()
    hub.cut = "model.safetensors"
    outcome = generate(hub, tmp_path, "tiny-org/tiny")  # the library goes on by itself
    assert outcome.returncode == 0, outcome.stderr
    assert any("safetensors" in line and re.search(r"bytes=[1-9]", line) for line in hub.requests), hub.requests


def _config(hub: Hub, **changes: object) -> None:
    files = hub.repositories["tiny-org/tiny"]
    files["config.json"] = json.dumps(json.loads(files["config.json"]) | changes).encode()


def test_what_cannot_be_opened_is_not_downloaded(hub: Hub, tmp_path: Path) -> None:
    _config(hub, model_type="gemma3")
    outcome = generate(hub, tmp_path, "tiny-org/tiny")
    assert outcome.returncode == 2
    assert "tiny-org/tiny/config.json: architecture 'gemma3' is not supported; supported are llama" in outcome.stderr
    _config(hub, model_type="llama", hidden_size=2**20, intermediate_size=2**22)
    outcome = generate(hub, tmp_path, "tiny-org/tiny")
    assert outcome.returncode == 2
    assert "GB of memory" in outcome.stderr
    assert not [line for line in hub.requests if "safetensors" in line]


@pytest.mark.slow  # the Hub's own client tries for half a minute
def test_a_hub_that_is_away_is_one_line(hub: Hub, tmp_path: Path) -> None:
    outcome = generate(hub, tmp_path, "tiny-org/other", HF_ENDPOINT="http://127.0.0.1:9")
    assert outcome.returncode == 2, outcome.stderr
    assert "can't be reached" in outcome.stderr.strip().splitlines()[-1]
    assert "Traceback" not in outcome.stderr


@pytest.mark.slow
def test_what_the_hub_refuses_is_one_line(hub: Hub, tmp_path: Path) -> None:
    hub.gated.add("tiny-org/gated")
    del hub.repositories["tiny-org/tiny"]["config.json"]
    for name, message, environment in (
        ("tiny-org/nothing", "no such model here or on the Hub", {}),
        ("tiny-org/gated", "asks for consent", {}),
        ("tiny-org/tiny", "no config.json", {}),
        ("tiny-org/other", "can't be reached", {"HF_HUB_OFFLINE": "1"}),
    ):
        outcome = generate(hub, tmp_path, name, **environment)
        assert outcome.returncode == 2, outcome.stderr
        lines = [line for line in outcome.stderr.strip().splitlines() if "HF_TOKEN" not in line or name in line]
        assert message in lines[-1], outcome.stderr
        assert name in lines[-1]
        assert "Traceback" not in outcome.stderr


@pytest.mark.parametrize(
    ("name", "fits"),
    [
        ("Qwen/Qwen3-0.6B", True),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", True),
        ("quickstart/ppo/old", False),
        ("../etc", False),
        ("/etc/passwd", False),
        ("ppo", False),
        ("a/../b", False),
        ("org/a--b", False),
        ("org/a..b", False),
        ("org/ab-", False),
        ("orgé/x", False),
    ],
)
def test_the_shape_of_a_name(name: str, fits: bool) -> None:
    assert is_hub_name(name) == fits


def test_a_connection_that_breaks_for_good_is_one_line() -> None:
    with (
        pytest.raises(InputError, match=r"o/m: the download broke off \(peer closed.*goes on with it"),
        _explained("o/m"),
    ):
        raise errors.HTTPError("peer closed connection\nmore")
