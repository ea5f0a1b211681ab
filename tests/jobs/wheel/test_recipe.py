"""The recipe of a turn: from what there is, with what may be changed, and nothing that somebody has taken back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from chatwheel.data.records import Demonstration, Message, write_jsonl
from chatwheel.errors import InputError
from chatwheel.jobs.wheel.material import Material
from chatwheel.jobs.wheel.recipe import check_changes, earlier_demonstrations, turn_recipe
from chatwheel.jobs.wheel.state import TURN
from chatwheel.settings import Settings
from tests.tiny import config


def material(**counts: int) -> Material:
    values: dict[str, Any] = {"demonstrations": 30, "corrections": 5, "rankings": 100, "judging": 30, "praised": 10}
    return Material(**(values | counts), prompts=100, people=4, languages={"en": 130})


def recipe(tmp_path: Path, found: Material | None = None, **more: Any) -> Any:
    return turn_recipe(
        "wheel-1", model="old/ppo", config=config(), directory=tmp_path, material=found or material(), **more
    )


def test_a_turn_begins_with_the_model_that_answers_and_learns_in_three_stages(tmp_path: Path) -> None:
    found = recipe(tmp_path)
    assert found.model == "old/ppo"
    assert found.data.rankings[0].path == tmp_path / "rankings.jsonl"
    assert found.data.held_out_prompts == 0.1
    assert (found.sft.epochs, found.reward.epochs) == (1, 2.0)
    assert recipe(tmp_path, material(rankings=5000)).reward.epochs == 1.0


def test_too_little_is_refused_with_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="3 rankings to learn from; a turn needs at least 16"):
        recipe(tmp_path, material(rankings=3))
    with pytest.raises(InputError, match="0 demonstrations"):
        recipe(tmp_path, material(demonstrations=0))
    with pytest.raises(InputError, match="reward model, which judges"):
        recipe(tmp_path, changes={"reward": None, "ppo": None})


def test_changes_replace_what_they_name_and_keep_the_rest(tmp_path: Path) -> None:
    usual = recipe(tmp_path)
    found = recipe(tmp_path, changes={"ppo": {"rollouts": 3}, "seed": 9})
    assert (found.ppo.rollouts, found.ppo.ptx, found.seed) == (3, usual.ppo.ptx, 9)
    assert recipe(tmp_path, changes={"ppo": None}).ppo is None


@pytest.mark.parametrize(
    "changes",
    [
        {"data": {"demonstrations": [{"path": "/etc/passwd"}]}},
        {"model": "somebody/elses-model"},
        {"ppo": {"rewards": [{"url": "http://169.254.169.254/"}]}},
        {"ppo": {"guard": {"judge": {"name": "x"}}}},
        {"tokenizer": {"vocab_size": 300}},
    ],
)
def test_a_client_changes_numbers_and_no_files_models_or_servers(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="changes"):
        check_changes(changes)
    check_changes({"seed": 2, "ppo": {"rollouts": 3, "optimizer": {"learning_rate": 1e-4}, "precision": "float32"}})


def test_what_the_first_model_had_to_imitate_is_replayed_and_no_turn_s_own(tmp_path: Path) -> None:
    """A turn's demonstrations hold what people gave then; who has taken it back since must find it in no later turn."""
    settings = Settings(home=tmp_path, database_url="")
    one = Demonstration(messages=[Message(role="user", content="Q?"), Message(role="assistant", content="A.")])
    for run in ("world", "wheel-1", "wheel-2"):
        write_jsonl(settings.runs / run / "data" / "demonstrations.jsonl", [one])
    lineages = {}
    for model, run, current in (
        ("world/sft", "world", None),
        ("wheel-1/ppo", "wheel-1", "world/sft"),
        ("wheel-2/ppo", "wheel-2", "wheel-1/ppo"),
    ):
        lineages[model] = {"run": run}
        (settings.models / model).mkdir(parents=True)
        (settings.models / model / "chatwheel.json").write_text(json.dumps({"run": run}))
        if current is not None:
            (settings.runs / run / TURN).write_text(json.dumps({"current": current, "material": {}}))
    for lineage in lineages.values():
        found = earlier_demonstrations(settings, lineage)
        assert found == settings.runs / "world" / "data" / "demonstrations.jsonl"
    assert earlier_demonstrations(settings, {"run": "../world"}) is None
    assert earlier_demonstrations(settings, {}) is None
    (settings.models / "wheel-1" / "ppo" / "chatwheel.json").write_text(json.dumps({"run": "wheel-2"}))  # a circle
    assert earlier_demonstrations(settings, {"run": "wheel-2"}) is None
