"""What is in a set of records: how many, how long, in which languages."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TypeVar

from chatwheel.data.cleaning import texts
from chatwheel.data.records import Json, Record

RecordT = TypeVar("RecordT", bound=Record)

_QUANTILES = {"min": 0.0, "p10": 0.1, "median": 0.5, "p90": 0.9, "max": 1.0}


class Survey:
    """Counts records as they pass by; memory is eight bytes a record."""

    def __init__(self) -> None:
        self.languages: Counter[str] = Counter()
        self.characters: Counter[str] = Counter()
        self._lengths = array("Q")

    @property
    def records(self) -> int:
        """How many passed by."""
        return len(self._lengths)

    def watch(self, records: Iterable[RecordT]) -> Iterator[RecordT]:
        """Passes the records on and counts each."""
        for record in records:
            language, length = record.language or "unknown", sum(map(len, texts(record)))
            self.languages[language] += 1
            self.characters[language] += length
            self._lengths.append(length)
            yield record

    def lengths(self) -> dict[str, int]:
        """Quantiles of the records' lengths in characters; empty where nothing passed by."""
        ordered = sorted(self._lengths)
        return {name: ordered[round(q * (len(ordered) - 1))] for name, q in _QUANTILES.items()} if ordered else {}

    def summary(self) -> Json:
        """The survey as one JSON object."""
        return {
            "records": self.records,
            "languages": dict(self.languages.most_common()),
            "characters": self.characters.total(),
            "characters_by_language": dict(self.characters.most_common()),
            "lengths": self.lengths(),
        }
