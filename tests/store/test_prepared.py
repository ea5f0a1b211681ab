"""Statements that go to the driver: what comes out, and what goes wrong as elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import pytest
from sqlalchemy import Connection, bindparam, insert, select, text
from sqlalchemy.orm import Session

from chatwheel.errors import InputError, UnavailableError
from chatwheel.store import accounts
from chatwheel.store.database import Database
from chatwheel.store.limits import _SPEND
from chatwheel.store.prepared import Prepared
from chatwheel.store.tables import PriceRow, SpendingRow, UserRow
from tests.databases import new_database

ADD = Prepared(
    insert(PriceRow).values(
        model=bindparam("name"), input=bindparam("cost"), cached_input=0, output=bindparam("cost"), training=0
    )
)
FIND = Prepared(select(PriceRow.model, PriceRow.input, PriceRow.output).where(PriceRow.model == bindparam("name")))


def test_they_belong_to_the_transaction(database: Database) -> None:
    with database.write() as session:
        assert ADD.rows(session, {"name": "a", "cost": 2**40}) == []
        ADD.each(session, [{"name": name, "cost": 1} for name in ("b", "名字")])
    with suppress(ZeroDivisionError), database.change() as connection:
        ADD.rows(connection, {"name": "c", "cost": 1})
        raise ZeroDivisionError
    with database.look() as connection:
        (found,) = FIND.rows(connection, {"name": "a"})
        assert (found.model, found.input, found.output) == ("a", 2**40, 2**40)
        assert [row.model for row in FIND.rows(connection, {"name": "名字"})] == ["名字"]
        assert FIND.rows(connection, {"name": "c"}) == []


def test_errors_are_those_of_others(database: Database) -> None:
    with database.write() as session:
        ADD.rows(session, {"name": "a", "cost": 1})
    with pytest.raises(Exception, match="not saved"), database.change() as connection:
        ADD.rows(connection, {"name": "a", "cost": 1})
    with database.write() as session, session.begin_nested():
        _SPEND[session.get_bind().dialect.name].each(
            session, [{"new_subject": "x", "new_month": "2026-11", "new_cost": cost} for cost in (1, 2)]
        )
    with database.read() as session:
        assert session.get_one(SpendingRow, ("x", "2026-11")).cost == 3


@pytest.fixture
def postgresql(postgresql_server: str) -> Iterator[Database]:
    database = Database.open(new_database(postgresql_server))
    yield database
    database.close()


def test_a_value_that_cannot_be_kept(postgresql: Database) -> None:
    with pytest.raises(InputError, match="cannot keep"), postgresql.change() as connection:
        ADD.rows(connection, {"name": "a\x00", "cost": 1})


def test_a_connection_that_is_lost_is_not_used_again(postgresql: Database) -> None:
    def lose(connection: Connection) -> None:
        backend = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
        with postgresql.write() as other:
            other.execute(text("SELECT pg_terminate_backend(:backend)"), {"backend": backend})
        ADD.rows(connection, {"name": "a", "cost": 1})

    with pytest.raises(UnavailableError):
        postgresql.transact_change(lose)
    with postgresql.change() as connection:
        ADD.rows(connection, {"name": "a", "cost": 1})


def test_what_would_not_come_to_its_value_is_refused(database: Database) -> None:
    some = Prepared(select(PriceRow.model).where(PriceRow.model.in_(bindparam("names", expanding=True))))
    new = Prepared(insert(UserRow).values(name=bindparam("name")))  # its id and times are Python's
    for statement in (some, new):
        with pytest.raises(AssertionError, match="say "), database.write() as session:
            statement.rows(session, {"names": ["a"], "name": "x"})


def test_whose_key_it_is_comes_out_with_scopes_and_models(database: Database) -> None:
    with database.write() as session:
        local = accounts.local_principal(session)
        made = accounts.create_key(
            session, project_id=local.project_id, user_id=local.user_id, name="k", scopes=["chat"], models=["m", "名"]
        )
    with database.look() as connection:
        found = accounts.authenticate(connection, made.secret)
    assert found is not None
    assert (found.scopes, found.models) == (frozenset({"chat"}), ("m", "名"))


def test_a_session_is_taken_as_well(database: Database) -> None:
    with database.write() as session:
        assert isinstance(session, Session)
        ADD.rows(session, {"name": "a", "cost": 1})
        assert session.get_one(PriceRow, "a").input == 1
