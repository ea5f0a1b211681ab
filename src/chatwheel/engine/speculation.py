"""Guessing what comes next, so that several tokens are computed in one step: from the text itself (prompt lookup;
Saxena, 2023). A guess changes no answer: each place draws its token as it would have without one, and the guesses are
kept as far as they are those tokens (see `Engine`)."""

from __future__ import annotations

from collections.abc import Sequence

LONGEST, SHORTEST = 3, 2
"""How many of the last tokens must have been there before, to guess what followed them then."""


class NgramDrafter:
    """The tokens of one sequence, by what came before them."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self._tokens: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}  # the last place that follows these tokens
        self._found: dict[int, int] = {}  # by length: what the end of the text followed before
        for token in tokens:
            self.add(token)

    def add(self, token: int) -> None:
        """The sequence has one more."""
        self._tokens.append(token)
        self._found = {}
        for length in range(SHORTEST, LONGEST + 1):
            if len(self._tokens) >= length:
                end = tuple(self._tokens[-length:])
                place = self._after.get(end)
                if place is not None:
                    self._found[length] = place
                self._after[end] = len(self._tokens)

    def propose(self, count: int) -> list[int]:
        """At most so many tokens that followed the last occurrence of the sequence's end."""
        place = next((self._found[n] for n in range(LONGEST, SHORTEST - 1, -1) if n in self._found), None)
        return [] if place is None else self._tokens[place : place + count]
