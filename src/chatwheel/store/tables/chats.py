"""Conversations. Messages are rows: a long chat costs one small insert a turn.

The messages of a conversation form a tree: `parent_id` names the message before, so a regenerated answer is a
sibling of the first and no turn is ever lost.
"""

from __future__ import annotations

import time
from typing import Any, Literal, get_args

from sqlalchemy import JSON, Boolean, CheckConstraint, Double, ForeignKey, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from chatwheel.store.tables.declarative import Base, new_id, one_of

MessageRole = Literal["system", "user", "assistant"]
MessageStatus = Literal["complete", "partial", "error"]


class ConversationRow(Base):
    """A chat in the sidebar of the user whose it is. `updated_at` is the time of its newest turn.

    deleted_at: its user deleted it then; nobody sees it any more, and soon it goes, unless it is restored before.
    """

    __tablename__ = "conversations"

    id: Mapped[str] = mapped_column(String(40), primary_key=True, default=lambda: new_id("conv"))
    user_id: Mapped[str | None] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    title: Mapped[str] = mapped_column(Text, default="")
    model: Mapped[str] = mapped_column(Text)
    language: Mapped[str | None] = mapped_column(String(16))
    created_at: Mapped[float] = mapped_column(Double, default=time.time)
    updated_at: Mapped[float] = mapped_column(Double, default=time.time, index=True)
    deleted_at: Mapped[float | None] = mapped_column(Double, index=True)


class MessageRow(Base):
    """One turn. `model` is the model that wrote it, if one did.

    status: complete; partial (being written, or stopped); error (the model failed; `content` is what came before).
    writer: the server that writes it now. stop_wanted: it is asked to stop, by whichever server that was heard.
    sampling: how its tokens were chosen, if a model wrote it; fingerprint: of the code and the weights that did.
    """

    __tablename__ = "messages"
    __table_args__ = (
        CheckConstraint(one_of("role", get_args(MessageRole)), name="role"),
        CheckConstraint(one_of("status", get_args(MessageStatus)), name="status"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True, default=lambda: new_id("msg"))
    conversation_id: Mapped[str] = mapped_column(ForeignKey("conversations.id", ondelete="CASCADE"), index=True)
    parent_id: Mapped[str | None] = mapped_column(ForeignKey("messages.id", ondelete="CASCADE"), index=True)
    role: Mapped[str] = mapped_column(String(16))
    content: Mapped[str] = mapped_column(Text)
    model: Mapped[str | None] = mapped_column(Text)
    status: Mapped[str] = mapped_column(String(16), default="complete")
    writer: Mapped[str | None] = mapped_column(String(40))
    stop_wanted: Mapped[bool] = mapped_column(Boolean, default=False)
    sampling: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    fingerprint: Mapped[str | None] = mapped_column(String(40))
    created_at: Mapped[float] = mapped_column(Double, default=time.time)
