"""How often passwords may be guessed: wrong ones are counted by name and by address, in the database, for all servers.

An attempt is counted before the password is looked at, so that many at once are not more than many in turn; a right one
is taken off again. What is tried while one has to wait is not looked at and makes the wait no longer: nobody is locked
out for more than a quarter of an hour. Where a name's password was right the last time, others' guesses do not count.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Collection, Mapping

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from chatwheel.store.database import lock
from chatwheel.store.limits import LimitError
from chatwheel.store.tables import AttemptRow

NAME_TRIES, ADDRESS_TRIES = 5, 20
WINDOW_SECONDS = 15 * 60.0
"""In which so many wrong ones make the next one wait."""
FIRST_SECONDS, MOST_SECONDS = 30.0, 15 * 60.0
"""Each wait is twice the one before, from the first to the most."""
MEMORY_SECONDS = 86400.0
"""After which all is forgiven."""


def subjects(name: str, address: str | None, known_address: str | None) -> dict[str, int]:
    """What an attempt counts for, and how many each has before it waits. known_address: where the name's password was
    last right."""
    name = " ".join(name.split())
    own = address is not None and address == known_address
    found = {_digest("name", name, address if own else None): NAME_TRIES}
    if address is not None:
        found[_digest("address", _network(address))] = ADDRESS_TRIES
    return found


def admit(session: Session, counted: Mapping[str, int], now: float) -> None:
    """Counts an attempt. Raises LimitError, which says for how long to wait."""
    names = sorted(counted)
    lock(session, names)
    rows = {row.subject: row for row in session.scalars(select(AttemptRow).where(AttemptRow.subject.in_(names)))}
    wait = max((_until(row, counted[row.subject]) - now for row in rows.values()), default=0.0)
    if wait > 0:
        raise LimitError(
            "Too many wrong passwords; wait before you try again.", code="too_many_attempts", retry_after=wait
        )
    for name in names:
        row = rows.get(name)
        if row is None or _is_over(row, counted[name], now):
            row = session.merge(AttemptRow(subject=name, count=0, first_at=now, last_at=now))
        row.count += 1
        row.last_at = now


def forgive(session: Session, counted: Mapping[str, int]) -> None:
    """The password was right: the name's count begins anew; of the address's only this attempt is taken off, as who
    guesses others' passwords may know one."""
    lock(session, sorted(counted))
    for row in session.scalars(select(AttemptRow).where(AttemptRow.subject.in_(counted))):
        if counted[row.subject] == NAME_TRIES or row.count <= 1:
            session.delete(row)
        else:
            row.count -= 1


def forget(session: Session, name: str, addresses: Collection[str | None] = (None,)) -> None:
    """A name may be tried at once: its password is a new one."""
    found = [_digest("name", " ".join(name.split()), address) for address in addresses]
    session.execute(delete(AttemptRow).where(AttemptRow.subject.in_(found)))


def tidy(session: Session, now: float) -> None:
    """Forgets what is forgiven."""
    session.execute(delete(AttemptRow).where(AttemptRow.last_at < now - MEMORY_SECONDS))


def _until(row: AttemptRow, tries: int) -> float:
    """When the next one is admitted."""
    beyond = row.count - tries
    return row.last_at + min(FIRST_SECONDS * 2.0 ** min(beyond, 30), MOST_SECONDS) if beyond >= 0 else 0.0


def _is_over(row: AttemptRow, tries: int, now: float) -> bool:
    return now - row.last_at > MEMORY_SECONDS or (row.count < tries and now - row.first_at > WINDOW_SECONDS)


def _network(address: str) -> str:
    """An address, or what one customer of a provider has of IPv6."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(ipaddress.ip_network((found, 64), strict=False)) if found.version == 6 else str(found)


def _digest(*parts: str | None) -> str:
    return hashlib.sha256("\0".join(part or "" for part in parts).encode("utf-8", "surrogatepass")).hexdigest()
