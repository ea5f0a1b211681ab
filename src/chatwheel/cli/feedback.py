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


@app.callback()
def group() -> None:
    """Keeps `export` a verb of its own, as others will stand beside it."""


@app.command("export")
def export(
    kind: Annotated[KindOption, typer.Argument(help="Thumbs, choices between answers, or corrected answers.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="A .jsonl file; replaced if it is there.")],
    everybody: Annotated[
        bool, typer.Option("--everybody", help="Also of people who have neither agreed nor refused.")
    ] = False,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Write what people said as records for `chatwheel train`: thumbs for kto, rankings for reward and dpo,
    demonstrations for sft. Names are replaced by others that are drawn anew each time."""
    import json
    import secrets
    import sys
    from itertools import chain

    from chatwheel.cli.options import opened
    from chatwheel.data.records import write_jsonl
    from chatwheel.errors import InputError
    from chatwheel.feedback.export import Export

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
