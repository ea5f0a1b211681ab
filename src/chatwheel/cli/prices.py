"""`chatwheel prices`: what tokens cost, in dollars for a million."""

from __future__ import annotations

from typing import Annotated

import typer

from chatwheel.cli.options import Home, Json

app = typer.Typer(help="Set and list what tokens cost.", no_args_is_help=True)


@app.command("set")
def set_price(
    model: Annotated[str, typer.Argument(help="A name, or the beginning of names and `*`: 'quickstart/*', '*'.")],
    input: Annotated[float, typer.Option(min=0.0, help="Dollars for a million tokens of prompts.")],
    output: Annotated[float, typer.Option(min=0.0, help="Dollars for a million tokens of answers.")],
    cached_input: Annotated[
        float | None, typer.Option(min=0.0, help="Of prompts read before. [default: as input]")
    ] = None,
    training: Annotated[float, typer.Option(min=0.0, help="Of a file that is learnt from, each epoch.")] = 0.0,
    home: Home = None,
) -> None:
    """From now on; what was used before keeps its cost."""
    from chatwheel.cli.options import opened
    from chatwheel.store import accounts, prices

    nano = prices.DOLLAR / 10**6
    with opened(home) as database, database.write() as session:
        prices.set_price(
            session,
            model,
            input=round(input * nano),
            cached_input=None if cached_input is None else round(cached_input * nano),
            output=round(output * nano),
            training=round(training * nano),
        )
        accounts.record(session, None, "price.set", model, input=input, output=output, training=training)


@app.command("list")
def list_prices(home: Home = None, as_json: Json = False) -> None:
    """By model. The longest beginning that fits a name counts; a model without a price costs nothing."""
    import json

    from chatwheel.cli.options import opened
    from chatwheel.store import prices

    names = ("input", "cached_input", "output", "training")
    with opened(home) as database, database.read() as session:
        rows = [
            {"model": row.model} | {name: getattr(row, name) * 10**6 / prices.DOLLAR for name in names}
            for row in prices.list_prices(session)
        ]
    if as_json:
        print(json.dumps({"prices": rows}, ensure_ascii=False))
        return
    if not rows:
        print("no prices: everything is free")
    for row in rows:
        print(f"{row['model']:<40}" + "  ".join(f"{name} {row[name]:g}" for name in names))
