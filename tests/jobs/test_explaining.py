"""`chatwheel train --explain`: what looks wrong, at the end, at once of what is finished, and of what failed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import TinyRun
from tests.jobs.tiny_recipe import run, write_recipe


@pytest.fixture
def finished(tiny_run: TinyRun, tmp_path: Path) -> tuple[Path, Path]:
    """The recipe, and a home where all of it is done."""
    shutil.copytree(tiny_run.run.directory.parent.parent, tmp_path / "home")
    return write_recipe(tmp_path), tmp_path / "home"


def test_a_finished_stage_is_explained_at_once(finished: tuple[Path, Path]) -> None:
    recipe, home = finished
    metrics = home / "runs/tiny/ppo/metrics.jsonl"
    before = metrics.read_bytes()
    done = run(("train", "ppo", "--recipe", recipe, "--explain"), home)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("ppo")
    assert "Time: sampling " in done.stdout
    assert done.stderr == ""  # nothing was begun
    assert metrics.read_bytes() == before
    # What its rows say is what it says.
    rows = [json.loads(line) for line in before.splitlines()]
    spoilt = [row | ({"kl": -3.0, "kl_error": 0.1} if "kl" in row else {}) for row in rows]
    metrics.write_text("".join(json.dumps(row) + "\n" for row in spoilt))
    done = run(("train", "ppo", "--recipe", recipe, "--explain"), home)
    said = " ".join(done.stdout.split())
    assert "From step 0: The KL is negative (-3 ± 0.1 nats an answer, in 4 rollouts)" in said


@pytest.mark.slow
def test_a_stage_that_learns_and_one_that_breaks_are_explained_at_the_end(finished: tuple[Path, Path]) -> None:
    recipe, home = finished
    judge = recipe.with_name("judge.py")
    judge.write_text(
        "calls = 0\n"
        "def reward(prompts, answers):\n"
        "    global calls\n"
        "    calls += 1\n"
        "    assert calls < 4, 'three times was enough'\n"
        "    return [1.0] * len(answers)\n"
    )
    text = recipe.read_text().replace(
        "rloo: {rollouts: 2,", f"rloo: {{rewards: [{{function: '{judge}:reward'}}], rollouts: 2,"
    )
    recipe.write_text(text.replace("ppo:\n", f"ppo:\n  rewards: [{{function: '{judge}:reward'}}]\n"))
    path = home / "runs/tiny/recipe.json"
    values = json.loads(path.read_text())
    for name in ("ppo", "rloo"):
        values[name]["rewards"] = [{"function": f"{judge}:reward"}]
    path.write_text(json.dumps(values))
    done = run(("train", "rloo", "--recipe", recipe, "--no-resume", "--explain"), home)
    assert done.returncode == 0, done.stderr
    assert "1. From step 0: All answers get the same reward (1) from the start" in done.stdout
    done = run(("train", "ppo", "--recipe", recipe, "--no-resume", "--explain"), home)
    assert done.returncode == 2
    assert "three times was enough" in done.stderr
    assert "Traceback" not in done.stderr
    assert "1. From step 0: All answers get the same reward (1) from the start" in done.stdout


@pytest.mark.slow
def test_what_samples_nothing_cannot_be_explained(finished: tuple[Path, Path]) -> None:
    recipe, home = finished
    done = run(("train", "sft", "--recipe", recipe, "--explain"), home)
    assert done.returncode != 0
    assert "ppo, grpo, rloo, best_of_n; not for sft" in done.stderr
    recipe.write_text("".join(line + "\n" for line in recipe.read_text().splitlines() if not line.startswith("rloo")))
    done = run(("train", "rloo", "--recipe", recipe, "--explain"), home)
    assert "the recipe tiny has no rloo" in done.stderr
