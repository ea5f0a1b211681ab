"""Models by name and their lineage. A model is a directory in Hugging Face layout plus `chatwheel.json`."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chatwheel.errors import InputError, ModelNotFoundError
from chatwheel.model.layout import ADAPTER_CONFIG, has_weights, is_adapter, read_object
from chatwheel.store.hub import fetch, fetch_bases, is_hub_name

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelEntry:
    """A named model: `quickstart/ppo`. kind: "causal" answers; "reward" scores. created: Unix seconds."""

    name: str
    directory: Path
    kind: str
    created: int
    lineage: dict[str, Any]


def check_answers(entry: ModelEntry) -> ModelEntry:
    """Raises InputError for a reward model."""
    if entry.kind == "reward":
        message = f"The model {entry.name!r} is a reward model: it scores answers and cannot write them."
        raise InputError(message, code="model_cannot_answer", param="model")
    return entry


class Registry:
    """The models below one directory. hub: whether a name like `Qwen/Qwen3-0.6B` that is not among them is looked up on
    the Hugging Face Hub and downloaded; only for names that the machine's owner gives, never for a client's."""

    def __init__(self, root: Path, *, hub: bool = False) -> None:
        self.root, self.hub = root, hub
        self._fetched: dict[str, Path] = {}

    def list(self) -> list[ModelEntry]:
        """All models, by name. A directory that is being written is not there yet (rename makes it appear);
        one that is damaged is left out with a warning, so that it does not hide the others."""
        names = ("config.json", ADAPTER_CONFIG) if self.root.is_dir() else ()
        configs = sorted({c.parent for name in names for c in self.root.glob(f"**/{name}")})
        directories = [d for d in configs if not any(p.startswith(".") for p in d.relative_to(self.root).parts)]
        entries = []
        for directory in directories:
            if has_weights(directory):
                try:
                    entries.append(self._entry(directory))
                except InputError as error:
                    logger.warning("model left out: %s", error.message)
        return entries

    def at(self, directory: Path) -> ModelEntry | None:
        """What is there of a model that was listed before; None if that is gone or damaged."""
        try:
            return self._entry(directory) if has_weights(directory) else None
        except (InputError, OSError):
            return None

    def resolve(self, name_or_directory: str) -> Path:
        """The directory of a name below the root, of a path, or of a model of the Hub. Raises ModelNotFoundError,
        InputError."""
        for candidate in (self.root / name_or_directory, Path(name_or_directory).expanduser()):
            if candidate.is_dir():
                if not is_adapter(candidate) and not (candidate / "config.json").is_file():
                    raise InputError(f"{candidate}: no config.json there, so not a model directory")
                if not has_weights(candidate):
                    raise InputError(f"{candidate}: no weights (*.safetensors) there; train it or copy it again")
                if self.hub and is_adapter(candidate):
                    fetch_bases(candidate)  # now, by the machine's owner, rather than at a client's first request
                return candidate
        # A name beside our own models is ours, misspelt.
        run_is_here = (self.root / name_or_directory.partition("/")[0]).is_dir()
        if self.hub and is_hub_name(name_or_directory) and not run_is_here:
            if name_or_directory not in self._fetched:
                directory = self._fetched[name_or_directory] = fetch(name_or_directory)
                if is_adapter(directory):
                    fetch_bases(directory)
            return self._fetched[name_or_directory]
        known = ", ".join(entry.name for entry in self.list()) or "none yet; `chatwheel quickstart` makes some"
        raise ModelNotFoundError(
            f"model {name_or_directory!r} not found: no such name and no such directory (models: {known})",
            code="model_not_found",
            param="model",
        )

    def reference(self, name_or_directory: str) -> str:
        """How other programs find a model: its name on the Hub if it came from there, else its directory."""
        directory = self.resolve(name_or_directory)
        return name_or_directory if name_or_directory in self._fetched else str(directory.absolute())

    def entry(self, name: str) -> ModelEntry:
        """One named model. Raises ModelNotFoundError."""
        return self._entry(self.resolve(name))

    def _entry(self, directory: Path) -> ModelEntry:
        adapter = is_adapter(directory)
        config = read_object(directory / (ADAPTER_CONFIG if adapter else "config.json"))
        lineage_file = directory / "chatwheel.json"
        lineage = read_object(lineage_file) if lineage_file.is_file() else {}
        named = config.get("architectures") or []
        reward = config.get("task_type") == "SEQ_CLS" or any("SequenceClassification" in name for name in named)
        return ModelEntry(
            name=self.name_of(directory),
            directory=directory,
            kind="reward" if reward else "causal",
            created=int(lineage.get("created") or directory.stat().st_mtime),
            lineage=lineage,
        )

    def name_of(self, directory: Path) -> str:
        """What a model's directory is called: below the root its place there, of the Hub its name."""
        fetched = [name for name, place in self._fetched.items() if place == directory]
        if fetched:
            return fetched[0]
        inside = directory.is_relative_to(self.root)
        return directory.relative_to(self.root).as_posix() if inside else str(directory)
