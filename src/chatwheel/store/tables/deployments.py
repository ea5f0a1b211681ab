"""Which model answers those who ask for none in particular."""

from __future__ import annotations

import time
from typing import Any, Literal, get_args

from sqlalchemy import JSON, CheckConstraint, Double, ForeignKey, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from chatwheel.store.tables.declarative import Base, one_of

Outcome = Literal["promoted", "replaced", "rolled_back"]


class DeploymentRow(Base):
    """A model, and the share of those who ask for the latest one whom it answers: the current one the rest, a candidate
    a part. One of each at most is not ended. outcome: of an ended one; `promoted`: a candidate that became the current
    one. note: why, such as what the gate found."""

    __tablename__ = "deployments"
    __table_args__ = (
        CheckConstraint(one_of("outcome", get_args(Outcome)), name="outcome"),
        CheckConstraint("share > 0 AND share <= 1", name="share"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(Text)
    share: Mapped[float] = mapped_column(Double)
    started_at: Mapped[float] = mapped_column(Double, default=time.time)
    started_by: Mapped[str | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    ended_at: Mapped[float | None] = mapped_column(Double)
    outcome: Mapped[str | None] = mapped_column(String(16))
    note: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
