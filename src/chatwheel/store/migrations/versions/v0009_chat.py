"""A conversation that was deleted may be brought back for a little while."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision: str | None = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing is deleted yet."""
    op.add_column("conversations", sa.Column("deleted_at", sa.Double))
    op.create_index("ix_conversations_deleted_at", "conversations", ["deleted_at"])


def downgrade() -> None:
    """Refused, as with the versions before. Restore a backup instead."""
    raise NotImplementedError("go back by restoring a backup that was made before")
