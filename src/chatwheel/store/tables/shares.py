"""Links by which others read a branch of a conversation."""

from __future__ import annotations

import secrets
import time

from sqlalchemy import Double, ForeignKey, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from chatwheel.store.tables.declarative import Base, new_id


class ShareRow(Base):
    """Whoever has its token reads the branch down to the message `leaf_id`. It goes with the conversation."""

    __tablename__ = "shares"
    __table_args__ = (UniqueConstraint("leaf_id"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True, default=lambda: new_id("share"))
    conversation_id: Mapped[str] = mapped_column(ForeignKey("conversations.id", ondelete="CASCADE"), index=True)
    leaf_id: Mapped[str] = mapped_column(ForeignKey("messages.id", ondelete="CASCADE"))
    token: Mapped[str] = mapped_column(String(64), unique=True, default=lambda: secrets.token_urlsafe(32))
    created_at: Mapped[float] = mapped_column(Double, default=time.time)
