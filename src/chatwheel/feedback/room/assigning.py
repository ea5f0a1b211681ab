"""Who gets which task. A task is given to as many labellers as its queue wants and to no more, to each of them once;
what somebody keeps too long goes back. All of it under the queue's lock, so that two who ask at once are two."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from chatwheel.feedback.room.queues import answers_of, get_queue, lock_queue, to_do
from chatwheel.store.accounts import ConflictError, NotFoundError
from chatwheel.store.tables import LabellingAssignmentRow, LabellingQueueRow, LabellingTaskRow

MOST_DRAFT = 200_000
"""Characters of what is kept of work that is not handed in."""


def next_assignment(
    session: Session, queue_id: str, user_id: str, *, rng: random.Random | None = None, now: float | None = None
) -> LabellingAssignmentRow | None:
    """The task that a labeller has, or the next one; None where there is none for them. rng: draws the order in which
    answers are shown. Raises NotFoundError, ConflictError for a queue that is closed."""
    now = time.time() if now is None else now
    lock_queue(session, queue_id)
    queue = get_queue(session, queue_id)
    expire(session, queue, now)
    held = session.scalars(
        select(LabellingAssignmentRow)
        .join(LabellingTaskRow, LabellingTaskRow.id == LabellingAssignmentRow.task_id)
        .where(
            LabellingTaskRow.queue_id == queue_id,
            LabellingTaskRow.state == "open",
            LabellingAssignmentRow.user_id == user_id,
            LabellingAssignmentRow.state == "open",
        )
        .order_by(LabellingAssignmentRow.assigned_at)
    ).first()
    if held is not None:
        return held
    if queue.closed_at is not None:
        raise ConflictError(f"{queue.name!r} is closed; nothing is given out any more")
    task = session.scalars(to_do(queue, user_id, now).limit(1).execution_options(populate_existing=True)).first()
    return None if task is None else _given(session, queue, task, user_id, rng or random.SystemRandom(), now)


def _given(
    session: Session,
    queue: LabellingQueueRow,
    task: LabellingTaskRow,
    user_id: str,
    rng: random.Random,
    now: float,
) -> LabellingAssignmentRow:
    row = session.scalars(
        select(LabellingAssignmentRow).where(
            LabellingAssignmentRow.task_id == task.id, LabellingAssignmentRow.user_id == user_id
        )
    ).first()
    if row is None:
        order = list(range(len(answers_of(session, task.id))))
        rng.shuffle(order)
        row = LabellingAssignmentRow(task_id=task.id, user_id=user_id, order=order)
        session.add(row)
    # One that they had kept too long is shown as it was, with what they had of it.
    row.state, row.assigned_at, row.expires_at, row.ended_at = "open", now, now + queue.patience, None
    task.taken += 1
    session.flush()
    return row


def expire(session: Session, queue: LabellingQueueRow, now: float) -> int:
    """Takes back what has been kept too long; under the queue's lock. How much that was."""
    found = session.execute(
        select(LabellingAssignmentRow, LabellingTaskRow)
        .join(LabellingTaskRow, LabellingTaskRow.id == LabellingAssignmentRow.task_id)
        .where(
            LabellingTaskRow.queue_id == queue.id,
            LabellingAssignmentRow.state == "open",
            LabellingAssignmentRow.expires_at <= now,
        )
        .execution_options(populate_existing=True)
    ).all()
    for assignment, task in found:
        assignment.state, assignment.ended_at = "expired", now
        task.taken -= 1
    session.flush()
    return len(found)


def held_by(
    session: Session, assignment_id: str, user_id: str
) -> tuple[LabellingAssignmentRow, LabellingTaskRow, LabellingQueueRow]:
    """A labeller's own, as it is now, under its queue's lock. Raises NotFoundError."""
    assignment = session.get(LabellingAssignmentRow, assignment_id)
    if assignment is None or assignment.user_id != user_id:
        raise NotFoundError(f"assignment {assignment_id!r} not found")
    task = session.get_one(LabellingTaskRow, assignment.task_id)
    lock_queue(session, task.queue_id)
    session.refresh(assignment)
    session.refresh(task)
    return assignment, task, get_queue(session, task.queue_id)


def save_draft(
    session: Session, assignment_id: str, user_id: str, draft: Mapping[str, Any], now: float | None = None
) -> LabellingAssignmentRow:
    """Keeps what a labeller has so far; who works on a task keeps it. Raises NotFoundError, ConflictError for one that
    they do not have any more."""
    now = time.time() if now is None else now
    assignment, _, queue = held_by(session, assignment_id, user_id)
    if assignment.state != "open":
        raise ConflictError("this task is not in your hands any more; nothing was kept", code="assignment_over")
    assignment.draft, assignment.expires_at = dict(draft), now + queue.patience
    session.flush()
    return assignment
