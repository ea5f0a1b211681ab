"""A stage's curves: its file of metrics, a line a step and perhaps millions of them, read in bounded memory."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

Json = dict[str, Any]
Row = dict[str, float]

READ_BYTES = 2**20
"""What is read at a time; no line is longer."""

NEAR_BYTES = 2**16
"""What is not halved any more in search of a step."""

_NUMBERS = (float, int)  # a bool is none
_MOST = sys.float_info.max


def read_curves(path: Path, most: int, after: int | None = None) -> tuple[int, list[Row]]:
    """How many rows can be read, perhaps only those behind the step `after`, and at most `most` points of them (see
    `thinned`). A file that cannot be read has none."""
    num_rows = 0

    def rows(file: BinaryIO, begin: int, end: int) -> Iterator[Row]:
        nonlocal num_rows
        for lines in _lines(file, begin, end):
            some = parse_rows(lines)
            num_rows += len(some)
            yield from some

    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            begin = 0 if after is None else _behind(file, after, end)
            count = sum(lines.count(b"\n") + 1 for lines in _lines(file, begin, end))
            points = list(_thinned(rows(file, begin, end), count, most))
            return num_rows, points
    except OSError:
        return 0, []


def rows_of(path: Path) -> Iterator[Row]:
    """All rows, one by one; none of a file that cannot be read."""
    try:
        with path.open("rb") as file:
            for lines in _lines(file, 0, file.seek(0, os.SEEK_END)):
                yield from parse_rows(lines)
    except OSError:
        return


def thinned(rows: Sequence[Row], most: int) -> list[Row]:
    """At most `most` rows: neighbours become their mean, each number over the rows that have it, at the last one's
    step, so that numbers that come seldom (PPO's rollouts) are not lost."""
    return list(_thinned(rows, len(rows), most))


def parse_rows(lines: bytes) -> list[Row]:
    """The rows of metrics among lines: objects with a step; of their values, the finite numbers."""
    rows = []
    for line in lines.decode("utf-8", "replace").split("\n"):
        value = parse_object(line)
        if value is None or type(value.get("step")) is not int:
            continue
        numbers = {key: item for key, item in value.items() if type(item) in _NUMBERS and -_MOST <= item <= _MOST}
        rows.append({**numbers, "step": value["step"]})
    return rows


def parse_object(text: bytes | str) -> Json | None:
    """A JSON object, or None for whatever else it is."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def finite(value: Any) -> float | None:
    """The value if it is a number that a float can be, or None."""
    return value if type(value) in _NUMBERS and -_MOST <= value <= _MOST else None


class _Mean:
    """Of the rows that were added."""

    def __init__(self) -> None:
        self.last: Row = {}
        self._sums: dict[str, tuple[float, int]] = {}

    def add(self, row: Row) -> None:
        self.last = row
        for key, value in row.items():
            total, count = self._sums.get(key, (0.0, 0))
            self._sums[key] = (total + value, count + 1)

    def row(self) -> Row:
        means = {key: total / count for key, (total, count) in self._sums.items()}
        return {**means, **{key: self.last[key] for key in ("step", "steps") if key in self.last}}


def _thinned(rows: Iterable[Row], count: int, most: int) -> Iterator[Row]:
    """count: of the rows, or more than they are."""
    if count <= most:
        yield from rows
        return
    point, mean = 1, _Mean()
    for place, row in enumerate(rows):
        if place == count * point // most:
            yield mean.row()
            point, mean = point + 1, _Mean()
        mean.add(row)
    if mean.last:
        yield mean.row()


def _lines(file: BinaryIO, begin: int, end: int) -> Iterator[bytes]:
    """Whole lines, many at a time. The last one may be cut short; one longer than READ_BYTES is damage."""
    file.seek(begin)
    rest = b""
    while begin < end and (read := file.read(min(READ_BYTES, end - begin))):
        begin += len(read)
        whole, newline, rest = (rest + read).rpartition(b"\n")
        if newline:
            yield whole
        if len(rest) > READ_BYTES:
            rest = b""
    if rest:
        yield rest


def _behind(file: BinaryIO, step: int, end: int) -> int:
    """Where the first row behind a step begins, by bisection: steps ascend."""
    low, high = 0, end
    while high - low > NEAR_BYTES:
        middle = (low + high) // 2
        file.seek(middle)
        file.readline(READ_BYTES)  # the line in whose midst we are
        place, found = next(_places(file, high), (0, math.inf))
        if found > step:
            high = middle
        else:
            low = place
    file.seek(low)
    return next((place for place, found in _places(file, end) if found > step), end)


def _places(file: BinaryIO, end: int) -> Iterator[tuple[int, float]]:
    """From here on, where rows begin, and their steps."""
    while (place := file.tell()) < end and (line := file.readline(READ_BYTES)):
        for row in parse_rows(line):
            yield place, row["step"]
