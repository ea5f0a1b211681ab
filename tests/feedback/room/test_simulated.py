"""A round with eight labellers through the real store: who is biased or ranks at random is named, and nobody else."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from chatwheel.data.records import Message, Ranking
from chatwheel.feedback.room.assigning import next_assignment
from chatwheel.feedback.room.exporting import export_queue
from chatwheel.feedback.room.judging import Said, submit
from chatwheel.feedback.room.labels import LabelQuestion
from chatwheel.feedback.room.queues import NewAnswer, NewTask, add_tasks, create_queue
from chatwheel.feedback.room.reading import judged_tasks
from chatwheel.feedback.room.report import QueueReport, queue_report
from chatwheel.store import accounts
from chatwheel.store.database import Database
from chatwheel.store.tables import LabellingAnswerRow, LabellingJudgementRow, LabellingQueueRow, LabellingTaskRow
from tests.feedback.simulated import Simulated, answer

TASKS, ANSWERS, EACH = 160, 4, 3
"""60 rankings a labeller. Of the seeds 1 to 10 all name the three biased ones and none accuses an honest one; 8 name
the random one, which in 2 is not certain yet."""
CREW = {
    **{f"honest {i}": Simulated(f"honest {i}", beta=beta) for i, beta in enumerate((1.6, 1.8, 2.0, 2.4))},
    "long": Simulated("long", length=2.0),
    "upper": Simulated("upper", position=2.5),
    "loud": Simulated("loud", exclaimed=2.5),
    "random": Simulated("random", beta=0.0),
}


@dataclass(frozen=True)
class Played:
    """What has become of a round. counts: judgements of each task; rows: of all."""

    report: QueueReport
    merged: list[Ranking]
    worth: dict[str, float]
    counts: list[int]
    rows: int


class Round:
    """A queue with answers whose worth is known, and labellers who are scripts."""

    def __init__(self, session: Session, seed: int) -> None:
        self.session, self.rng = session, np.random.default_rng(seed)
        self.draw = random.Random(seed)
        project = accounts.local_principal(session).project_id
        self.queue = create_queue(session, project, "simulated", "rank", labellers=EACH)
        self.worth: dict[str, float] = {}
        tasks = []
        for number in range(TASKS):
            texts = []
            for k in range(ANSWERS):
                words = int(2 ** self.rng.uniform(2, 6))
                texts.append(answer(self.rng, words, False, number * ANSWERS + k))
                self.worth[texts[-1]] = float(self.rng.normal())
            tasks.append(NewTask([Message(role="user", content=f"question {number}")], [NewAnswer(t) for t in texts]))
        add_tasks(session, self.queue, tasks)
        self.people = {accounts.create_user(session, name).id: who for name, who in CREW.items()}

    def run(self) -> None:
        """All come in turn, each time in another order, until there is nothing left to do."""
        busy = True
        while busy:
            busy = False
            for user in self.draw.sample(list(self.people), len(self.people)):
                given = next_assignment(self.session, self.queue.id, user, rng=self.draw)
                if given is not None:
                    busy = True
                    rows = self.session.scalars(
                        select(LabellingAnswerRow)
                        .where(LabellingAnswerRow.task_id == given.task_id)
                        .order_by(LabellingAnswerRow.place)
                    ).all()
                    shown = [rows[place].content for place in given.order]
                    ranks = self.ranked(self.people[user], shown)
                    submit(self.session, user, given.id, Said(ranks=ranks, seconds=10.0))

    def ranked(self, who: Simulated, shown: list[str]) -> list[int]:
        """By worth, habits and chance."""
        doublings = np.array([np.log2(1 + len(text.split())) for text in shown])
        marks = np.array(["!" in text for text in shown], dtype=float)
        places = np.arange(len(shown)) / (len(shown) - 1)
        habits = who.length * doublings - who.position * places + who.exclaimed * marks
        utility = who.beta * np.array([self.worth[text] for text in shown]) + habits + self.rng.gumbel(size=len(shown))
        return [int(rank) + 1 for rank in np.argsort(np.argsort(-utility))]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    database = Database.open(f"sqlite:///{tmp_path_factory.mktemp('round') / 'chatwheel.db'}")
    with database.write() as session:
        simulated = Round(session, seed=5)
        simulated.run()
        exported = export_queue(session, simulated.queue, "ranked", "salt")
        found = Played(
            queue_report(session, simulated.queue),
            [one for one in exported.records if isinstance(one, Ranking)],
            simulated.worth,
            [len(one.by) for one in judged_tasks(session, simulated.queue)],
            session.scalar(select(func.count()).select_from(LabellingJudgementRow)) or 0,
        )
    database.close()
    return found


def test_each_task_was_judged_as_often_as_wanted(played: Played) -> None:
    report = played.report
    assert played.counts == [EACH] * TASKS
    assert played.rows == EACH * TASKS
    assert sum(line.judged for line in report.labellers) == EACH * TASKS
    assert report.agreement is not None
    assert 0.05 < report.agreement.alpha < 0.6
    assert report.agreement.interval[0] < report.agreement.alpha < report.agreement.interval[1]


def test_the_report_names_who_is_biased_or_random_and_accuses_nobody_else(played: Played) -> None:
    report = played.report
    found = {line.name: line.report for line in report.labellers}
    assert all(one is not None for one in found.values())
    verdicts = {name: one.verdict for name, one in found.items() if one is not None}
    assert verdicts == {
        **{f"honest {i}": "ok" for i in range(4)},
        "long": "biased",
        "upper": "biased",
        "loud": "biased",
        "random": "random",
    }
    words = {name: one.words for name, one in found.items() if one is not None}
    assert "prefers longer answers" in words["long"]
    assert "places the upper one first" in words["upper"]
    assert "prefers exclamation marks" in words["loud"]
    assert "answers at random" in words["random"]
    weights = {name: one.weight for name, one in found.items() if one is not None}
    assert weights["random"] == 0
    assert all(weights[f"honest {i}"] > 0.5 for i in range(4))


def test_what_is_disputed_goes_to_an_adjudicator_and_what_is_merged_is_right(played: Played) -> None:
    report = played.report
    assert 0 < len(report.disputes) < TASKS
    assert [one.agreement for one in report.disputes] == sorted(one.agreement for one in report.disputes)
    assert all(one.agreement <= 0 for one in report.disputes)
    right = weights = 0.0
    for ranking in played.merged:
        for better, worse in ranking.pairs():
            right += (ranking.weight or 0) * (
                played.worth[ranking.answers[better]] > played.worth[ranking.answers[worse]]
            )
            weights += ranking.weight or 0
    assert right / weights > 0.85
    assert len(played.merged) > 0.8 * TASKS


def test_of_labels_each_has_its_agreement_and_each_labeller_an_accuracy(session: Session) -> None:
    """Three who see the truth nine times of ten, and one who draws."""
    rng, draw = np.random.default_rng(1), random.Random(1)
    asked = [LabelQuestion(name="spam", kind="flag"), LabelQuestion(name="quality", kind="scale")]
    project = accounts.local_principal(session).project_id
    queue: LabellingQueueRow = create_queue(session, project, "labels", "rate", labellers=4, labels=asked)
    truth = {f"question {i}": (bool(rng.random() < 0.4), int(rng.integers(1, 6))) for i in range(60)}
    add_tasks(session, queue, [NewTask([Message(role="user", content=q)], [NewAnswer("a")]) for q in truth])
    people = {accounts.create_user(session, name).id: name for name in ("one", "two", "three", "coin")}
    for user, name in people.items():
        while (given := next_assignment(session, queue.id, user, rng=draw)) is not None:
            spam, quality = truth[session.get_one(LabellingTaskRow, given.task_id).messages[0]["content"]]
            if name == "coin" or rng.random() < 0.1:
                spam, quality = bool(rng.random() < 0.5), int(rng.integers(1, 6))
            submit(session, user, given.id, Said(labels={"spam": spam, "quality": quality}))
    report = queue_report(session, queue)
    agreement = {one.name: one.agreement for one in report.labels}
    assert agreement["spam"] is not None
    assert agreement["quality"] is not None
    assert 0.2 < agreement["spam"].alpha < 0.8
    accuracy = {line.name: line.accuracy or 0.0 for line in report.labellers}
    assert min(accuracy[name] for name in ("one", "two", "three")) > 0.85
    assert accuracy["coin"] < 0.65
    assert 0 < len(report.disputes) < 60
