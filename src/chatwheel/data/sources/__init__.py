"""Published data in its authors' formats -> Chatwheel's records.

    for record in load(Path("hh_harmless.jsonl.gz"), "rankings"): ...

`readers` turns bytes into objects, `formats` is the table of shapes, `conversations` and `rankings` convert.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import cast

from pydantic import ValidationError

from chatwheel.data.records import Conversation, Document, Json, Ranking, Rating, Record, describe
from chatwheel.data.sources import turns
from chatwheel.data.sources.fields import Skip, WrongFieldError, fields_of, renamed
from chatwheel.data.sources.formats import FORMATS, KINDS, Format, Kind, detect, known
from chatwheel.data.sources.language import language_of
from chatwheel.data.sources.rankings import shortened
from chatwheel.data.sources.readers import Container, Placed, container_of, read
from chatwheel.errors import InputError

__all__ = ["FORMATS", "KINDS", "Detected", "Format", "Kind", "inspect", "language_of", "load"]

_NUM_LOOKED_AT = 10  # records from which the shape is told


@dataclass(frozen=True)
class Detected:
    """What a file holds, told from its beginning; `kind` is the most telling that its first records yield."""

    container: Container
    format: Format
    kind: Kind


def inspect(
    path: Path, kind: Kind | None = None, *, format: str = "auto", fields: dict[str, str] | None = None
) -> Detected:
    """Container and shape of a file. Raises InputError where no format fits."""
    container = container_of(path)
    first = list(islice(_renamed(path, read(path, container), fields or {}), _NUM_LOOKED_AT))
    if not first:
        raise InputError(f"{path}: holds no records (it is empty)")
    shape = _format(path, container, kind, format, first)
    return Detected(container, shape, kind or _first_kind(path, shape, first))


def load(
    path: Path,
    kind: Kind,
    *,
    format: str = "auto",
    language: str | None = None,
    fields: dict[str, str] | None = None,
    passage_bytes: int | None = None,
    skipped: Counter[str] | None = None,
) -> Iterator[Record]:
    """The records of a file: Document, Demonstration, Ranking, Rating or Prompt by `kind`.

    format: a name in FORMATS; "auto" tells it from the first ten records.
    language: tags all records; else a record's own tag stands, else `language_of` decides.
    fields: our field name -> the file's, e.g. {"text": "BODY"}.
    passage_bytes: cuts the passages of question-answering prompts.
    skipped: is filled with how many records were passed over, by reason.

    Raises InputError naming file, place, field and remedy: damaged gzip, bad UTF-8, not JSON, a missing or
    wrong field, an unknown shape, a file that holds nothing of that kind.
    """
    skipped = Counter() if skipped is None else skipped
    container = container_of(path)
    values = _renamed(path, read(path, container), fields or {})
    first = list(islice(values, _NUM_LOOKED_AT))
    if not first:
        raise InputError(f"{path}: holds no records (it is empty)")
    shape = _format(path, container, kind, format, first)
    count = 0
    for place, value in chain(first, values):
        value = shortened(value, passage_bytes) if passage_bytes is not None else value
        for record in _converted(path, place, value, shape, kind, skipped):
            count += 1
            yield _tagged(record, path, language)
    if not count:
        reasons = "; ".join(f"{n} x {reason}" for reason, n in skipped.most_common(3))
        raise InputError(f"{path}: no {kind} in it; all records were passed over ({reasons})")


def _format(path: Path, container: Container, kind: Kind | None, name: str, first: list[Placed]) -> Format:
    if name != "auto" and name not in FORMATS:
        raise InputError(f"unknown format {name!r}; known formats: auto, {known()}")
    if name == "auto" and container == "text" and kind == "prompts":
        name = "lines"
    values = [value for _, value in first]
    shape = detect(values, kind) if name == "auto" else FORMATS[name]
    if shape is None and (usual := detect(values[:1], kind)) is not None:
        place, odd = next((place, value) for place, value in first if not usual.matches(value))
        raise InputError(
            f"{path}, {place}: not of the shape of the records before it, {usual.name} ({usual.looks_like}); its "
            f"fields: {fields_of(odd)}. Mend it, or name the format with --format"
        )
    if shape is None:
        raise InputError(
            f"{path}: unknown shape; the first record has the fields {fields_of(values[0])}. Known formats: {known()}. "
            f"Name one with --format, or map fields with --field OURS=THEIRS"
        )
    if kind is not None and kind not in shape.kinds:
        raise InputError(
            f"{path}: format {shape.name} ({shape.looks_like}) holds {', '.join(shape.kinds)}, not {kind}; "
            f"formats that hold {kind}: {known(kind)}"
        )
    return shape


def _first_kind(path: Path, shape: Format, first: list[Placed]) -> Kind:
    """Messages may be answered or not: the first kind of the shape that the first records can become."""
    for kind in shape.kinds:
        if any(True for place, value in first for _ in _converted(path, place, value, shape, kind, Counter())):
            return kind
    return shape.kinds[0]


def _renamed(path: Path, values: Iterator[Placed], fields: dict[str, str]) -> Iterator[Placed]:
    for place, value in values:
        try:
            yield place, renamed(value, fields) if fields else value
        except WrongFieldError as fault:
            raise InputError(f"{path}, {place}: {fault}") from None


def _converted(
    path: Path, place: str, value: Json, shape: Format, kind: Kind, skipped: Counter[str]
) -> Iterator[Record]:
    try:
        yield from _records(value, shape, kind)
    except Skip as reason:
        skipped[str(reason)] += 1
    except WrongFieldError as fault:
        raise InputError(f"{path}, {place}: {fault}; format {shape.name} is {shape.looks_like}") from None
    except ValidationError as error:
        raise InputError(f"{path}, {place}: {describe(error)}; format {shape.name} is {shape.looks_like}") from None


def _records(value: Json, shape: Format, kind: Kind) -> Iterator[Record]:
    if kind == "documents" and shape.documents:
        for document in shape.documents(value):
            if not document.text.strip():
                raise Skip("empty text")
            yield document
    elif kind == "rankings" and shape.rankings:
        yield from shape.rankings(value)
    elif kind == "ratings" and shape.ratings:
        yield from shape.ratings(value)
    elif kind == "conversations" and shape.dialogues:
        yield from map(turns.demonstration, shape.dialogues(value))
    else:
        asked = shape.dialogues or shape.rankings or shape.ratings
        assert asked is not None, "Format.kinds said that there are prompts"
        yield from map(turns.prompt, asked(value))


def _tagged(record: Record, path: Path, language: str | None) -> Record:
    source = record.source or path.name.split(".")[0]
    language = language or record.language or language_of(_sample(record))
    return record.model_copy(update={"source": source, "language": language})


def _sample(record: Record) -> str:
    """The text by which a record's language is told: the answer's, where there is one."""
    if isinstance(record, Document):
        return record.text
    if isinstance(record, Ranking):
        return record.messages[-1].content + "\n" + record.answers[0]
    if isinstance(record, Rating):
        return record.messages[-1].content + "\n" + record.answer
    return "\n".join(m.content for m in cast(Conversation, record).messages if m.role != "system")
