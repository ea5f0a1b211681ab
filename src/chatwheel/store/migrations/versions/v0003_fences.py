"""Each claim of a fine-tuning job has a number; an answer that is written names its server, and can be stopped.
What files may take has a limit, and uploads under way count."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision: str | None = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds columns, in place: SQLite would otherwise make tables anew, and what refers to the old ones would go."""
    op.add_column("fine_tuning_jobs", sa.Column("claims", sa.Integer, nullable=False, server_default="0"))
    op.add_column("messages", sa.Column("writer", sa.String(40)))
    op.add_column("messages", sa.Column("stop_wanted", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("projects", sa.Column("file_bytes", sa.BigInteger))
    op.create_table(
        "uploads",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column(
            "project_id",
            sa.String(40),
            sa.ForeignKey("projects.id", ondelete="CASCADE"),
            nullable=False,
            index=True,
        ),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("instance", sa.String(40), nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
    )


def downgrade() -> None:
    """Refused: what they tell would be lost. Restore a backup instead."""
    raise NotImplementedError("go back by restoring a backup that was made before")
