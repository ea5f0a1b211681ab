"""Choices between two answers, corrections, reports, reasons; who lets models learn from their chats."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision: str | None = "0003"
branch_labels = None
depends_on = None

REASONS = "'harmful', 'private', 'illegal', 'spam', 'other'"


def upgrade() -> None:
    """Adds tables and columns; nobody has consented yet."""
    op.add_column("users", sa.Column("improve_since", sa.Double))
    op.add_column("users", sa.Column("refused_at", sa.Double))
    op.add_column("messages", sa.Column("sampling", sa.JSON))
    op.add_column("messages", sa.Column("fingerprint", sa.String(40)))
    op.add_column("ratings", sa.Column("reasons", sa.JSON, nullable=False, server_default="[]"))
    op.create_table(
        "comparisons",
        sa.Column("id", sa.String(40), primary_key=True),
        _of("user_id", "users.id", index=True),
        _of("first_id", "messages.id", index=True),
        _of("second_id", "messages.id", index=True),
        sa.Column("choice", sa.String(16)),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("chosen_at", sa.Double),
        sa.CheckConstraint("choice IN ('first', 'second', 'tie', 'both_bad')", name="choice"),
    )
    op.create_table(
        "corrections",
        _of("message_id", "messages.id", primary_key=True),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
    )
    op.create_table(
        "reports",
        _of("message_id", "messages.id", primary_key=True),
        sa.Column("reason", sa.String(16), primary_key=True),
        sa.Column("comment", sa.Text),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("handled_at", sa.Double),
        sa.Column("handled_by", sa.String(40), sa.ForeignKey("users.id", ondelete="SET NULL")),
        sa.CheckConstraint(f"reason IN ({REASONS})", name="reason"),
    )


def downgrade() -> None:
    """Refused: what people have said would be lost. Restore a backup instead."""
    raise NotImplementedError("go back by restoring a backup that was made before")


def _of(name: str, of: str, *, primary_key: bool = False, index: bool = False) -> sa.Column[str]:
    key = sa.ForeignKey(of, ondelete="CASCADE")
    return sa.Column(name, sa.String(40), key, nullable=False, primary_key=primary_key, index=index)
