"""What a run leaves for those who watch it, and that none of it can cost the run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from chatwheel.data.records import Ranking, read_records
from chatwheel.jobs import watching as module
from chatwheel.jobs.recipe import Recipe
from chatwheel.jobs.run import Run
from chatwheel.jobs.watching import Command, noted, watch_answers, watch_pretraining, watch_rewards
from chatwheel.model.tokenizer import Tokenizer
from chatwheel.settings import Settings
from tests.conftest import TinyRun


@pytest.fixture
def run(tiny_run: TinyRun, tmp_path: Path) -> Run:
    shutil.copytree(tiny_run.home, tmp_path / "home")
    return Run.open(Recipe.load(tiny_run.recipe), Settings.load(tmp_path / "home"))


@pytest.fixture
def tokenizer(run: Run) -> Tokenizer:
    return Tokenizer.load(run.stage("tokenizer"))


def test_the_peak_is_measured_once_a_run(run: Run, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = run.read_json("peak.json")
    assert len(kept) == 1  # all four stages have the same number format and threads
    monkeypatch.setattr(module, "matrix_peak", lambda *_, **__: 123.0)
    assert watch_answers(run, tokenizer, "float32", 100).peak == next(iter(kept.values()))
    for damaged in ("{half", "[1]", '{"float32, 1 threads": "fast"}', '{"float32, 1 threads": -1}'):
        (run.directory / "peak.json").write_text(damaged)
        assert watch_answers(run, tokenizer, "float32", 100).peak == 123.0
        assert list(run.read_json("peak.json").values()) == [123.0]


def test_prompts_are_openings_questions_and_pairs(run: Run, tokenizer: Tokenizer) -> None:
    openings = watch_pretraining(run, tokenizer, "float32").prompts
    documents = [json.loads(line)["text"] for line in run.data("documents").read_text().splitlines()[:5]]
    assert all(d.startswith(p.text) and "\ufffd" not in p.text for p, d in zip(openings, documents, strict=True))
    assert all(p.ids[0] == tokenizer.end_of_text_id and 1 < len(p.ids) <= 13 for p in openings)
    questions = watch_answers(run, tokenizer, "float32", 100).prompts
    assert len(questions) == 5
    assert any("\n— " in p.text for p in questions)  # one follows up on an answer
    pairs = watch_rewards(run, tokenizer, "float32", 256).prompts
    held_out = list(read_records(run.data("rankings.held_out"), Ranking))
    ranks = {(r.messages[-1].content, a): rank for r in held_out for a, rank in zip(r.answers, r.ranks, strict=True)}
    for better, worse in zip(pairs[::2], pairs[1::2], strict=True):
        assert better.text == worse.text
        prompt = better.text.splitlines()[-1]
        if (prompt, better.answer) in ranks:
            assert ranks[prompt, better.answer] < ranks[prompt, worse.answer]
    assert watch_rewards(run, tokenizer, "float32", 1).prompts == ()


def test_prompts_that_cannot_be_made_cost_nothing(run: Run, tokenizer: Tokenizer) -> None:
    run.data("documents").write_text("not a record\n")
    assert watch_pretraining(run, tokenizer, "float32").prompts == ()
    run.data("rankings.held_out").write_text("not a record\n")
    assert watch_rewards(run, tokenizer, "float32", 256).prompts == ()


def test_the_command_and_whether_it_ended(run: Run) -> None:
    with noted(run, Command.given(["train", "sft", "--no-resume", "-r", "my recipe.yaml"])):
        during = run.read_json("command.json")
    assert during["command"] == "chatwheel train sft -r 'my recipe.yaml'"
    assert during["directory"] == str(Path.cwd())
    assert "ended" not in during
    assert run.read_json("command.json")["ended"] >= during["began"]

    def stopped() -> None:
        with noted(run, Command.given(["run"])):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert "ended" not in run.read_json("command.json")
