"""The labelling room."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision: str | None = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds its tables."""
    op.create_table(
        "labelling_queues",
        sa.Column("id", sa.String(40), primary_key=True),
        _of("project_id", "projects.id", index=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("guidelines", sa.Text, nullable=False),
        sa.Column("labellers", sa.Integer, nullable=False),
        sa.Column("patience", sa.Double, nullable=False),
        sa.Column("labels", sa.JSON, nullable=False),
        _author("created_by"),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("closed_at", sa.Double),
        sa.CheckConstraint("kind IN ('prompt', 'reply', 'rate', 'rank')", name="kind"),
        sa.CheckConstraint("labellers >= 1", name="labellers"),
    )
    op.create_table(
        "labelling_tasks",
        sa.Column("id", sa.String(40), primary_key=True),
        _of("queue_id", "labelling_queues.id"),
        sa.Column("place", sa.Integer, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("messages", sa.JSON, nullable=False),
        sa.Column("source", sa.Text),
        sa.Column("language", sa.String(16)),
        _author("author_id"),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("taken", sa.Integer, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.CheckConstraint("state IN ('open', 'reported', 'withdrawn')", name="state"),
        sa.UniqueConstraint("queue_id", "digest"),
    )
    op.create_index("ix_labelling_tasks_next", "labelling_tasks", ["queue_id", "state", "taken", "place"])
    op.create_table(
        "labelling_answers",
        _of("task_id", "labelling_tasks.id", primary_key=True),
        sa.Column("place", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("model", sa.Text),
        sa.Column("sampling", sa.JSON),
        _author("author_id", index=True),
    )
    op.create_table(
        "labelling_assignments",
        sa.Column("id", sa.String(40), primary_key=True),
        _of("task_id", "labelling_tasks.id"),
        _of("user_id", "users.id", index=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("order", sa.JSON, nullable=False),
        sa.Column("draft", sa.JSON),
        sa.Column("assigned_at", sa.Double, nullable=False),
        sa.Column("expires_at", sa.Double, nullable=False),
        sa.Column("ended_at", sa.Double),
        sa.CheckConstraint("state IN ('open', 'done', 'skipped', 'reported', 'expired')", name="state"),
        sa.UniqueConstraint("task_id", "user_id"),
    )
    op.create_index("ix_labelling_assignments_state", "labelling_assignments", ["state", "expires_at"])
    op.create_table(
        "labelling_judgements",
        sa.Column("id", sa.Integer, primary_key=True),
        _of("task_id", "labelling_tasks.id", index=True),
        sa.Column("user_id", sa.String(40), sa.ForeignKey("users.id", ondelete="CASCADE"), index=True),
        sa.Column("labeller", sa.Text),
        sa.Column("action", sa.String(16), nullable=False),
        sa.Column("ranks", sa.JSON),
        sa.Column("labels", sa.JSON),
        sa.Column("text", sa.Text),
        sa.Column("reason", sa.String(16)),
        sa.Column("comment", sa.Text),
        sa.Column("seconds", sa.Double),
        sa.Column("order", sa.JSON),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.CheckConstraint("action IN ('judged', 'skipped', 'reported', 'imported', 'decided')", name="action"),
    )


def downgrade() -> None:
    """Refused: what people have judged would be lost. Restore a backup instead."""
    raise NotImplementedError("go back by restoring a backup that was made before")


def _of(name: str, of: str, *, primary_key: bool = False, index: bool = False) -> sa.Column[str]:
    key = sa.ForeignKey(of, ondelete="CASCADE")
    return sa.Column(name, sa.String(40), key, nullable=False, primary_key=primary_key, index=index)


def _author(name: str, *, index: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.String(40), sa.ForeignKey("users.id", ondelete="SET NULL"), index=index)
