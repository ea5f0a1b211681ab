"""A home whose wheel has turned: files as jobs/wheel writes them, and what people gave as rows of the database."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from filelock import FileLock
from sqlalchemy.orm import Session

from chatwheel.atomic import write_atomically
from chatwheel.data.world import LABELLERS, Item, prompts, rank
from chatwheel.evaluation.forecast import Forecast, Measured
from chatwheel.feedback.room import queues
from chatwheel.feedback.room.queues import NewAnswer, NewTask
from chatwheel.feedback.significance import Interval
from chatwheel.jobs.wheel.doubling import digest
from chatwheel.jobs.wheel.gate import Check, CheckName, decide
from chatwheel.jobs.wheel.gathering import gather
from chatwheel.jobs.wheel.material import Material
from chatwheel.jobs.wheel.state import GATE, TURN, TurnFiles
from chatwheel.jobs.wheel.witnesses import Witness, WitnessName
from chatwheel.model.checkpoint import save_model
from chatwheel.settings import Settings
from chatwheel.store import accounts
from chatwheel.store.database import Database
from chatwheel.store.tables import (
    ComparisonRow,
    ConversationRow,
    CorrectionRow,
    DeploymentRow,
    LabellingAssignmentRow,
    LabellingJudgementRow,
    MessageRow,
    RatingRow,
    ReportRow,
    UserRow,
)
from chatwheel.store.tables.declarative import new_id
from tests.server.test_runs import finish, write_metrics, write_run
from tests.tiny import causal, tokenizer

DAY = 86400.0
FIRST, SECOND = "quickstart/ppo", "wheel-1/ppo"
MATERIAL = Material(
    demonstrations=146, corrections=38, rankings=512, judging=171, praised=97, prompts=604, people=23,
    languages={"en": 401, "zh": 282},
)  # fmt: skip
JUDGE = {"rankings": 171, "held_out": 68, "accuracy": 0.742, "interval": [0.69, 0.79]}
DULL = {"rankings": 40, "held_out": 12, "accuracy": 0.55, "interval": [0.41, 0.68]}


def check(name: CheckName, rate: float, interval: Interval, **details: Any) -> Check:
    return Check(name, rate, interval, 240, f"{name}: {rate:.0%}", details)


PASSING = (
    check("preferred", 0.623, (0.56, 0.68), prompts=120),
    check("praised", 0.531, (0.45, 0.61), prompts=97),
    check("examination", 0.512, (0.487, 0.537), candidate=0.873, current=0.861),
    check("safety", 0.5, (0.49, 0.51), candidate=0.996, current=0.996),
)
FAILING = (
    check("preferred", 0.414, (0.35, 0.478), prompts=120),
    check("praised", 0.37, (0.29, 0.45), prompts=97),
    *PASSING[2:],
)
OPEN = (check("preferred", 0.53, (0.47, 0.59), prompts=120), *PASSING[1:])


def witness(name: WitnessName, rate: float, interval: Interval, cases: int) -> Witness:
    return Witness(name, rate, interval, cases, f"{cases} {name}, it says the same in {rate:.0%}")


AGREEING = (witness("corrections", 0.81, (0.66, 0.9), 38), witness("thumbs", 0.64, (0.55, 0.72), 61))
AGAINST = (witness("corrections", 0.21, (0.1, 0.37), 38), witness("earlier", 0.52, (0.45, 0.6), 90))


@dataclass
class WheelHome:
    """An installation's home; `held` are the locks of turns that are worked on."""

    home: Path
    database: Database
    held: dict[str, ExitStack] = field(default_factory=dict)

    @property
    def settings(self) -> Settings:
        return Settings(home=self.home, database_url=f"sqlite:///{self.home / 'chatwheel.db'}")

    def turn(self, name: str) -> TurnFiles:
        return TurnFiles(self.home / "runs" / name)

    def begin(self, name: str, *, days: float = 0.0, current: str = SECOND, by: str | None = None) -> TurnFiles:
        """A turn that began so many days ago, its data being ready."""
        run = write_run(self.home, name, pretrain=None, reward={}, ppo={"rollouts": 16})
        finish(run, "data")
        begun = time.time() - days * DAY
        values = {"current": current, "material": MATERIAL.to_json(), "begun_at": begun, "begun_by": by}
        (run / TURN).write_text(json.dumps(values))
        os.utime(run / TURN, (begun, begun))
        return self.turn(name)

    def works(self, name: str, stage: str, steps: int = 40) -> None:
        """Somebody works on that stage now."""
        turn = self.turn(name)
        if name not in self.held:
            self.held[name] = ExitStack()
            self.held[name].enter_context(turn.held())
            self.held[name].enter_context(FileLock(turn.directory / ".lock"))
        turn.note(doing=stage, attempts=1)
        order = ["sft", "ranking", "reward", "ppo", "judge", "gate"]
        finish(turn.directory, *(one for one in order[: order.index(stage)] if one not in ("judge", "gate")))
        if stage in ("sft", "reward", "ppo"):
            write_metrics(turn.directory, stage, steps)

    def lets_go(self, name: str, error: str | None = None) -> None:
        """Whoever works on it ends, for a reason perhaps."""
        turn = self.turn(name)
        with self.held.pop(name, ExitStack()):
            turn.note(doing=None, error=error, attempts=0, ended_at=time.time())

    def decided(
        self, name: str, checks: Sequence[Check], judge: dict[str, Any] = JUDGE, witnesses: Sequence[Witness] = ()
    ) -> None:
        """The turn is done, its model there, and the gate says what follows from the checks."""
        turn = self.turn(name)
        finish(turn.directory, "sft", "ranking", "reward", "ppo")
        self.model(turn.candidate, name, turn.begun["current"])
        self.lets_go(name)
        turn.note(ended_at=turn.begun["begun_at"] + 5400)
        verdict = decide(turn.candidate, turn.begun["current"], checks, judge, witnesses).to_json()
        write_atomically(turn.directory / GATE, [json.dumps(verdict).encode()])

    def model(self, name: str, run: str, start: str) -> None:
        """A tiny real one, and where it says that it is from."""
        lineage = {"stage": name.split("/")[1], "run": run, "recipe": {"model": start, "data": {"kind": "files"}}}
        save_model(self.home / "models" / name, causal(), tokenizer(), lineage | {"data": {"rankings": "1f"}})

    def answered(self, *models: tuple[str, float]) -> None:
        """Each model answered all from so many days ago on, until the next one came."""
        with self.database.write() as session:
            for number, (model, days) in enumerate(models):
                later = models[number + 1][1] if number + 1 < len(models) else None
                session.add(
                    DeploymentRow(
                        model=model,
                        share=1.0,
                        started_at=time.time() - days * DAY,
                        ended_at=None if later is None else time.time() - later * DAY,
                        outcome=None if later is None else "replaced",
                    )
                )
                session.flush()

    def close(self) -> None:
        for stack in self.held.values():
            stack.close()


def two_turns(place: WheelHome) -> None:
    """Two turns have been: of the first the model answers now, the second was no better."""
    place.begin("wheel-1", days=13, current=FIRST)
    place.decided("wheel-1", PASSING, witnesses=AGREEING)
    place.begin("wheel-2", days=3)
    place.decided("wheel-2", OPEN)
    place.answered((FIRST, 40), (SECOND, 12))


def people(session: Session, count: int, days: float = 60.0) -> list[str]:
    """Who agreed so many days ago, beside one who has not."""
    session.add(UserRow(name="Nobody's business"))
    rows = [UserRow(name=f"Person {n}", improve_since=time.time() - days * DAY) for n in range(count)]
    session.add_all(rows)
    session.flush()
    return [row.id for row in rows]


def chat(
    session: Session,
    user: str,
    item: Item,
    *answers: str,
    models: Sequence[str] = (SECOND, SECOND),
    days: float = 0.0,
    value: int | None = None,
    correction: str | None = None,
    choice: str | None = None,
    report: bool = False,
) -> None:
    """A conversation of so many days ago, whose answers are judged at once."""
    at, conversation, question = time.time() - days * DAY, new_id("conv"), new_id("msg")
    ids = [new_id("msg") for _ in answers]
    session.add(
        ConversationRow(
            id=conversation, user_id=user, model=models[0], language=item.language, created_at=at, updated_at=at
        )
    )
    session.flush()
    text = item.messages[0].content
    session.add(MessageRow(id=question, conversation_id=conversation, role="user", content=text, created_at=at))
    session.flush()
    for one, model, said in zip(ids, models, answers, strict=False):
        session.add(
            MessageRow(
                id=one,
                conversation_id=conversation,
                parent_id=question,
                role="assistant",
                content=said,
                model=model,
                created_at=at,
            )
        )
    session.flush()
    if value is not None:
        session.add(RatingRow(message_id=ids[0], value=value, created_at=at))
    if correction is not None:
        session.add(CorrectionRow(message_id=ids[0], content=correction, created_at=at))
    if report:
        session.add(ReportRow(message_id=ids[0], reason="other", created_at=at))
    if choice is not None:
        session.add(
            ComparisonRow(user_id=user, first_id=ids[0], second_id=ids[1], choice=choice, created_at=at, chosen_at=at)
        )


def chats(session: Session, users: Sequence[str], items: Iterator[Item]) -> None:
    """60 ratings, 24 corrections, 12 choices, 2 reports; of each the half since the second turn began."""
    for number in range(98):
        user, days, item = users[number % len(users)], (0.5, 9.0)[number % 2], next(items)
        wrong = "I don't know."
        if number < 60:
            chat(session, user, item, item.answer, days=days, value=1 if number % 3 else -1)
        elif number < 84:
            chat(session, user, item, wrong, days=days, correction=item.answer)
        elif number < 96:
            chat(session, user, item, item.answer, wrong, days=days, choice="first")
        else:
            chat(session, user, item, wrong, days=days, report=True)


def labelled(session: Session, users: Sequence[str], items: Sequence[Item], *, twice: int = 60) -> None:
    """Each is ranked in the labelling room, the first ones by two people, half of all nine days ago."""
    owner = accounts.local_principal(session)
    queue = queues.create_queue(session, owner.project_id, "Round 1", "rank", labellers=2, by=owner.user_id)
    # Right ones beside those to other questions, long and short ones: it is no question of length who is right.
    answers = [
        [item.answer, *sorted({items[i - 1].answer, items[i - 7].answer, "Hm."} - {item.answer})][:3]
        for i, item in enumerate(items)
    ]
    tasks = [
        NewTask(list(item.messages), [NewAnswer(one) for one in three], language=item.language)
        for item, three in zip(items, answers, strict=True)
    ]
    ids = queues.add_tasks(session, queue, tasks).tasks
    rng = Random(3)
    for number, (task, item, three) in enumerate(zip(ids, items, answers, strict=True)):
        at = time.time() - (0.25, 9.0)[number % 2] * DAY
        for turn in range(2 if number < twice else 1):
            who = (number + turn) % 4
            order = rng.sample(range(3), 3)  # the right one is not always on top
            ranks = rank(item, three, LABELLERS[who], rng).ranks
            session.add(
                LabellingAssignmentRow(
                    task_id=task, user_id=users[who], state="done", order=order, assigned_at=at, expires_at=at
                )
            )
            session.add(
                LabellingJudgementRow(
                    task_id=task, user_id=users[who], action="judged", ranks=ranks, order=order, created_at=at
                )
            )


def given(place: WheelHome, rankings: int, *, twice: int = 60) -> None:
    """What twelve people gave: chats, and so many rankings of the labelling room."""
    found = {item.messages[0].content: item for item in prompts(5, 4 * (98 + rankings), ("en", "zh"))}
    items = iter(found.values())  # each question once
    with place.database.write() as session:
        users = people(session, 12)
        chats(session, users, items)
        labelled(session, users, list(items)[:rankings], twice=twice)


def forecast_kept(place: WheelHome, model: str = SECOND) -> Forecast:
    """What somebody has asked for before: of all rankings that there are."""
    wrong = {80: 112, 160: 106, 320: 102, 640: 100}
    found = Forecast.fit([Measured.binomial(count, wrongly, 400) for count, wrongly in wrong.items()])
    with place.database.read() as session:
        seen = digest(gather(session).rankings)
    values = {"model": model, "digest": seen, "made_at": time.time() - 600, "forecast": found.to_json()}
    (place.home / "wheel").mkdir(exist_ok=True)
    (place.home / "wheel" / "forecast.json").write_text(json.dumps(values))
    return found


def thumbs(place: WheelHome, model: str, good: int, bad: int, *, days: float = 0.0) -> None:
    """So many of both for that model, in chats that began just now, or so many days ago; spread evenly."""
    with place.database.write() as session:
        user = accounts.local_principal(session).user_id
        count = good + bad
        for number, item in enumerate(prompts(11, count, ("en",))):
            up = (number + 1) * good // count - number * good // count
            chat(session, user, item, "So it is.", models=[model], days=days, value=1 if up else -1)
