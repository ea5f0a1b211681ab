"""Nothing is written half: a temporary file beside the target, fsync, rename."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from chatwheel.errors import StorageError


def write_atomically(path: Path, chunks: Iterable[bytes]) -> int:
    """Replaces `path` by the chunks, whole or not at all; returns the number of chunks."""
    count = 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise StorageError(f"{path}: could not write ({error.strerror})") from error
    try:
        with os.fdopen(handle, "wb") as file:
            for chunk in chunks:
                file.write(chunk)
                count += 1
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except OSError as error:
        Path(temporary).unlink(missing_ok=True)
        raise StorageError(f"{path}: could not write ({error.strerror}); nothing was changed") from error
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return count
