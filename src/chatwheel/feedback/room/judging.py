"""What a labeller says of a task: judged, skipped, reported; and what an adjudicator decides."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from chatwheel.errors import InputError
from chatwheel.feedback.room.assigning import held_by
from chatwheel.feedback.room.labels import check_labels, questions
from chatwheel.feedback.room.queues import MOST_CHARACTERS, answers_of, get_queue, get_task, lock_queue
from chatwheel.store.accounts import ConflictError
from chatwheel.store.conversations import without_nul
from chatwheel.store.tables import (
    LabellingAssignmentRow,
    LabellingJudgementRow,
    LabellingQueueRow,
    LabellingTaskRow,
    ReportReason,
    TaskState,
)

SkipReason = Literal["unclear", "too_hard", "other"]
LONGEST = 24 * 3600.0
"""Seconds that are believed for one task."""


@dataclass(frozen=True)
class Said:
    """A judgement as a labeller gives it. ranks: of the answers in the order in which they were shown. seconds: that it
    took, as the page has measured it; by the clock of the server, unless given."""

    ranks: Sequence[int] | None = None
    labels: Mapping[str, Any] | None = None
    text: str | None = None
    seconds: float | None = None


def submit(
    session: Session, user_id: str, assignment_id: str, said: Said, now: float | None = None
) -> LabellingJudgementRow:
    """Hands a judgement in. Once more with the same words is one judgement; with other words it corrects, and the last
    one counts. Raises NotFoundError; InputError for what is not of the task's kind; ConflictError where the task has
    been withdrawn, or was kept too long and given to somebody else."""
    now = time.time() if now is None else now
    assignment, task, queue = held_by(session, assignment_id, user_id)
    content = _content(queue, said, assignment.order)
    if task.state != "open":
        raise ConflictError("this task has been taken out of the queue; go on with the next one", code="task_withdrawn")
    last = _last(session, task.id, user_id)
    if assignment.state == "done" and last is not None and last.action == "judged" and _same(last, content):
        return last
    if assignment.state not in ("open", "done"):
        if task.taken >= queue.labellers:
            raise ConflictError(
                "this task was kept too long and has been given to somebody else; go on with the next one",
                code="assignment_over",
            )
        task.taken += 1
    took = now - assignment.assigned_at if said.seconds is None else said.seconds
    row = LabellingJudgementRow(
        task_id=task.id,
        user_id=user_id,
        action="judged",
        order=assignment.order or None,
        seconds=min(max(took, 0.0), LONGEST),
        created_at=now,
        **content,
    )
    session.add(row)
    assignment.state, assignment.ended_at, assignment.draft = "done", now, None
    session.flush()
    return row


def skip(
    session: Session,
    user_id: str,
    assignment_id: str,
    reason: SkipReason | None = None,
    comment: str | None = None,
    now: float | None = None,
) -> None:
    """The task goes to somebody else. Again is the same. Raises NotFoundError, ConflictError for one that is judged."""
    _put_back(session, user_id, assignment_id, "skipped", reason, comment, now)


def report(
    session: Session,
    user_id: str,
    assignment_id: str,
    reason: ReportReason,
    comment: str | None = None,
    now: float | None = None,
) -> None:
    """Nobody gets the task until somebody who manages the queue has looked at it: what harms one harms the next.
    Raises as `skip` does."""
    task = _put_back(session, user_id, assignment_id, "reported", reason, comment, now)
    if task is not None and task.state == "open":
        task.state = "reported"
        session.flush()


def _put_back(
    session: Session,
    user_id: str,
    assignment_id: str,
    action: Literal["skipped", "reported"],
    reason: str | None,
    comment: str | None,
    now: float | None,
) -> LabellingTaskRow | None:
    now = time.time() if now is None else now
    assignment, task, _ = held_by(session, assignment_id, user_id)
    if assignment.state == action:
        return None
    if assignment.state == "done":
        raise ConflictError("you have judged this task already; judge it once more to correct that")
    if assignment.state == "open":
        task.taken -= 1
    assignment.state, assignment.ended_at, assignment.draft = action, now, None
    session.add(
        LabellingJudgementRow(
            task_id=task.id,
            user_id=user_id,
            action=action,
            reason=reason,
            comment=without_nul(comment or "").strip() or None,
            order=assignment.order or None,
            created_at=now,
        )
    )
    session.flush()
    return task


def decide(session: Session, user_id: str, task_id: str, said: Said, now: float | None = None) -> LabellingJudgementRow:
    """An adjudicator's word, which counts for all labellers'; the last one counts. ranks: in the order of the answers'
    places. Raises NotFoundError, InputError; ConflictError for a task that they have labelled or written themselves."""
    now = time.time() if now is None else now
    task = get_task(session, task_id)
    lock_queue(session, task.queue_id)
    queue = get_queue(session, task.queue_id)
    answers = answers_of(session, task_id)
    last = _last(session, task_id, user_id)
    if last is not None and last.action == "judged":
        raise ConflictError("you have labelled this task yourself; somebody else decides it", code="own_judgement")
    if user_id in {task.author_id, *(answer.author_id for answer in answers)}:
        raise ConflictError("you have written a part of this task; somebody else decides it", code="own_judgement")
    content = _content(queue, said, list(range(len(answers))))
    row = LabellingJudgementRow(task_id=task_id, user_id=user_id, action="decided", created_at=now, **content)
    session.add(row)
    session.flush()
    return row


def set_state(session: Session, task_id: str, state: TaskState) -> LabellingTaskRow:
    """Puts a reported task back, or takes one out. Raises NotFoundError."""
    task = get_task(session, task_id)
    lock_queue(session, task.queue_id)
    session.refresh(task)
    task.state = state
    session.flush()
    return task


def last_of(session: Session, queue_id: str, user_id: str) -> LabellingAssignmentRow | None:
    """What a labeller has judged or skipped last, which can be taken up again."""
    return session.scalars(
        select(LabellingAssignmentRow)
        .join(LabellingTaskRow, LabellingTaskRow.id == LabellingAssignmentRow.task_id)
        .where(
            LabellingTaskRow.queue_id == queue_id,
            LabellingTaskRow.state == "open",
            LabellingAssignmentRow.user_id == user_id,
            LabellingAssignmentRow.state.in_(("done", "skipped")),
        )
        .order_by(LabellingAssignmentRow.ended_at.desc(), LabellingAssignmentRow.id)
        .limit(1)
    ).first()


def said_before(session: Session, assignment: LabellingAssignmentRow) -> LabellingJudgementRow | None:
    """The judgement of an assignment that counts now."""
    last = _last(session, assignment.task_id, assignment.user_id)
    return last if last is not None and last.action == "judged" else None


def _last(session: Session, task_id: str, user_id: str) -> LabellingJudgementRow | None:
    query = select(LabellingJudgementRow).where(
        LabellingJudgementRow.task_id == task_id,
        LabellingJudgementRow.user_id == user_id,
        LabellingJudgementRow.action != "decided",
    )
    return session.scalars(query.order_by(LabellingJudgementRow.id.desc()).limit(1)).first()


def _content(queue: LabellingQueueRow, said: Said, order: Sequence[int]) -> dict[str, Any]:
    """The columns that a judgement of the queue's kind fills."""
    wanted = {"rank": "ranks", "rate": "labels"}.get(queue.kind, "text")
    given = [name for name in ("ranks", "labels", "text") if getattr(said, name) is not None]
    if given != [wanted]:
        found = ", ".join(given) or "nothing"
        raise InputError(
            f"{wanted}: a task of the kind {queue.kind!r} wants {wanted} alone, found {found}", param=wanted
        )
    columns: dict[str, Any] = {"ranks": None, "labels": None, "text": None}
    if wanted == "ranks":
        columns["ranks"] = _ranks(said.ranks or (), order)
    elif wanted == "labels":
        columns["labels"] = check_labels(questions(queue.labels), said.labels or {})
    else:
        columns["text"] = _text(said.text or "")
    return columns


def _same(row: LabellingJudgementRow, content: Mapping[str, Any]) -> bool:
    return all(getattr(row, name) == value for name, value in content.items())


def _ranks(shown: Sequence[int], order: Sequence[int]) -> list[int]:
    """From the order in which answers were shown to that of their places; places without gaps behind ties: 1, 2, 2, 4.
    Raises InputError."""
    if len(shown) != len(order) or any(type(rank) is not int or not 1 <= rank <= len(order) for rank in shown):
        message = f"ranks: expected {len(order)} places from 1 to {len(order)}, one an answer, found {list(shown)}"
        raise InputError(message, param="ranks")
    ranks = [0] * len(order)
    for place, rank in zip(order, shown, strict=True):
        ranks[place] = 1 + sum(other < rank for other in shown)
    return ranks


def _text(text: str) -> str:
    text = without_nul(text).strip()
    if not text:
        raise InputError("text: there is none; write it, or skip the task", param="text")
    if len(text) > MOST_CHARACTERS:
        raise InputError(f"text: more than {MOST_CHARACTERS:,} characters; shorten it", param="text")
    return text
