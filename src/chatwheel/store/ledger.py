"""Many small writes as few transactions: whatever waits is written together, and then all who wait are told.

A transaction costs more than a row in it. With 32 answers that each note a token a step, one transaction a step is
enough; alone, a write goes through at once.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Connection

from chatwheel.errors import ChatwheelError, StorageError, UnavailableError
from chatwheel.store import metering
from chatwheel.store.database import Database, lock
from chatwheel.store.prices import Tokens

T = TypeVar("T")
MOST_TOGETHER = 256


@dataclass(frozen=True)
class _Entry:
    """work: what to do in a transaction, or the tokens of a request's row."""

    work: Callable[[Connection], Any] | tuple[int, Tokens]
    done: Future[Any]
    locks: Sequence[str]


class Ledger:
    """A thread that writes. What fails is undone alone: a writer's rows are all there or none, whatever the others'."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._inbox: queue.SimpleQueue[_Entry | None] = queue.SimpleQueue()
        self._closing = threading.Lock()
        self._closed = False
        self._thread: threading.Thread | None = None  # from the first write on

    def write(self, work: Callable[[Connection], T], locks: Sequence[str] = ()) -> Future[T]:
        """Does `work` in a transaction; the future is done when it is on the disk. locks: what is to be locked for it
        (`database.lock`), with what the others of the same transaction lock, before any of them begins."""
        return self._put(work, locks)

    def count(self, usage_id: int, tokens: Tokens) -> Future[None]:
        """`metering.count`; of many at a time, one statement."""
        return self._put((usage_id, tokens), ())

    def _put(self, work: Callable[[Connection], Any] | tuple[int, Tokens], locks: Sequence[str]) -> Future[Any]:
        done: Future[Any] = Future()
        with self._closing:
            if self._closed:
                raise StorageError("the ledger is closed")
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
                self._thread.start()
            self._inbox.put(_Entry(work, done, locks))
        return done

    def close(self) -> None:
        """Writes what waits, and ends."""
        with self._closing:
            if not self._closed:
                self._closed = True
                self._inbox.put(None)
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        ends = False
        while not ends:
            entries: list[_Entry] = []
            while not entries or (len(entries) < MOST_TOGETHER and not self._inbox.empty()):
                entry = self._inbox.get()
                if entry is None:
                    ends = True
                    break
                if entry.done.set_running_or_notify_cancel():
                    entries.append(entry)
            if entries:
                self._write(entries)

    def _write(self, entries: list[_Entry]) -> None:
        def together(connection: Connection) -> list[tuple[Any, ChatwheelError | None]]:
            results: list[tuple[Any, ChatwheelError | None]] = []
            lock(connection, (name for entry in entries for name in entry.locks))
            # A request's counts come in order, and what ends it waits for them: the last one holds.
            if counts := dict(entry.work for entry in entries if isinstance(entry.work, tuple)):
                metering.count_all(connection, counts)
            for entry in entries:
                if isinstance(entry.work, tuple):
                    results.append((None, None))
                    continue
                if len(entries) == 1:  # what it raises undoes the whole transaction
                    return [(entry.work(connection), None)]
                try:
                    with connection.begin_nested():
                        results.append((entry.work(connection), None))
                except StorageError:
                    raise
                except ChatwheelError as error:
                    results.append((None, error))
            return results

        try:
            results = self._database.transact_change(together)
        except UnavailableError as error:  # each for itself would only wait as long, one behind the other
            for entry in entries:
                entry.done.set_exception(error)
            return
        except Exception as error:
            if len(entries) == 1:
                entries[0].done.set_exception(error)
            else:  # each for itself, so that one that cannot be written does not take others along
                for entry in entries:
                    self._write([entry])
            return
        for entry, (value, failure) in zip(entries, results, strict=True):
            if failure is None:
                entry.done.set_result(value)
            else:
                entry.done.set_exception(failure)
