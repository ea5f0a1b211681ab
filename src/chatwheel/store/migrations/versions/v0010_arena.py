"""The arena."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision: str | None = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds its table."""
    op.create_table(
        "battles",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("user_id", sa.String(40), sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
        sa.Column("prompt", sa.Text, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("language", sa.String(16)),
        sa.Column("topic", sa.String(16), nullable=False),
        sa.Column("left_model", sa.Text, nullable=False),
        sa.Column("right_model", sa.Text, nullable=False),
        sa.Column("left_answer", sa.Text, nullable=False),
        sa.Column("right_answer", sa.Text, nullable=False),
        sa.Column("left_fingerprint", sa.String(40), nullable=False),
        sa.Column("right_fingerprint", sa.String(40), nullable=False),
        sa.Column("sampling", sa.JSON, nullable=False),
        sa.Column("choice", sa.String(16)),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("answered_at", sa.Double, nullable=False),
        sa.Column("chosen_at", sa.Double, index=True),
        sa.CheckConstraint(
            "topic IN ('code', 'maths', 'translation', 'writing', 'small_talk', 'question', 'other')", name="topic"
        ),
        sa.CheckConstraint("choice IN ('left', 'right', 'tie', 'both_bad')", name="choice"),
        sa.CheckConstraint("left_model <> right_model", name="models"),
    )


def downgrade() -> None:
    """Refused: what people have chosen would be lost. Restore a backup instead."""
    raise NotImplementedError("go back by restoring a backup that was made before")
