"""What was used, what it costs, and how much is left."""

from __future__ import annotations

import time
from typing import Literal, get_args

from sqlalchemy import BigInteger, CheckConstraint, Double, Index, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from chatwheel.store.tables.declarative import Base, new_id, one_of

UsageStatus = Literal["running", "completed", "cancelled", "failed"]
COUNT = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts rows up by the latter only


class UsageRow(Base):
    """A request that a model worked on. It is there before the work, and its tokens before they are sent, so that a
    crash loses none. Names of users and keys stay when those are gone: no foreign keys.

    cost: in billionths of a dollar, by the price at that time. instance: the server that answers.
    """

    __tablename__ = "usage"
    __table_args__ = (
        CheckConstraint(one_of("status", get_args(UsageStatus)), name="status"),
        Index("ix_usage_project_id_created_at", "project_id", "created_at"),
        Index("ix_usage_status_instance", "status", "instance"),
    )

    id: Mapped[int] = mapped_column(COUNT, primary_key=True)
    request_id: Mapped[str] = mapped_column(String(64), index=True)
    created_at: Mapped[float] = mapped_column(Double, default=time.time, index=True)
    seconds: Mapped[float] = mapped_column(Double, default=0.0)
    project_id: Mapped[str] = mapped_column(String(40))
    user_id: Mapped[str] = mapped_column(String(40))
    key_id: Mapped[str | None] = mapped_column(String(40), index=True)
    endpoint: Mapped[str] = mapped_column(String(40))
    model: Mapped[str] = mapped_column(Text)
    status: Mapped[str] = mapped_column(String(16), default="running")
    input_tokens: Mapped[int] = mapped_column(BigInteger, default=0)
    cached_tokens: Mapped[int] = mapped_column(BigInteger, default=0)
    output_tokens: Mapped[int] = mapped_column(BigInteger, default=0)
    cost: Mapped[int] = mapped_column(BigInteger, default=0)
    instance: Mapped[str] = mapped_column(String(40))


class BucketRow(Base):
    """How many requests or tokens a key or a project has left: it fills up evenly, a minute's worth in a minute.

    `level` may be below zero: what an answer cost is known at its end only.
    """

    __tablename__ = "buckets"

    subject: Mapped[str] = mapped_column(String(40), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16), primary_key=True)
    level: Mapped[float] = mapped_column(Double)
    filled_at: Mapped[float] = mapped_column(Double)


class SpendingRow(Base):
    """What a key or a project has spent in a month, such as 2026-11."""

    __tablename__ = "spending"

    subject: Mapped[str] = mapped_column(String(40), primary_key=True)
    month: Mapped[str] = mapped_column(String(7), primary_key=True)
    cost: Mapped[int] = mapped_column(BigInteger, default=0)


class PriceRow(Base):
    """What a token costs, in billionths of a dollar (a dollar for a million tokens is 1,000). model: a name, or the
    beginning of names with `*` at its end."""

    __tablename__ = "prices"

    model: Mapped[str] = mapped_column(String(300), primary_key=True)
    input: Mapped[int] = mapped_column(BigInteger, default=0)
    cached_input: Mapped[int] = mapped_column(BigInteger, default=0)
    output: Mapped[int] = mapped_column(BigInteger, default=0)
    training: Mapped[int] = mapped_column(BigInteger, default=0)


class InstanceRow(Base):
    """A server or a worker that is up, as long as `seen_at` is recent."""

    __tablename__ = "instances"

    id: Mapped[str] = mapped_column(String(40), primary_key=True, default=lambda: new_id("inst"))
    kind: Mapped[str] = mapped_column(String(16))
    place: Mapped[str] = mapped_column(Text)
    started_at: Mapped[float] = mapped_column(Double, default=time.time)
    seen_at: Mapped[float] = mapped_column(Double, default=time.time)
