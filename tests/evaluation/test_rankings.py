"""The suite `rankings`: intervals, baselines on the very same pairs, and what is refused in a line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from tests.conftest import TinyRun
from tests.jobs.tiny_recipe import run

from chatwheel.data.records import Ranking, read_records, write_jsonl
from chatwheel.errors import InputError
from chatwheel.evaluation.baselines import longer_is_right, terms, words_are_right
from chatwheel.evaluation.rankings import evaluate_rankings, in_words
from chatwheel.settings import Settings
from chatwheel.store.registry import ModelEntry, Registry


def ranking(question: str, answers: list[str], ranks: list[int]) -> Ranking:
    return Ranking.model_validate(
        {"messages": [{"role": "user", "content": question}], "answers": answers, "ranks": ranks}
    )


def entry(tiny_run: TinyRun, name: str = "tiny/reward") -> ModelEntry:
    return Registry(tiny_run.home / "models").entry(name)


def runs(tiny_run: TinyRun) -> Path:
    return Settings.load(tiny_run.home).runs


# -- baselines


def test_the_longer_answer() -> None:
    some = [ranking("a?", ["long one", "short", "short"], [1, 2, 3]), ranking("b?", ["a", "bbb"], [1, 2])]
    assert longer_is_right(some).tolist() == [1.0, 1.0, 0.5, 0.0]


def test_terms_are_words_and_characters_and_their_pairs() -> None:
    assert terms("No, I'm 好的ok!") == ["no", "i", "m", "好", "的", "ok", "no i", "i m", "m 好", "好 的", "的 ok"]


def by_word(seed: int, count: int, marked: str = "kind", right: float = 1.0) -> list[Ranking]:
    """People prefer the answer with a word; the others are noise of any length."""
    rng, some = Random(seed), []
    for i in range(count):
        noise = [
            [rng.choice(["tree", "house", "sea", "stone", "wind"]) for _ in range(rng.randint(2, 9))] for _ in "ab"
        ]
        noise[0].insert(rng.randint(0, 2), marked)
        order = [1, 2] if rng.random() < right else [2, 1]
        some.append(ranking(f"{seed} {i}?", [" ".join(words) for words in noise], order))
    return some


def test_words_that_people_like_are_found_and_others_are_not() -> None:
    found = words_are_right(by_word(0, 120), by_word(1, 60))
    assert not isinstance(found, str)
    assert found.shape == (60,)
    assert found.mean() > 0.95
    turned = words_are_right(by_word(0, 120, right=0.0), by_word(1, 60))
    assert not isinstance(turned, str)
    assert turned.mean() < 0.05
    luck = words_are_right(by_word(0, 200, right=0.5), by_word(1, 200, right=0.5))
    assert not isinstance(luck, str)
    assert 0.35 < luck.mean() < 0.65
    assert np.isin(luck, (0.0, 0.5, 1.0)).all()


def test_too_little_to_learn_from_is_said() -> None:
    for train in ([], by_word(0, 3)):
        said = words_are_right(train, by_word(1, 5))
        assert isinstance(said, str)
        assert "fewer than 5 prompts" in said


# -- the suite


def test_a_run_s_own_held_out_pairs_beside_the_baselines(tiny_run: TinyRun) -> None:
    found = evaluate_rankings(entry(tiny_run), runs(tiny_run))
    stage = tiny_run.results["stage:reward"]
    assert found["n"] == stage["pairs"]
    assert found["accuracy"] == pytest.approx(stage["pair_accuracy"], abs=0.5 / found["n"])
    assert found["interval"] == pytest.approx(stage["pair_accuracy_interval"], abs=0.02)
    assert found["prompts"] == stage["prompts"]
    held_out = list(read_records(tiny_run.run.data("rankings.held_out"), Ranking))
    assert found["baselines"]["longer"]["accuracy"] == pytest.approx(longer_is_right(held_out).mean(), abs=1e-4)
    assert found["baselines"]["chance"]["accuracy"] == 0.5
    for one in found["baselines"].values():
        assert one["difference"] == pytest.approx(found["accuracy"] - one["accuracy"], abs=2e-4)
        low, high = one["difference_interval"]
        assert low <= one["difference"] <= high
        assert one["beaten"] == (low > 0)
    assert found["beats_all"] == all(one["beaten"] for one in found["baselines"].values())
    assert set(found["languages"]) <= {"en", "zh"}
    text = "\n".join(in_words(found))
    assert "tf-idf" in text
    assert f"of {found['n']} pairs in order" in text


def test_other_rankings_and_none_that_the_model_has_seen(tiny_run: TinyRun, tmp_path: Path) -> None:
    seen = list(read_records(tiny_run.run.data("rankings"), Ranking))[:4]
    new = [ranking(f"A new question, number {i}?", ["Yes.", "No, never."], [1, 2]) for i in range(7)]
    write_jsonl(tmp_path / "more.jsonl", [*seen, *new])
    found = evaluate_rankings(entry(tiny_run), runs(tiny_run), tmp_path / "more.jsonl")
    assert (found["n"], found["prompts"]) == (7, 7)
    assert found["left_out"] == {"no_pair_or_too_long": 0, "learnt_from": 4}
    assert found["baselines"]["longer"]["accuracy"] == 0.0
    assert list(found["groups"]["source"]) == ["more"]


def test_a_model_from_elsewhere_is_measured_without_its_run(tiny_run: TinyRun, tmp_path: Path) -> None:
    shutil.copytree(tiny_run.model("reward"), tmp_path / "models" / "theirs")
    theirs = Registry(tmp_path / "models").entry("theirs")
    with pytest.raises(InputError, match=r"theirs: its run's held-out rankings are not here; .* --data"):
        evaluate_rankings(theirs, tmp_path / "runs")
    write_jsonl(tmp_path / "some.jsonl", [ranking(f"{i}?", ["a", "bc"], [1, 2]) for i in range(3)])
    found = evaluate_rankings(theirs, tmp_path / "runs", tmp_path / "some.jsonl")
    assert found["n"] == 3
    assert "not here" in found["baselines"]["tf-idf"]["missing"]
    assert found["beats_all"] is None
    write_jsonl(tmp_path / "long.jsonl", [ranking("?", ["a " * 3000, "b"], [1, 2])])
    with pytest.raises(InputError, match=r"long\.jsonl: no ranking with a preference and at most"):
        evaluate_rankings(theirs, tmp_path / "runs", tmp_path / "long.jsonl")


def test_a_model_that_answers_is_refused(tiny_run: TinyRun) -> None:
    with pytest.raises(
        InputError, match=r"tiny/sft answers; --suite rankings measures reward models, as in RUN/reward"
    ):
        evaluate_rankings(entry(tiny_run, "tiny/sft"), runs(tiny_run))


def command(tiny_run: TinyRun, *arguments: Any) -> Any:
    return run(["evaluate", *arguments], tiny_run.home)


@pytest.mark.slow
def test_the_command_prints_one_object_or_lines(tiny_run: TinyRun, tmp_path: Path) -> None:
    result = command(tiny_run, "--model", "tiny/reward", "--suite", "rankings", "--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert (found["suite"], found["model"]) == ("rankings", "tiny/reward")
    assert {"n", "accuracy", "interval", "baselines", "behaviours", "languages"} <= set(found)
    result = command(tiny_run, "--model", "tiny/sft", "--data", tmp_path)
    assert result.returncode == 2
    assert "--data is for --suite rankings, not for world" in result.stderr
