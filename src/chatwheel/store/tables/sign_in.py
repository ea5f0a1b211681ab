"""How people come in: their passwords, the sessions that these opened, and what was tried in vain."""

from __future__ import annotations

import time

from sqlalchemy import Double, ForeignKey, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from chatwheel.store.tables.declarative import Base, new_id


class PasswordRow(Base):
    """A user's, who signs in by their name. digest: Argon2's own line, with its parameters and salt. temporary_until:
    of one that an admin gave, which opens nothing but its own change. known_address: where it was last right."""

    __tablename__ = "passwords"

    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    digest: Mapped[str] = mapped_column(Text)
    set_at: Mapped[float] = mapped_column(Double, default=time.time)
    temporary_until: Mapped[float | None] = mapped_column(Double)
    known_address: Mapped[str | None] = mapped_column(Text)


class SessionRow(Base):
    """A browser that is signed in, in a project of its user's; only its token's digest is kept. expires_at: whatever
    happens. seen_at: right to five minutes."""

    __tablename__ = "sessions"

    id: Mapped[str] = mapped_column(String(40), primary_key=True, default=lambda: new_id("sess"))
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[float] = mapped_column(Double)
    seen_at: Mapped[float] = mapped_column(Double)
    expires_at: Mapped[float] = mapped_column(Double, index=True)
    user_agent: Mapped[str | None] = mapped_column(Text)
    address: Mapped[str | None] = mapped_column(Text)


class AttemptRow(Base):
    """Wrong passwords in a row, for a name or from an address. subject: a digest, since people type passwords where
    names belong."""

    __tablename__ = "sign_in_attempts"

    subject: Mapped[str] = mapped_column(String(64), primary_key=True)
    count: Mapped[int] = mapped_column(Integer)
    first_at: Mapped[float] = mapped_column(Double)
    last_at: Mapped[float] = mapped_column(Double, index=True)
