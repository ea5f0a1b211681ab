"""What tokens cost. Money is in billionths of a dollar. Functions work in the caller's transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from chatwheel.errors import InputError
from chatwheel.store.database import Transaction
from chatwheel.store.prepared import Prepared
from chatwheel.store.tables import PriceRow

DOLLAR = 10**9
"""In billionths of one."""
_PRICES = Prepared(select(PriceRow.model, PriceRow.input, PriceRow.cached_input, PriceRow.output, PriceRow.training))


@dataclass(frozen=True)
class Tokens:
    """Of a request. cached: those of the input that were not computed again."""

    input: int = 0
    cached: int = 0
    output: int = 0


@dataclass(frozen=True)
class Price:
    """Of a token, as in `tables.PriceRow`."""

    model: str
    input: int
    cached_input: int
    output: int
    training: int


def cost_of(tokens: Tokens, price: Price | None) -> int:
    """In billionths of a dollar; cached tokens at their own price."""
    if price is None:
        return 0
    fresh = tokens.input - tokens.cached
    return fresh * price.input + tokens.cached * price.cached_input + tokens.output * price.output


def price_of(session: Transaction, *models: str) -> Price | None:
    """The price of the first of these names that has one: its own, or that of the longest beginning of it."""
    prices = {row.model: row for row in _PRICES.rows(session)}
    for model in models if prices else ():
        beginnings = [name for name in prices if name.endswith("*") and model.startswith(name[:-1])]
        name = model if model in prices else max(beginnings, key=len, default=None)
        if name is not None:
            return Price(*prices[name])
    return None


def set_price(
    session: Session, model: str, *, input: int, cached_input: int | None = None, output: int, training: int = 0
) -> PriceRow:
    """In billionths of a dollar a token. Cached tokens cost as much as others unless said otherwise."""
    if min(input, input if cached_input is None else cached_input, output, training) < 0:
        raise InputError(f"the price of {model!r} is below zero")
    row = session.get(PriceRow, model) or PriceRow(model=model)
    row.input, row.output, row.training = input, output, training
    row.cached_input = input if cached_input is None else cached_input
    session.add(row)
    session.flush()
    return row


def list_prices(session: Session) -> Sequence[PriceRow]:
    """By name."""
    return session.scalars(select(PriceRow).order_by(PriceRow.model)).all()
