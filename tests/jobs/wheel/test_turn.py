"""A turn of the wheel on a tiny model: from what people said to the gate, stopped on the way, and never two at once."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

from chatwheel.data.records import Demonstration, Message, Ranking, Rating, read_records
from chatwheel.data.world import LABELLERS, prompts, rank
from chatwheel.errors import InputError
from chatwheel.jobs.pipeline import Stage
from chatwheel.jobs.wheel.material import Material, write_material
from chatwheel.jobs.wheel.state import TurnStoppedError
from chatwheel.jobs.wheel.turn import Turn, begin_with, opened_turn, work
from chatwheel.settings import Settings
from chatwheel.store.registry import Registry
from chatwheel.training.loop import Progress
from tests.conftest import TinyRun

STEP = {"precision": "float32"}
SMALL: dict[str, Any] = {
    "data": {"max_bytes": 2000},
    "sft": {"rows_per_step": 4, "row_length": 256, **STEP},
    "reward": {"rankings_per_step": 8, "row_length": 256, "epochs": 1, **STEP},
    "ppo": {"rollouts": 2, "prompts_per_rollout": 6, "minibatches": 1, "max_tokens": 8, "row_length": 256, **STEP},
}


class Watcher:
    """Notes the stages; at a step of one of them, something is done."""

    def __init__(self, stage: str = "", act: Any = None) -> None:
        self.stages: list[str] = []
        self.stage, self.act, self.now = stage, act, ""

    def begin(self, stage: Stage) -> None:
        self.now = stage.name

    def progress(self, _: Progress) -> None:
        if self.act is not None and self.now == self.stage:
            self.act()

    def end(self, stage: Stage, _: dict[str, Any], *, skipped: bool) -> None:
        if not skipped:
            self.stages.append(stage.name)

    def answers(self, model: str, pairs: Sequence[tuple[str, str]], result: dict[str, Any]) -> None:
        pass


@pytest.fixture
def settings(tiny_run: TinyRun, tmp_path: Path) -> Settings:
    """A home with the tiny model that people find."""
    shutil.copytree(tiny_run.home / "models" / "tiny" / "sft", tmp_path / "models" / "tiny" / "sft")
    return Settings(home=tmp_path, database_url=f"sqlite:///{tmp_path / 'chatwheel.db'}")


def said(directory: Path, count: int = 90) -> Material:
    """What simulated people gave: rankings, some corrections, thumbs."""
    rng, rankings, corrections, ratings = Random(3), [], [], []
    for number, item in enumerate(prompts(5, count, ("en", "zh"))):
        answers = [item.answer, "I don't know.", "Paris, of course!"]
        ranking = rank(item, answers, LABELLERS[number % 4], rng)
        rankings.append(Ranking.model_validate(ranking.model_dump() | {"source": "feedback"}))
        last = [*item.messages, Message(role="assistant", content=item.answer)]
        corrections += [Demonstration(messages=last)] if number % 3 == 0 else []
        ratings.append(Rating(messages=item.messages, answer=answers[number % 2], rating=1 if number % 2 == 0 else -1))
    return write_material(directory, corrections=corrections, rankings=rankings, ratings=ratings)


def begun(settings: Settings, name: str = "wheel-1") -> Turn:
    directory = settings.runs / name / "material"
    entry = Registry(settings.models).entry("tiny/sft")
    return begin_with(settings, entry, name, directory, said(directory), SMALL, by="user-1")


def weights(settings: Settings, model: str) -> bytes:
    return (settings.models / model / "model.safetensors").read_bytes()


def test_a_turn_ends_at_its_gate_and_stopped_and_gone_on_it_ends_the_same(settings: Settings) -> None:
    turn = begun(settings)
    assert turn.files.to_json()["begun_by"] == "user-1"
    watcher = Watcher()
    verdict = work(turn, settings, watcher)
    assert watcher.stages == ["data", "sft", "ranking", "reward", "ppo", "judge", "gate"]
    assert turn.candidate == "wheel-1/ppo"
    found = turn.files.to_json()
    assert (found["state"], found["verdict"]["candidate"]) == ("done", "wheel-1/ppo")
    assert found["verdict"]["verdict"] == verdict.verdict in ("better", "not_shown", "worse", "no_judge")
    assert {one["name"] for one in found["verdict"]["judge"]["witnesses"]} == {"thumbs"}
    entry = Registry(settings.models).entry("wheel-1/ppo")
    assert entry.lineage["run"] == "wheel-1"
    assert not any("judge" in one.name for one in Registry(settings.models).list())  # it is nobody to talk to

    other = begun(settings, "wheel-2")
    with pytest.raises(TurnStoppedError):
        work(other, settings, Watcher("reward", other.files.stop))
    assert other.files.state == "stopped"
    other.files.resume()
    watcher = Watcher()
    again = work(opened_turn(settings, "wheel-2"), settings, watcher)
    assert watcher.stages == ["reward", "ppo", "judge", "gate"]  # what was done is not done again
    assert weights(settings, "wheel-2/ppo") == weights(settings, "wheel-1/ppo")
    assert [check.rate for check in again.checks] == [check.rate for check in verdict.checks]


def test_two_do_not_work_on_it_and_what_failed_is_told(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    turn = begun(settings)
    with turn.files.held(), pytest.raises(InputError, match="another process"):
        work(turn, settings, Watcher())
    assert turn.files.state == "waiting"  # whoever came too late has changed nothing

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "model.safetensors")

    monkeypatch.setattr("chatwheel.jobs.wheel.turn.run_recipe", full)
    with pytest.raises(OSError, match="No space"):
        work(turn, settings, Watcher())
    assert turn.files.state == "failed"
    assert "No space left" in str(turn.files.error)
    assert (settings.runs / "wheel-1" / "material" / "rankings.jsonl").is_file()


def test_a_name_is_taken_once_and_too_little_leaves_nothing(settings: Settings) -> None:
    from chatwheel.jobs.wheel.turn import begin, next_name
    from chatwheel.store.database import Database

    database = Database.open(settings.database_url)
    with database.read() as session:
        for _ in range(2):  # the name is free again
            with pytest.raises(InputError, match="needs at least"):
                begin(settings, session, current="tiny/sft", name="mine")
        (settings.runs / "mine").mkdir()
        with pytest.raises(InputError, match="choose another name"):
            begin(settings, session, current="tiny/sft", name="mine")
        with pytest.raises(InputError, match="nothing"):
            begin(settings, session, current="nothing/here")
    database.close()
    assert next_name(settings) == "wheel-1"
    (settings.runs / "wheel-7").mkdir()
    assert next_name(settings) == "wheel-8"


def test_nobody_reads_the_material_but_its_owner_and_no_prompt_is_on_two_sides(tmp_path: Path) -> None:
    material = said(tmp_path, 200)
    for file in tmp_path.iterdir():
        assert file.stat().st_mode & 0o077 == 0
    sides = [
        {repr(one.messages[0]) for one in read_records(tmp_path / f"{name}.jsonl", Ranking)}
        for name in ("rankings", "judging")
    ]
    assert sides[0].isdisjoint(sides[1])
    assert (material.rankings, material.judging) == tuple(
        len((tmp_path / f"{name}.jsonl").read_text().splitlines()) for name in ("rankings", "judging")
    )
    assert 0.15 < material.judging / 200 < 0.35
