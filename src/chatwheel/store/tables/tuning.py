"""Uploaded files, and the models that are made of them."""

from __future__ import annotations

import time
from typing import Any, Literal, get_args

from sqlalchemy import JSON, BigInteger, CheckConstraint, Double, ForeignKey, Index, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from chatwheel.store.tables.declarative import Base, new_id, one_of

JobStatus = Literal["validating_files", "queued", "running", "paused", "succeeded", "failed", "cancelled"]
FileStatus = Literal["uploaded", "processed", "error"]


class FileRow(Base):
    """A file of a project; its bytes are kept once, by their SHA-256."""

    __tablename__ = "files"
    __table_args__ = (CheckConstraint(one_of("status", get_args(FileStatus)), name="status"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True, default=lambda: new_id("file"))
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"), index=True)
    user_id: Mapped[str] = mapped_column(String(40))
    filename: Mapped[str] = mapped_column(Text)
    purpose: Mapped[str] = mapped_column(String(32))
    bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64), index=True)
    created_at: Mapped[float] = mapped_column(Double, default=time.time)
    expires_at: Mapped[float | None] = mapped_column(Double)
    status: Mapped[str] = mapped_column(String(16), default="uploaded")
    check: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))


class UploadRow(Base):
    """Bytes that an upload under way has reserved. instance: the server that takes it in."""

    __tablename__ = "uploads"

    id: Mapped[str] = mapped_column(String(40), primary_key=True, default=lambda: new_id("upload"))
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"), index=True)
    bytes: Mapped[int] = mapped_column(BigInteger)
    instance: Mapped[str] = mapped_column(String(40))
    created_at: Mapped[float] = mapped_column(Double, default=time.time)


class FineTuningJobRow(Base):
    """A job, in the words of OpenAI's API.

    wanted: what its owner has asked of whoever works on it: `run`, `pause` or `cancel`. worker, lease_until: who works
    on it, and until when nobody else may; the worker moves the end of its lease on while it lives. A lease without a
    worker: nobody could begin, and nobody may until then. attempts: how often it was begun without having come further.
    claims: how often a worker took it; each works in a directory of its own, named by that number.
    """

    __tablename__ = "fine_tuning_jobs"
    __table_args__ = (
        CheckConstraint(one_of("status", get_args(JobStatus)), name="status"),
        CheckConstraint(one_of("wanted", ("run", "pause", "cancel")), name="wanted"),
        Index("ix_fine_tuning_jobs_status_created_at", "status", "created_at"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True, default=lambda: new_id("ftjob"))
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"), index=True)
    user_id: Mapped[str] = mapped_column(String(40))
    key_id: Mapped[str | None] = mapped_column(String(40))
    created_at: Mapped[float] = mapped_column(Double, default=time.time)
    started_at: Mapped[float | None] = mapped_column(Double)
    finished_at: Mapped[float | None] = mapped_column(Double)
    estimated_finish: Mapped[float | None] = mapped_column(Double)
    model: Mapped[str] = mapped_column(Text)
    suffix: Mapped[str | None] = mapped_column(String(64))
    fine_tuned_model: Mapped[str | None] = mapped_column(Text)
    status: Mapped[str] = mapped_column(String(20), default="validating_files")
    wanted: Mapped[str] = mapped_column(String(8), default="run")
    training_file: Mapped[str] = mapped_column(String(40))
    validation_file: Mapped[str | None] = mapped_column(String(40))
    result_files: Mapped[list[str]] = mapped_column(JSON, default=list)
    trained_tokens: Mapped[int | None] = mapped_column(BigInteger)
    cost: Mapped[int] = mapped_column(BigInteger, default=0)
    seed: Mapped[int] = mapped_column(Integer)
    method: Mapped[dict[str, Any]] = mapped_column(JSON)
    hyperparameters: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    details: Mapped[dict[str, Any]] = mapped_column("metadata", JSON, default=dict)
    error: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    forecast: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    worker: Mapped[str | None] = mapped_column(String(40))
    lease_until: Mapped[float | None] = mapped_column(Double)
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    claims: Mapped[int] = mapped_column(Integer, default=0)


class JobEventRow(Base):
    """What a job tells. `number` counts up within all jobs, so that a reader can go on where it was."""

    __tablename__ = "job_events"

    number: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    id: Mapped[str] = mapped_column(String(40), unique=True, default=lambda: new_id("ftevent"))
    job_id: Mapped[str] = mapped_column(ForeignKey("fine_tuning_jobs.id", ondelete="CASCADE"), index=True)
    created_at: Mapped[float] = mapped_column(Double, default=time.time)
    level: Mapped[str] = mapped_column(String(8), default="info")
    type: Mapped[str] = mapped_column(String(16), default="message")
    message: Mapped[str] = mapped_column(Text)
    data: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))


class CheckpointRow(Base):
    """A model as it was after an epoch of a job, which can be called by its name."""

    __tablename__ = "job_checkpoints"
    __table_args__ = (Index("uq_job_checkpoints_job_id_step", "job_id", "step_number", unique=True),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True, default=lambda: new_id("ftckpt"))
    job_id: Mapped[str] = mapped_column(ForeignKey("fine_tuning_jobs.id", ondelete="CASCADE"))
    created_at: Mapped[float] = mapped_column(Double, default=time.time)
    step_number: Mapped[int] = mapped_column(Integer)
    model: Mapped[str] = mapped_column(Text)
    metrics: Mapped[dict[str, Any]] = mapped_column(JSON)


class TunedModelRow(Base):
    """A model of a project, which nobody else sees. directory: below the home's `models/`."""

    __tablename__ = "tuned_models"

    name: Mapped[str] = mapped_column(String(300), primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"), index=True)
    job_id: Mapped[str | None] = mapped_column(ForeignKey("fine_tuning_jobs.id", ondelete="SET NULL"))
    base: Mapped[str] = mapped_column(Text)
    directory: Mapped[str] = mapped_column(Text)
    created_at: Mapped[float] = mapped_column(Double, default=time.time)
