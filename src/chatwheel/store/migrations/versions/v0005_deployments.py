"""Which model answers those who ask for none in particular."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision: str | None = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing is deployed yet."""
    op.create_table(
        "deployments",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("share", sa.Double, nullable=False),
        sa.Column("started_at", sa.Double, nullable=False),
        sa.Column("started_by", sa.String(40), sa.ForeignKey("users.id", ondelete="SET NULL")),
        sa.Column("ended_at", sa.Double),
        sa.Column("outcome", sa.String(16)),
        sa.Column("note", sa.JSON, nullable=False),
        sa.CheckConstraint("outcome IN ('promoted', 'replaced', 'rolled_back')", name="outcome"),
        sa.CheckConstraint("share > 0 AND share <= 1", name="share"),
    )


def downgrade() -> None:
    """Refused: which model answers would be forgotten. Restore a backup instead."""
    raise NotImplementedError("go back by restoring a backup that was made before")
