"""Who gets which task: each by as many as wanted, nobody's own, nobody twice, what is kept too long goes back."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from chatwheel.data.records import Message
from chatwheel.errors import InputError
from chatwheel.feedback.room.assigning import expire, next_assignment, save_draft
from chatwheel.feedback.room.judging import Said, decide, last_of, report, said_before, set_state, skip, submit
from chatwheel.feedback.room.labels import USUAL, LabelQuestion
from chatwheel.feedback.room.queues import NewAnswer, NewTask, add_tasks, change_queue, create_queue, progress
from chatwheel.feedback.room.reading import judged_tasks, rankings_of
from chatwheel.store import accounts
from chatwheel.store.accounts import ConflictError, NotFoundError
from chatwheel.store.database import Database
from chatwheel.store.tables import (
    LabellingAssignmentRow,
    LabellingJudgementRow,
    LabellingQueueRow,
    LabellingTaskRow,
    TaskKind,
    UserRow,
)

HOUR = 3600.0


def ask(text: str) -> list[Message]:
    return [Message(role="user", content=text)]


def task(number: int, answers: int = 3, author: str | None = None, writer: str | None = None) -> NewTask:
    texts = [NewAnswer(f"answer {number}.{k}", model=f"m{k}", author_id=writer) for k in range(answers)]
    return NewTask(ask(f"question {number}"), texts, author_id=author)


def people(session: Session, count: int) -> list[str]:
    there = session.scalar(select(func.count()).select_from(UserRow)) or 0
    return [accounts.create_user(session, f"labeller {there + i}").id for i in range(count)]


def queue_of(
    session: Session, tasks: int, kind: TaskKind = "rank", labellers: int = 2, answers: int = 3
) -> LabellingQueueRow:
    queue = create_queue(session, accounts.local_principal(session).project_id, "round 1", kind, labellers=labellers)
    add_tasks(session, queue, [task(number, answers) for number in range(tasks)])
    return queue


def labels(**said: bool | int) -> dict[str, bool | int]:
    """Answers to the usual questions, those that are not given in the middle."""
    return {one.name: said.get(one.name, False if one.kind == "flag" else 3) for one in USUAL}


def hand(session: Session, queue: LabellingQueueRow, user: str, now: float = 1.0) -> LabellingAssignmentRow:
    found = next_assignment(session, queue.id, user, now=now)
    assert found is not None
    return found


def question_of(session: Session, assignment: LabellingAssignmentRow) -> str:
    return str(session.get_one(LabellingTaskRow, assignment.task_id).messages[0]["content"])


def test_those_come_first_that_fewest_have_judged_and_each_is_judged_by_as_many_as_wanted(session: Session) -> None:
    queue = queue_of(session, 3)
    ada, bob, eve = people(session, 3)
    assert [question_of(session, hand(session, queue, who)) for who in (ada, bob, eve)] == [
        "question 0",
        "question 1",
        "question 2",
    ]
    seen: dict[str, list[str]] = {who: [] for who in (ada, bob, eve)}
    for _ in range(4):
        for who in (ada, bob, eve):
            given = next_assignment(session, queue.id, who, now=2.0)
            if given is not None:
                seen[who].append(given.task_id)
                submit(session, who, given.id, Said(ranks=[1, 2, 3]), now=3.0)
    assert Counter(one for some in seen.values() for one in some) == Counter(
        {row.task.id: 2 for row in judged_tasks(session, queue)}
    )
    assert all(len(set(some)) == len(some) for some in seen.values())
    done = progress(session, queue, ada, now=4.0)
    assert (done.tasks, done.done, done.judgements, done.wanted) == (3, 3, 6, 6)
    assert (done.mine, done.waiting) == (len(seen[ada]), 0)


def test_what_is_in_hands_stays_there_and_is_shown_in_an_order_that_was_drawn(session: Session) -> None:
    queue = queue_of(session, 40, labellers=1, answers=4)
    (ada,) = people(session, 1)
    first = hand(session, queue, ada)
    assert hand(session, queue, ada, now=2.0).id == first.id
    orders = set()
    for _ in range(40):
        given = hand(session, queue, ada)
        orders.add(tuple(given.order))
        submit(session, ada, given.id, Said(ranks=[1, 2, 3, 4]))
    assert len(orders) > 8
    assert all(sorted(order) == [0, 1, 2, 3] for order in orders)
    # What was shown first was placed first each time: of the places of the task it is another one each time.
    for ranking in rankings_of(judged_tasks(session, queue)):
        assert ranking.shown == ranking.ranks
    change_queue(session, queue, closed=True)
    with pytest.raises(ConflictError, match="closed"):
        next_assignment(session, queue.id, people(session, 1)[0])


def test_nobody_judges_what_they_have_written(session: Session) -> None:
    queue = create_queue(session, accounts.local_principal(session).project_id, "q", "rank", labellers=2)
    ada, bob = people(session, 2)
    add_tasks(session, queue, [task(0, author=ada), task(1, writer=ada), task(2)])
    assert question_of(session, hand(session, queue, ada)) == "question 2"
    submit(session, ada, hand(session, queue, ada).id, Said(ranks=[1, 1, 1]))
    assert next_assignment(session, queue.id, ada) is None
    assert progress(session, queue, ada).waiting == 0
    assert progress(session, queue, bob).waiting == 3


def test_what_is_kept_too_long_goes_to_somebody_else(session: Session) -> None:
    queue = queue_of(session, 1, labellers=1)
    ada, bob = people(session, 2)
    kept = hand(session, queue, ada, now=0.0)
    assert next_assignment(session, queue.id, bob, now=HOUR - 1) is None
    save_draft(session, kept.id, ada, {"ranks": [1, 2]}, now=HOUR / 2)  # who works on it keeps it
    assert next_assignment(session, queue.id, bob, now=HOUR + 1) is None
    given = hand(session, queue, bob, now=2 * HOUR)
    assert session.get_one(LabellingAssignmentRow, kept.id).state == "expired"
    with pytest.raises(ConflictError, match="not in your hands"):
        save_draft(session, kept.id, ada, {}, now=2 * HOUR)
    with pytest.raises(ConflictError, match="given to somebody else"):
        submit(session, ada, kept.id, Said(ranks=[1, 2, 3]), now=2 * HOUR)
    skip(session, bob, given.id, "too_hard", now=2 * HOUR)
    again = hand(session, queue, ada, now=2 * HOUR)  # it comes back to her too, as she had it
    assert (again.id, again.order, again.draft) == (kept.id, kept.order, {"ranks": [1, 2]})
    submit(session, ada, kept.id, Said(ranks=[1, 2, 3]), now=2 * HOUR)
    assert [len(one.by) for one in judged_tasks(session, queue)] == [1]


def test_what_comes_late_counts_where_nobody_else_has_it(session: Session) -> None:
    queue = queue_of(session, 1, labellers=1)
    (ada,) = people(session, 1)
    kept = hand(session, queue, ada, now=0.0)
    assert progress(session, queue, ada, now=2 * HOUR).mine == 0
    expire(session, queue, 2 * HOUR)
    session.refresh(kept)
    assert (kept.state, session.scalars(select(LabellingTaskRow.taken)).all()) == ("expired", [0])
    submit(session, ada, kept.id, Said(ranks=[1, 2, 3]), now=2 * HOUR)
    assert (kept.state, session.scalars(select(LabellingTaskRow.taken)).all()) == ("done", [1])


def test_pressing_twice_counts_once_and_the_last_word_counts(session: Session) -> None:
    queue = queue_of(session, 1, labellers=1, answers=4)
    (ada,) = people(session, 1)
    given = hand(session, queue, ada, now=10.0)
    first = submit(session, ada, given.id, Said(ranks=[1, 1, 3, 3]), now=70.0)
    assert first.seconds == 60.0
    assert submit(session, ada, given.id, Said(ranks=[1, 1, 4, 4]), now=71.0).id == first.id  # the same places
    corrected = submit(session, ada, given.id, Said(ranks=[4, 3, 2, 1], seconds=5.0), now=80.0)
    assert corrected.id != first.id
    back = last_of(session, queue.id, ada)
    assert back is not None
    assert back.id == given.id
    assert said_before(session, given) is corrected
    (one,) = judged_tasks(session, queue)
    assert one.by == {ada: corrected}
    assert session.scalar(select(func.count()).select_from(LabellingJudgementRow)) == 2
    assert session.get_one(LabellingTaskRow, given.task_id).taken == 1
    with pytest.raises(ConflictError, match="judged this task already"):
        skip(session, ada, given.id)


def test_a_skip_is_taken_back_by_judging(session: Session) -> None:
    queue = queue_of(session, 1, labellers=1)
    (ada,) = people(session, 1)
    given = hand(session, queue, ada)
    skip(session, ada, given.id, "unclear", "  what? ")
    skip(session, ada, given.id, "unclear")
    assert next_assignment(session, queue.id, ada) is None
    rows = session.scalars(select(LabellingJudgementRow)).all()
    assert [(row.action, row.reason, row.comment) for row in rows] == [("skipped", "unclear", "what?")]
    back = last_of(session, queue.id, ada)
    assert back is not None
    submit(session, ada, back.id, Said(ranks=[1, 2, 3]))
    assert [len(one.by) for one in judged_tasks(session, queue)] == [1]


def test_what_is_reported_is_shown_to_nobody_until_it_is_looked_at(session: Session) -> None:
    queue = queue_of(session, 1, labellers=3)
    ada, bob, eve = people(session, 3)
    theirs = hand(session, queue, bob)
    given = hand(session, queue, ada)
    report(session, ada, given.id, "harmful", "ugh")
    assert next_assignment(session, queue.id, eve) is None
    assert next_assignment(session, queue.id, bob) is None
    with pytest.raises(ConflictError, match="taken out of the queue"):
        submit(session, bob, theirs.id, Said(ranks=[1, 2, 3]))
    assert progress(session, queue, eve).reported == 1
    set_state(session, given.task_id, "open")
    submit(session, bob, theirs.id, Said(ranks=[1, 2, 3]))
    assert hand(session, queue, eve).task_id == given.task_id
    assert next_assignment(session, queue.id, ada) is None
    set_state(session, given.task_id, "withdrawn")
    assert progress(session, queue, eve).tasks == 0


def test_only_what_the_kind_asks_for_is_taken(session: Session) -> None:
    (ada,) = people(session, 1)
    given = {kind: queue_of(session, 1, kind, 1, n) for kind, n in (("rank", 3), ("rate", 1), ("reply", 0))}  # type: ignore[arg-type]
    held = {kind: hand(session, queue, ada) for kind, queue in given.items()}
    wrong = [
        ("rank", Said(), "wants ranks alone, found nothing"),
        ("rank", Said(ranks=[1, 2]), "expected 3 places from 1 to 3"),
        ("rank", Said(ranks=[0, 1, 2]), "expected 3 places"),
        ("rank", Said(ranks=[1, 2, True]), "expected 3 places"),
        ("rank", Said(ranks=[1, 2, 3], text="x"), "wants ranks alone, found ranks, text"),
        ("rate", Said(labels={}), "'spam' should be true or false, found None"),
        ("rate", Said(labels=labels() | {"quality": 6}), "'quality' should be from 1 to 5, found 6"),
        ("rate", Said(labels=labels() | {"beauty": 1}), "'beauty' is not asked for here"),
        ("reply", Said(text="  "), "write it, or skip"),
    ]
    for kind, said, why in wrong:
        with pytest.raises(InputError, match=why):
            submit(session, ada, held[kind].id, said)
    assert submit(session, ada, held["rate"].id, Said(labels=labels(spam=True))).labels == labels(spam=True)
    assert submit(session, ada, held["reply"].id, Said(text=" So.\u0000 ")).text == "So.\ufffd"
    with pytest.raises(NotFoundError):
        submit(session, people(session, 1)[0] + "x", held["rank"].id, Said(ranks=[1, 2, 3]))


def test_tasks_fit_their_queue_and_are_put_in_once(session: Session) -> None:
    project = accounts.local_principal(session).project_id
    queue = create_queue(session, project, "q", "rank")
    more = add_tasks(session, queue, [task(0), task(1), task(0)])
    assert (more.added, more.already, more.tasks[0]) == (2, 1, more.tasks[2])
    same = [NewTask(task(0).messages, task(0).answers[::-1])]
    assert add_tasks(session, queue, same).already == 1
    for wrong, why in (
        (NewTask(ask("q"), [NewAnswer("a")]), "task 1: 1 different answers; 2 to 9"),
        (NewTask(ask("q"), [NewAnswer("a"), NewAnswer(" ")]), "an answer is empty"),
        (NewTask(ask("q"), [NewAnswer("a"), NewAnswer("b"), NewAnswer("a")]), "two answers are the same"),
        (NewTask([Message(role="assistant", content="a")], task(0).answers), "turns must alternate"),
    ):
        with pytest.raises(InputError, match=why):
            add_tasks(session, queue, [wrong])
    for fields, why in (
        ({"name": " "}, "a queue needs one"),
        ({"labellers": 0}, "expected 1 to 20"),
        ({"patience": 1.0}, "a minute to a week"),
        ({"labels": [USUAL[0], USUAL[0]], "kind": "rate"}, "same name"),
    ):
        with pytest.raises(InputError, match=why):
            create_queue(session, project, **{"name": "q", "kind": "rank"} | fields)  # type: ignore[arg-type]
    assert LabelQuestion.model_validate(create_queue(session, project, "q", "rate").labels[0]) == USUAL[0]


def test_an_adjudicator_s_word_counts_for_all_but_not_on_their_own(session: Session) -> None:
    queue = queue_of(session, 1, labellers=1)
    ada, bob = people(session, 2)
    given = hand(session, queue, ada)
    submit(session, ada, given.id, Said(ranks=[1, 2, 3]))
    with pytest.raises(ConflictError, match="labelled this task yourself"):
        decide(session, ada, given.task_id, Said(ranks=[3, 2, 1]))
    decide(session, bob, given.task_id, Said(ranks=[3, 2, 1]))
    decide(session, bob, given.task_id, Said(ranks=[2, 1, 2]))
    (one,) = judged_tasks(session, queue)
    assert one.decision is not None
    assert one.decision.ranks == [2, 1, 2]


def test_all_who_ask_at_once_get_different_tasks_and_no_task_too_many(database: Database) -> None:
    """Eight labellers, 12 tasks, three for each; on PostgreSQL the transactions run beside each other."""
    with database.write() as session:
        queue = queue_of(session, 12, labellers=3).id
        crew = people(session, 8)
    together = threading.Barrier(len(crew))
    first: list[str] = []

    def work(number: int) -> list[str]:
        rng, seen = random.Random(number), list[str]()
        while True:
            if len(seen) < 2:  # all ask at once, and nobody hands in before all have asked
                together.wait(20)
            given = database.transact(lambda session: next_assignment(session, queue, crew[number], rng=rng))
            if given is None:
                return seen
            if not seen:
                first.append(given.task_id)
            seen.append(given.task_id)
            ranks = rng.sample([1, 2, 3], 3)
            pressed = [threading.Thread(target=press, args=(crew[number], given.id, ranks)) for _ in range(2)]
            for one in pressed:
                one.start()
            for one in pressed:
                one.join()

    def press(who: str, assignment: str, ranks: list[int]) -> None:
        database.transact(lambda session: submit(session, who, assignment, Said(ranks=ranks)))

    with ThreadPoolExecutor(len(crew)) as pool:
        seen = list(pool.map(work, range(len(crew))))
    assert len(set(first)) == len(crew)
    assert set(Counter(one for some in seen for one in some).values()) == {3}
    assert all(len(set(some)) == len(some) for some in seen)
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(LabellingJudgementRow)) == 36
        assert set(session.scalars(select(LabellingTaskRow.taken))) == {3}


KILLED = """
import os, signal, sys
from chatwheel.feedback.room import judging
from chatwheel.store.database import Database

database = Database.open(sys.argv[1])
with database.write() as session:
    judging.submit(session, sys.argv[2], sys.argv[3], judging.Said(ranks=[2, 1, 3]))
    if sys.argv[4] == "before":
        os.kill(os.getpid(), signal.SIGKILL)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_server_that_is_killed_loses_or_keeps_a_judgement_whole(database_url: str) -> None:
    """Before its commit nothing is there, after it all is; the labeller, who saw neither, presses once more."""
    database = Database.open(database_url)
    with database.write() as session:
        queue = queue_of(session, 2, labellers=1)
        (ada,) = people(session, 1)
    for when, there in (("before", 0), ("after", 1)):
        with database.write() as session:
            given = next_assignment(session, queue.id, ada)
            assert given is not None
        done = subprocess.run([sys.executable, "-c", KILLED, database_url, ada, given.id, when], check=False)
        assert done.returncode == -signal.SIGKILL
        with database.read() as session:
            row = session.get_one(LabellingAssignmentRow, given.id)
            assert row.state == ("done" if there else "open")
            rows = select(func.count()).where(LabellingJudgementRow.task_id == given.task_id)
            assert session.scalar(rows) == there
        with database.write() as session:
            submit(session, ada, given.id, Said(ranks=[2, 1, 3]))
        with database.read() as session:
            assert session.scalar(rows) == 1
            assert session.get_one(LabellingTaskRow, given.task_id).taken == 1
    database.close()
