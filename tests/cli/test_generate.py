"""`chatwheel generate`: one prompt, one answer."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from typing import Any

import pytest
from tests.conftest import TinyRun
from tests.jobs.tiny_recipe import run

from chatwheel.cli import app

Generate = Callable[..., str]


@pytest.fixture
def generate(tiny_run: TinyRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Generate:
    """What it prints."""

    def call(*arguments: object) -> str:
        fixed = ["chatwheel", "generate", "--home", tiny_run.home, "--model", "tiny/ppo"]
        monkeypatch.setattr(sys, "argv", [str(a) for a in (*fixed, *arguments)])
        with pytest.raises(SystemExit) as end:
            app.main()
        captured = capsys.readouterr()
        assert not end.value.code
        assert captured.err == ""
        return captured.out

    return call


def as_json(text: str) -> dict[str, Any]:
    assert len(text.splitlines()) == 1
    value = json.loads(text)
    assert isinstance(value, dict)
    return value


def test_json_is_one_object_and_nothing_else(generate: Generate) -> None:
    value = as_json(generate("What is two plus two?", "--max-tokens", 20, "--json"))
    assert value["model"] == "tiny/ppo"
    assert value["completion_tokens"] == 20 or value["finish_reason"] == "stop"
    assert value["prompt_tokens"] > 3
    assert value["logprob"] < 0
    assert generate("What is two plus two?", "--max-tokens", 20) == value["text"] + "\n"


def test_in_its_own_process_too(tiny_run: TinyRun) -> None:
    result = run(["generate", "-m", "tiny/sft", "Hello", "--max-tokens", 8, "--json"], home=tiny_run.home)
    assert result.returncode == 0
    assert result.stderr == ""
    assert as_json(result.stdout)["model"] == "tiny/sft"


def test_the_same_seed_gives_the_same_answer_and_another_seed_another(generate: Generate) -> None:
    def answer(seed: int) -> Any:
        return as_json(generate("你好", "--seed", seed, "--temperature", 1, "--max-tokens", 30, "--json"))

    first = answer(5)
    assert first == answer(5)
    assert len({answer(seed)["text"] for seed in (5, 6, 7)}) > 1


def test_without_a_temperature_it_is_greedy(generate: Generate) -> None:
    assert generate("Hello", "--max-tokens", 12, "--seed", 1) == generate("Hello", "--max-tokens", 12, "--seed", 2)


def test_a_prompt_from_standard_input(generate: Generate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hello"))
    assert generate("-", "--max-tokens", 12) == generate("Hello", "--max-tokens", 12)


def test_a_directory_does_as_well_as_a_name(
    tiny_run: TinyRun, generate: Generate, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_name = generate("Hello", "--max-tokens", 12)
    assert generate("--model", tiny_run.model("ppo"), "Hello", "--max-tokens", 12) == by_name
    monkeypatch.chdir(tiny_run.model("ppo").parent)
    assert generate("--model", "./ppo", "Hello", "--max-tokens", 12) == by_name
