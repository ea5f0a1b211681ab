"""Queues of tasks: made, filled, changed, and how far they are. Functions work in the caller's transaction."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from pydantic import ValidationError
from sqlalchemy import Select, and_, case, exists, func, or_, select
from sqlalchemy.orm import Session, aliased

from chatwheel.data.records import Message, Prompt, describe
from chatwheel.errors import InputError
from chatwheel.feedback.room.labels import USUAL, LabelQuestion
from chatwheel.store.accounts import NotFoundError
from chatwheel.store.conversations import without_nul
from chatwheel.store.database import lock
from chatwheel.store.tables import (
    LabellingAnswerRow,
    LabellingAssignmentRow,
    LabellingQueueRow,
    LabellingTaskRow,
    TaskKind,
    new_id,
)

MOST_ANSWERS = 9
"""A digit each."""
MOST_LABELLERS = 20
PATIENCE = (60.0, 7 * 24 * 3600.0)
MOST_CHARACTERS = 100_000
"""Of a text in a task."""


@dataclass(frozen=True)
class NewAnswer:
    """An answer to be judged, and whose it is."""

    content: str
    model: str | None = None
    sampling: dict[str, Any] | None = None
    author_id: str | None = None


@dataclass(frozen=True)
class NewTask:
    """What is to be judged. messages: the prompt; of a prompt to be written, one message that says what about."""

    messages: Sequence[Message]
    answers: Sequence[NewAnswer] = ()
    author_id: str | None = None
    source: str | None = None
    language: str | None = None


@dataclass(frozen=True)
class Added:
    """tasks: the ids of what was put in, in order, and of what was there: the same prompt with the same answers."""

    tasks: list[str] = field(default_factory=list)
    added: int = 0
    already: int = 0


@dataclass(frozen=True)
class Progress:
    """tasks: that are not withdrawn; done: judged by as many as wanted; judgements: of these, of those wanted; mine: a
    labeller's; waiting: tasks that they could get now; reported: that somebody has to look at."""

    tasks: int
    done: int
    judgements: int
    wanted: int
    mine: int
    waiting: int
    reported: int


def create_queue(
    session: Session,
    project_id: str,
    name: str,
    kind: TaskKind,
    *,
    guidelines: str = "",
    labellers: int | None = None,
    patience: float = 3600.0,
    labels: Sequence[LabelQuestion] | None = None,
    by: str | None = None,
) -> LabellingQueueRow:
    """labellers: three to rank and to rate, one to write, unless given. labels: `USUAL`, unless given. Raises
    InputError."""
    if kind not in get_args(TaskKind):
        raise InputError(f"kind: {kind!r}; expected one of {', '.join(get_args(TaskKind))}", param="kind")
    wanted = list(USUAL if labels is None else labels) if kind == "rate" else []
    if kind == "rate" and not wanted:
        raise InputError("labels: say what is to be rated; there is none", param="labels")
    if len({one.name for one in wanted}) < len(wanted):
        raise InputError("labels: two have the same name", param="labels")
    row = LabellingQueueRow(
        project_id=project_id,
        kind=kind,
        name="",
        labels=[one.model_dump() for one in wanted],
        created_by=by,
        labellers=(3 if kind in ("rate", "rank") else 1) if labellers is None else labellers,
    )
    change_queue(session, row, name=name, guidelines=guidelines, labellers=row.labellers, patience=patience)
    session.add(row)
    session.flush()
    return row


def change_queue(
    session: Session,
    row: LabellingQueueRow,
    *,
    name: str | None = None,
    guidelines: str | None = None,
    labellers: int | None = None,
    patience: float | None = None,
    closed: bool | None = None,
) -> None:
    """What is given. Raises InputError."""
    if name is not None:
        row.name = without_nul(name).strip()
        if not row.name:
            raise InputError("name: a queue needs one", param="name")
    if guidelines is not None:
        row.guidelines = without_nul(guidelines)
    if labellers is not None:
        if not 1 <= labellers <= MOST_LABELLERS:
            raise InputError(f"labellers: {labellers}; expected 1 to {MOST_LABELLERS}", param="labellers")
        row.labellers = labellers
    if patience is not None:
        if not PATIENCE[0] <= patience <= PATIENCE[1]:
            raise InputError(f"patience: {patience:g} s; expected a minute to a week", param="patience")
        row.patience = patience
    if closed is not None:
        row.closed_at = (row.closed_at or time.time()) if closed else None
    if row.id is not None:
        session.flush()


def get_queue(session: Session, queue_id: str) -> LabellingQueueRow:
    """Raises NotFoundError."""
    row = session.get(LabellingQueueRow, queue_id)
    if row is None:
        raise NotFoundError(f"labelling queue {queue_id!r} not found")
    return row


def find_queue(session: Session, name: str) -> LabellingQueueRow:
    """By id, or by a name that only one has. Raises NotFoundError."""
    query = select(LabellingQueueRow).where(or_(LabellingQueueRow.id == name, LabellingQueueRow.name == name)).limit(2)
    rows = session.scalars(query).all()
    if len(rows) != 1:
        reason = "is the name of several; give the id" if rows else "not found; `chatwheel feedback queues` lists them"
        raise NotFoundError(f"labelling queue {name!r} {reason}")
    return rows[0]


def list_queues(session: Session, project_id: str | None = None) -> Sequence[LabellingQueueRow]:
    """A project's, or all; the newest first."""
    query = select(LabellingQueueRow).order_by(LabellingQueueRow.created_at.desc(), LabellingQueueRow.id)
    return session.scalars(
        query if project_id is None else query.where(LabellingQueueRow.project_id == project_id)
    ).all()


def get_task(session: Session, task_id: str) -> LabellingTaskRow:
    """Raises NotFoundError."""
    row = session.get(LabellingTaskRow, task_id)
    if row is None:
        raise NotFoundError(f"labelling task {task_id!r} not found")
    return row


def answers_of(session: Session, task_id: str) -> Sequence[LabellingAnswerRow]:
    """In the order of their places, which no labeller is told."""
    query = select(LabellingAnswerRow).where(LabellingAnswerRow.task_id == task_id)
    return session.scalars(query.order_by(LabellingAnswerRow.place)).all()


def lock_queue(session: Session, queue_id: str) -> None:
    """Until the transaction ends, nobody else changes who has which of its tasks."""
    lock(session, [f"labelling {queue_id}"])


def add_tasks(session: Session, queue: LabellingQueueRow, tasks: Iterable[NewTask]) -> Added:
    """Puts tasks in, those that are not there yet. Raises InputError for one that is not of the queue's kind; the
    caller's transaction is to be given up then."""
    lock_queue(session, queue.id)
    there = select(LabellingTaskRow.digest, LabellingTaskRow.id).where(LabellingTaskRow.queue_id == queue.id)
    known = {row.digest: row.id for row in session.execute(there)}
    last = session.scalar(select(func.max(LabellingTaskRow.place)).where(LabellingTaskRow.queue_id == queue.id))
    place = 0 if last is None else last + 1
    ids: list[str] = []
    answers: list[LabellingAnswerRow] = []
    added = 0
    for number, task in enumerate(tasks, start=1):
        check_task(queue.kind, task, f"task {number}")
        digest = _digest(task)
        if digest not in known:
            row = _row(queue, task, place, digest)
            session.add(row)
            answers += [_answer(row.id, at, answer) for at, answer in enumerate(task.answers)]
            known[digest] = row.id
            place, added = place + 1, added + 1
        ids.append(known[digest])
    session.flush()  # the tasks, then what refers to them
    session.add_all(answers)
    session.flush()
    return Added(ids, added, len(ids) - added)


def _row(queue: LabellingQueueRow, task: NewTask, place: int, digest: str) -> LabellingTaskRow:
    return LabellingTaskRow(
        id=new_id("task"),  # now: its answers name it
        queue_id=queue.id,
        place=place,
        messages=[{"role": m.role, "content": without_nul(m.content)} for m in task.messages],
        source=task.source,
        language=None if task.language is None else task.language[:16],
        author_id=task.author_id,
        digest=digest,
    )


def _answer(task_id: str, place: int, answer: NewAnswer) -> LabellingAnswerRow:
    return LabellingAnswerRow(
        task_id=task_id,
        place=place,
        content=without_nul(answer.content),
        model=answer.model,
        sampling=answer.sampling,
        author_id=answer.author_id,
    )


def _digest(task: NewTask) -> str:
    """Of the prompt and its answers in whatever order."""
    asked = [[m.role, m.content] for m in task.messages], sorted(answer.content for answer in task.answers)
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


def check_task(kind: str, task: NewTask, where: str) -> None:
    """Raises InputError that says what a task of that kind needs."""
    try:
        Prompt.model_validate({"messages": list(task.messages)})
    except ValidationError as error:
        raise InputError(f"{where}: {describe(error)}", param="tasks") from None
    texts = [answer.content for answer in task.answers]
    if any(len(text) > MOST_CHARACTERS for text in (*texts, *(m.content for m in task.messages))):
        raise InputError(f"{where}: a text has more than {MOST_CHARACTERS:,} characters; shorten it", param="tasks")
    if any(not text.strip() for text in texts):
        raise InputError(f"{where}: an answer is empty; leave it out", param="tasks")
    if kind in ("prompt", "reply") and texts:
        raise InputError(f"{where}: it has answers, but they are to be written; leave them out", param="tasks")
    if kind == "rate" and len(texts) != 1:
        raise InputError(f"{where}: {len(texts)} answers; one is rated at a time", param="tasks")
    if kind == "rank" and not 2 <= len(set(texts)) <= MOST_ANSWERS:
        raise InputError(f"{where}: {len(set(texts))} different answers; 2 to {MOST_ANSWERS} are ranked", param="tasks")
    if len(set(texts)) < len(texts):
        raise InputError(f"{where}: two answers are the same; leave one out", param="tasks")


def to_do(queue: LabellingQueueRow, user_id: str, now: float) -> Select[LabellingTaskRow]:
    """The tasks that a labeller may get: that want judging, that are not of their own writing, and that they have not
    had; those first that fewest have."""
    mine, own = aliased(LabellingAssignmentRow), aliased(LabellingAnswerRow)
    had = exists().where(
        mine.task_id == LabellingTaskRow.id,
        mine.user_id == user_id,
        or_(mine.state.not_in(("open", "expired")), and_(mine.state == "open", mine.expires_at > now)),
    )
    wrote = exists().where(own.task_id == LabellingTaskRow.id, own.author_id == user_id)
    return (
        select(LabellingTaskRow)
        .where(
            LabellingTaskRow.queue_id == queue.id,
            LabellingTaskRow.state == "open",
            LabellingTaskRow.taken < queue.labellers,
            or_(LabellingTaskRow.author_id.is_(None), LabellingTaskRow.author_id != user_id),
            ~had,
            ~wrote,
        )
        .order_by(LabellingTaskRow.taken, LabellingTaskRow.place)
    )


def progress(session: Session, queue: LabellingQueueRow, user_id: str, now: float | None = None) -> Progress:
    """How far it is, as a labeller sees it."""
    now = time.time() if now is None else now
    done = (
        select(LabellingAssignmentRow.task_id, func.count().label("n"))
        .join(LabellingTaskRow, LabellingTaskRow.id == LabellingAssignmentRow.task_id)
        .where(LabellingTaskRow.queue_id == queue.id, LabellingAssignmentRow.state == "done")
        .group_by(LabellingAssignmentRow.task_id)
        .subquery()
    )
    judged = func.coalesce(done.c.n, 0)
    state = LabellingTaskRow.state
    query = (
        select(
            func.coalesce(func.sum(case((state != "withdrawn", 1), else_=0)), 0),
            func.coalesce(func.sum(case((and_(state != "withdrawn", judged >= queue.labellers), 1), else_=0)), 0),
            func.coalesce(func.sum(case((state != "withdrawn", judged), else_=0)), 0),
            func.coalesce(func.sum(case((state == "reported", 1), else_=0)), 0),
        )
        .select_from(LabellingTaskRow)
        .outerjoin(done, done.c.task_id == LabellingTaskRow.id)
        .where(LabellingTaskRow.queue_id == queue.id)
    )
    tasks, finished, judgements, reported = (int(n) for n in session.execute(query).one())
    mine = session.scalar(
        select(func.count())
        .select_from(LabellingAssignmentRow)
        .join(LabellingTaskRow, LabellingTaskRow.id == LabellingAssignmentRow.task_id)
        .where(
            LabellingTaskRow.queue_id == queue.id,
            LabellingAssignmentRow.user_id == user_id,
            LabellingAssignmentRow.state == "done",
        )
    )
    waiting = 0
    if queue.closed_at is None:
        query_waiting = select(func.count()).select_from(to_do(queue, user_id, now).order_by(None).subquery())
        waiting = int(session.scalar(query_waiting) or 0)
    return Progress(tasks, finished, judgements, tasks * queue.labellers, int(mine or 0), waiting, reported)
