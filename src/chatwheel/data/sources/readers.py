"""From bytes to objects: which container a file is, and the objects in it with their places for messages.

gzip is told by its first bytes, not by the name. JSON Lines, CSV and TSV stream; plain text and JSON arrays are
read whole.
"""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal, cast

from chatwheel.data.records import Json
from chatwheel.errors import InputError

Container = Literal["text", "jsonl", "json", "csv"]
Placed = tuple[str, Json]  # ("line 3", {...})

_SUFFIXES: dict[str, Container] = {
    ".txt": "text",
    ".md": "text",
    ".markdown": "text",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "csv",
}
_FOREIGN = {
    b"PK\x03\x04": "a zip (or an Excel) file; unpack it, or save the sheet as CSV",
    b"PAR1": "a Parquet file; convert it to JSON Lines",
    b"ARROW1": "an Arrow file; convert it to JSON Lines",
    b"\x28\xb5\x2f\xfd": "a zstd file; unpack it",
    b"BZh": "a bzip2 file; unpack it",
    b"\xfd7zXZ": "an xz file; unpack it",
    b"\xff\xfe": "UTF-16 text; convert it to UTF-8",
    b"\xfe\xff": "UTF-16 text; convert it to UTF-8",
}
_PEEK = 1 << 16


def open_plain(path: Path) -> BinaryIO:
    """The file's bytes, unpacked where its first two bytes are gzip's."""
    with path.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
    return cast(BinaryIO, gzip.open(path, "rb")) if packed else path.open("rb")


def container_of(path: Path) -> Container:
    """What the file is, by its name's ending (before .gz) and, for JSON and for unknown endings, by its beginning."""
    with _faults(path, ["the beginning"]), open_plain(path) as file:
        head = file.read(_PEEK)
    for magic, name in _FOREIGN.items():
        if head.startswith(magic):
            raise InputError(f"{path}: is {name}")
    suffixes = [s.lower() for s in path.suffixes if s.lower() != ".gz"]
    named = _SUFFIXES.get(suffixes[-1]) if suffixes else None
    if named in ("text", "csv"):
        return named
    return _json_or_text(head, named)


def read(path: Path, container: Container | None = None) -> Iterator[Placed]:
    """The objects of a file with their places. Raises InputError naming the file, the place and the fault."""
    container = container or container_of(path)
    place = ["the beginning"]
    with _faults(path, place), open_plain(path) as file:
        reader = {"text": _text, "jsonl": _lines, "json": _array, "csv": _table}[container]
        yield from reader(path, file, place)


def _json_or_text(head: bytes, named: Container | None) -> Container:
    """People name JSON Lines .json and the other way round: the first line decides."""
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if start[:1] == b"[" and named is not None:
        return "json"
    if start[:1] == b"[":
        return "json" if start[1:].lstrip()[:1] in (b"{", b'"', b"[", b"]") else "text"
    if start[:1] != b"{":
        return named or "text"
    first, _, rest = start.partition(b"\n")
    try:
        json.loads(first)
    except ValueError:
        return "json" if named != "jsonl" and rest[:1] in (b" ", b"\t", b'"', b"}") else "jsonl"
    return "jsonl" if rest.strip() or named != "json" else "json"


@contextmanager
def _faults(path: Path, place: list[str]) -> Iterator[None]:
    """Turns what can go wrong with a file into one line; `place` holds where the reader is."""
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a directory; name the files in it") from None
    except PermissionError:
        raise InputError(f"{path}: may not be read (permission denied)") from None
    except UnicodeDecodeError as error:
        what = f"byte {error.start}"
        raise InputError(f"{path}, {place[0]}: not valid UTF-8 at {what}; convert the file to UTF-8") from None
    except json.JSONDecodeError as error:
        where = place[0] if place[0].startswith("line") else f"line {error.lineno}"
        raise InputError(f"{path}, {where}: not JSON ({error.msg} at column {error.colno}); mend the line") from None
    except RecursionError:
        raise InputError(f"{path}, {place[0]}: JSON nested too deeply") from None
    except csv.Error as error:
        raise InputError(f"{path}, {place[0]}: not CSV ({error}); check its quotes") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path}: damaged gzip file after {place[0]} ({error}); fetch or pack it again") from None


def _text(_path: Path, file: BinaryIO, _place: list[str]) -> Iterator[Placed]:
    content = file.read().decode("utf-8-sig")
    if content.strip():
        yield "the text", {"text": content}


def _lines(path: Path, file: BinaryIO, place: list[str]) -> Iterator[Placed]:
    for number, line in enumerate(file, start=1):
        place[0] = f"line {number}"
        if not line.strip():
            continue
        value = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
        yield place[0], _object(path, place[0], value)


def _array(path: Path, file: BinaryIO, place: list[str]) -> Iterator[Placed]:
    content = file.read().decode("utf-8-sig")
    value = json.loads(content) if content.strip() else []
    for number, item in enumerate(value if isinstance(value, list) else [value], start=1):
        place[0] = f"record {number}"
        yield place[0], _object(path, place[0], item)


def _table(path: Path, file: BinaryIO, place: list[str]) -> Iterator[Placed]:
    # A book in one field is more than the module's 131,072 characters; the limit is the process's, so only raised.
    csv.field_size_limit(max(csv.field_size_limit(), 1 << 30))

    def decoded() -> Iterator[str]:
        for number, line in enumerate(file, start=1):
            place[0] = f"line {number}"
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")

    lines = decoded()
    header = next(lines, "")
    delimiter = max(",\t;", key=header.count)
    names = next(csv.reader([header], delimiter=delimiter, strict=True), [])
    for row in csv.reader(lines, delimiter=delimiter, strict=True):
        if row and len(row) != len(names):
            raise InputError(f"{path}, {place[0]}: {len(row)} columns where the header has {len(names)}")
        if row:
            yield place[0], {name: cell for name, cell in zip(names, row, strict=True) if name}


def _object(path: Path, place: str, value: object) -> Json:
    if isinstance(value, str):
        return {"text": value}
    if not isinstance(value, dict):
        raise InputError(f"{path}, {place}: expected a JSON object, found {type(value).__name__}")
    return value
