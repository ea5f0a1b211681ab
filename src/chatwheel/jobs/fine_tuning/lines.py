"""The lines of an uploaded file in bounded memory, whatever it is: plain or gzip, one line of a gigabyte, a bomb."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple, cast

from chatwheel.errors import InputError

MB = 10**6
BOM = b"\xef\xbb\xbf"
_GZIP = b"\x1f\x8b"
_FOREIGN = {
    b"PK\x03\x04": "a zip (or an Excel) file; unpack it and upload JSON Lines",
    b"PAR1": "a Parquet file; convert it to JSON Lines",
    b"\x28\xb5\x2f\xfd": "a zstd file; unpack it",
    b"BZh": "a bzip2 file; unpack it",
    b"\xfd7zXZ": "an xz file; unpack it",
    b"\xff\xfe": "UTF-16 text; save it as UTF-8",
    b"\xfe\xff": "UTF-16 text; save it as UTF-8",
}
_PART = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a file may be at most. file_bytes: of the text, unpacked. line_bytes: of a line; it is what one example
    takes of memory. ratio: unpacked bytes for each packed one, looked at from `ratio_from` bytes on. Real examples pack
    to a fifth or a tenth, lines that differ in a word to a fiftieth; gzip can do a thousandth."""

    file_bytes: int = 512 * MB
    line_bytes: int = 8 * MB
    ratio: int = 200
    ratio_from: int = 16 * MB


class Line(NamedTuple):
    """number: from 1. offset: of its first byte in the (unpacked) text. content: without its end. problem: what stands
    against reading it, and then the content is empty."""

    number: int
    offset: int
    content: bytes
    problem: str | None = None


@dataclass
class Text:
    """The lines of a file, and what is known of the text once they have been read.

    num_bytes: of the text so far. ends: how its lines end. has_bom: it begins with a byte order mark.
    """

    path: Path
    limits: Limits = Limits()
    num_bytes: int = 0
    ends: Literal["LF", "CRLF"] = "LF"
    has_bom: bool = False

    def __iter__(self) -> Iterator[Line]:
        """Each line that is not blank. Raises InputError for a file that cannot be read on: no file, too large, another
        format, damaged or suspicious gzip; the message leaves the path out, which the client does not know."""
        try:
            with self.path.open("rb") as raw:
                yield from self._lines(raw)
        except FileNotFoundError:
            raise InputError(f"{self.path.name}: no such file") from None
        except IsADirectoryError:
            raise InputError(f"{self.path.name}: is a directory, expected a file") from None

    def _lines(self, raw: BinaryIO) -> Iterator[Line]:
        head = raw.read(8)
        raw.seek(0)
        for magic, name in _FOREIGN.items():
            if head.startswith(magic):
                raise InputError(f"the file is {name}")
        packed = head.startswith(_GZIP)
        self.num_bytes, number = 0, 0
        file = cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if packed else raw
        longest = self.limits.line_bytes + 2  # with its end
        try:
            while content := file.readline(longest + 1):
                number += 1
                offset = self.num_bytes
                self._grow(len(content), raw, packed)
                if len(content) > longest and not content.endswith(b"\n"):
                    self._skip_line(file, raw, packed)
                    size = f"{self.limits.line_bytes / MB:g} MB"
                    yield Line(
                        number, offset, b"", f"the line is longer than {size}; is there a line for each example?"
                    )
                    continue
                if number == 1 and content.startswith(BOM):
                    self.has_bom, content, offset = True, content[len(BOM) :], len(BOM)
                if content.endswith(b"\r\n"):
                    self.ends = "CRLF"
                if content := content.rstrip():
                    yield Line(number, offset, content)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise InputError(f"damaged gzip file after line {number} ({error}); pack and upload it again") from None

    def _grow(self, count: int, raw: BinaryIO, packed: bool) -> None:
        self.num_bytes += count
        limits = self.limits
        if self.num_bytes > limits.file_bytes:
            size = f"{limits.file_bytes / MB:g} MB"
            raise InputError(f"the file is larger than {size}{' unpacked' if packed else ''}; leave examples out")
        if packed and self.num_bytes > limits.ratio_from and self.num_bytes > limits.ratio * raw.tell():
            raise InputError(
                f"the gzip file unpacks to more than {limits.ratio} times its size, as no text of people's does; "
                "upload it unpacked"
            )

    def _skip_line(self, file: BinaryIO, raw: BinaryIO, packed: bool) -> None:
        while part := file.readline(_PART):
            self._grow(len(part), raw, packed)
            if part.endswith(b"\n"):
                return
