"""Passwords, the sessions that they open, and what was tried in vain."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision: str | None = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nobody has a password yet."""
    op.create_table(
        "passwords",
        sa.Column("user_id", sa.String(40), _key("users.id"), primary_key=True),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("set_at", sa.Double, nullable=False),
        sa.Column("temporary_until", sa.Double),
        sa.Column("known_address", sa.Text),
    )
    op.create_table(
        "sessions",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("user_id", sa.String(40), _key("users.id"), nullable=False, index=True),
        sa.Column("project_id", sa.String(40), _key("projects.id"), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False, unique=True),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("seen_at", sa.Double, nullable=False),
        sa.Column("expires_at", sa.Double, nullable=False, index=True),
        sa.Column("user_agent", sa.Text),
        sa.Column("address", sa.Text),
    )
    op.create_table(
        "sign_in_attempts",
        sa.Column("subject", sa.String(64), primary_key=True),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("first_at", sa.Double, nullable=False),
        sa.Column("last_at", sa.Double, nullable=False, index=True),
    )


def downgrade() -> None:
    """Refused: passwords would be forgotten, and the door stand open. Restore a backup instead."""
    raise NotImplementedError("go back by restoring a backup that was made before")


def _key(of: str) -> sa.ForeignKey:
    return sa.ForeignKey(of, ondelete="CASCADE")
