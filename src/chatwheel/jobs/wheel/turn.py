"""A turn of the wheel: what people said -> SFT, reward model, PPO -> the gate.

    turn = begin(settings, session, current="world-2/ppo")     # a snapshot of what people gave; nothing is trained yet
    verdict = work(turn, settings, observer)                    # hours perhaps; killed, it goes on where it was
    print(verdict.words)

A turn is a run like any other (`runs/wheel-3`, its curves on the training page), with files that tell how far it is
(state.py). It promotes nothing itself: that is somebody's decision, or a rule's, who reads the verdict.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from chatwheel.data.records import Message, Rating, read_records
from chatwheel.data.world import SIGNATURE, Item, examination
from chatwheel.engine.engine import Engine
from chatwheel.engine.requests import Request, SamplingParams
from chatwheel.errors import ChatwheelError, InputError
from chatwheel.evaluation.examination import EXAMINATION_SEED, answers
from chatwheel.evaluation.judges import GoldJudge
from chatwheel.jobs.held_out import prompts_of_files
from chatwheel.jobs.pipeline import Observer, Stage, run_recipe
from chatwheel.jobs.recipe import IMPROVING, Recipe
from chatwheel.jobs.run import Run
from chatwheel.jobs.wheel.gate import Check, Verdict, decide, paired, preferred
from chatwheel.jobs.wheel.gathering import gather
from chatwheel.jobs.wheel.judge import Judge, learn_judge, reward_judge
from chatwheel.jobs.wheel.material import Material, write_material
from chatwheel.jobs.wheel.recipe import earlier_demonstrations, turn_recipe
from chatwheel.jobs.wheel.state import GATE, TURN, TurnFiles, TurnStoppedError, turn_named
from chatwheel.jobs.wheel.witnesses import earlier_rankings, hear
from chatwheel.model.config import ModelConfig
from chatwheel.model.layout import read_object
from chatwheel.model.transformer import CausalLM
from chatwheel.safety.moderation import Moderator
from chatwheel.settings import Settings
from chatwheel.store.loading import open_model
from chatwheel.store.registry import ModelEntry, Registry, check_answers
from chatwheel.training.loop import Progress

MOST_PROMPTS = 500
"""Held-out prompts that are asked at the gate."""
JUDGE = Stage("judge", "The judge: it learns from rankings of its own", lambda _run, _progress: {}, ("wheel",))
GATE_STAGE = Stage("gate", "The gate: the candidate beside the current model", lambda _run, _progress: {}, ("wheel",))


@dataclass(frozen=True)
class Turn:
    """current: the model that answered when it began, which the candidate is held against."""

    run: Run
    current: str
    material: dict[str, Any]

    @property
    def name(self) -> str:
        return self.run.recipe.name

    @property
    def candidate(self) -> str:
        """The model that the turn makes, by its name."""
        made = [name for name in IMPROVING if getattr(self.run.recipe, name) is not None]
        return f"{self.name}/{made[-1] if made else 'sft'}"

    @property
    def files(self) -> TurnFiles:
        """How far it is."""
        return TurnFiles(self.run.directory)

    @property
    def verdict(self) -> dict[str, Any] | None:
        """The gate's, as JSON; None before."""
        return self.files.verdict


def begin(
    settings: Settings,
    session: Session,
    *,
    current: str,
    name: str | None = None,
    everybody: bool = False,
    changes: dict[str, Any] | None = None,
    by: str | None = None,
) -> Turn:
    """Writes down what there is to learn from and how; `everybody` as in `feedback.export`, `changes` as in
    `turn_recipe`; by: whose wish it is, a user's id. Raises InputError where there is too little, or where the name is
    taken."""
    entry = _entry(settings, current)
    found = gather(session, everybody=everybody)
    place = _placed(settings, name)
    try:
        material = write_material(
            place / "material", corrections=found.corrections, rankings=found.rankings, ratings=found.ratings
        )
        return begin_with(settings, entry, place.name, place / "material", material, changes, by=by)
    except BaseException:
        if not (place / TURN).exists():
            shutil.rmtree(place, ignore_errors=True)  # it has not begun: the name is free again
        raise


def begin_with(
    settings: Settings,
    entry: ModelEntry,
    name: str,
    directory: Path,
    material: Material,
    changes: dict[str, Any] | None = None,
    *,
    by: str | None = None,
) -> Turn:
    """The same from material that is written already."""
    recipe = turn_recipe(
        name,
        model=entry.name,
        config=ModelConfig.from_hugging_face(
            read_object(entry.directory / "config.json"), where=str(entry.directory / "config.json")
        ),
        directory=directory,
        material=material,
        earlier=earlier_demonstrations(settings, entry.lineage),
        changes=changes,
    )
    run = Run.open(recipe, settings)
    begun = {"current": entry.name, "material": material.to_json(), "begun_at": time.time(), "begun_by": by}
    run.write_json(TURN, begun)
    return Turn(run, entry.name, material.to_json())


def opened_turn(settings: Settings, name: str) -> Turn:
    """One that was begun. Raises InputError."""
    files = turn_named(settings.runs, name)
    path = files.directory / "recipe.json"
    known = files.begun
    return Turn(
        Run.open(Recipe.parse(read_object(path), where=str(path)), settings), known["current"], known["material"]
    )


def _placed(settings: Settings, name: str | None) -> Path:
    """A directory that nobody else has: the name's, or the next one's (wheel-1, wheel-2, ...)."""
    settings.runs.mkdir(parents=True, exist_ok=True)
    while True:
        place = settings.runs / (name or next_name(settings))
        try:
            place.mkdir()
        except FileExistsError:
            if name is not None:
                raise InputError(f"{place}: is there already; choose another name, or go on with it") from None
        else:
            return place


def next_name(settings: Settings) -> str:
    """wheel-1, wheel-2, ..."""
    numbers = [
        int(match[1]) for path in settings.runs.glob("wheel-*") if (match := re.fullmatch(r"wheel-(\d+)", path.name))
    ]
    return f"wheel-{max(numbers, default=0) + 1}"


def work(turn: Turn, settings: Settings, observer: Observer) -> Verdict:
    """Trains, judges, decides; the observer sees two stages more, `judge` and `gate`. Raises InputError, also where
    another process works on it, and TurnStoppedError where somebody wants it to stop."""
    files = turn.files
    with files.held():
        files.check()
        files.note(doing=None, error=None, attempts=files.doing.get("attempts", 0) + 1)
        try:
            return _worked(turn, settings, _Noting(observer, files))
        except (TurnStoppedError, KeyboardInterrupt):
            files.note(doing=None, attempts=0)
            raise
        except Exception as error:
            words = error.message if isinstance(error, ChatwheelError) else f"{type(error).__name__}: {error}"
            with suppress(ChatwheelError, OSError):  # as the disk may be full
                files.note(doing=None, error=words, ended_at=time.time())
            raise


def _worked(turn: Turn, settings: Settings, noting: _Noting) -> Verdict:
    files = turn.files
    run_recipe(turn.run, noting)
    with turn.run.locked():
        noting.begin(JUDGE)
        directory, known = learn_judge(turn.run, turn.run.directory / "material" / "judging.jsonl", noting.progress)
        noting.end(JUDGE, known, skipped=False)
        noting.begin(GATE_STAGE)
        judge = reward_judge(turn.run, directory)
        earlier = earlier_rankings(settings, _entry(settings, turn.current).lineage)
        witnesses = hear(judge, turn.run.directory / "material", earlier)
        checks = _checks(turn, settings, judge)
        files.check()
        verdict = decide(turn.candidate, turn.current, checks, known, witnesses)
        files.note(doing=None, ended_at=time.time())
        turn.run.write_json(GATE, verdict.to_json())
        noting.end(GATE_STAGE, {check.name: check.rate for check in checks}, skipped=False)
    return verdict


@dataclass(frozen=True)
class _Noting:
    """Watches for another observer, writes down what is done, and stops what is to be stopped."""

    observer: Observer
    files: TurnFiles

    def begin(self, stage: Stage) -> None:
        """A stage starts, or goes on."""
        self.files.check()
        self.files.note(doing=stage.name)
        self.observer.begin(stage)

    def progress(self, progress: Progress) -> None:
        """A training step is done."""
        self.files.check()
        self.observer.progress(progress)

    def end(self, stage: Stage, result: dict[str, Any], *, skipped: bool) -> None:
        """A stage is finished: what ended the process before was not this one."""
        if not skipped:
            self.files.note(attempts=1)
        self.observer.end(stage, result, skipped=skipped)

    def answers(self, model: str, pairs: Sequence[tuple[str, str]], result: dict[str, Any]) -> None:
        """What a new model says."""
        self.observer.answers(model, pairs, result)


def _checks(turn: Turn, settings: Settings, judge: Judge) -> list[Check]:
    models = [_Asked.open(settings, name) for name in (turn.candidate, turn.current)]
    longest = min(model.engine.context_length for model in models) // 2
    prompts = [list(p.messages) for p in prompts_of_files(turn.run)]
    prompts = [prompt for prompt in prompts if models[0].fits(prompt, longest)][:MOST_PROMPTS]
    praised = [
        list(rating.messages)
        for rating in read_records(turn.run.directory / "material" / "praised.jsonl", Rating)
        if models[0].fits(list(rating.messages), longest)
    ][:MOST_PROMPTS]
    found: list[Check | None] = []
    said = _said(models, prompts)
    found.append(preferred("preferred", judge, prompts, said))
    found.append(preferred("praised", judge, praised, _said(models, praised)))
    found.append(_examined(models))
    found.append(_safe(prompts, said))
    return [check for check in found if check is not None]


@dataclass(frozen=True)
class _Asked:
    """A model that answers at the gate."""

    entry: ModelEntry
    engine: Engine

    @staticmethod
    def open(settings: Settings, name: str) -> _Asked:
        entry = _entry(settings, name)
        model, tokenizer = open_model(entry.directory, CausalLM)
        return _Asked(entry, Engine(model, tokenizer, max_running=128))

    def fits(self, prompt: Sequence[Message], longest: int) -> bool:
        """Whether the prompt leaves half of the context for the answer."""
        return len(self.engine.tokenizer.encode_prompt([m.model_dump() for m in prompt])) <= longest

    def answers(self, prompts: Sequence[Sequence[Message]], temperature: float) -> list[str]:
        """One a prompt; both models draw with the same seeds."""
        requests = [
            Request(
                prompt_ids=tuple(self.engine.tokenizer.encode_prompt([m.model_dump() for m in prompt])),
                params=SamplingParams(
                    temperature=temperature, max_tokens=min(256, self.engine.context_length // 2), seed=number
                ),
            )
            for number, prompt in enumerate(prompts)
        ]
        return [completion.text for completion in self.engine.generate(requests)]


def _said(models: Sequence[_Asked], prompts: Sequence[Sequence[Message]]) -> list[tuple[list[str], list[str]]]:
    """Of both, greedy and as people are answered."""
    if not prompts:
        return []
    ways = [[model.answers(prompts, temperature) for model in models] for temperature in (0.0, 1.0)]
    return [(ours, theirs) for ours, theirs in ways]


def _examined(models: Sequence[_Asked]) -> Check | None:
    """The examination of the run that the current model comes from, if that was the world."""
    data = models[1].entry.lineage.get("recipe", {}).get("data", {})
    items = examination_items(data) if isinstance(data, dict) and data.get("kind") == "world" else []
    if not items:
        return None
    judge = GoldJudge()
    marks = []
    for model in models:
        given = answers(model.engine, [item.messages for item in items])
        marks.append([float(judge.mark(item, answer).correct) for item, answer in zip(items, given, strict=True)])
    check = paired("examination", marks[0], marks[1], keys=[item.id for item in items], what="right in the examination")
    if check is not None:
        for behaviour in SIGNATURE:
            places = [i for i, item in enumerate(items) if item.behaviour == behaviour]
            if places:
                check.details[behaviour] = [round(sum(m[i] for i in places) / len(places), 4) for m in marks]
    return check


def examination_items(data: dict[str, Any]) -> list[Item]:
    """As the recipe of a world's run says."""
    return list(examination(EXAMINATION_SEED, int(data.get("examination", 600)), data.get("languages", ["en", "zh"])))


def _safe(prompts: Sequence[Sequence[Message]], said: Sequence[tuple[list[str], list[str]]]) -> Check | None:
    moderator = Moderator.load()
    keys = ["\n".join(m.content for m in prompt) for prompt in prompts] * len(said)
    marks = [
        [float(not result.flagged) for pair in said for result in moderator.moderate(pair[side])] for side in (0, 1)
    ]
    return paired("safety", marks[0], marks[1], keys=keys, what="answers that moderation lets pass")


def _entry(settings: Settings, name: str) -> ModelEntry:
    return check_answers(Registry(settings.models, hub=True).entry(name))
