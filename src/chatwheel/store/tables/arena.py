"""The arena: two models' answers to one prompt, shown blind, and which of them somebody found better."""

from __future__ import annotations

import time
from typing import Any, Literal, get_args

from sqlalchemy import JSON, CheckConstraint, Double, ForeignKey, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from chatwheel.store.tables.declarative import Base, new_id, one_of

Topic = Literal["code", "maths", "translation", "writing", "small_talk", "question", "other"]
BattleChoice = Literal["left", "right", "tie", "both_bad"]


class BattleRow(Base):
    """Two whole answers. left, right: the sides on which they were shown, drawn by chance. digest: of the prompt, by
    which the same one is known again. sampling: how the tokens of both were chosen; fingerprints: of the code and the
    weights that wrote them. created_at: when it was asked; answered_at: when both were there. choice: said once, and
    kept; until then nobody is told whose the answers are."""

    __tablename__ = "battles"
    __table_args__ = (
        CheckConstraint(one_of("topic", get_args(Topic)), name="topic"),
        CheckConstraint(one_of("choice", get_args(BattleChoice)), name="choice"),
        CheckConstraint("left_model <> right_model", name="models"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True, default=lambda: new_id("battle"))
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    prompt: Mapped[str] = mapped_column(Text)
    digest: Mapped[str] = mapped_column(String(64))
    language: Mapped[str | None] = mapped_column(String(16))
    topic: Mapped[str] = mapped_column(String(16))
    left_model: Mapped[str] = mapped_column(Text)
    right_model: Mapped[str] = mapped_column(Text)
    left_answer: Mapped[str] = mapped_column(Text)
    right_answer: Mapped[str] = mapped_column(Text)
    left_fingerprint: Mapped[str] = mapped_column(String(40))
    right_fingerprint: Mapped[str] = mapped_column(String(40))
    sampling: Mapped[dict[str, Any]] = mapped_column(JSON)
    choice: Mapped[str | None] = mapped_column(String(16))
    created_at: Mapped[float] = mapped_column(Double, default=time.time)
    answered_at: Mapped[float] = mapped_column(Double, default=time.time)
    chosen_at: Mapped[float | None] = mapped_column(Double, index=True)
