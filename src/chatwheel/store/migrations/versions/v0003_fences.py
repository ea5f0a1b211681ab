"""Each claim of a fine-tuning job has a number; an answer that is written names its server, and can be stopped."""

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


def downgrade() -> None:
    """Refused: what they tell would be lost. Restore a backup instead."""
    raise NotImplementedError("go back by restoring a backup that was made before")
