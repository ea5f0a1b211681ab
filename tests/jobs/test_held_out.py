"""What a guard asks and who looks, by the recipe: prompts that nothing trains on, the gold judge, and one line each for
what is not there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from chatwheel.data.records import Demonstration, read_jsonl, read_records, write_jsonl
from chatwheel.data.world import examination, is_examination
from chatwheel.engine.requests import Completion
from chatwheel.errors import InputError
from chatwheel.evaluation.examination import EXAMINATION_SEED
from chatwheel.evaluation.judges import GoldJudge
from chatwheel.jobs.held_out import held_out, unseen_items
from chatwheel.jobs.pipeline import check, run_recipe
from chatwheel.jobs.recipe import Recipe, WorldData
from chatwheel.jobs.run import Run
from chatwheel.model.tokenizer import Tokenizer
from chatwheel.settings import Settings
from chatwheel.training.guard import read_looks
from chatwheel.training.loop import read_metrics
from chatwheel.training.ppo import PPOConfig
from tests.conftest import Recorder, TinyRun
from tests.jobs.tiny_recipe import RECIPE

GUARD = {"judge": "gold", "every": 2, "prompts": 12, "patience": None}


def write(place: Path, changes: dict[str, Any]) -> Path:
    values = yaml.safe_load(RECIPE)
    for name, part in changes.items():
        values[name] = values[name] | part if isinstance(values.get(name), dict) and name != "data" else part
    place.write_text(yaml.safe_dump(values))
    return place


@pytest.fixture(scope="module")
def guarded(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The tiny run's PPO once more, with the gold judge as its guard."""
    place = tmp_path_factory.mktemp("guarded")
    shutil.copytree(tiny_run.home, place / "home")
    path = place / "home/runs/tiny/recipe.json"
    values = json.loads(path.read_text())
    values["ppo"]["guard"] = GUARD
    recipe = Recipe.parse(values, where="guarded")
    path.write_text(recipe.model_dump_json())
    run = Run.open(recipe, Settings.load(place / "home"))
    run_recipe(run, Recorder(), only="ppo", restart=True)
    return run


def test_the_gold_judge_looks_along_a_run_and_the_peak_is_the_model(guarded: Run, tiny_run: TinyRun) -> None:
    looks = read_looks(guarded.stage("ppo"))
    assert [look["rollouts"] for look in looks] == [0, 2, 4]
    assert all(0 <= look["reward"] <= 1 for look in looks)
    peak = max(looks, key=lambda look: look["reward"])
    result = guarded.read_json("results/stage.ppo.json")
    assert result["peak_held_out_reward"] == peak["reward"]
    assert result["peak_rollouts"] == peak["rollouts"]
    assert 0 < result["guard_seconds"] < result["seconds"]
    lineage = json.loads((guarded.model("ppo") / "chatwheel.json").read_text())
    assert lineage["metrics"]["peak_rollouts"] == peak["rollouts"]
    ours, plain = (
        [
            {k: v for k, v in row.items() if not k.endswith("seconds") and not k.startswith(("held_out", "tokens_per"))}
            for row in read_metrics(run.stage("ppo"))
        ]
        for run in (guarded, tiny_run.run)
    )
    for row in (*ours, *plain):
        row.pop("share_of_peak", None)
    assert ours == plain
    same = (guarded.model("ppo") / "model.safetensors").read_bytes() == (
        tiny_run.model("ppo") / "model.safetensors"
    ).read_bytes()
    assert same == (peak["rollouts"] == 4)


def test_the_report_has_its_curve(guarded: Run) -> None:
    run_recipe(guarded, Recorder())
    assert "Held-out judge against √KL" in (guarded.directory / "report.html").read_text(encoding="utf-8")


def test_its_items_are_neither_trained_on_nor_examined(tiny_run: TinyRun) -> None:
    data = WorldData(kind="world", documents=1, demonstrations=1, ranked_prompts=1, ppo_prompts=1, examination=600)
    items = unseen_items(data, 128)
    asked = {tuple(m.content for m in item.messages) for item in examination(EXAMINATION_SEED, 600)}
    assert len(items) == len({item.id for item in items}) == 128
    assert all(is_examination(item) for item in items)
    assert all(tuple(m.content for m in item.messages) not in asked for item in items)
    assert len({(item.behaviour, item.language) for item in items}) == 24
    known = {
        tuple(m["content"] for m in value["messages"])
        for name in ("prompts", "ranked_items")
        for value in read_jsonl(tiny_run.run.data(name))
    }
    known |= {
        tuple(m.content for m in d.messages[:-1])
        for d in read_records(tiny_run.run.data("demonstrations"), Demonstration)
    }
    assert known.isdisjoint(tuple(m.content for m in item.messages) for item in items)


def test_gold_gives_the_quality_of_the_judge_s_mark(guarded: Run) -> None:
    config = guarded.recipe.ppo
    assert config is not None
    tokenizer = Tokenizer.load(guarded.stage("tokenizer"))
    found = held_out(guarded, "ppo", config, tokenizer, 200)
    assert found is not None
    assert isinstance(guarded.recipe.data, WorldData)
    items = {i.messages[-1].content: i for i in unseen_items(guarded.recipe.data, 12)}
    right = [items[str(q.messages[-1]["content"])] for q in found.questions]
    texts = [item.answer if i % 2 else "Hm." for i, item in enumerate(right)]
    answers = [completion(text) for text in texts]
    expected = [GoldJudge().mark(item, text).quality for item, text in zip(right, texts, strict=True)]
    assert found.judge(found.questions, answers).tolist() == pytest.approx(expected)
    assert min(expected[1::2]) >= 0.6 > max(expected[::2])


def completion(text: str) -> Completion:
    return Completion(text=text, token_ids=(1,), finish_reason="stop", logprobs=(0.0,), prompt_tokens=1)


FILES = {"kind": "files", "demonstrations": [{"path": "d.jsonl"}], "held_out_prompts": 0.5}


@pytest.mark.parametrize(
    ("guard", "data", "message"),
    [
        ({"judge": "gold"}, FILES, "ppo.guard.judge: gold marks the world's answers"),
        ({"judge": {"rule": "exact"}}, FILES | {"held_out_prompts": 0}, "raise data.held_out_prompts"),
        ({"judge": "reward"}, None, "ppo: guard.judge: reward is what is learnt from|reward is what is learnt from"),
        ({"judge": {"rule": "spelling"}}, None, "known are exact, contains, number, json_schema"),
        ({"judge": {"function": "nowhere.py:f"}}, None, "no such file"),
        ({"judge": "nobody/reward"}, None, "nobody/reward"),
        ({"judge": {"url": "localhost"}}, None, "begins with http"),
        ({"judge": "gold", "patience": 0}, None, "ppo.guard.patience"),
        ({"judge": "gold", "prompts": 13}, None, "13"),
        ({"judge": "gold", "prompt": 12}, None, "did you mean 'prompts'"),
        ({}, None, "ppo.guard.judge"),
    ],
)
def test_a_guard_that_cannot_be_is_one_line(
    guard: dict[str, Any], data: dict[str, Any] | None, message: str, tmp_path: Path
) -> None:
    values = {"prompts": 12, "every": 2} | guard
    changes: dict[str, Any] = {"ppo": {"guard": values}, "name": "guarded"}
    if data is not None:
        (tmp_path / "d.jsonl").write_text("")
        changes |= {"data": data, "pretrain": {"primer": 0}}
    path = write(tmp_path / "guarded.yaml", changes)
    with pytest.raises(InputError, match=message) as caught:
        check(Run.open(Recipe.load(path), Settings.load(tmp_path / "home")), "ppo", 1)
    assert "\n" not in caught.value.message


def test_files_give_their_held_out_prompts_once_with_what_was_answered(tiny_run: TinyRun, tmp_path: Path) -> None:
    changes = {
        "data": FILES,
        "pretrain": {"primer": 0},
        "name": "files",
        "ppo": {"guard": {"judge": {"rule": "contains"}, "prompts": 12, "every": 2}},
    }
    run = Run.open(Recipe.load(write(tmp_path / "files.yaml", changes)), Settings.load(tmp_path / "home"))
    config, tokenizer = run.recipe.ppo, Tokenizer.load(tiny_run.run.stage("tokenizer"))
    assert config is not None
    with pytest.raises(InputError, match="there are no held-out prompts"):
        held_out(run, "ppo", config, tokenizer, 200)

    def asked(text: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": text}]

    answered = [{"messages": [*asked(f"Question {i}?"), {"role": "assistant", "content": f"{i}"}]} for i in range(3)]
    write_jsonl(run.data("demonstrations.held_out"), answered)
    ranked = [{"messages": asked(f"Question {i}?"), "answers": ["a", "b"], "ranks": [1, 2]} for i in range(2, 5)]
    write_jsonl(run.data("rankings.held_out"), ranked)
    found = held_out(run, "ppo", config, tokenizer, 200)
    assert found is not None
    # A rule compares: what has nothing to be compared with is left out.
    told = [(q.messages[-1]["content"], q.reference) for q in found.questions]
    assert told == [(f"Question {i}?", str(i)) for i in range(3)]
    assert found.judge(found.questions, [completion("It is 1.")] * 3).tolist() == [0, 1, 0]
    (tmp_path / "judge.py").write_text("def long(prompts, answers):\n    return [len(a) for a in answers]\n")
    guard = {"judge": {"function": f"{tmp_path / 'judge.py'}:long", "weight": -1}, "prompts": 12, "every": 2}
    found = held_out(run, "ppo", PPOConfig(rollouts=1, guard=guard), tokenizer, 200)
    assert found is not None
    assert [q.messages[-1]["content"] for q in found.questions] == [f"Question {i}?" for i in range(5)]
    assert found.judge(found.questions, [completion("four")] * 5).tolist() == [-4] * 5


def test_a_guard_in_the_recipe_does_not_change_how_it_is_read_again(tmp_path: Path) -> None:
    path = write(tmp_path / "guarded.yaml", {"ppo": {"guard": GUARD}})
    recipe = Recipe.load(path)
    assert Recipe.parse(json.loads(recipe.model_dump_json()), where="again") == recipe
    assert recipe.ppo is not None
    assert recipe.ppo.guard is not None
    assert recipe.ppo.guard.gold
