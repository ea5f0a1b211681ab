"""The JSON of the labelling room. A labeller's task tells neither whose answers are whose nor what others judged."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any, Literal

from pydantic import Field
from sqlalchemy.orm import Session

from chatwheel.data.records import Message
from chatwheel.feedback.agreement import Agreement
from chatwheel.feedback.room.exporting import formats_of
from chatwheel.feedback.room.judging import Said, SkipReason, said_before
from chatwheel.feedback.room.labels import LabelQuestion
from chatwheel.feedback.room.outcome import is_known
from chatwheel.feedback.room.queues import MOST_ANSWERS, MOST_CHARACTERS, NewAnswer, NewTask, answers_of, progress
from chatwheel.feedback.room.reading import Judged
from chatwheel.feedback.room.report import Dispute, LabellerLine, QueueReport
from chatwheel.server.shapes import ANSWER_TOKENS, MAX_COMMENT, Body
from chatwheel.store.accounts import Principal
from chatwheel.store.tables import (
    LabellingAssignmentRow,
    LabellingJudgementRow,
    LabellingQueueRow,
    LabellingTaskRow,
    ReportReason,
    TaskKind,
)

Json = dict[str, Any]
Text = Annotated[str, Field(min_length=1, max_length=MOST_CHARACTERS)]
MOST_AT_ONCE = 10_000
MOST_SAMPLED = 100


class NewQueue(Body):
    """POST /v1/labelling/queues. kind: what labellers do: write a prompt, write a reply, rate an answer, rank answers.
    labellers: how many judge each task; 3 to rank and to rate, 1 to write, unless given. patience: seconds for a task.
    labels: what is asked of an answer that is rated."""

    name: str = Field(min_length=1, max_length=200)
    kind: TaskKind
    guidelines: str = Field("", max_length=50_000)
    labellers: int | None = Field(None, ge=1, le=20)
    patience: float = Field(3600, ge=60, le=604_800)
    labels: list[LabelQuestion] | None = Field(None, max_length=30)
    project_id: str | None = Field(None, max_length=40)


class QueueChange(Body):
    """PATCH /v1/labelling/queues/{id}: what is given. closed: nothing is given out any more."""

    name: str | None = Field(None, min_length=1, max_length=200)
    guidelines: str | None = Field(None, max_length=50_000)
    labellers: int | None = Field(None, ge=1, le=20)
    patience: float | None = Field(None, ge=60, le=604_800)
    closed: bool | None = None


class Turn(Body):
    """A turn of a prompt."""

    role: Literal["system", "user", "assistant"]
    content: Text


class Candidate(Body):
    """An answer to be judged, and which model it is of."""

    content: Text
    model: str | None = Field(None, max_length=1000)
    sampling: dict[str, Any] | None = None


class TaskBody(Body):
    """A task. messages: the prompt; of a prompt to be written, one message that says what about."""

    messages: list[Turn] = Field(min_length=1, max_length=200)
    answers: list[Candidate] = Field(default_factory=list, max_length=MOST_ANSWERS)
    language: str | None = Field(None, max_length=16)

    def task(self) -> NewTask:
        """As the room takes it."""
        messages = [Message(role=turn.role, content=turn.content) for turn in self.messages]
        answers = [NewAnswer(one.content, one.model, one.sampling) for one in self.answers]
        return NewTask(messages, answers, source="api", language=self.language)


class NewTasks(Body):
    """POST /v1/labelling/queues/{id}/tasks. from_chats: so many first questions of people who let models learn from
    their chats (admins alone). from_queue: what labellers wrote in another queue."""

    tasks: list[TaskBody] = Field(default_factory=list, max_length=MOST_AT_ONCE)
    from_chats: int = Field(0, ge=0, le=MOST_AT_ONCE)
    from_queue: str | None = Field(None, max_length=40)


class NewImport(Body):
    """POST /v1/labelling/queues/{id}/import. content: a file's; name: its name, which tells JSON Lines from CSV.
    format: "auto" tells it from the first records. ranks: whether to keep how the file ranks, as the judgement of an
    outsider."""

    name: str = Field("file.jsonl", min_length=1, max_length=200)
    content: str = Field(min_length=1)
    format: str = Field("auto", max_length=40)
    ranks: bool = True


class NewSamples(Body):
    """POST /v1/labelling/queues/{id}/sample: `answers` answers of a model to each prompt, to be ranked (or one to be
    rated). from_chats: as for tasks."""

    model: str = Field(min_length=1, max_length=1000)
    prompts: list[Annotated[list[Turn], Field(min_length=1, max_length=200)]] = Field(
        default_factory=list, max_length=MOST_SAMPLED
    )
    from_chats: int = Field(0, ge=0, le=MOST_SAMPLED)
    answers: int = Field(4, ge=1, le=MOST_ANSWERS)
    temperature: float = Field(1.0, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    max_tokens: int = Field(ANSWER_TOKENS, ge=1)
    seed: int = Field(0, ge=0, lt=2**62)


class Judgement(Body):
    """What a labeller says of a task: `ranks` of the answers as they are shown (1 is the best, equal ones tie), or
    `labels`, or `text`. seconds: that it took."""

    ranks: list[int] | None = Field(None, max_length=MOST_ANSWERS)
    labels: dict[str, bool | int] | None = Field(None, max_length=30)
    text: str | None = Field(None, max_length=MOST_CHARACTERS)
    seconds: float | None = Field(None, ge=0)

    def said(self) -> Said:
        """As the room takes it."""
        return Said(self.ranks, self.labels, self.text, self.seconds)


class Draft(Body):
    """What a labeller has so far, as their page keeps it."""

    ranks: list[int | None] | None = Field(None, max_length=MOST_ANSWERS)
    labels: dict[str, bool | int] | None = Field(None, max_length=30)
    text: str | None = Field(None, max_length=MOST_CHARACTERS)


class NewSkip(Body):
    """Why a task is skipped."""

    reason: SkipReason | None = None
    comment: str | None = Field(None, max_length=MAX_COMMENT)


class NewTaskReport(Body):
    """Why nobody should be shown a task."""

    reason: ReportReason
    comment: str | None = Field(None, max_length=MAX_COMMENT)


class TaskStateChange(Body):
    """Whether a reported task is given out again, or not at all."""

    state: Literal["open", "withdrawn"]


def queue_view(session: Session, row: LabellingQueueRow, who: Principal) -> Json:
    """A queue and how far it is. manages: whether they may fill it and see its report."""
    return {
        "id": row.id,
        "object": "labelling.queue",
        "project_id": row.project_id,
        "name": row.name,
        "kind": row.kind,
        "guidelines": row.guidelines,
        "labellers": row.labellers,
        "patience": row.patience,
        "labels": row.labels,
        "created_at": row.created_at,
        "closed_at": row.closed_at,
        "manages": who.manages(row.project_id),
        "formats": list(formats_of(row.kind)),
        "progress": asdict(progress(session, row, who.user_id)),
    }


def assignment_view(session: Session, row: LabellingAssignmentRow) -> Json:
    """A labeller's task: the answers in the order in which they are shown, and what they said of it before."""
    task = session.get_one(LabellingTaskRow, row.task_id)
    queue = session.get_one(LabellingQueueRow, task.queue_id)
    answers = answers_of(session, task.id)
    before = said_before(session, row)
    ranks = None if before is None or before.ranks is None else [before.ranks[place] for place in row.order]
    said = None if before is None else {"ranks": ranks, "labels": before.labels, "text": before.text}
    return {
        "id": row.id,
        "object": "labelling.assignment",
        "queue_id": queue.id,
        "kind": queue.kind,
        "state": row.state,
        "messages": task.messages,
        "answers": [answers[place].content for place in row.order],
        "labels": queue.labels,
        "assigned_at": row.assigned_at,
        "expires_at": row.expires_at,
        "draft": row.draft,
        "said": said,
    }


def report_view(found: QueueReport, queue: LabellingQueueRow) -> Json:
    """A queue's report, for who manages it."""
    names = {line.labeller: line.name for line in found.labellers}
    return {
        "object": "labelling.report",
        "queue_id": queue.id,
        "agreement": _agreement(found.agreement),
        "labels": [
            {"name": one.name, "kind": one.kind, "agreement": _agreement(one.agreement)} for one in found.labels
        ],
        "labellers": [_labeller(line) for line in found.labellers],
        "pairwise": [
            {"one": names.get(a, a), "other": names.get(b, b), "same": same, "shared": shared}
            for a, b, same, shared in found.pairwise
        ],
        "disputes": len(found.disputes),
        "seconds": found.seconds,
        "problem": found.problem,
    }


def dispute_view(one: Dispute, names: Mapping[str, str]) -> Json:
    """A task that is to be decided, with all that was said of it."""
    return {**judged_view(one.judged, names), "agreement": one.agreement}


def judged_view(one: Judged, names: Mapping[str, str]) -> Json:
    """A task with its answers in the order of their places, and what each labeller said of them in that order."""
    return {
        "id": one.task.id,
        "object": "labelling.task",
        "state": one.task.state,
        "messages": one.task.messages,
        "answers": [{"content": answer.content, "model": answer.model} for answer in one.answers],
        "judgements": [
            {
                "labeller": names.get(who, who),
                "ranks": row.ranks,
                "labels": row.labels,
                "text": row.text,
                "seconds": row.seconds,
            }
            for who, row in one.by.items()
        ],
    }


def complaint_view(task: LabellingTaskRow, answers: Sequence[str], rows: Sequence[LabellingJudgementRow]) -> Json:
    """A task that somebody has reported, and why."""
    return {
        "id": task.id,
        "object": "labelling.task",
        "state": task.state,
        "messages": task.messages,
        "answers": [{"content": content, "model": None} for content in answers],
        "reports": [{"reason": row.reason, "comment": row.comment, "created_at": row.created_at} for row in rows],
    }


def _labeller(line: LabellerLine) -> Json:
    known = line.report
    return {
        "id": line.labeller,
        "name": line.name,
        "judged": line.judged,
        "skipped": line.skipped,
        "reported": line.reported,
        "seconds": line.seconds,
        "accuracy": line.accuracy,
        "verdict": None if known is None else known.verdict,
        "reliability": None if known is None or not is_known(known) else known.reliability,
        "weight": None if known is None else known.weight,
        "agreement": None if known is None else number(known.agreement.observed),
        "alpha": None if known is None else number(known.agreement.alpha),
        "comparisons": None if known is None else known.n,
        "words": None if known is None else known.words,
        "biases": [] if known is None else [
            {"feature": bias.feature, "towards": bias.nats > 0, "share": bias.share} for bias in known.biases
        ],
    }  # fmt: skip


def _agreement(found: Agreement | None) -> Json | None:
    if found is None:
        return None
    return {
        "alpha": number(found.alpha),
        "interval": [number(found.interval[0]), number(found.interval[1])],
        "observed": number(found.observed),
        "items": found.items,
    }


def number(value: float) -> float | None:
    """JSON has no NaN."""
    return value if math.isfinite(value) else None
