"""`chatwheel serve` before it serves: the port, the key, the models."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from chatwheel.cli.serve import is_chatwheel, listen, serve
from chatwheel.errors import InputError, ModelNotFoundError
from chatwheel.model.checkpoint import save_model
from chatwheel.model.tokenizer import Tokenizer
from chatwheel.settings import Settings
from tests.server.fake_assistant import FakeModels
from tests.tiny import TEXT, causal, tokenizer


def settings_of(home: Path) -> Settings:
    return Settings(home=home, database_url=f"sqlite:///{home / 'chatwheel.db'}")


def test_a_taken_port_is_one_line_and_nothing_has_been_touched(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        message = f"port {port} on 127.0.0.1 is in use; choose another with --port"
        with pytest.raises(InputError) as caught:
            serve(settings_of(tmp_path / "home"), port=port)
    assert caught.value.message == message
    assert not (tmp_path / "home").exists()


def test_another_address_demands_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CHATWHEEL_API_KEY", raising=False)
    for host in ("0.0.0.0", "::", "192.0.2.1", "127.example.com"):
        with pytest.raises(InputError, match="CHATWHEEL_API_KEY"):
            serve(settings_of(tmp_path), host=host, port=0)
    monkeypatch.setenv("CHATWHEEL_API_KEY", "")
    with pytest.raises(InputError, match="CHATWHEEL_API_KEY"):
        serve(settings_of(tmp_path), host="0.0.0.0", port=0)


def test_a_key_that_cannot_be_sent_is_refused(tmp_path: Path) -> None:
    for key in ("ключ", "two words", "line\nbreak"):
        with pytest.raises(InputError, match="CHATWHEEL_API_KEY"):
            serve(settings_of(tmp_path), port=0, api_key=key)


def test_an_address_that_is_not_here_is_one_line() -> None:
    with pytest.raises(InputError, match=r"no such address|cannot listen"):
        listen("no-such-host.invalid", 0)
    with pytest.raises(InputError, match="cannot listen"):
        listen("192.0.2.1", 0)


def test_neither_models_nor_runs_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"neither models nor runs .*chatwheel quickstart"):
        serve(settings_of(tmp_path), port=0)


def test_an_unknown_model_is_refused_at_the_start(tmp_path: Path) -> None:
    FakeModels(tmp_path / "models")
    with pytest.raises(ModelNotFoundError, match="nothing"):
        serve(settings_of(tmp_path), ["nothing"], port=0)


@contextmanager
def serving(home: Path, host: str = "127.0.0.1") -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A process of its own, and where it answers."""
    with socket.create_server((host, 0)) as free:
        port = free.getsockname()[1]
    code = "import typer; from chatwheel.cli.serve import command; typer.run(command)"
    arguments = [sys.executable, "-c", code, "--home", str(home), "--host", host, "--port", str(port)]
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, env=dict(os.environ), text=True)
    try:
        deadline = time.monotonic() + 120  # a busy machine opens PyTorch slowly
        while not is_chatwheel(host, port):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield f"http://{host}:{port}", process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2"])
def test_it_serves_until_interrupted(tmp_path: Path, host: str) -> None:
    """It starts, says where, answers, and ends cleanly on Ctrl+C."""
    FakeModels(tmp_path / "models")
    with serving(tmp_path, host) as (url, process):
        assert httpx.get(f"{url}/health", timeout=10).json()["status"] == "ok"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert url in said
    assert "Traceback" not in said
    assert process.returncode == 0
    assert (tmp_path / "chatwheel.db").exists()


def test_without_a_model_it_shows_the_runs_and_whoever_watches_does_not_hold_it_up(tmp_path: Path) -> None:
    (tmp_path / "runs/try").mkdir(parents=True)
    (tmp_path / "runs/try/recipe.json").write_text('{"name": "try", "sft": {}}')
    with serving(tmp_path) as (url, process):
        assert [run["name"] for run in httpx.get(f"{url}/v1/runs", timeout=10).json()["data"]] == ["try"]
        assert httpx.get(f"{url}/v1/models", timeout=10).json()["data"] == []
        with httpx.stream("GET", f"{url}/v1/runs/try/events", timeout=10) as stream:
            assert next(stream.iter_text()).startswith("event: run\n")
            process.send_signal(signal.SIGINT)
            began = time.monotonic()
            process.wait(timeout=20)
            assert time.monotonic() - began < 4
        _, said = process.communicate(timeout=20)
    assert "training runs; no model is there yet" in said
    assert f"{url}/#/runs" in said
    assert "Traceback" not in said
    assert process.returncode == 0


def test_another_server_is_not_taken_for_ours() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        assert not is_chatwheel("127.0.0.1", port)
    assert not is_chatwheel("127.0.0.1", port)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "vllm", "weights": "int8"}, "float32 or bfloat16 here, not int8"),
        ({"backend": "vllm", "speculate": 2}, "leave --speculate and --draft out"),
        ({"draft": "quickstart/base"}, "name them with --model"),
    ],
)
def test_options_that_do_not_go_together_are_refused_at_the_start(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    FakeModels(tmp_path / "models")
    with pytest.raises(InputError, match=message):
        serve(settings_of(tmp_path), port=0, **options)


def test_a_draft_of_another_family_is_refused_at_the_start(tmp_path: Path) -> None:
    save_model(tmp_path / "models" / "model", causal(), tokenizer(), {})
    other = Tokenizer.train([line[::-1] for line in TEXT] * 3, 400)
    save_model(tmp_path / "models" / "other", causal(), other, {})
    with pytest.raises(InputError, match="has other tokens than"):
        serve(settings_of(tmp_path), ["model"], port=0, speculate=4, draft="other")


def test_a_draft_that_guesses_nothing_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "chatwheel", "serve", "--home", str(tmp_path), "--speculate", "0"]
    result = subprocess.run([*command, "--model", "a", "--draft", "b"], capture_output=True, text=True, timeout=60)
    assert result.returncode == 2
    assert "--draft guesses nothing with --speculate 0" in result.stderr
