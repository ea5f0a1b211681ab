"""Runs inside Alembic, on the connection that `chatwheel.store.database` opened and locked."""

from __future__ import annotations

from alembic import context

from chatwheel.store.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
)
context.run_migrations()
