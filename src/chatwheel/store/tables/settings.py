"""What the admins of an installation have decided for all of it."""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy import JSON, Double, String
from sqlalchemy.orm import Mapped, mapped_column

from chatwheel.store.tables.declarative import Base


class SettingRow(Base):
    """A group of settings under its name, such as `retention`. None is there: as Chatwheel comes."""

    __tablename__ = "settings"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[dict[str, Any]] = mapped_column(JSON)
    changed_at: Mapped[float] = mapped_column(Double, default=time.time)
