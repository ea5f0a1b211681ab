"""The labelling room: queues of tasks, who has which task, and what people judged.

A judgement is never changed: who thinks otherwise judges once more, and the last one counts.
"""

from __future__ import annotations

import time
from typing import Any, Literal, get_args

from sqlalchemy import JSON, CheckConstraint, Double, ForeignKey, Index, Integer, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from chatwheel.store.tables.declarative import Base, new_id, one_of

TaskKind = Literal["prompt", "reply", "rate", "rank"]
TaskState = Literal["open", "reported", "withdrawn"]
AssignmentState = Literal["open", "done", "skipped", "reported", "expired"]
Action = Literal["judged", "skipped", "reported", "imported", "decided"]


class LabellingQueueRow(Base):
    """Tasks of one kind for the members of a project: write a prompt, write the assistant's reply, rate an answer, rank
    answers. labellers: how many judge each task. patience: seconds that a labeller has for one. labels: what is said of
    an answer, see `feedback.labels.LabelQuestion`. closed_at: since when nothing is given out any more."""

    __tablename__ = "labelling_queues"
    __table_args__ = (
        CheckConstraint(one_of("kind", get_args(TaskKind)), name="kind"),
        CheckConstraint("labellers >= 1", name="labellers"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True, default=lambda: new_id("queue"))
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(Text)
    kind: Mapped[str] = mapped_column(String(16))
    guidelines: Mapped[str] = mapped_column(Text, default="")
    labellers: Mapped[int] = mapped_column(default=3)
    patience: Mapped[float] = mapped_column(Double, default=3600.0)
    labels: Mapped[list[dict[str, Any]]] = mapped_column(JSON, default=list)
    created_by: Mapped[str | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    created_at: Mapped[float] = mapped_column(Double, default=time.time)
    closed_at: Mapped[float | None] = mapped_column(Double)


class LabellingTaskRow(Base):
    """What is judged. place: the order in which tasks came. messages: the prompt; of a task to write one, what it is to
    be about. author_id: who wrote the prompt, if a labeller did. digest: of what is asked, by which the same task is
    not put in twice. taken: by how many it has been judged or is being judged."""

    __tablename__ = "labelling_tasks"
    __table_args__ = (
        CheckConstraint(one_of("state", get_args(TaskState)), name="state"),
        UniqueConstraint("queue_id", "digest"),
        Index("ix_labelling_tasks_next", "queue_id", "state", "taken", "place"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True, default=lambda: new_id("task"))
    queue_id: Mapped[str] = mapped_column(ForeignKey("labelling_queues.id", ondelete="CASCADE"))
    place: Mapped[int]
    state: Mapped[str] = mapped_column(String(16), default="open")
    messages: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    source: Mapped[str | None] = mapped_column(Text)
    language: Mapped[str | None] = mapped_column(String(16))
    author_id: Mapped[str | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    digest: Mapped[str] = mapped_column(String(64))
    taken: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[float] = mapped_column(Double, default=time.time)


class LabellingAnswerRow(Base):
    """An answer of a task. model, sampling: what made it; author_id: or who wrote it."""

    __tablename__ = "labelling_answers"

    task_id: Mapped[str] = mapped_column(ForeignKey("labelling_tasks.id", ondelete="CASCADE"), primary_key=True)
    place: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    content: Mapped[str] = mapped_column(Text)
    model: Mapped[str | None] = mapped_column(Text)
    sampling: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    author_id: Mapped[str | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"), index=True)


class LabellingAssignmentRow(Base):
    """A task in a labeller's hands: one a labeller and task, so that nobody judges the same twice. order: the places of
    the task's answers as they are shown, the first one first. draft: what they have of it so far."""

    __tablename__ = "labelling_assignments"
    __table_args__ = (
        CheckConstraint(one_of("state", get_args(AssignmentState)), name="state"),
        UniqueConstraint("task_id", "user_id"),
        Index("ix_labelling_assignments_state", "state", "expires_at"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True, default=lambda: new_id("assign"))
    task_id: Mapped[str] = mapped_column(ForeignKey("labelling_tasks.id", ondelete="CASCADE"))
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    state: Mapped[str] = mapped_column(String(16), default="open")
    order: Mapped[list[int]] = mapped_column(JSON)
    draft: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    assigned_at: Mapped[float] = mapped_column(Double, default=time.time)
    expires_at: Mapped[float] = mapped_column(Double)
    ended_at: Mapped[float | None] = mapped_column(Double)


class LabellingJudgementRow(Base):
    """What somebody said of a task: a row more each time. ranks: of each answer in the order of their places, 1 is the
    best, equal ones tie. labels: by name. text: what was written. seconds: that it took. order: in which the answers
    were shown. reason, comment: of a skip or a report. labeller: who judged elsewhere, of what was imported."""

    __tablename__ = "labelling_judgements"
    __table_args__ = (CheckConstraint(one_of("action", get_args(Action)), name="action"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    task_id: Mapped[str] = mapped_column(ForeignKey("labelling_tasks.id", ondelete="CASCADE"), index=True)
    user_id: Mapped[str | None] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    labeller: Mapped[str | None] = mapped_column(Text)
    action: Mapped[str] = mapped_column(String(16))
    ranks: Mapped[list[int] | None] = mapped_column(JSON(none_as_null=True))
    labels: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    text: Mapped[str | None] = mapped_column(Text)
    reason: Mapped[str | None] = mapped_column(String(16))
    comment: Mapped[str | None] = mapped_column(Text)
    seconds: Mapped[float | None] = mapped_column(Double)
    order: Mapped[list[int] | None] = mapped_column(JSON(none_as_null=True))
    created_at: Mapped[float] = mapped_column(Double, default=time.time)
