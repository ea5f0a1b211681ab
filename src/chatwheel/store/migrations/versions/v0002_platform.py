"""Users, projects and keys; what is used and what it costs; files and fine-tuning jobs. Conversations have an owner."""

from __future__ import annotations

import secrets
import time

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision: str | None = "0001"
branch_labels = None
depends_on = None

COUNT = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Creates the tables and the first user, an admin with a project, whose what was there before is."""
    _accounts()
    _metering()
    _tuning()
    # Alembic would make the table anew for a key in SQLite, and dropping the old one takes its messages along.
    op.execute(
        "ALTER TABLE conversations ADD COLUMN user_id VARCHAR(40) "
        "CONSTRAINT fk_conversations_user_id REFERENCES users (id) ON DELETE CASCADE"
    )
    op.create_index("ix_conversations_user_id", "conversations", ["user_id"])
    _first_user()


def downgrade() -> None:
    """Refused: conversations would have no owner any more, and keys open nothing. Restore a backup instead."""
    raise NotImplementedError("go back by restoring a backup that was made before")


def _accounts() -> None:
    op.create_table(
        "users",
        _id(),
        sa.Column("name", sa.String(200), nullable=False, unique=True),
        sa.Column("role", sa.String(16), nullable=False),
        _time("created_at"),
        _time("disabled_at", nullable=True),
        sa.CheckConstraint("role IN ('admin', 'member')", name="role"),
    )
    op.create_table(
        "projects",
        _id(),
        sa.Column("name", sa.String(200), nullable=False),
        _time("created_at"),
        _time("archived_at", nullable=True),
        *_limits(),
    )
    op.create_table(
        "members",
        _reference("project_id", "projects.id", primary_key=True),
        _reference("user_id", "users.id", primary_key=True, index=True),
        sa.Column("role", sa.String(16), nullable=False),
        _time("created_at"),
        sa.CheckConstraint("role IN ('owner', 'member')", name="role"),
    )
    op.create_table(
        "api_keys",
        _id(),
        _reference("project_id", "projects.id", index=True),
        _reference("user_id", "users.id", index=True),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("hint", sa.String(40), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False, unique=True),
        sa.Column("scopes", sa.JSON, nullable=False),
        sa.Column("models", sa.JSON),
        _time("created_at"),
        _time("expires_at", nullable=True),
        _time("revoked_at", nullable=True),
        _time("last_used_at", nullable=True),
        *_limits(),
    )
    op.create_table(
        "audit",
        sa.Column("id", COUNT, primary_key=True),
        _time("created_at", index=True),
        sa.Column("action", sa.String(64), nullable=False, index=True),
        sa.Column("target", sa.String(200), nullable=False),
        sa.Column("user_id", sa.String(40)),
        sa.Column("key_id", sa.String(40)),
        sa.Column("project_id", sa.String(40)),
        sa.Column("address", sa.Text),
        sa.Column("details", sa.JSON, nullable=False),
    )


def _metering() -> None:
    op.create_table(
        "usage",
        sa.Column("id", COUNT, primary_key=True),
        sa.Column("request_id", sa.String(64), nullable=False, index=True),
        _time("created_at", index=True),
        sa.Column("seconds", sa.Double, nullable=False),
        sa.Column("project_id", sa.String(40), nullable=False),
        sa.Column("user_id", sa.String(40), nullable=False),
        sa.Column("key_id", sa.String(40), index=True),
        sa.Column("endpoint", sa.String(40), nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        *(sa.Column(f"{name}_tokens", sa.BigInteger, nullable=False) for name in ("input", "cached", "output")),
        sa.Column("cost", sa.BigInteger, nullable=False),
        sa.Column("instance", sa.String(40), nullable=False),
        sa.CheckConstraint("status IN ('running', 'completed', 'cancelled', 'failed')", name="status"),
    )
    op.create_index("ix_usage_project_id_created_at", "usage", ["project_id", "created_at"])
    op.create_index("ix_usage_status_instance", "usage", ["status", "instance"])
    op.create_table(
        "buckets",
        sa.Column("subject", sa.String(40), primary_key=True),
        sa.Column("kind", sa.String(16), primary_key=True),
        sa.Column("level", sa.Double, nullable=False),
        _time("filled_at"),
    )
    op.create_table(
        "spending",
        sa.Column("subject", sa.String(40), primary_key=True),
        sa.Column("month", sa.String(7), primary_key=True),
        sa.Column("cost", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "prices",
        sa.Column("model", sa.String(300), primary_key=True),
        *(sa.Column(n, sa.BigInteger, nullable=False) for n in ("input", "cached_input", "output", "training")),
    )
    op.create_table(
        "instances",
        _id(),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("place", sa.Text, nullable=False),
        _time("started_at"),
        _time("seen_at"),
    )


def _tuning() -> None:
    op.create_table(
        "files",
        _id(),
        _reference("project_id", "projects.id", index=True),
        sa.Column("user_id", sa.String(40), nullable=False),
        sa.Column("filename", sa.Text, nullable=False),
        sa.Column("purpose", sa.String(32), nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False, index=True),
        _time("created_at"),
        _time("expires_at", nullable=True),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("check", sa.JSON),
        sa.CheckConstraint("status IN ('uploaded', 'processed', 'error')", name="status"),
    )
    op.create_table(
        "fine_tuning_jobs",
        _id(),
        _reference("project_id", "projects.id", index=True),
        sa.Column("user_id", sa.String(40), nullable=False),
        sa.Column("key_id", sa.String(40)),
        _time("created_at"),
        *(_time(name, nullable=True) for name in ("started_at", "finished_at", "estimated_finish")),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("suffix", sa.String(64)),
        sa.Column("fine_tuned_model", sa.Text),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("wanted", sa.String(8), nullable=False),
        sa.Column("training_file", sa.String(40), nullable=False),
        sa.Column("validation_file", sa.String(40)),
        sa.Column("result_files", sa.JSON, nullable=False),
        sa.Column("trained_tokens", sa.BigInteger),
        sa.Column("cost", sa.BigInteger, nullable=False),
        sa.Column("seed", sa.Integer, nullable=False),
        sa.Column("method", sa.JSON, nullable=False),
        sa.Column("hyperparameters", sa.JSON),
        sa.Column("metadata", sa.JSON, nullable=False),
        sa.Column("error", sa.JSON),
        sa.Column("forecast", sa.JSON),
        sa.Column("worker", sa.String(40)),
        _time("lease_until", nullable=True),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.CheckConstraint(
            "status IN ('validating_files', 'queued', 'running', 'paused', 'succeeded', 'failed', 'cancelled')",
            name="status",
        ),
        sa.CheckConstraint("wanted IN ('run', 'pause', 'cancel')", name="wanted"),
    )
    op.create_index("ix_fine_tuning_jobs_status_created_at", "fine_tuning_jobs", ["status", "created_at"])
    op.create_table(
        "job_events",
        sa.Column("number", COUNT, primary_key=True),
        sa.Column("id", sa.String(40), nullable=False, unique=True),
        _reference("job_id", "fine_tuning_jobs.id", index=True),
        _time("created_at"),
        sa.Column("level", sa.String(8), nullable=False),
        sa.Column("type", sa.String(16), nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("data", sa.JSON),
    )
    op.create_table(
        "job_checkpoints",
        _id(),
        _reference("job_id", "fine_tuning_jobs.id"),
        _time("created_at"),
        sa.Column("step_number", sa.Integer, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("metrics", sa.JSON, nullable=False),
    )
    op.create_index("uq_job_checkpoints_job_id_step", "job_checkpoints", ["job_id", "step_number"], unique=True)
    op.create_table(
        "tuned_models",
        sa.Column("name", sa.String(300), primary_key=True),
        _reference("project_id", "projects.id", index=True),
        sa.Column("job_id", sa.String(40), sa.ForeignKey("fine_tuning_jobs.id", ondelete="SET NULL")),
        sa.Column("base", sa.Text, nullable=False),
        sa.Column("directory", sa.Text, nullable=False),
        _time("created_at"),
    )


def _first_user() -> None:
    user, project, now = f"user-{secrets.token_hex(12)}", f"proj-{secrets.token_hex(12)}", time.time()
    users = sa.table("users", *map(sa.column, ("id", "name", "role", "created_at")))
    projects = sa.table("projects", *map(sa.column, ("id", "name", "created_at")))
    members = sa.table("members", *map(sa.column, ("project_id", "user_id", "role", "created_at")))
    op.bulk_insert(users, [{"id": user, "name": "admin", "role": "admin", "created_at": now}])
    op.bulk_insert(projects, [{"id": project, "name": "Default", "created_at": now}])
    op.bulk_insert(members, [{"project_id": project, "user_id": user, "role": "owner", "created_at": now}])
    conversations = sa.table("conversations", sa.column("user_id"))
    op.execute(sa.update(conversations).values(user_id=user))


def _id() -> sa.Column[str]:
    return sa.Column("id", sa.String(40), primary_key=True)


def _time(name: str, *, nullable: bool = False, index: bool = False) -> sa.Column[float]:
    return sa.Column(name, sa.Double, nullable=nullable, index=index)


def _limits() -> list[sa.Column[int]]:
    kinds = {"requests_per_minute": sa.Integer, "tokens_per_minute": sa.Integer, "budget": sa.BigInteger}
    return [sa.Column(name, kind) for name, kind in kinds.items()]


def _reference(name: str, target: str, **options: bool) -> sa.Column[str]:
    key = sa.ForeignKey(target, ondelete="CASCADE")
    return sa.Column(name, sa.String(40), key, nullable=False, **options)  # type: ignore[arg-type]
