"""PPO against other judges than the run's reward model: functions and rules, by the recipe and the command."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from chatwheel.errors import InputError
from chatwheel.jobs.pipeline import check
from chatwheel.jobs.recipe import Recipe
from chatwheel.jobs.run import Run
from chatwheel.settings import Settings
from chatwheel.training.loop import read_metrics
from tests.jobs.tiny_recipe import RECIPE, run

JUDGES = """
from pathlib import Path

def short(prompts, answers):
    if Path({broken!r}).exists():
        raise RuntimeError("the judge is ill")
    return [-len(answer) / 10 for answer in answers]
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """No reward model: two judges of its own."""
    (tmp_path / "judges.py").write_text(JUDGES.format(broken=str(tmp_path / "broken")))
    values = yaml.safe_load(RECIPE) | {"name": "judged"}
    for part in ("ranking", "reward", "grpo", "rloo", "best_of_n", "dpo", "kto"):
        del values[part]
    values["ppo"]["rewards"] = [
        {"function": f"{tmp_path / 'judges.py'}:short", "weight": 0.5},
        {"rule": "contains"},
    ]
    path = tmp_path / "judged.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.mark.slow
def test_a_judge_that_breaks_ends_the_run_with_a_line_and_it_goes_on(recipe: Path, tmp_path: Path) -> None:
    command = ["run", "--recipe", recipe]
    for home in ("whole", "broken off"):
        for stage in ("pretrain", "sft"):
            result = run(["train", stage, "--recipe", recipe], tmp_path / home)
            assert result.returncode == 0, result.stderr
    result = run(command, tmp_path / "whole")
    assert result.returncode == 0, result.stderr
    rows = read_metrics(tmp_path / "whole" / "runs" / "judged" / "ppo")
    judged = [row for row in rows if "reward" in row]
    assert len(judged) == 4
    for row in judged:
        parts = {
            name.rpartition(":")[2]: row[f"reward.{name}"] for name in (f"{tmp_path / 'judges.py'}:short", "contains")
        }
        assert row["reward"] == pytest.approx(0.5 * parts["short"] + parts["contains"], abs=1e-5)
        assert parts["short"] < 0
        assert 0 <= parts["contains"] <= 1

    (tmp_path / "broken").touch()
    result = run(command, tmp_path / "broken off")
    assert result.returncode == 2
    last = result.stderr.strip().splitlines()[-1]
    assert "judges.py:short: RuntimeError: the judge is ill (judges.py, line 6)" in last
    assert "Traceback" not in result.stderr
    (tmp_path / "broken").unlink()
    result = run(command, tmp_path / "broken off")
    assert result.returncode == 0, result.stderr
    weights = [
        (tmp_path / home / "models/judged/ppo/model.safetensors").read_bytes() for home in ("whole", "broken off")
    ]
    assert weights[0] == weights[1]


@pytest.mark.parametrize(
    ("judge", "message"),
    [
        ("{function: 'nowhere.py:short'}", "no such file"),
        ("{rule: spelling}", "known are exact, contains, number, json_schema"),
        ("{url: 'localhost:9'}", "begins with http"),
        ("{model: nobody/reward}", "nobody/reward"),
        ("{rule: exact, url: 'http://x/'}", "one of model, function, url, rule and grader, not url and rule"),
        ("{weight: 2}", "one of model, function, url, rule and grader, not none"),
        ("{grader: {type: string_check, name: a}}", "grader.operation: is required"),
        (
            "{grader: {type: score_model, name: a, model: m, input: [{role: user, content: b}]}}",
            "grader 'a' asks a model, and a recipe has nobody to ask",
        ),
        ("{model: reward}", "ppo needs reward, or judges of its own"),
    ],
)
def test_judges_that_are_not_there_are_refused_before_anything_runs(
    judge: str, message: str, recipe: Path, tmp_path: Path
) -> None:
    values = yaml.safe_load(recipe.read_text())
    values["ppo"]["rewards"] = [yaml.safe_load(judge)]
    recipe.write_text(yaml.safe_dump(values))
    with pytest.raises(InputError, match=message):
        check(Run.open(Recipe.load(recipe), Settings.load(tmp_path / "home")), None, 1)
