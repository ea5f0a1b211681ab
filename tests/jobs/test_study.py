"""The study of seeds and of going too far: on a home with two models alone, killed, gone on with, and its judgement."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from chatwheel.errors import InputError
from chatwheel.jobs.recipe import Recipe
from chatwheel.jobs.study import Study, picture_of_seeds, reasons_of_collapse, spread, verdict
from chatwheel.settings import Settings
from chatwheel.training.guard import read_looks
from tests.conftest import TinyRun
from tests.jobs.tiny_recipe import chatwheel, finish

PATIENCE = 500
"""Seconds for a study, on a machine that is busy."""
SVG = "{http://www.w3.org/2000/svg}"


def two_models(tiny_run: TinyRun, home: Path) -> Path:
    """A home where SFT's model and the reward model are, and nothing else."""
    for name in ("sft", "reward"):
        shutil.copytree(tiny_run.model(name), home / "models" / "tiny" / name)
    return home


def run(arguments: Sequence[object], home: Path) -> subprocess.CompletedProcess[str]:
    return finish(chatwheel(*arguments, home=home), PATIENCE)


def study_of(tiny_run: TinyRun, output: Path, *more: object) -> list[object]:
    return ["study", "--recipe", tiny_run.recipe, "--seeds", 2, "--far", 1.5, "--output", output, *more]


@pytest.fixture(scope="module")
def studied(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, Any]]:
    """home, output, result."""
    place = tmp_path_factory.mktemp("study")
    home = two_models(tiny_run, place / "home")
    result = run(study_of(tiny_run, place / "figures", "--json", "ppo.ptx=0.5"), home)
    assert result.returncode == 0, result.stderr
    return home, place / "figures", json.loads(result.stdout)


def test_it_needs_the_two_models_alone_and_writes_pictures_and_numbers(studied: Any) -> None:
    home, output, result = studied
    assert {path.name for path in output.iterdir()} == {
        *("ppo-study.json", "ppo-seeds.svg", "ppo-over-optimisation.svg")
    }
    assert json.loads((output / "ppo-study.json").read_text()) == result
    assert [seed["seed"] for seed in result["seeds"]] == [3, 4]
    first, second = result["seeds"]
    assert first["rewards"] != second["rewards"]
    assert len(first["rewards"]) == 4
    accuracies = [first["accuracy"], second["accuracy"]]
    assert result["summary"]["accuracy"]["mean"] == pytest.approx(sum(accuracies) / 2, abs=1e-4)
    assert result["summary"]["accuracy"]["before"] == result["before"]["accuracy"]
    for how in ("greedy", "sampled"):
        low, high = first["preferred"][how]["interval"]
        assert low <= first["preferred"][how]["share"] <= high
    far = result["over_optimisation"]
    assert [look["rollouts"] for look in far["looks"]] == [0, 2, 4, 6]
    assert far["settings"]["kl"]["coefficient"] == 0
    assert far["settings"]["ptx"] == 0
    assert min(look["reward"] for look in far["looks"]) >= 0
    for name in ("ppo-seeds.svg", "ppo-over-optimisation.svg"):
        picture = ElementTree.parse(output / name).getroot()
        assert picture.tag == f"{SVG}svg"
    assert not (home / "runs" / "tiny").exists()  # what is studied is not touched


def test_each_row_has_a_dot_a_seed(studied: Any) -> None:
    _, output, result = studied
    picture = ElementTree.parse(output / "ppo-seeds.svg").getroot()
    dots = picture.findall(f".//{SVG}circle[@class='dot']")
    rows = 2 + 1 + len(result["summary"]["behaviours"])
    assert len(dots) == rows * 2
    assert len(picture.findall(f".//{SVG}line[@class='mean']")) == rows
    assert len(picture.findall(f".//{SVG}line[@class='whisker']")) == 2 * 2


@pytest.mark.slow
def test_a_seed_is_the_run_s_own_result_where_seed_and_settings_are(tiny_run: TinyRun, tmp_path: Path) -> None:
    """The recipe's own seed on the run's own data gives the run's own weights."""
    home = tmp_path / "home"
    shutil.copytree(tiny_run.home, home)
    result = run(["study", "-r", tiny_run.recipe, "--seeds", 1, "--far", 0, "--output", tmp_path / "figures"], home)
    assert result.returncode == 0, result.stderr
    weights = [home / "models" / name / "ppo/model.safetensors" for name in ("tiny", "tiny-ppo-seed3")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    lineage = json.loads((home / "models/tiny-ppo-seed3/ppo/chatwheel.json").read_text())
    assert set(lineage["parents"]) == {"tiny/sft", "tiny/reward"}
    found = json.loads((tmp_path / "figures/ppo-study.json").read_text())
    assert found["summary"]["accuracy"]["std"] is None
    assert found["seeds"][0]["preferred"]["greedy"]["share"] == tiny_run.results["comparison"]["ppo_over_sft_greedy"]
    assert "over_optimisation" not in found


@pytest.mark.slow
def test_a_killed_study_goes_on_and_ends_the_same(studied: Any, tiny_run: TinyRun, tmp_path: Path) -> None:
    home, _, whole = studied
    ours = two_models(tiny_run, tmp_path / "home")
    command = study_of(tiny_run, tmp_path / "figures", "--json", "ppo.ptx=0.5")
    slow = "import time\nfrom chatwheel.training.loop import Loop\nstep = Loop._step\n"
    slow += "def slower(*a):\n    time.sleep(0.2)\n    return step(*a)\nLoop._step = slower\n"
    slow += "Loop.__init__.__kwdefaults__['save_seconds'] = -1.0\n"
    process = chatwheel(*command, home=ours, before=slow)
    metrics = ours / "runs/tiny-ppo-seed4/ppo/metrics.jsonl"
    until = time.monotonic() + PATIENCE
    while not (metrics.is_file() and metrics.read_bytes().count(b"\n") > 5):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    finish(process)
    first = ours / "models/tiny-ppo-seed3/ppo/model.safetensors"
    when = first.stat().st_mtime_ns
    result = run(command, ours)
    assert result.returncode == 0, result.stderr
    assert first.stat().st_mtime_ns == when  # what was done is not done again
    for name in ("seed3", "seed4", "far"):
        weights = [place / f"models/tiny-ppo-{name}/ppo/model.safetensors" for place in (home, ours)]
        assert weights[0].read_bytes() == weights[1].read_bytes()
    assert _without_times(json.loads(result.stdout)) == _without_times(whole)


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_times(v) for k, v in value.items() if not k.endswith("seconds")}
    return [_without_times(v) for v in value] if isinstance(value, list) else value


def test_the_far_run_s_judge_saw_the_sft_model_first(studied: Any) -> None:
    home, _, _ = studied
    looks = read_looks(home / "runs/tiny-ppo-far/ppo")
    assert abs(looks[0]["kl"]) < 1e-4
    assert looks[-1]["kl"] != looks[0]["kl"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "dpo"], "expected ppo, grpo, rloo, best_of_n"),
        (["--method", "grpo", "grpo=null"], "has no grpo"),
        (["data={kind: files}", "pretrain.primer=0"], "learns from files"),
        ([], "needs the model tiny/sft, which is not there"),
    ],
)
def test_what_cannot_be_studied_is_one_line(
    arguments: list[str], message: str, tiny_run: TinyRun, tmp_path: Path
) -> None:
    result = run(["study", "-r", tiny_run.recipe, "--output", tmp_path, *arguments], tmp_path / "home")
    assert result.returncode == 2
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_other_settings_are_another_study(studied: Any, tiny_run: TinyRun, tmp_path: Path) -> None:
    home, _, _ = studied
    study = Study(recipe=Recipe.load(tiny_run.recipe, ["ppo.ptx=0.25"]), settings=Settings.load(home), output=tmp_path)
    with pytest.raises(InputError, match="begun with another recipe"):
        study.trial("seed3", seed=3)


# -- its judgement


def look(rollouts: int, reward: float, error: float = 0.01) -> dict[str, Any]:
    return {"rollouts": rollouts, "reward": reward, "error": error, "kl": float(rollouts)}


def test_over_optimised_is_who_pleases_more_and_is_worse() -> None:
    rising = [i / 10 for i in range(20)]
    said = verdict(rising, [look(0, 0.3), look(8, 0.5), look(20, 0.4)])
    assert said["over_optimised"]
    assert said["peak"]["rollouts"] == 8
    assert said["reward_at_peak"] == pytest.approx(0.8)
    assert said["reward_at_end"] == pytest.approx(1.8)
    # Fallen within its error; fallen together with the reward; never fallen.
    assert not verdict(rising, [look(0, 0.3), look(8, 0.5, 0.05), look(20, 0.4, 0.05)])["over_optimised"]
    assert not verdict(rising[::-1], [look(0, 0.3), look(8, 0.5), look(20, 0.4)])["over_optimised"]
    assert not verdict(rising, [look(0, 0.3), look(8, 0.4), look(20, 0.5)])["over_optimised"]
    assert not verdict([], [])["over_optimised"]


HEALTHY = {"ended": 0.9, "repetition": 0.1, "kl": 5.0}


@pytest.mark.parametrize(
    ("last", "interval", "why"),
    [
        ({}, (0.4, 0.6), None),
        ({"ended": 0.4}, (0.4, 0.6), "end less than half as often"),
        ({"repetition": 0.6}, (0.4, 0.6), "repeat themselves"),
        ({"kl": 31.0}, (0.4, 0.6), "stopped by its KL"),
        ({}, (0.3, 0.49), "worse than before"),
    ],
)
def test_what_a_collapse_is(last: dict[str, float], interval: tuple[float, float], why: str | None) -> None:
    found = reasons_of_collapse([HEALTHY, HEALTHY | last], [(0.5, 0.6), interval], 30.0)
    assert (why is None) == (not found)
    assert why is None or (len(found) == 1 and why in found[0])


def test_spread() -> None:
    assert spread([0.5, 0.7]) == {"mean": 0.6, "std": 0.1414, "min": 0.5, "max": 0.7}
    assert spread([0.5])["std"] is None


def test_the_picture_names_the_seeds_that_collapsed() -> None:
    half = {"mean": 0.5, "std": 0.0, "min": 0.5, "max": 0.5}
    result = {
        "seeds": [{"seed": 0, "collapsed": ["diverged"]}, {"seed": 7, "collapsed": ["worse"]}],
        "summary": {
            "collapsed": [0, 7],
            "accuracy": half | {"before": 0.5},
            "preferred": {"greedy": half, "sampled": half},
            "behaviours": {},
        },
    }
    assert "PPO with 2 seeds, collapsed: 0, 7" in picture_of_seeds("ppo", result)
