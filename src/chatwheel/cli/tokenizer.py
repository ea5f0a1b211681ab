"""`chatwheel tokenizer`: train one, or see how a text is cut."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Train a tokenizer; encode text.", no_args_is_help=True)


@app.command("train")
def train(
    sources: Annotated[list[Path], typer.Argument(help="Text, in any format of `chatwheel data import`.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The directory to write.")],
    vocab_size: Annotated[int, typer.Option(help="Tokens, the 256 bytes and 5 special ones included.")] = 8192,
) -> None:
    """Learn byte-level BPE from text."""
    from chatwheel.data.records import Document
    from chatwheel.data.sources import load
    from chatwheel.model.checkpoint import replace_directory
    from chatwheel.model.tokenizer import Tokenizer

    documents = (record for source in sources for record in load(source, "documents"))
    texts = (record.text for record in documents if isinstance(record, Document))
    tokenizer = Tokenizer.train(texts, vocab_size)
    replace_directory(output, lambda place: tokenizer.save(place, max_positions=2048))
    print(f"{output}: {tokenizer.vocab_size:,} tokens")


@app.command("encode")
def encode(
    text: Annotated[str, typer.Argument(help="The text.")],
    model: Annotated[str, typer.Option("--model", "-m", help="A model's name, or a directory with tokenizer.json.")],
    home: Annotated[Path | None, typer.Option(help="Instead of $CHATWHEEL_HOME or ~/.chatwheel.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show the tokens of a text."""
    import json

    from chatwheel.model.tokenizer import Tokenizer
    from chatwheel.settings import Settings
    from chatwheel.store.registry import Registry

    directory = Path(model)
    if not (directory / "tokenizer.json").is_file():
        directory = Registry(Settings.load(home).models).resolve(model)
    tokenizer = Tokenizer.load(directory)
    ids = tokenizer.encode(text)
    if as_json:
        print(json.dumps({"ids": ids, "tokens": [tokenizer.decode([i]) for i in ids], "num_tokens": len(ids)}))
    else:
        print(f"{len(ids)} tokens: " + " | ".join(tokenizer.decode([i]) for i in ids))
