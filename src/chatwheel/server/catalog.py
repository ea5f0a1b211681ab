"""Which models somebody sees: those of the installation, and those that their project has tuned."""

from __future__ import annotations

from pathlib import Path

import anyio.to_thread

from chatwheel.errors import ModelNotFoundError
from chatwheel.server.identity import check_model
from chatwheel.server.models import ModelPool
from chatwheel.store import deployments, fine_tuning
from chatwheel.store.accounts import Principal
from chatwheel.store.database import Database
from chatwheel.store.deployments import LATEST
from chatwheel.store.registry import ModelEntry, check_answers
from chatwheel.store.tables import TunedModelRow

TUNED = "ft:"
"""How the names of tuned models begin; no directory below `models/` is called so."""


def bases(entry: ModelEntry) -> tuple[str, ...]:
    """Whose price a tuned model has if it has none of its own."""
    base = entry.lineage.get("base")
    return (base,) if isinstance(base, str) else ()


class Catalog:
    """Looks models up for whoever asks, anew each time: what a job has made is there at once, on every server."""

    def __init__(self, pool: ModelPool, database: Database, tuned: Path) -> None:
        self._pool, self._database, self._tuned = pool, database, tuned

    def entries(self, who: Principal) -> list[ModelEntry]:
        """All that somebody may ask, by name. Blocks."""
        with self._database.read() as session:
            tuned = [self._entry(row) for row in fine_tuning.tuned_models(session, who.project_id)]
        return [entry for entry in (*self._pool.entries(), *tuned) if who.may_ask(entry.name)]

    def entry(self, who: Principal, name: str) -> ModelEntry:
        """One of them. Blocks. Raises ModelNotFoundError; ForbiddenError for one that a key was not made for."""
        if not name.startswith(TUNED):
            entry = self._pool.entry(name, who.may_ask)
            check_model(who, name)
            return entry
        with self._database.read() as session:
            row = fine_tuning.tuned_model(session, who.project_id, name)
        if row is None:
            raise ModelNotFoundError(f"The model {name!r} does not exist here.", code="model_not_found", param="model")
        check_model(who, name)
        return self._entry(row)

    async def find(self, who: Principal, name: str, subject: str | None = None) -> ModelEntry:
        """`entry`, which is not waited for where it was looked at a moment ago. Of the latest model, the one that
        answers them, or the subject, such as a conversation."""
        if name == LATEST:
            return await anyio.to_thread.run_sync(self._latest, who, subject or who.user_id)
        fresh = None if name.startswith(TUNED) else self._pool.fresh_entry(name)
        if fresh is None:
            return await anyio.to_thread.run_sync(self.entry, who, name)
        check_model(who, name)
        return fresh

    async def find_answering(self, who: Principal, name: str, subject: str | None = None) -> ModelEntry:
        """One that can answer. Raises InputError for a reward model, and as `entry` does."""
        return check_answers(await self.find(who, name, subject))

    def _latest(self, who: Principal, subject: str) -> ModelEntry:
        with self._database.read() as session:
            picked = deployments.deployed(session).pick(subject)
        if picked is None:
            message = f"No model is deployed as {LATEST!r} yet; an admin promotes one."
            raise ModelNotFoundError(message, code="model_not_found", param="model")
        if who.models is None or LATEST not in who.models:  # a key for the latest one is one for whichever that is
            check_model(who, picked)
        return self._pool.entry(picked, who.may_ask)

    def _entry(self, row: TunedModelRow) -> ModelEntry:
        return ModelEntry(
            name=row.name,
            directory=self._tuned / row.directory,
            kind="causal",
            created=int(row.created_at),
            lineage={"stage": "tuned", "base": row.base, "job": row.job_id},
        )
