"""Who uses an installation: users, projects with their members, keys, and the record of who changed what."""

from __future__ import annotations

import time
from typing import Any, Literal, get_args

from sqlalchemy import JSON, BigInteger, CheckConstraint, Double, ForeignKey, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from chatwheel.store.tables.declarative import Base, new_id, one_of

UserRole = Literal["admin", "member"]
MemberRole = Literal["owner", "member"]


class UserRow(Base):
    """A person. The first one is an admin. One who is disabled comes in no more; what was theirs stays.

    improve_since: since when models may learn from their chats; None: they may not. refused_at: when somebody said so
    themselves, rather than nothing.
    """

    __tablename__ = "users"
    __table_args__ = (CheckConstraint(one_of("role", get_args(UserRole)), name="role"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True, default=lambda: new_id("user"))
    name: Mapped[str] = mapped_column(String(200), unique=True)
    role: Mapped[str] = mapped_column(String(16), default="member")
    created_at: Mapped[float] = mapped_column(Double, default=time.time)
    disabled_at: Mapped[float | None] = mapped_column(Double)
    improve_since: Mapped[float | None] = mapped_column(Double)
    refused_at: Mapped[float | None] = mapped_column(Double)


class Limits:
    """What may be used of an installation; None is no limit. budget: in billionths of a dollar a month (UTC)."""

    requests_per_minute: Mapped[int | None] = mapped_column(Integer)
    tokens_per_minute: Mapped[int | None] = mapped_column(Integer)
    budget: Mapped[int | None] = mapped_column(BigInteger)


class ProjectRow(Limits, Base):
    """What keys, files, jobs and tuned models belong to. An archived one answers nobody. file_bytes: that its files may
    take; None is the installation's default."""

    __tablename__ = "projects"

    id: Mapped[str] = mapped_column(String(40), primary_key=True, default=lambda: new_id("proj"))
    name: Mapped[str] = mapped_column(String(200))
    created_at: Mapped[float] = mapped_column(Double, default=time.time)
    archived_at: Mapped[float | None] = mapped_column(Double)
    file_bytes: Mapped[int | None] = mapped_column(BigInteger)


class MemberRow(Base):
    """A user in a project. Owners hand out keys and take members in."""

    __tablename__ = "members"
    __table_args__ = (CheckConstraint(one_of("role", get_args(MemberRole)), name="role"),)

    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True, index=True)
    role: Mapped[str] = mapped_column(String(16), default="member")
    created_at: Mapped[float] = mapped_column(Double, default=time.time)


class ApiKeyRow(Limits, Base):
    """A key: only its digest is kept, and a few of its letters by which its owner knows it again.

    scopes: what it may do, see `store.keys`. models: which ones it may ask, None is all.
    """

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(String(40), primary_key=True, default=lambda: new_id("key"))
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"), index=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(String(200))
    hint: Mapped[str] = mapped_column(String(40))
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    scopes: Mapped[list[str]] = mapped_column(JSON)
    models: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    created_at: Mapped[float] = mapped_column(Double, default=time.time)
    expires_at: Mapped[float | None] = mapped_column(Double)
    revoked_at: Mapped[float | None] = mapped_column(Double)
    last_used_at: Mapped[float | None] = mapped_column(Double)


class AuditRow(Base):
    """Who changed what: written in the transaction that does it. `details` hold no secrets."""

    __tablename__ = "audit"

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    created_at: Mapped[float] = mapped_column(Double, default=time.time, index=True)
    action: Mapped[str] = mapped_column(String(64), index=True)
    target: Mapped[str] = mapped_column(String(200))
    user_id: Mapped[str | None] = mapped_column(String(40))
    key_id: Mapped[str | None] = mapped_column(String(40))
    project_id: Mapped[str | None] = mapped_column(String(40))
    address: Mapped[str | None] = mapped_column(Text)
    details: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
