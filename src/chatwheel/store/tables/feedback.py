"""What people think of answers: thumbs, choices between two, better answers of their own, reports.

All of it hangs on messages, and goes with them when their conversation is deleted.
"""

from __future__ import annotations

import time
from typing import Literal, get_args

from sqlalchemy import JSON, CheckConstraint, Double, ForeignKey, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from chatwheel.store.tables.declarative import Base, new_id, one_of

RatingReason = Literal[
    "wrong", "made_up", "not_followed", "unclear", "too_long", "too_short", "language", "harmful", "refused", "other",
    "right", "helpful", "clear", "well_written",
]  # fmt: skip
Choice = Literal["first", "second", "tie", "both_bad"]
ReportReason = Literal["harmful", "private", "illegal", "spam", "other"]


class RatingRow(Base):
    """What a person thinks of an answer: +1 or -1, and why. One a message; rating again replaces."""

    __tablename__ = "ratings"
    __table_args__ = (CheckConstraint("value IN (-1, 1)", name="value"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    message_id: Mapped[str] = mapped_column(ForeignKey("messages.id", ondelete="CASCADE"), unique=True)
    value: Mapped[int]
    reasons: Mapped[list[str]] = mapped_column(JSON, default=list)
    comment: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[float] = mapped_column(Double, default=time.time)


class ComparisonRow(Base):
    """Two answers to one question, shown side by side without saying whose they are: `first_id` on the left or above,
    which of them that is was drawn by chance. choice: None until the person has chosen; later choices replace."""

    __tablename__ = "comparisons"
    __table_args__ = (CheckConstraint(one_of("choice", get_args(Choice)), name="choice"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True, default=lambda: new_id("cmp"))
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    first_id: Mapped[str] = mapped_column(ForeignKey("messages.id", ondelete="CASCADE"), index=True)
    second_id: Mapped[str] = mapped_column(ForeignKey("messages.id", ondelete="CASCADE"), index=True)
    choice: Mapped[str | None] = mapped_column(String(16))
    created_at: Mapped[float] = mapped_column(Double, default=time.time)
    chosen_at: Mapped[float | None] = mapped_column(Double)


class CorrectionRow(Base):
    """What an answer should have been. One a message; the last one holds."""

    __tablename__ = "corrections"

    message_id: Mapped[str] = mapped_column(ForeignKey("messages.id", ondelete="CASCADE"), primary_key=True)
    content: Mapped[str] = mapped_column(Text)
    created_at: Mapped[float] = mapped_column(Double, default=time.time)


class ReportRow(Base):
    """An answer that an admin should look at. One a message and reason; handled when somebody has."""

    __tablename__ = "reports"
    __table_args__ = (CheckConstraint(one_of("reason", get_args(ReportReason)), name="reason"),)

    message_id: Mapped[str] = mapped_column(ForeignKey("messages.id", ondelete="CASCADE"), primary_key=True)
    reason: Mapped[str] = mapped_column(String(16), primary_key=True)
    comment: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[float] = mapped_column(Double, default=time.time)
    handled_at: Mapped[float | None] = mapped_column(Double)
    handled_by: Mapped[str | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
