"""Conversations, their messages, and the ratings of answers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision: str | None = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Creates the three tables."""
    op.create_table(
        "conversations",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("language", sa.String(16)),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("updated_at", sa.Double, nullable=False, index=True),
    )
    op.create_table(
        "messages",
        sa.Column("id", sa.String(40), primary_key=True),
        _reference("conversation_id", "conversations.id", nullable=False, index=True),
        _reference("parent_id", "messages.id", nullable=True, index=True),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("model", sa.Text),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.CheckConstraint("role IN ('system', 'user', 'assistant')", name="role"),
        sa.CheckConstraint("status IN ('complete', 'partial', 'error')", name="status"),
    )
    op.create_table(
        "ratings",
        sa.Column("id", sa.Integer, primary_key=True),
        _reference("message_id", "messages.id", nullable=False, unique=True),
        sa.Column("value", sa.Integer, nullable=False),
        sa.Column("comment", sa.Text),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.CheckConstraint("value IN (-1, 1)", name="value"),
    )


def downgrade() -> None:
    """Drops what `upgrade` made, and everything in it."""
    for table in ("ratings", "messages", "conversations"):
        op.drop_table(table)


def _reference(name: str, target: str, *, nullable: bool, **options: bool) -> sa.Column[str]:
    key = sa.ForeignKey(target, ondelete="CASCADE")
    return sa.Column(name, sa.String(40), key, nullable=nullable, **options)  # type: ignore[arg-type]
