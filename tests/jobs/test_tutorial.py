"""The commands of docs/rlhf.md, run: with a small model in the place of the named one, and few steps."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from chatwheel.jobs.recipe import Recipe
from chatwheel.model.checkpoint import save_model
from chatwheel.training.loop import read_metrics
from tests.jobs.tiny_recipe import run
from tests.tiny import causal, tokenizer

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "rlhf.md").read_text(encoding="utf-8")
NAME = "Qwen/Qwen3-0.6B"
SMALL = {
    "dpo": ["dpo.rankings_per_step=8", "dpo.row_length=128", "dpo.optimizer.learning_rate=0.01"],
    "grpo": [
        *("grpo.rollouts=2", "grpo.prompts_per_rollout=2", "grpo.samples_per_prompt=4", "grpo.max_tokens=8"),
        "grpo.row_length=128",
    ],
    "run": [
        *("sft.row_length=128", "reward.row_length=128", "ppo.rollouts=3", "ppo.prompts_per_rollout=4"),
        *("ppo.max_tokens=8", "ppo.row_length=128"),
    ],
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def commands() -> list[list[str]]:
    return [shlex.split(line)[1:] for block in blocks("sh") for line in block.splitlines()]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a newcomer has: rankings, questions with answers; and the files that the tutorial tells them to write."""
    directory = tmp_path_factory.mktemp("tutorial")
    save_model(directory / "qwen", causal(), tokenizer(), {})
    one = json.loads(blocks("json")[0])
    rankings = [
        {"messages": [{"role": "user", "content": f"Parcel {i} is late."}], "answers": [f"Wait {i}.", f"Sorry. {i}?"]}
        for i in range(100)
    ]
    lines = [one, *({**ranking, "ranks": [2, 1]} for ranking in rankings)]
    questions = [{"prompt": f"What is {i} and 1?", "completion": f"{i + 1}"} for i in range(30)]
    for name, records in (("rankings", lines), ("questions", questions)):
        (directory / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    best, judge = blocks("python")
    (directory / "best.py").write_text(best)
    (directory / "judge.py").write_text(judge)
    (directory / "mine.yaml").write_text(blocks("yaml")[0].replace(NAME, str(directory / "qwen")))
    return directory


def done(place: Path, command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs one as it stands, but for the model and the size."""
    monkeypatch.chdir(place)
    given = [part.replace(NAME, str(place / "qwen")) for part in command]
    small = SMALL[command[1] if command[0] == "train" else "run"] if command[0] in ("train", "run") else []
    result = run([*given, *small], place / "home")
    assert result.returncode == 0, result.stderr


def of(*words: str) -> list[str]:
    (found,) = [c for c in commands() if c[: len(words)] == list(words) and "name=judged" not in c]
    return found


def test_all_commands_are_known() -> None:
    kinds = {tuple(command[:2]) if command[0] in ("train", "data") else (command[0],) for command in commands()}
    assert kinds == {("data", "inspect"), ("train", "dpo"), ("train", "grpo"), ("run",), ("chat",)}


def test_dpo(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done(place, of("data", "inspect"), monkeypatch)
    done(place, of("train", "dpo"), monkeypatch)
    done(place, of("chat", "--model", "qwen-dpo/dpo"), monkeypatch)  # nobody says anything
    rows = read_metrics(place / "home" / "runs" / "qwen-dpo" / "dpo")
    assert rows[-1]["pair_accuracy"] > 0.9
    assert {"margin", "reward_better", "reward_worse"} <= rows[0].keys()


def test_a_reward_model_and_ppo(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    exec((place / "best.py").read_text(), {})
    done(place, of("run"), monkeypatch)
    assert (place / "home" / "models" / "mine" / "ppo" / "adapter_model.safetensors").is_file()
    stage = place / "home" / "runs" / "mine" / "ppo"
    row = read_metrics(stage)[0]
    assert {"reward", "kl", "explained_variance", "clip_fraction", "reward_length", "entropy", "ended"} <= row.keys()
    assert len((stage / "rollouts.jsonl").read_text().splitlines()) == 3


@pytest.mark.slow
def test_grpo_with_a_rule_and_with_a_function(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done(place, of("train", "grpo"), monkeypatch)
    (judged,) = [command for command in commands() if "name=judged" in command]
    done(place, judged, monkeypatch)
    for name in ("qwen-grpo", "judged"):
        assert (place / "home" / "models" / name / "grpo" / "adapter_model.safetensors").is_file()
        assert {"idle_groups", "reward_std"} <= read_metrics(place / "home" / "runs" / name / "grpo")[0].keys()


def test_every_option_that_is_named_is_one() -> None:
    known = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
    named = re.findall(r"`(?:dpo|ppo|grpo|reward)\.([a-z_]+)", TEXT)
    assert len(named) > 8
    assert [name for name in named if f"| `{name}` |" not in known] == []
    Recipe.load(ROOT / "recipes" / "qwen-grpo.yaml")
