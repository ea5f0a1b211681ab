"""A run on disk: one recipe, and a lineage that can be checked."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

import chatwheel
from chatwheel.errors import InputError
from chatwheel.jobs.recipe import Recipe
from chatwheel.jobs.run import Run
from chatwheel.settings import Settings
from tests.conftest import TinyRun
from tests.jobs.tiny_recipe import write_recipe


def open_run(home: Path, *overrides: str) -> Run:
    home.mkdir(exist_ok=True)
    return Run.open(Recipe.load(write_recipe(home), overrides), Settings.load(home))


def test_the_same_recipe_goes_on(tmp_path: Path) -> None:
    first, again = open_run(tmp_path), open_run(tmp_path)
    assert first == again
    assert json.loads((first.directory / "recipe.json").read_text())["name"] == "tiny"


@pytest.mark.parametrize(
    ("override", "difference"),
    [
        ("seed=4", "seed: 3 there, 4 now"),
        ("ppo.kl.coefficient=0.5", "ppo.kl.coefficient: 0.05 there, 0.5 now"),
        ("data.languages=[en]", "data.languages: ['en', 'zh'] there, ['en'] now"),
    ],
)
def test_another_recipe_is_refused_with_the_key_that_differs(override: str, difference: str, tmp_path: Path) -> None:
    run = open_run(tmp_path)
    before = (run.directory / "recipe.json").read_bytes()
    with pytest.raises(InputError) as caught:
        open_run(tmp_path, override)
    assert difference in caught.value.message
    assert "choose another name" in caught.value.message
    assert (run.directory / "recipe.json").read_bytes() == before
    assert open_run(tmp_path, override, "name=another").directory != run.directory


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


PARENTS = {"base": [], "sft": ["base"], "reward": ["sft"], "ppo": ["sft", "reward"]}
DATA = {"base": ["documents"], "sft": ["demonstrations"], "reward": ["rankings"], "ppo": ["prompts"]}


@pytest.mark.parametrize("name", PARENTS)
def test_a_model_says_where_it_comes_from(name: str, tiny_run: TinyRun) -> None:
    lineage = json.loads((tiny_run.model(name) / "chatwheel.json").read_text())
    assert lineage["stage"] == {"base": "pretrain"}.get(name, name)
    assert lineage["parents"] == {f"tiny/{p}": sha256(tiny_run.model(p) / "model.safetensors") for p in PARENTS[name]}
    assert lineage["data"] == {d: sha256(tiny_run.run.directory / "data" / f"{d}.jsonl") for d in DATA[name]}
    assert Recipe.parse(lineage["recipe"], where="lineage") == tiny_run.run.recipe
    assert lineage["seed"] == 3
    assert lineage["chatwheel_version"] == chatwheel.__version__
    assert lineage["metrics"]["loss"] is not None


def test_a_restarted_stage_is_forgotten_and_nothing_else(tmp_path: Path) -> None:
    run = open_run(tmp_path)
    for name in ("sft", "ppo"):
        run.stage(name).mkdir()
        run.model(name).mkdir(parents=True)
        run.write_json(f"results/stage.{name}.json", {})
        run.write_json(f"results/model.{name}.json", {})
    run.restart("ppo", "ppo")
    left = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")}
    assert not any("ppo" in p for p in left)
    assert {"models/tiny/sft", "runs/tiny/sft", "runs/tiny/results/stage.sft.json"} <= left
    run.restart("ppo", "ppo")  # again, when nothing is there
