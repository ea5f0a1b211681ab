"""A run on disk: one recipe, and a lineage that can be checked."""

from __future__ import annotations

import hashlib
import json
from datetime import date
from pathlib import Path

import pytest
import yaml

import chatwheel
from chatwheel.errors import InputError
from chatwheel.jobs.pipeline import run_recipe
from chatwheel.jobs.recipe import Recipe
from chatwheel.jobs.run import Run
from chatwheel.settings import Settings
from tests.conftest import Recorder, TinyRun
from tests.jobs.tiny_recipe import RECIPE, write_recipe


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


def test_how_many_sample_ahead_may_change_and_how_stale_may_not(tmp_path: Path) -> None:
    run = open_run(tmp_path, "ppo.asynchronous={staleness: 2}")
    fewer = open_run(tmp_path, "ppo.asynchronous={staleness: 2, workers: 3, threads: 1}", "tensor_parallel=2")
    assert fewer.directory == run.directory
    with pytest.raises(InputError, match=r"ppo.asynchronous.staleness: 2 there, 1 now"):
        open_run(tmp_path, "ppo.asynchronous={staleness: 1}")
    with pytest.raises(InputError, match=r"ppo.asynchronous: \{'staleness': 2\} there, None now"):
        open_run(tmp_path)


def test_workers_of_a_cluster_are_for_stages_that_are_sampled_ahead(tmp_path: Path) -> None:
    recipe = Recipe.load(write_recipe(tmp_path), ["ppo.asynchronous={staleness: 2, workers: 5}"])
    assert recipe.sampled_by("ppo", None) == (recipe, 5)
    other, number = recipe.sampled_by("ppo", 3)
    assert number == 3
    assert other == Recipe.load(write_recipe(tmp_path), ["ppo.asynchronous={staleness: 2, workers: 3}"])
    with pytest.raises(InputError, match=r"grpo learns in one process; with grpo.asynchronous='\{staleness: 1\}'"):
        recipe.sampled_by("grpo", 3)
    with pytest.raises(InputError, match="the recipe tiny has no grpo"):
        Recipe.load(write_recipe(tmp_path), ["grpo=null"]).sampled_by("grpo", 3)


def test_a_run_of_an_earlier_version_goes_on_with_the_defaults_of_this_one(tmp_path: Path) -> None:
    run = open_run(tmp_path)
    path = run.directory / "recipe.json"
    values = json.loads(path.read_text())
    del values["sft"]["compilation"], values["model"]["tied_embeddings"]
    path.write_text(json.dumps(values))
    assert open_run(tmp_path) == run
    with pytest.raises(InputError, match="seed: 3 there, 4 now"):
        open_run(tmp_path, "seed=4")


def test_one_process_at_a_time_works_on_a_run(tmp_path: Path) -> None:
    first, second = open_run(tmp_path), open_run(tmp_path)
    with first.locked():
        with pytest.raises(InputError, match="another process works on this run"), second.locked():
            pass
        with open_run(tmp_path, "name=another").locked():
            pass
    with second.locked():
        pass


@pytest.mark.parametrize(("only", "kind"), [(None, "rankings"), ("sft", "demonstrations"), ("pretrain", "documents")])
def test_missing_data_is_said_before_any_work(only: str | None, kind: str, tmp_path: Path) -> None:
    values = yaml.safe_load(RECIPE)
    sources = {name: [{"path": "a.jsonl"}] for name in ("documents", "demonstrations", "rankings") if name != kind}
    values["data"] = {"kind": "files", "root": str(tmp_path), **sources}
    values["pretrain"]["primer"] = 0
    run = Run.open(Recipe.parse(values, where="here"), Settings.load(tmp_path))
    with pytest.raises(InputError, match=f"data.{kind} is empty"):
        run_recipe(run, Recorder(), only)
    assert not list(run.directory.rglob("*.jsonl"))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


PARENTS = {"base": [], "sft": ["base"], "reward": ["sft"], "ppo": ["sft", "reward"]}
DATA = {"base": ["documents", "primer"], "sft": ["demonstrations"], "reward": ["rankings"], "ppo": ["prompts"]}


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
    run.restart({"ppo": "ppo"})
    left = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")}
    assert not any("ppo" in p for p in left)
    assert {"models/tiny/sft", "runs/tiny/sft", "runs/tiny/results/stage.sft.json"} <= left
    run.restart({"ppo": "ppo"})  # again, when nothing is there


def test_killed_while_it_forgets_a_run_takes_nothing_for_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = open_run(tmp_path)
    for stage, model in (("data", None), ("pretrain", "base")):
        run.stage(stage).mkdir()
        run.write_json(f"results/stage.{stage}.json", {})
        if model is not None:
            run.model(model).mkdir(parents=True)

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("chatwheel.jobs.run.shutil.rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        run.restart({"data": None, "pretrain": "base"})
    assert not list((run.directory / "results").iterdir())


def test_the_day_is_the_one_on_which_the_run_was_begun(tmp_path: Path) -> None:
    run = open_run(tmp_path)
    assert run.day == date.today()
    run.write_json("begun.json", {"day": "2001-02-03"})
    assert open_run(tmp_path).day == date(2001, 2, 3)
