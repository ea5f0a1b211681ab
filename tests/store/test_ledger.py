"""Small writes, together."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import wait

import pytest
from sqlalchemy import Connection, event, text
from sqlalchemy.orm import Session

from chatwheel.errors import InputError, StorageError
from chatwheel.store import accounts
from chatwheel.store.database import Database
from chatwheel.store.ledger import Ledger
from chatwheel.store.tables import UserRow


@pytest.fixture
def ledger(database: Database) -> Iterator[Ledger]:
    ledger = Ledger(database)
    yield ledger
    ledger.close()


def names(database: Database) -> set[str]:
    with database.read() as session:
        return {user.name for user in accounts.list_users(session)} - {"admin"}


def create(connection: Connection, name: str) -> UserRow:
    session = Session(connection, join_transaction_mode="rollback_only", expire_on_commit=False)
    user = accounts.create_user(session, name)
    session.flush()
    return user


def test_what_waits_is_one_transaction(database: Database, ledger: Ledger) -> None:
    commits: list[int] = []
    gate, waits = threading.Event(), threading.Event()

    def first(connection: Connection) -> None:
        waits.set()
        gate.wait(10)
        event.listen(connection.engine, "commit", lambda _: commits.append(1))

    begun = ledger.write(first)
    assert waits.wait(10)
    others = [ledger.write(lambda c, n=n: create(c, f"user {n}").name) for n in range(40)]
    gate.set()
    wait([begun, *others], 20)
    assert [other.result() for other in others] == [f"user {n}" for n in range(40)]
    assert names(database) == {f"user {n}" for n in range(40)}
    assert len(commits) <= 3  # the first one's, and one or two for the other forty


def test_one_that_is_refused_takes_no_other_along(database: Database, ledger: Ledger) -> None:
    gate = threading.Event()
    begun = ledger.write(lambda _: gate.wait(10))

    def half(connection: Connection) -> None:
        create(connection, "half")
        raise InputError("no")

    def broken(connection: Connection) -> None:
        create(connection, "broken")
        connection.execute(text("SELECT * FROM nothing_of_that_name"))

    good, bad, worse, last = (
        ledger.write(lambda c: create(c, "good").name),
        ledger.write(half),
        ledger.write(broken),
        ledger.write(lambda c: create(c, "last").name),
    )
    gate.set()
    begun.result(10)
    assert good.result(10) == "good"
    with pytest.raises(InputError, match="no"):
        bad.result(10)
    with pytest.raises(StorageError, match="not saved"):
        worse.result(10)
    assert last.result(10) == "last"
    assert names(database) == {"good", "last"}


def test_closing_writes_what_waits(database: Database) -> None:
    ledger = Ledger(database)
    waiting = [ledger.write(lambda c, n=n: create(c, f"user {n}").id) for n in range(20)]
    ledger.close()
    assert len({one.result(0) for one in waiting}) == 20
    with pytest.raises(StorageError):
        ledger.write(lambda _: None)
