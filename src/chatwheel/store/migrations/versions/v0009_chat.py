"""A conversation that was deleted may be brought back for a little while; personas, instructions, prompts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision: str | None = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing is deleted yet, and nobody has a persona."""
    op.add_column("conversations", sa.Column("deleted_at", sa.Double))
    op.create_index("ix_conversations_deleted_at", "conversations", ["deleted_at"])
    op.create_table(
        "personas",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("user_id", sa.String(40), _key("users.id"), nullable=False, index=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("system_prompt", sa.Text, nullable=False),
        sa.Column("model", sa.Text),
        sa.Column("temperature", sa.Double),
        sa.Column("max_tokens", sa.Integer),
        sa.Column("created_at", sa.Double, nullable=False),
    )
    op.create_table(
        "instructions",
        sa.Column("user_id", sa.String(40), _key("users.id"), primary_key=True),
        sa.Column("content", sa.Text, nullable=False),
    )
    op.create_table(
        "prompts",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("user_id", sa.String(40), _key("users.id"), nullable=False, index=True),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
    )
    op.create_table(
        "briefs",
        sa.Column("conversation_id", sa.String(40), _key("conversations.id"), primary_key=True),
        sa.Column("persona", sa.Text),
        sa.Column("system_prompt", sa.Text, nullable=False),
        sa.Column("temperature", sa.Double),
        sa.Column("max_tokens", sa.Integer),
    )


def downgrade() -> None:
    """Refused, as with the versions before. Restore a backup instead."""
    raise NotImplementedError("go back by restoring a backup that was made before")


def _key(of: str) -> sa.ForeignKey:
    return sa.ForeignKey(of, ondelete="CASCADE")
