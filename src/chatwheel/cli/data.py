"""`chatwheel data`: import published data, inspect a file, clean records."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from chatwheel.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from chatwheel.data.cleaning import Rules
    from chatwheel.data.records import Json, Record
    from chatwheel.data.sources.formats import Kind

app = typer.Typer(help="Import, clean and inspect data.", no_args_is_help=True)
command = app


class KindOption(StrEnum):
    """What to make of the sources."""

    documents = "documents"
    conversations = "conversations"
    rankings = "rankings"
    ratings = "ratings"
    prompts = "prompts"


AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
Format = Annotated[str, typer.Option(help="The records' shape; auto tells it from the first records.")]
Field = Annotated[list[str] | None, typer.Option(help="OURS=THEIRS: read their field as ours, e.g. text=BODY.")]
Language = Annotated[str | None, typer.Option(help="Tag all records: en or zh. Told from the text if not given.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="The JSON Lines file to write.")]
Shortest = Annotated[int, typer.Option("--min-characters", min=1, help="Drop shorter records.")]
Longest = Annotated[int | None, typer.Option("--max-characters", min=1, help="Drop longer records.")]
Quality = Annotated[bool, typer.Option("--quality", help="Drop documents that are hardly prose: for crawled text.")]
Languages = Annotated[
    str | None, typer.Option(help="Keep only texts in these, told from the text, and tag them so: en,zh.")
]


@app.command("import")
def import_(
    sources: Annotated[list[Path], typer.Argument(help="Files: text, JSON Lines, JSON or CSV, plain or gzip.")],
    kind: Annotated[KindOption, typer.Option(help="What the sources hold.")],
    output: Output,
    format: Format = "auto",
    field: Field = None,
    language: Language = None,
    passage_bytes: Annotated[int | None, typer.Option(min=1, help="Cut question-answering passages.")] = None,
    clean: Annotated[bool, typer.Option(help="Normalise Unicode and spaces, strip boilerplate.")] = True,
    min_characters: Shortest = 1,
    max_characters: Longest = None,
    quality: Quality = False,
    languages: Languages = None,
    held_out: Annotated[float, typer.Option(min=0.0, max=0.5, help="Share to hold out, by prompt or document.")] = 0.0,
    held_out_output: Annotated[Path | None, typer.Option(help="Where the held-out records go.")] = None,
    as_json: AsJson = False,
) -> None:
    """Turn published data into Chatwheel's records."""
    from chatwheel.data.sources import load

    if (held_out > 0) != (held_out_output is not None):
        raise InputError("--held-out and --held-out-output belong together; give both or neither")
    if held_out_output is not None and held_out_output.absolute() == output.absolute():
        raise InputError(f"{output}: --output and --held-out-output are the same file; choose two")
    dropped: Counter[str] = Counter()
    fields = _fields(field or [])
    rules = _rules(min_characters, max_characters, quality, languages)

    def loaded() -> Iterator[Record]:
        for source in sources:
            yield from load(
                source,
                kind.value,
                format=format,
                language=language,
                fields=fields,
                passage_bytes=passage_bytes,
                skipped=dropped,
            )

    records = _kept(loaded(), dropped, rules, change=clean)
    result = _write(records, dropped, output, held_out, held_out_output)
    _report({"kind": kind.value, **result}, as_json)


@app.command()
def inspect(
    file: Annotated[Path, typer.Argument(help="A file of any known format.")],
    kind: Annotated[KindOption | None, typer.Option(help="Read it as this kind.")] = None,
    format: Format = "auto",
    field: Field = None,
    samples: Annotated[int, typer.Option(min=0, help="How many records to show.")] = 3,
    as_json: AsJson = False,
) -> None:
    """Show a file's format, counts, lengths, languages and a few records."""
    from chatwheel.data import sources
    from chatwheel.data.sources.survey import Survey

    fields = _fields(field or [])
    wanted = cast("Kind | None", kind and kind.value)
    detected = sources.inspect(file, wanted, format=format, fields=fields)
    chosen = detected.kind
    skipped: Counter[str] = Counter()
    survey = Survey()
    shown: list[Any] = []
    with _progress(f"reading {file.name}") as advance:
        for record in survey.watch(
            sources.load(file, chosen, format=detected.format.name, fields=fields, skipped=skipped)
        ):
            advance()
            if len(shown) < samples:
                shown.append(_shortened(record.model_dump(exclude_none=True)))
    _report(
        {
            "file": str(file),
            "container": detected.container,
            "format": detected.format.name,
            "kind": chosen,
            "kinds": list(detected.format.kinds),
            **survey.summary(),
            "dropped": dict(skipped),
            "samples": shown,
        },
        as_json,
    )


@app.command()
def clean(
    file: Annotated[Path, typer.Argument(help="Records, or a file of any known format.")],
    output: Output,
    kind: Annotated[KindOption | None, typer.Option(help="Read it as this kind.")] = None,
    min_characters: Shortest = 1,
    max_characters: Longest = None,
    quality: Quality = False,
    languages: Languages = None,
    boilerplate: Annotated[bool, typer.Option(help="Strip headers, footers and links from documents.")] = True,
    near_duplicates: Annotated[
        float | None, typer.Option(min=0.3, max=1, help="Drop what shares so much with an earlier record: 0.8, say.")
    ] = None,
    mask_personal_data: Annotated[
        bool, typer.Option(help="Replace e-mail addresses, telephone numbers, cards, keys and the like by marks.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Clean records, drop duplicates and records of unfit length."""
    from chatwheel.data import sources

    wanted = cast("Kind | None", kind and kind.value)
    chosen = sources.inspect(file, wanted).kind
    rules = _rules(min_characters, max_characters, quality, languages, boilerplate=boilerplate)
    dropped: Counter[str] = Counter()
    masked: Counter[str] = Counter()

    def kept(dropped: Counter[str], masked: Counter[str]) -> Iterator[Record]:
        loaded = sources.load(file, chosen, skipped=dropped)
        records = _kept(loaded, dropped, rules)
        return _masked(records, masked) if mask_personal_data else records

    records = kept(dropped, masked)
    if near_duplicates is not None:  # read once more to find them: 256 bytes a record are kept, not the records
        from chatwheel.data.deduplication import firsts

        records = firsts(records, _leaders(kept(Counter(), Counter()), near_duplicates), dropped)
    result = {"kind": chosen, **_write(records, dropped, output, 0.0, None)}
    _report({**result, "masked": dict(masked)} if mask_personal_data else result, as_json)


def _masked(records: Iterable[Record], found: Counter[str]) -> Iterator[Record]:
    from chatwheel.data.cleaning import with_texts
    from chatwheel.data.pii import mask

    for record in records:
        yield with_texts(record, lambda text: mask(text, found))


def _leaders(records: Iterable[Record], threshold: float) -> Sequence[int]:
    """For each record the first of its near-duplicates."""
    from chatwheel.data.cleaning import texts
    from chatwheel.data.deduplication import near_duplicates, signatures_of

    with _progress("comparing") as advance:

        def counted() -> Iterator[str]:
            for record in records:
                advance()
                yield "\n".join(texts(record))

        return near_duplicates(signatures_of(counted()), threshold)


def _fields(pairs: list[str]) -> dict[str, str]:
    """["text=BODY"] -> {"text": "BODY"}."""
    names = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
    if len(names) < len(pairs) or not all(ours and theirs for ours, theirs in names.items()):
        raise InputError("--field wants OURS=THEIRS, once for each field, e.g. --field text=BODY")
    return names


def _rules(
    shortest: int, longest: int | None, quality: bool, languages: str | None, *, boilerplate: bool = True
) -> Rules:
    from chatwheel.data.cleaning import Rules

    return Rules(
        min_characters=shortest,
        max_characters=longest,
        boilerplate=boilerplate,
        quality=quality,
        languages=None if languages is None else tuple(name.strip() for name in languages.split(",")),
    )


def _kept(records: Iterable[Record], dropped: Counter[str], rules: Rules, *, change: bool = True) -> Iterator[Record]:
    """Cleaned (or only measured), without duplicates."""
    from chatwheel.data.cleaning import clean
    from chatwheel.data.splits import unique

    return unique(clean(records, rules, dropped, change=change), dropped)


def _write(
    records: Iterator[Record], dropped: Counter[str], output: Path, held_out: float, held_out_output: Path | None
) -> Json:
    """Writes one file or two, which appear together. An empty result is an error, and then nothing is written."""
    from chatwheel.atomic import replacing
    from chatwheel.data.records import json_line
    from chatwheel.data.sources.survey import Survey
    from chatwheel.data.splits import key_of, split

    survey = Survey()
    paths = [output] if held_out_output is None else [output, held_out_output]
    written = dict.fromkeys(map(str, paths), 0)
    with _progress("importing") as advance, replacing(*paths) as files:
        for record in survey.watch(records):
            advance()
            place = int(split(key_of(record), held_out) == "held_out")
            files[place].write(json_line(record))
            written[str(paths[place])] += 1
        if not survey.records:
            reasons = "; ".join(f"{n} x {reason}" for reason, n in dropped.most_common(3))
            raise InputError(f"nothing to write to {output}: all records were dropped ({reasons}); loosen the limits")
    return {**survey.summary(), "written": written, "dropped": dict(dropped)}


@contextmanager
def _progress(title: str) -> Iterator[Any]:
    """A counter on standard error, where that is a terminal."""
    from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = _console()
    columns = SpinnerColumn(), TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(title, total=None)
        yield lambda: progress.advance(task)


def _console() -> Console:
    from rich.console import Console

    return Console(stderr=True)


def _report(result: Json, as_json: bool) -> None:
    """One JSON object on standard output, or a table on standard error."""
    if as_json:
        typer.echo(json.dumps(result, ensure_ascii=False))
        return
    from rich.markup import escape
    from rich.table import Table

    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in result.items():
        if name != "samples":
            table.add_row(name.replace("_", " "), escape(_readable(value)))
    console = _console()
    console.print(table)
    for sample in result.get("samples", []):
        console.print(escape(json.dumps(sample, ensure_ascii=False)), style="dim", soft_wrap=True)


def _readable(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_readable(found)}" for name, found in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else str(value)


def _shortened(value: Any, length: int = 200) -> Any:
    """The same value with long strings cut, for showing."""
    if isinstance(value, str):
        return value if len(value) <= length else f"{value[:length]}… ({len(value):,} characters)"
    if isinstance(value, list):
        return [_shortened(item, length) for item in value]
    return {k: _shortened(v, length) for k, v in value.items()} if isinstance(value, dict) else value
