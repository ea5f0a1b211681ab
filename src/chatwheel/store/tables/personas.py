"""Whom one talks to, and with which words one asks: personas, a user's custom instruction, prompts to fill in."""

from __future__ import annotations

import time

from sqlalchemy import Double, ForeignKey, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from chatwheel.store.tables.declarative import Base, new_id


class PersonaRow(Base):
    """A system prompt with a name, and perhaps a model and how it samples; None: as without a persona."""

    __tablename__ = "personas"

    id: Mapped[str] = mapped_column(String(40), primary_key=True, default=lambda: new_id("pers"))
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(Text)
    system_prompt: Mapped[str] = mapped_column(Text)
    model: Mapped[str | None] = mapped_column(Text)
    temperature: Mapped[float | None] = mapped_column(Double)
    max_tokens: Mapped[int | None] = mapped_column(Integer)
    created_at: Mapped[float] = mapped_column(Double, default=time.time)


class InstructionRow(Base):
    """What a user wants every new conversation to know."""

    __tablename__ = "instructions"

    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    content: Mapped[str] = mapped_column(Text)


class PromptRow(Base):
    """Words of a user's own to ask with. `{{name}}` is a field to fill in."""

    __tablename__ = "prompts"

    id: Mapped[str] = mapped_column(String(40), primary_key=True, default=lambda: new_id("prompt"))
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    title: Mapped[str] = mapped_column(Text)
    content: Mapped[str] = mapped_column(Text)
    created_at: Mapped[float] = mapped_column(Double, default=time.time)


class BriefRow(Base):
    """What a conversation began with: a copy, so that it stays the same when its persona changes or goes."""

    __tablename__ = "briefs"

    conversation_id: Mapped[str] = mapped_column(ForeignKey("conversations.id", ondelete="CASCADE"), primary_key=True)
    persona: Mapped[str | None] = mapped_column(Text)
    system_prompt: Mapped[str] = mapped_column(Text)
    temperature: Mapped[float | None] = mapped_column(Double)
    max_tokens: Mapped[int | None] = mapped_column(Integer)
