"""A run on disk: where each artefact is, what is finished, and where each model came from."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from chatwheel.atomic import write_atomically
from chatwheel.errors import InputError
from chatwheel.jobs.recipe import SAMPLING, Recipe
from chatwheel.model.layout import weight_files
from chatwheel.settings import Settings
from chatwheel.store.registry import Registry

BEGUN = "begun.json"
LOCK, STARTING = ".lock", ".starting.lock"


@dataclass(frozen=True)
class Run:
    """`runs/<name>/` and `models/<name>/`. A model that is there is finished: it appears whole."""

    recipe: Recipe
    directory: Path
    models: Path

    @staticmethod
    def open(recipe: Recipe, settings: Settings) -> Run:
        """Begins a run or goes on with it. Raises InputError if it was begun with another recipe."""
        run = Run(recipe, settings.runs / recipe.name, settings.models / recipe.name)
        path = run.directory / "recipe.json"
        values = json.loads(recipe.model_dump_json())
        first = int(os.environ.get("RANK", "0")) == 0  # under torchrun the first process writes
        if first and not (run.directory / BEGUN).is_file():
            run.write_json(BEGUN, {"day": date.today().isoformat()})
        if not path.is_file():
            if first:
                run.write_json("recipe.json", values)
            return run
        # Parsed again, so that a key which came later has its default.
        begun = json.loads(Recipe.parse(run.read_json("recipe.json"), where=str(path)).model_dump_json())
        # How many processes train, and how, changes nothing of what they make.
        begun, values = _however_many(begun), _however_many(values)
        if begun != values:
            raise InputError(
                f"{run.directory}: this run was begun with another recipe ({_difference(begun, values)}); "
                "finish it with that one, choose another name, or remove the directory"
            )
        return run

    @contextmanager
    def locked(self, patience: float = 0, name: str = LOCK) -> Iterator[None]:
        """Keeps other processes from working on the run. Raises InputError if one does, for so many seconds; a crash
        frees it. name: `STARTING` is for a process that has others work on it."""
        self.directory.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.directory / name)
        try:
            # Who watches the run looks at the lock by taking it for a moment.
            lock.acquire(timeout=max(0.5, patience))
        except Timeout:
            raise InputError(
                f"{self.directory}: another process works on this run; wait until it is done, or stop it"
            ) from None
        try:
            yield
        finally:
            lock.release()

    @property
    def day(self) -> date:
        """When the run was begun: chat templates that tell the date tell this one, whenever a stage goes on."""
        return date.fromisoformat(self.read_json(BEGUN)["day"])

    def data(self, name: str) -> Path:
        """A data file of the run: `documents`, `demonstrations.held_out`, ..."""
        return self.directory / "data" / f"{name}.jsonl"

    def stage(self, name: str) -> Path:
        """Where a stage keeps its metrics and its state."""
        return self.directory / name

    def model(self, name: str) -> Path:
        """The directory of a model that the run makes: base, sft, reward, and what improves on them."""
        return self.models / name

    def base(self) -> Path:
        """The directory of the model that the stages after pretraining begin with: the run's own base, or the one that
        the recipe names. Raises InputError, ModelNotFoundError."""
        if not isinstance(self.recipe.model, str):
            return self.model("base")
        return self._registry().resolve(self.recipe.model)

    def base_name(self) -> str:
        """How other programs find that model: its name on the Hub, or its directory."""
        if not isinstance(self.recipe.model, str):
            return str(self.model("base"))
        return self._registry().reference(self.recipe.model)

    def resolve(self, model: str) -> Path:
        """The directory of any model by its name. Raises InputError, ModelNotFoundError."""
        return self._registry().resolve(model)

    def _registry(self) -> Registry:
        return Registry(self.models.parent, hub=True)

    def write_json(self, name: str, value: Any) -> None:
        """A small result, whole or not at all."""
        write_atomically(self.directory / name, [json.dumps(value, ensure_ascii=False, indent=1).encode()])

    def read_json(self, name: str) -> Any:
        """What `write_json` wrote, or None."""
        path = self.directory / name
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    def lineage(
        self, stage: str, *, parents: Sequence[str], data: Sequence[str], metrics: dict[str, Any]
    ) -> dict[str, Any]:
        """Where a model comes from: parents and data with their hashes, the recipe, the seed, the metrics."""
        return {
            "stage": stage,
            "run": self.recipe.name,
            "parents": dict(self._parent(name) for name in parents),
            "data": {name: sha256(self.data(name)) for name in data},
            "recipe": json.loads(self.recipe.model_dump_json()),
            "seed": self.recipe.seed,
            "metrics": metrics,
        }

    def _parent(self, name: str) -> tuple[str, str]:
        if name == "base" and isinstance(self.recipe.model, str):
            return self.recipe.model, sha256(*weight_files(self.base()))
        return f"{self.recipe.name}/{name}", sha256(*weight_files(self.model(name)))

    def drop_state(self, stage: str) -> None:
        """Frees the disk of a finished stage's optimizer state, and of what it read again when it went on; the metrics
        stay."""
        for directory in members(self.stage(stage)):
            for name in ("state", "reference"):
                shutil.rmtree(directory / name, ignore_errors=True)

    def restart(self, stages: dict[str, str | None]) -> None:
        """Forgets what stages have made. stages: in their order, with the model that each makes.

        First that they are finished, the last ones first: killed on the way, nothing is taken for done that is gone.
        """
        backwards = list(reversed(stages.items()))
        for stage, model in backwards:
            if model is not None:
                (self.directory / f"results/model.{model}.json").unlink(missing_ok=True)
            (self.directory / f"results/stage.{stage}.json").unlink(missing_ok=True)
        for stage, model in backwards:
            made = [self.stage(stage), *([self.model(model)] if model is not None else [])]
            for directory in (one for first in made for one in members(first)):
                shutil.rmtree(directory, ignore_errors=True)


def members(directory: Path) -> list[Path]:
    """The directories of an ensemble: the first one, then those beside it with a number (reward-2, ...)."""
    return [directory, *sorted(directory.parent.glob(f"{directory.name}-[0-9]*"))]


def _however_many(recipe: dict[str, Any]) -> dict[str, Any]:
    """A recipe without how many processes do the work."""
    rest = {name: part for name, part in recipe.items() if name != "tensor_parallel"}
    for name in SAMPLING:
        part = rest.get(name)
        if part is not None and part["asynchronous"] is not None:
            ahead = {key: value for key, value in part["asynchronous"].items() if key not in ("workers", "threads")}
            rest[name] = {**part, "asynchronous": ahead}
    return rest


def sha256(*paths: Path) -> str:
    """The hash of a file's content, or of several one after the other, in hexadecimal."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    return digest.hexdigest()


def _difference(a: Any, b: Any, at: str = "") -> str:
    """The first key at which two recipes differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in [*a, *(k for k in b if k not in a)]:
            if a.get(key) != b.get(key):
                return _difference(a.get(key), b.get(key), f"{at}.{key}" if at else key)
    return f"{at}: {a!r} there, {b!r} now"
