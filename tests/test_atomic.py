"""Files are whole or as they were, whoever is killed and whoever writes at the same time."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from chatwheel.atomic import replacing, write_atomically
from chatwheel.errors import StorageError

ENDLESS = """
import sys
from pathlib import Path
from chatwheel.atomic import write_atomically

def chunks():
    yield b"half" * 1000
    print("writing", flush=True)
    sys.stdin.read()

write_atomically(Path(sys.argv[1]), chunks())
"""


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def begun(path: Path) -> subprocess.Popen[bytes]:
    """A process that is in the middle of writing."""
    process = subprocess.Popen(
        [sys.executable, "-c", ENDLESS, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"writing\n"
    return process


def kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()


@pytest.mark.skipif(sys.platform == "win32", reason="files are not locked there")
def test_what_killed_writers_leave_behind_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "file.jsonl"
    path.write_text("before")
    for _ in range(3):
        kill(begun(path))
        assert len(names(tmp_path)) == 2  # not one more a kill
    at_once = [begun(path) for _ in range(3)]
    assert len(names(tmp_path)) == 4
    for process in at_once[:2]:
        kill(process)
    assert path.read_text() == "before"
    write_atomically(tmp_path / "file", [b"another name"])
    write_atomically(path, [b"after"])
    assert path.read_bytes() == b"after"
    assert len(names(tmp_path)) == 3  # that of the living one stays
    at_once[2].communicate(b"")  # which ends well
    assert path.read_bytes() == b"half" * 1000
    assert names(tmp_path) == {"file", "file.jsonl"}


def test_two_who_write_at_once_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with replacing(path) as (outer,):
        outer.write(b"first begun")
        write_atomically(path, [b"last begun"])
        assert path.read_bytes() == b"last begun"
    assert path.read_bytes() == b"first begun"

    def write(text: bytes) -> None:
        for _ in range(50):
            write_atomically(path, [text] * 100)

    texts = [bytes([65 + i]) * 100 for i in range(4)]
    threads = [threading.Thread(target=write, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert path.read_bytes() in (b"first begun", *(text * 100 for text in texts))
    assert names(tmp_path) == {"file"}


def test_after_an_error_everything_is_as_it_was(tmp_path: Path) -> None:
    paths = tmp_path / "a", tmp_path / "b"
    for path in paths:
        path.write_text("before")

    def failing() -> Iterator[bytes]:
        yield b"half"
        raise ValueError("bad record")

    with pytest.raises(ValueError, match="bad record"):
        write_atomically(paths[0], failing())
    with pytest.raises(ValueError, match="bad record"), replacing(*paths) as files:
        files[0].writelines(failing())
    assert [path.read_text() for path in paths] == ["before", "before"]
    assert names(tmp_path) == {"a", "b"}


def test_of_two_files_none_is_written_where_one_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").write_text("before")
    for second in (tmp_path / "directory", tmp_path / "file/below"):
        with (
            pytest.raises(StorageError, match=r"could not write .*nothing was changed"),
            replacing(tmp_path / "file", second),
        ):
            raise AssertionError("the work is not begun")
    assert (tmp_path / "file").read_text() == "before"
    assert names(tmp_path) == {"directory", "file"}
    with replacing(tmp_path / "file", tmp_path / "new/other") as (one, two):
        one.write(b"1")
        two.write(b"2")
    assert (tmp_path / "file").read_text() + (tmp_path / "new/other").read_text() == "12"
