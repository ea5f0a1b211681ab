"""The reward stage: an ensemble that is the same however often it is killed, what is measured, bad input in a line."""

from __future__ import annotations

import json
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from chatwheel.data.records import Ranking, read_records
from chatwheel.errors import InputError, ModelNotFoundError
from chatwheel.jobs.judges import check_judges, judges
from chatwheel.jobs.pipeline import forget, run_recipe
from chatwheel.jobs.recipe import Recipe
from chatwheel.jobs.run import Run
from chatwheel.jobs.stages import make_data
from chatwheel.model.checkpoint import load_model
from chatwheel.model.transformer import ScalarModel
from chatwheel.settings import Settings
from chatwheel.store.registry import Registry
from chatwheel.training.loop import read_metrics
from chatwheel.training.rewards import EnsembleReward, RewardModelReward, WeightedReward
from tests.conftest import Recorder, TinyRun
from tests.jobs.test_pipeline import SAVE_EACH_STEP, lines
from tests.jobs.tiny_recipe import chatwheel, finish, run, write_recipe

ENSEMBLE = ["reward.ensemble=3", "reward.caution=0.5"]
NAMES = ("reward", "reward-2", "reward-3")


def begun(tiny_run: TinyRun, place: Path, *overrides: str) -> Run:
    """A copy of the tiny run up to its rankings, as if its recipe had always been another one."""
    home = place / "home"
    for part in ("runs", "models"):
        shutil.copytree(tiny_run.home / part, home / part)
    recipe = Recipe.load(tiny_run.recipe, overrides)
    path = home / "runs" / "tiny" / "recipe.json"
    path.write_text(recipe.model_dump_json())
    found = Run.open(recipe, Settings.load(home))
    found.restart({"reward": "reward", "ppo": "ppo"})
    return found


def weights(found: Run) -> dict[str, bytes]:
    return {name: (found.model(name) / "model.safetensors").read_bytes() for name in NAMES}


@pytest.fixture(scope="module")
def ensemble(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, dict[str, Any], Recorder]:
    found, recorder = begun(tiny_run, tmp_path_factory.mktemp("ensemble"), *ENSEMBLE), Recorder()
    return found, run_recipe(found, recorder, only="reward")["stage:reward"], recorder


def test_an_ensemble_is_saved_as_models_that_differ(
    ensemble: tuple[Run, dict[str, Any], Recorder], tiny_run: TinyRun
) -> None:
    found, result, recorder = ensemble
    made = weights(found)
    assert len(set(made.values())) == 3
    assert made["reward"] == (tiny_run.model("reward") / "model.safetensors").read_bytes(), "the first is the one alone"
    kinds = {entry.name: entry.kind for entry in Registry(found.models.parent).list()}
    assert [kinds[f"tiny/{name}"] for name in NAMES] == ["reward"] * 3
    steps = [len(read_metrics(found.stage(name))) for name in NAMES]
    assert steps[0] == steps[1] == steps[2]
    assert [p.step for p in recorder.steps] == list(range(1, sum(steps) + 1)), "one progress bar for all"
    assert {p.steps for p in recorder.steps} == {sum(steps)}
    assert recorder.steps[-1].remaining == pytest.approx(0)
    assert not list(found.directory.rglob("state*"))
    together = result["ensemble"]
    assert together["members"] == 3
    assert together["member_pair_accuracy"][0] == result["pair_accuracy"]
    assert together["deviation"] > 0
    for name, accuracy in zip(NAMES, together["member_pair_accuracy"], strict=True):
        lineage = json.loads((found.model(name) / "chatwheel.json").read_text())
        assert lineage["metrics"]["pair_accuracy"] == accuracy
        assert lineage["metrics"]["reward_scale"]["std"] > 0
        assert ("ensemble" in lineage["metrics"]) == (name == "reward")


@pytest.mark.slow
def test_an_ensemble_killed_in_its_second_member_ends_with_the_same_weights(
    ensemble: tuple[Run, dict[str, Any], Recorder], tiny_run: TinyRun, tmp_path: Path
) -> None:
    found = begun(tiny_run, tmp_path, *ENSEMBLE)
    home, command = tmp_path / "home", ["train", "reward", "--recipe", tiny_run.recipe, *ENSEMBLE]
    for member in ("reward-2", "reward-3"):
        process = chatwheel(*command, home=home, before=SAVE_EACH_STEP)
        metrics, deadline = found.stage(member) / "metrics.jsonl", time.monotonic() + 120
        while lines(metrics) < 3 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        process.kill()
        ended = finish(process)
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        assert not found.model(member).exists()
        assert not found.model("reward").exists(), "the first one says what is known of all"
    result = run(command, home)
    assert result.returncode == 0, result.stderr
    assert weights(found) == weights(ensemble[0])
    stage = found.read_json("results/stage.reward.json")
    assert stage | {"seconds": 0} == ensemble[1] | {"seconds": 0}
    assert not list(found.directory.rglob("state*"))


def test_to_begin_again_forgets_all_members(
    ensemble: tuple[Run, dict[str, Any], Recorder], tiny_run: TinyRun, tmp_path: Path
) -> None:
    shutil.copytree(ensemble[0].directory.parents[1], tmp_path / "home")
    found = Run.open(Recipe.load(tiny_run.recipe, ENSEMBLE), Settings.load(tmp_path / "home"))
    forget(found, "reward")
    assert not any(found.model(name).exists() or found.stage(name).exists() for name in NAMES)
    assert found.model("sft").is_dir()


def test_ppo_is_judged_by_all_of_them(
    ensemble: tuple[Run, dict[str, Any], Recorder], tiny_run: TinyRun, tmp_path: Path
) -> None:
    shutil.copytree(ensemble[0].directory.parents[1], tmp_path / "home")
    found = Run.open(Recipe.load(tiny_run.recipe, ENSEMBLE), Settings.load(tmp_path / "home"))
    run_recipe(found, Recorder(), only="ppo")
    rows = [row for row in read_metrics(found.stage("ppo")) if "reward" in row]
    assert rows
    for row in rows:
        mean = sum(row[f"reward.{name}"] for name in NAMES) / 3
        assert row["reward.disagreement"] > 0
        assert row["reward"] == pytest.approx(mean - 0.5 * row["reward.disagreement"], abs=1e-4)


def test_one_member_can_be_named_as_a_judge(ensemble: tuple[Run, dict[str, Any], Recorder], tiny_run: TinyRun) -> None:
    named = [*ENSEMBLE, "ppo.rewards=[{model: reward-2, weight: 0.5}, {model: reward}]"]
    recipe = Recipe.load(tiny_run.recipe, named)
    found = Run(recipe, ensemble[0].directory, ensemble[0].models)
    assert recipe.ppo is not None
    check_judges(found, recipe.ppo)
    made = judges(found, recipe.ppo, load_model(found.model("reward"), ScalarModel)[1])
    assert isinstance(made, WeightedReward)
    second, all_of_them = (judge for _, judge, _ in made.parts)
    assert isinstance(second, RewardModelReward)
    assert isinstance(all_of_them, EnsembleReward)
    assert all_of_them.caution == 0.5
    alone = Run(Recipe.load(tiny_run.recipe), found.directory, found.models)
    with pytest.raises(ModelNotFoundError, match="reward-2"):
        check_judges(alone, recipe.ppo)


def test_what_is_measured_is_in_the_result_and_in_the_model_s_lineage(tiny_run: TinyRun) -> None:
    result = tiny_run.results["stage:reward"]
    held_out = list(read_records(tiny_run.run.data("rankings.held_out"), Ranking))
    groups = result["groups"]
    assert result["calibration"]["pairs"] == result["pairs"] == sum(b["pairs"] for b in result["calibration"]["bins"])
    low, high = result["pair_accuracy_interval"]
    assert low <= result["pair_accuracy"] <= high
    for field in ("source", "labeller", "behaviour", "language"):
        assert sum(one["pairs"] for one in groups[field].values()) == result["pairs"]
        right = sum(one["pairs"] * one["accuracy"] for one in groups[field].values())
        assert right == pytest.approx(result["pairs"] * result["pair_accuracy"], abs=0.01 * result["pairs"])
    assert set(groups["labeller"]) <= {ranking.labeller for ranking in held_out}
    assert result["length"]["pairs"] + result["length"]["equal_pairs"] == result["pairs"]
    assert {"opening", "list", "newline"} <= set(result["form"])
    lineage = json.loads((tiny_run.model("reward") / "chatwheel.json").read_text())
    assert lineage["metrics"] == {key: value for key, value in result.items() if key != "seconds"}
    report = (tiny_run.run.directory / "report.html").read_text(encoding="utf-8")
    assert "Can the reward model be trusted?" in report
    assert "title-reliability" in report


def test_margins_of_the_world_s_scores_change_what_is_learnt(tiny_run: TinyRun, tmp_path: Path) -> None:
    rankings = list(read_records(tiny_run.run.data("rankings"), Ranking))
    assert all(ranking.scores is not None for ranking in rankings)
    found = begun(tiny_run, tmp_path, "reward.margin={by: scores, scale: 0.5}")
    run_recipe(found, Recorder(), only="reward")
    first = read_metrics(found.stage("reward"))[0]["loss"]
    assert first > read_metrics(tiny_run.run.stage("reward"))[0]["loss"], (
        "at first, when all rewards are 0, by the margins"
    )
    assert (found.model("reward") / "model.safetensors").read_bytes() != (
        tiny_run.model("reward") / "model.safetensors"
    ).read_bytes()


def test_a_misspelt_labeller_is_named_before_anything_is_made(tmp_path: Path) -> None:
    recipe = Recipe.load(write_recipe(tmp_path), ["reward.labellers={'simulated:boo': 0.5}"])
    found = Run.open(recipe, Settings.load(tmp_path / "home"))
    with pytest.raises(
        InputError, match="'simulated:boo' has ranked nothing here; labellers: simulated:anna, simulated:bo"
    ):
        run_recipe(found, Recorder())
    assert not found.data("documents").exists()


def test_of_files_too(tmp_path: Path) -> None:
    message = {"role": "user", "content": "Which?"}
    rows = [
        {"messages": [message | {"content": f"Which {i}?"}], "answers": ["a", "b"], "ranks": [1, 2], "labeller": "zoe"}
        for i in range(20)
    ]
    (tmp_path / "rankings.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = Recipe.load(write_recipe(tmp_path), ["reward.labellers={zoë: 0.5}"])
    values = recipe.model_dump(mode="json")
    values["data"] = {"kind": "files", "root": str(tmp_path), "rankings": [{"path": "rankings.jsonl"}]}
    values["pretrain"]["primer"] = 0
    found = Run.open(Recipe.parse(values, where="test"), Settings.load(tmp_path / "home"))
    with pytest.raises(InputError, match="'zoë' has ranked nothing here; labellers: zoe"):
        make_data(found, lambda _: None)
