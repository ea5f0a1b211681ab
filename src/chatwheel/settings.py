"""Where Chatwheel keeps things, from the environment. Everything works with nothing set."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from chatwheel.errors import InputError

FILE_BYTES = 100 * 10**9


@dataclass(frozen=True)
class Settings:
    """The paths of one installation.

    home: holds `models/`, `runs/`, `files/`, `tuned/` and the database.
    database_url: an SQLAlchemy URL; SQLite inside `home` unless CHATWHEEL_DATABASE_URL says otherwise.
    file_bytes: that the files of a project may take which has no limit of its own; OpenAI's 100 GB unless
    CHATWHEEL_FILE_BYTES says otherwise.
    """

    home: Path
    database_url: str
    file_bytes: int = FILE_BYTES

    @property
    def models(self) -> Path:
        """Named models: `models/quickstart/ppo` is the model `quickstart/ppo`."""
        return self.home / "models"

    @property
    def runs(self) -> Path:
        """One directory a run: its recipe, data, metrics, checkpoints and report."""
        return self.home / "runs"

    @property
    def files(self) -> Path:
        """Uploaded files by their SHA-256."""
        return self.home / "files"

    @property
    def tuned(self) -> Path:
        """Models that fine-tuning jobs made: each is its project's own, so that they are not among `models`."""
        return self.home / "tuned"

    @staticmethod
    def load(home: Path | None = None) -> Settings:
        """`home` if given, else $CHATWHEEL_HOME, else ~/.chatwheel. Raises InputError."""
        chosen = home or Path(os.environ.get("CHATWHEEL_HOME") or Path.home() / ".chatwheel")
        chosen = chosen.expanduser().absolute()
        url = os.environ.get("CHATWHEEL_DATABASE_URL") or f"sqlite:///{chosen / 'chatwheel.db'}"
        file_bytes = os.environ.get("CHATWHEEL_FILE_BYTES") or str(FILE_BYTES)
        if not (file_bytes.isascii() and file_bytes.isdecimal() and len(file_bytes) <= 18):
            raise InputError(f"CHATWHEEL_FILE_BYTES: {file_bytes!r} is no number of bytes such as {FILE_BYTES}")
        return Settings(home=chosen, database_url=url, file_bytes=int(file_bytes))
