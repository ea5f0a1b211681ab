"""Where Chatwheel keeps things, from the environment. Everything works with nothing set."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from chatwheel.errors import InputError

FILE_BYTES = 100 * 10**9
PASSWORD_KIB = 64 * 1024
LEAST_PASSWORD_KIB = 12 * 1024


@dataclass(frozen=True)
class Settings:
    """The paths of one installation.

    home: holds `models/`, `runs/`, `files/`, `tuned/` and the database.
    database_url: an SQLAlchemy URL; SQLite inside `home` unless CHATWHEEL_DATABASE_URL says otherwise.
    file_bytes: that the files of a project may take which has no limit of its own; OpenAI's 100 GB unless
    CHATWHEEL_FILE_BYTES says otherwise.
    password_kib: memory that it takes to check a password, in KiB; 64 MiB unless CHATWHEEL_PASSWORD_KIB says otherwise.
    """

    home: Path
    database_url: str
    file_bytes: int = FILE_BYTES
    password_kib: int = PASSWORD_KIB

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
        kib = os.environ.get("CHATWHEEL_PASSWORD_KIB") or str(PASSWORD_KIB)
        if not (kib.isascii() and kib.isdecimal() and len(kib) <= 7 and int(kib) >= LEAST_PASSWORD_KIB):
            raise InputError(
                f"CHATWHEEL_PASSWORD_KIB: {kib!r} is no number of KiB from {LEAST_PASSWORD_KIB} on; less is guessed "
                "too fast"
            )
        return Settings(home=chosen, database_url=url, file_bytes=int(file_bytes), password_kib=int(kib))
