"""Finds words of a vocabulary in a text, however they are spelled, in time linear in its length.

A unit is a word or a Chinese character; a term is one or more units in a row, so that spaces and signs between Chinese
characters hide nothing. Where terms overlap, the longest wins: 杀毒 (remove a virus) takes the 杀 (kill) away.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

# Words with what stands for letters in them; single Chinese characters; ends of sentences. Each alternative is one
# character class, so no input makes the search go back.
_UNITS = re.compile(
    r"[^\W\u3400-\u9fff_]+(?:['’@$!*|+]+[^\W\u3400-\u9fff_]+)*|[@$][a-z]+|[\u3400-\u9fff]|[.!?。！？;；…\n]+"
)
_SPELLED = re.compile(r"(?<![^\W_])[a-z0-9@$](?:[ ._*\-/]{1,3}[a-z0-9@$](?![^\W_])){2,}")
_LETTERS = str.maketrans("013457@$!|+авекмнорстухі", "oieastasiltabekmhopctyxi")
_RUNS = re.compile(r"(.)\1{2,}")
_ENDS = frozenset(".!?。！？;；…\n")
SENTENCE = 100
"""By how many units the end of a sentence moves what follows away."""

LONGEST_SPELLED = 200
"""Letters that are put together: dividing them into words takes the square of their number."""


@dataclass(frozen=True)
class Hit:
    """A term at its place, in units. concepts: what it may mean; none for a term that only takes its words away."""

    begin: int
    end: int
    concepts: frozenset[str]


class Vocabulary:
    """terms: the concepts of each term, whose units stand with spaces between English words."""

    def __init__(self, terms: Mapping[str, frozenset[str]]) -> None:
        self._single: dict[str, frozenset[str]] = {}
        self._longer: dict[str, dict[str, list[tuple[list[str], frozenset[str]]]]] = {}  # by the first two units
        self._words: set[str] = set()
        for term, concepts in sorted(terms.items(), key=lambda entry: -len(entry[0])):
            units = _UNITS.findall(term)
            self._words.update(units)
            if len(units) == 1:
                self._single[units[0]] = concepts
            else:
                self._longer.setdefault(units[0], {}).setdefault(units[1], []).append((units, concepts))
        for seconds in self._longer.values():
            for found in seconds.values():
                found.sort(key=lambda entry: -len(entry[0]))
        self._longest_word = max(map(len, self._words))
        self._spelled = lru_cache(maxsize=4096)(self._read)

    def find(self, text: str) -> list[Hit]:
        """The terms of a normalised text, in order."""
        units, places = self._units(text)
        hits, i, count = [], 0, len(units)
        while i < count:
            unit = units[i]
            length, concepts = 1, self._single.get(unit)
            if i + 1 < count and (seconds := self._longer.get(unit)):
                for term, meant in seconds.get(units[i + 1], ()):
                    # A sentence may not end within a term.
                    size = len(term)
                    if units[i : i + size] == term and places[i + size - 1] - places[i] < SENTENCE:
                        length, concepts = size, meant
                        break
            if concepts is not None:
                hits.append(Hit(places[i], places[i + length - 1] + 1, concepts))
            i += length
        return hits

    def _units(self, text: str) -> tuple[list[str], list[int]]:
        units: list[str] = []
        places: list[int] = []
        place = 0
        for unit in _UNITS.findall(_SPELLED.sub(self._joined, text)):
            if unit in self._words or (len(unit) == 1 and unit not in _ENDS):
                units.append(unit)
                places.append(place)
                place += 1
            elif unit[0] in _ENDS:
                place += SENTENCE
            else:
                for word in self._spelled(unit):
                    units.append(word)
                    places.append(place)
                    place += 1
        return units, places

    def _joined(self, match: re.Match[str]) -> str:
        """`k i l l y o u` as `kill you`, if it is all words of the vocabulary; else as it was."""
        letters = re.sub(r"[^a-z0-9@$]", "", match.group())
        for candidate in (letters, letters.translate(_LETTERS)) if len(letters) <= LONGEST_SPELLED else ():
            words = self._divided(candidate)
            if words is not None:
                return " ".join(words)
        return match.group()

    def _divided(self, letters: str) -> list[str] | None:
        """The fewest words that make up the letters, by dynamic programming."""
        best: list[list[str] | None] = [[]]
        for end in range(1, len(letters) + 1):
            choices = [
                [*before, letters[begin:end]]
                for begin in range(max(0, end - self._longest_word), end)
                if (before := best[begin]) is not None and letters[begin:end] in self._words
            ]
            best.append(min(choices, key=len, default=None))
        return best[-1]

    def _read(self, unit: str) -> tuple[str, ...]:
        """A word that is none of the vocabulary, as one that is, if it reads so: k1ll, fuuuck, kill'em; else itself."""
        for form in _forms(unit):
            if form in self._words:
                return (form,)
        parts = re.split(r"['’]", unit)
        return tuple(part for part in parts if part) if len(parts) > 1 else (unit,)


def _forms(unit: str) -> Iterator[str]:
    plain = unit.replace("’", "'")
    yield plain
    letters = plain.translate(_LETTERS) if any(c.isalpha() for c in plain) else plain
    yield letters
    for replacement in (r"\1\1", r"\1"):
        yield _RUNS.sub(replacement, letters)
    yield letters.replace("*", "")
    yield letters.replace("'", "")
