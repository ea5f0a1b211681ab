"""What all tables share: names of constraints, ids, checks."""

from __future__ import annotations

import secrets

from sqlalchemy import MetaData
from sqlalchemy.orm import DeclarativeBase

NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_name)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    """Constraints have names, so that a later version can change them."""

    metadata = MetaData(naming_convention=NAMES)


def new_id(prefix: str) -> str:
    """`conv-` or `msg-` or another prefix with 96 random bits: an id cannot be guessed."""
    return f"{prefix}-{secrets.token_hex(12)}"


def one_of(column: str, values: tuple[str, ...]) -> str:
    """The condition that a column has one of these values."""
    return f"{column} IN ({', '.join(repr(value) for value in values)})"
