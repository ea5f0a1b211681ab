"""Nothing is written half: a temporary file beside the target, fsync, rename."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import BinaryIO

from chatwheel.errors import StorageError


def write_atomically(path: Path, chunks: Iterable[bytes], mode: int = 0o644) -> int:
    """Replaces `path` by the chunks, whole or not at all; returns the number of chunks. mode: who may read it."""
    number = 0
    with replacing(path, mode=mode) as (file,):
        for chunk in chunks:
            file.write(chunk)
            number += 1
    return number


@contextmanager
def replacing(*paths: Path, mode: int = 0o644) -> Iterator[tuple[BinaryIO, ...]]:
    """A file to write for each path. When the block ends they take the paths' places, one right after the other, once
    all are on the disk; after an error nothing is changed.

    Raises StorageError where that fails, also for an OSError from within the block.
    """
    with ExitStack() as stack:
        try:
            written = [stack.enter_context(_temporary(path)) for path in paths]
            yield tuple(file for file, _ in written)
            for file, temporary in written:
                file.flush()
                os.fsync(file.fileno())
                temporary.chmod(mode)
                if os.name == "nt":  # there no open file is renamed
                    file.close()
            for path, (_, temporary) in zip(paths, written, strict=True):
                temporary.replace(path)
        except OSError as error:
            names = ", ".join(map(str, paths))
            raise StorageError(f"{names}: could not write ({error.strerror}); nothing was changed") from error


def move_directory(source: Path, target: Path) -> None:
    """Gives a directory, whole and on the disk, another name, for good. Raises StorageError."""
    try:
        source.rename(target)
        handle = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        raise StorageError(f"{target}: could not be made of {source.name} ({error.strerror})") from error


@contextmanager
def _temporary(path: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """A new file beside the path, and its name; it goes at the end unless it was renamed."""
    if path.is_dir():
        raise IsADirectoryError(None, "it is a directory")
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = _lockable(path) or _unlocked(path)
    with os.fdopen(handle, "wb") as file:
        identity = os.fstat(handle)
        try:
            yield file, temporary
        finally:
            # Once ours is renamed, a file of this name is another's.
            with suppress(FileNotFoundError):
                if os.path.samestat(identity, temporary.stat()):
                    file.close()
                    temporary.unlink()


def _unlocked(path: Path) -> tuple[int, Path]:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    return handle, Path(name)


def _lockable(path: Path) -> tuple[int, Path] | None:
    """The first of `.NAME.0.tmp`, `.NAME.1.tmp`, ... that no living process writes, locked and empty; None where files
    can't be locked (Windows, some network file systems).

    The system frees the locks of a process that is killed, so the next write takes its file over, and removes those
    after it. Locks belong to open files: two threads that write the same name are kept apart too.
    """
    found: tuple[int, Path] | None = None
    for number in count():
        temporary = path.with_name(f".{path.name}.{number}.tmp")
        if found is not None and not temporary.exists():
            return found
        try:
            handle = _locked(temporary)
        except BlockingIOError:
            continue
        except PermissionError:
            if temporary.exists():  # another user's
                continue
            raise
        if handle is None:
            return None
        if found is None:
            os.ftruncate(handle, 0)
            found = handle, temporary
        else:
            temporary.unlink()
            os.close(handle)
    raise AssertionError("numbers have no end")


def _locked(temporary: Path) -> int | None:
    """The file opened, perhaps made, and locked; None where that can't be. Raises BlockingIOError if another has it."""
    try:
        import fcntl
    except ImportError:
        return None
    while True:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever had it may have renamed it before we locked it.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), temporary.stat()):
                    return handle
        except BlockingIOError:
            os.close(handle)
            raise
        except OSError:
            os.close(handle)
            temporary.unlink()
            return None
        os.close(handle)
