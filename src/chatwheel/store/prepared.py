"""Statements that every request needs: built and compiled once, and run by the database's own driver.

SQLAlchemy takes 0.1 to 0.2 ms for a statement that takes SQLite 0.02 ms; a chat needs eleven. What they say is still
SQLAlchemy's, and they belong to the session's transaction; only numbers and texts go in and come out as they are.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Dialect, Executable
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import ClauseElement

Values = Mapping[str, Any]


@dataclass(eq=False)
class _Compiled:
    """For one kind of database. names: of the parameters by place, None where the driver takes them by name.
    constants: parameters that the statement has values for itself."""

    sql: str
    names: Sequence[str] | None
    constants: Values
    row: type[Any] | None = field(default=None)

    def parameters(self, values: Values) -> Any:
        """As the driver takes them."""
        values = {**self.constants, **values} if self.constants else values
        return values if self.names is None else tuple(values[name] for name in self.names)


class Prepared:
    """A statement with `bindparam`s, each of which gets a value when it is run. Does not see what a session has not
    flushed."""

    def __init__(self, statement: Executable) -> None:
        self._statement = statement
        self._compiled: dict[str, _Compiled] = {}

    def rows(self, session: Session | Connection, values: Values | None = None) -> list[Any]:
        """Runs it; its rows, with the columns as attributes. Raises SQLAlchemy's errors."""
        with self._cursor(session) as (compiled, cursor):
            cursor.execute(compiled.sql, compiled.parameters(values or {}))
            if cursor.description is None:
                return []
            row = compiled.row
            if row is None:
                row = compiled.row = namedtuple("row", [column[0] for column in cursor.description])
            return [row(*found) for found in cursor.fetchall()]

    def each(self, session: Session | Connection, values: Sequence[Values]) -> None:
        """Runs it for each of these, in order."""
        with self._cursor(session) as (compiled, cursor):
            cursor.executemany(compiled.sql, [compiled.parameters(one) for one in values])

    @contextmanager
    def _cursor(self, session: Session | Connection) -> Iterator[tuple[_Compiled, Any]]:
        connection = session if isinstance(session, Connection) else session.connection()
        dialect = connection.dialect
        compiled = self._compiled.get(dialect.name) or self._compile(dialect)
        cursor = connection.connection.cursor()
        try:
            yield compiled, cursor
        except dialect.loaded_dbapi.Error as error:
            raise _told(connection, compiled.sql, error, cursor) from error
        finally:
            cursor.close()

    def _compile(self, dialect: Dialect) -> _Compiled:
        assert isinstance(self._statement, ClauseElement)
        compiled = self._statement.compile(dialect=dialect)
        assert isinstance(compiled, SQLCompiler)
        # Neither would come to its value: a default of Python's, or a list of any length.
        assert not [*compiled.insert_prefetch, *compiled.update_prefetch], "say the value of each column"
        assert not compiled.post_compile_params, "say how many values there are"
        constants = {name: value for name, value in compiled.params.items() if not compiled.binds[name].required}
        names = compiled.positiontup if compiled.positional else None
        self._compiled[dialect.name] = found = _Compiled(compiled.string, names, constants)
        return found


def _told(connection: Connection, sql: str, error: Exception, cursor: Any) -> BaseException:
    """A driver's error as SQLAlchemy would raise it. A connection that is lost is not used again."""
    dialect = connection.dialect
    lost = dialect.is_disconnect(error, connection.connection, cursor)  # type: ignore[arg-type]
    told = DBAPIError.instance(
        sql, None, error, dialect.loaded_dbapi.Error, connection_invalidated=lost, dialect=dialect
    )
    if lost:
        connection.invalidate(error)
    return told
