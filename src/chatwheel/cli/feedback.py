"""`chatwheel feedback`: what people said about answers, as files to learn from."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from chatwheel.cli.options import Home, Json

app = typer.Typer(help="Export what people said about answers.", no_args_is_help=True)


class KindOption(StrEnum):
    """As `feedback.export.Kind`, for the command line."""

    ratings = "ratings"
    rankings = "rankings"
    demonstrations = "demonstrations"


class TaskKindOption(StrEnum):
    """As `store.tables.TaskKind`, for the command line."""

    rank = "rank"
    rate = "rate"
    reply = "reply"
    prompt = "prompt"


Queue = Annotated[str, typer.Option("--to", help="The queue's id, or a name that one queue has.")]


@app.command("queues")
def queues(home: Home = None, as_json: Json = False) -> None:
    """List the labelling queues and how far they are."""
    import json

    from chatwheel.cli.options import opened
    from chatwheel.feedback.room.queues import list_queues, progress

    with opened(home) as database, database.read() as session:
        rows = [(row, progress(session, row, "")) for row in list_queues(session)]
    if as_json:
        about = [{"id": row.id, "name": row.name, "kind": row.kind} for row, _ in rows]
        print(json.dumps([one | {"tasks": p.tasks, "done": p.done} for one, (_, p) in zip(about, rows, strict=True)]))
    for row, done in [] if as_json else rows:
        print(f"{row.id}  {row.name}  ({row.kind}): {done.done:,} of {done.tasks:,} tasks")


@app.command("queue")
def queue(
    name: Annotated[str, typer.Argument(help="What people call it.")],
    kind: Annotated[TaskKindOption, typer.Option(help="What people do in it.")] = TaskKindOption.rank,
    guidelines: Annotated[Path | None, typer.Option(help="A Markdown file that is shown beside each task.")] = None,
    labellers: Annotated[int | None, typer.Option(help="How many judge each task.", show_default=False)] = None,
    project: Annotated[str | None, typer.Option(help="Whose members label; the first project's.")] = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Make a labelling queue; `chatwheel feedback import` fills it, and people label at #/label."""
    import json
    import sys

    from chatwheel.cli.options import opened
    from chatwheel.errors import InputError
    from chatwheel.feedback.room.queues import create_queue
    from chatwheel.store import accounts

    try:
        text = guidelines.read_text(encoding="utf-8") if guidelines else ""
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{guidelines}: cannot be read as UTF-8 text ({error})") from None
    with opened(home) as database, database.write() as session:
        home_project = accounts.local_principal(session).project_id
        where = accounts.get_project(session, project).id if project else home_project
        made = create_queue(session, where, name, kind.value, guidelines=text, labellers=labellers).id
    print(json.dumps({"id": made}) if as_json else made)
    print(f"fill it: chatwheel feedback import FILE --to {made}", file=sys.stderr)


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="JSON Lines, JSON or CSV, packed or not.")],
    to: Queue,
    format: Annotated[str, typer.Option(help="A format's name; auto tells it from the first records.")] = "auto",
    ranks: Annotated[bool, typer.Option(help="Keep how the file ranks, as an outsider's judgement.")] = True,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Fill a labelling queue from a file, all of it or nothing: hh-rlhf, ranked lists, Open-Assistant's trees,
    Argilla's records, OpenAI's preference lines, and what `chatwheel data import` reads."""
    import json
    import sys
    from dataclasses import asdict

    from chatwheel.cli.options import opened
    from chatwheel.feedback.room.importing import import_file
    from chatwheel.feedback.room.queues import find_queue

    with opened(home) as database, database.write() as session:
        done = import_file(session, find_queue(session, to), file, format=format, ranks=ranks)
    if as_json:
        print(json.dumps(asdict(done)))
        return
    print(f"{done.added:,} tasks added from {done.format}, {done.judgements:,} judgements kept", file=sys.stderr)
    if done.already:
        print(f"{done.already:,} were there already", file=sys.stderr)
    for reason, count in done.passed_over.items():
        print(f"{count:,} passed over: {reason}", file=sys.stderr)


@app.command("export")
def export(
    output: Annotated[Path, typer.Option("--output", "-o", help="A .jsonl file; replaced if it is there.")],
    kind: Annotated[
        KindOption | None,
        typer.Argument(help="Of the chats: thumbs, choices between answers, or corrected answers.", show_default=False),
    ] = None,
    queue: Annotated[
        str | None, typer.Option(help="What a labelling queue has come to, by its id or name.", show_default=False)
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            help="Of a queue: ranked, judgements, hh-rlhf, openassistant, argilla, openai, chat, prompts, labels."
        ),
    ] = None,
    everybody: Annotated[
        bool, typer.Option("--everybody", help="Also of people who have neither agreed nor refused.")
    ] = False,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Write what people said, or labellers judged, as records for `chatwheel train`: thumbs for kto, rankings for
    reward and dpo, demonstrations for sft. Names are replaced by others that are drawn anew each time."""
    import json
    import secrets
    import sys
    from itertools import chain

    from chatwheel.cli.options import opened
    from chatwheel.data.records import write_jsonl
    from chatwheel.errors import InputError
    from chatwheel.feedback.export import Export

    if queue is not None:
        if kind is not None or everybody:
            raise InputError("--queue writes what labellers did; leave the kind of chats' feedback out")
        _export_queue(queue, format, output, home, as_json)
        return
    if kind is None or format is not None:
        raise InputError("say what to write: ratings, rankings or demonstrations of the chats, or --queue QUEUE")
    with opened(home) as database, database.read() as session:
        source = Export(session, secrets.token_hex(16), everybody=everybody)
        records = getattr(source, kind.value)()
        first = next(records, None)
        if first is None:
            hint = (
                "" if everybody else " of people who have agreed to it, in the page's settings or by PUT /api/consent"
            )
            raise InputError(f"there are no {kind.value} yet{hint}")
        written = write_jsonl(output, chain([first], records), mode=0o600)  # people's chats are nobody else's
    if as_json:
        print(json.dumps({"written": {str(output): written}, "incomplete": source.incomplete}))
    else:
        left_out = f"; {source.incomplete:,} left out, as their answers had broken off" if source.incomplete else ""
        print(f"{written:,} {kind.value} written to {output}{left_out}", file=sys.stderr)


def _export_queue(name: str, format: str | None, output: Path, home: Path | None, as_json: bool) -> None:
    import json
    import secrets
    import sys

    from chatwheel.cli.options import opened
    from chatwheel.data.records import write_jsonl
    from chatwheel.feedback.room.exporting import export_queue
    from chatwheel.feedback.room.queues import find_queue

    with opened(home) as database, database.read() as session:
        found = export_queue(session, find_queue(session, name), format, secrets.token_hex(16))
    written = write_jsonl(output, found.records, mode=0o600)
    if as_json:
        print(json.dumps({"written": {str(output): written}, "format": found.format, "left_out": found.left_out}))
        return
    print(f"{written:,} records written to {output} ({found.format})", file=sys.stderr)
    for reason, count in found.left_out.items():
        print(f"{count:,} left out: {reason}", file=sys.stderr)
