"""What was said of a queue's tasks, read out: of each labeller the last word on each task."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import and_, select
from sqlalchemy.orm import Session

from chatwheel.data.records import Message
from chatwheel.feedback.judgements import RankedBy
from chatwheel.store.tables import (
    LabellingAnswerRow,
    LabellingAssignmentRow,
    LabellingJudgementRow,
    LabellingQueueRow,
    LabellingTaskRow,
    UserRow,
)

CHATS = "chats"
"""The source of tasks that people asked in their chats."""


@dataclass(frozen=True)
class Judged:
    """A task with its answers and what counts of it. by: of each labeller's id (of those whose judgements were
    imported, `imported:` and their name), the last word; decision: an adjudicator's, if there is one."""

    task: LabellingTaskRow
    answers: Sequence[LabellingAnswerRow]
    by: dict[str, LabellingJudgementRow] = field(default_factory=dict)
    decision: LabellingJudgementRow | None = None

    @property
    def prompt(self) -> list[Message]:
        return [Message.model_validate(message) for message in self.task.messages]

    def ranking(self, labeller: str, row: LabellingJudgementRow) -> RankedBy:
        """A labeller's, in the order of the answers' places; `shown` where it is known in which they were shown."""
        order = row.order
        values: dict[str, Any] = {
            "messages": self.task.messages,
            "answers": [answer.content for answer in self.answers],
            "ranks": row.ranks,
            "labeller": labeller,
            "shown": None if order is None else [order.index(place) + 1 for place in range(len(order))],
            "source": self.task.source,
            "language": self.task.language,
        }
        return RankedBy.model_validate(values)


def judged_tasks(session: Session, queue: LabellingQueueRow) -> list[Judged]:
    """All that are not withdrawn, in their order."""
    here = and_(LabellingTaskRow.queue_id == queue.id, LabellingTaskRow.state != "withdrawn")
    tasks = session.scalars(select(LabellingTaskRow).where(here).order_by(LabellingTaskRow.place)).all()
    answers: defaultdict[str, list[LabellingAnswerRow]] = defaultdict(list)
    query = select(LabellingAnswerRow).join(LabellingTaskRow, LabellingTaskRow.id == LabellingAnswerRow.task_id)
    for answer in session.scalars(query.where(here).order_by(LabellingAnswerRow.place)):
        answers[answer.task_id].append(answer)
    found = {task.id: Judged(task, answers[task.id]) for task in tasks}
    handed_in = (
        select(LabellingAssignmentRow.task_id, LabellingAssignmentRow.user_id)
        .join(LabellingTaskRow, LabellingTaskRow.id == LabellingAssignmentRow.task_id)
        .where(here, LabellingAssignmentRow.state == "done")
    )
    done = {(task, user) for task, user in session.execute(handed_in)}
    said = (
        select(LabellingJudgementRow)
        .join(LabellingTaskRow, LabellingTaskRow.id == LabellingJudgementRow.task_id)
        .where(here, LabellingJudgementRow.action.in_(("judged", "imported", "decided")))
        .order_by(LabellingJudgementRow.id)
    )
    decisions = {}
    for row in session.scalars(said):
        if row.action == "decided":
            decisions[row.task_id] = row
        elif row.action == "imported":
            found[row.task_id].by[f"imported:{row.labeller}"] = row
        elif (row.task_id, row.user_id) in done:
            found[row.task_id].by[row.user_id or ""] = row
    return [
        Judged(one.task, one.answers, one.by, decisions[key]) if key in decisions else one for key, one in found.items()
    ]


def consented(session: Session, judged: Sequence[Judged], *, everybody: bool = False) -> list[Judged]:
    """Without what came from chats (`sources.chat_prompts`) of people who do not let models learn from these any more,
    or have let them only later, or who are gone. everybody: as in `feedback.export`. What labellers write and judge is
    no chat: it is done to be learnt from."""
    authors = {one.task.author_id for one in judged if one.task.source == CHATS and one.task.author_id}
    rows = session.scalars(select(UserRow).where(UserRow.id.in_(authors))) if authors else ()
    users = {row.id: row for row in rows}

    def agreed(task: LabellingTaskRow) -> bool:
        user = users.get(task.author_id or "")
        if user is None or everybody:
            return user is not None and user.refused_at is None
        return user.improve_since is not None and user.improve_since <= task.created_at

    return [one for one in judged if one.task.source != CHATS or agreed(one.task)]


def rankings_of(judged: Sequence[Judged]) -> list[RankedBy]:
    """What labellers have ranked. Where somebody has ranked the same two answers in two tasks, the later task counts:
    a comparison is one."""
    kept: dict[tuple[str, str], list[RankedBy]] = {}
    for one in judged:
        prompt = repr(one.task.messages)
        for labeller, row in one.by.items():
            new = one.ranking(labeller, row)
            before = kept.setdefault((prompt, labeller), [])
            before[:] = [old for old in before if len(set(old.answers) & set(new.answers)) < 2]
            before.append(new)
    return [ranking for some in kept.values() for ranking in some]
