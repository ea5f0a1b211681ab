"""What all tests share: one thread, no network, and one tiny run of the whole wheel."""

from __future__ import annotations

import os

# Before torch and tokenizers are imported. One thread: the same sums in the same order, whatever the machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["HF_HUB_OFFLINE"] = "1"

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from chatwheel.jobs.pipeline import Stage
    from chatwheel.jobs.run import Run
    from chatwheel.store.database import Database
    from chatwheel.training.loop import Progress


@dataclass
class Recorder:
    """An observer that remembers."""

    begun: list[str] = field(default_factory=list)
    steps: list[Progress] = field(default_factory=list)
    skipped: dict[str, bool] = field(default_factory=dict)
    answered: dict[str, list[tuple[str, str]]] = field(default_factory=dict)

    def begin(self, stage: Stage) -> None:
        self.begun.append(stage.name)

    def progress(self, progress: Progress) -> None:
        self.steps.append(progress)

    def end(self, stage: Stage, result: dict[str, Any], *, skipped: bool) -> None:  # noqa: ARG002
        self.skipped[stage.name] = skipped

    def answers(self, model: str, pairs: Sequence[tuple[str, str]], result: dict[str, Any]) -> None:  # noqa: ARG002
        self.answered[model] = list(pairs)


@dataclass(frozen=True)
class TinyRun:
    """A whole run, from text to PPO, that took seconds. Read it; a test that changes files works on a copy."""

    home: Path
    recipe: Path
    run: Run
    results: dict[str, Any]
    recorder: Recorder

    def model(self, name: str) -> Path:
        """The directory of base, sft, reward or ppo."""
        return self.run.model(name)


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """See `tests.databases`."""
    from tests.databases import postgresql

    with postgresql() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a database without tables, of each kind in turn."""
    from tests.databases import new_database

    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'chatwheel.db'}"
    return new_database(request.getfixturevalue("postgresql_server"))


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a new database, of each kind in turn."""
    from tests.databases import file_with_schema, with_schema

    if request.param == "sqlite":
        return file_with_schema(tmp_path / "chatwheel.db")
    return with_schema(request.getfixturevalue("postgresql_server"))


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """An empty one, of each kind."""
    from chatwheel.store.database import Database

    database = Database.open(database_url)
    yield database
    database.close()


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    """A transaction in it, for as long as the test runs."""
    with database.write() as session:
        yield session


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    # Imported here: tests that need no model do not wait for torch.
    from chatwheel.jobs.pipeline import run_recipe
    from chatwheel.jobs.recipe import Recipe
    from chatwheel.jobs.run import Run
    from chatwheel.settings import Settings
    from tests.jobs.tiny_recipe import write_recipe

    place = tmp_path_factory.mktemp("tiny")
    recipe = write_recipe(place)
    run = Run.open(Recipe.load(recipe), Settings.load(place / "home"))
    recorder = Recorder()
    return TinyRun(place / "home", recipe, run, run_recipe(run, recorder), recorder)
