"""What may be seen of two answers while they are written, so that nothing tells the models' speed: both are shown at
one pace, that of the slower one, however they come."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

Side = Literal["left", "right"]
SIDES: tuple[Side, Side] = ("left", "right")
FIRST = 60
"""Characters that both have before any is shown. An answer that is shorter tells no pace: then both are shown when both
are there."""


@dataclass
class _Answer:
    text: str = ""
    shown: int = 0
    began: float | None = None
    ended: float | None = None

    @property
    def over(self) -> bool:
        return self.ended is not None and self.shown == len(self.text)

    def pace(self, now: float) -> float:
        """Characters a second, since its first one."""
        taken = (now if self.ended is None else self.ended) - (now if self.began is None else self.began)
        return len(self.text) / taken if taken > 0 else math.inf


@dataclass
class Curtain:
    """Times are seconds of any clock that does not go back. As many characters are shown of the one as of the other, at
    the pace of the one that is written more slowly, whenever each has begun; where one is over, the other goes on at
    that pace. Pieces are cut by characters, not by tokens, which would tell a tokenizer."""

    first: int = FIRST
    _answers: dict[Side, _Answer] = field(default_factory=lambda: {side: _Answer() for side in SIDES})
    _allowed: float = 0.0
    _taken: float | None = None

    def add(self, side: Side, text: str, now: float) -> None:
        """A piece has come."""
        answer = self._answers[side]
        answer.text += text
        if text and answer.began is None:
            answer.began = now

    def end(self, side: Side, now: float) -> None:
        """No more will come."""
        self._answers[side].ended = now

    @property
    def over(self) -> bool:
        """Whether both are shown to their ends."""
        return all(answer.over for answer in self._answers.values())

    def text(self, side: Side) -> str:
        """All that has come of an answer, shown or not."""
        return self._answers[side].text

    def take(self, now: float) -> dict[Side, str]:
        """What is to be shown next of each; empty texts where there is nothing."""
        answers = list(self._answers.values())
        if self._taken is not None:
            pace = min(answer.pace(now) for answer in answers)
            self._allowed = math.inf if pace == math.inf else self._allowed + pace * (now - self._taken)
        elif any(answer.ended is not None and len(answer.text) < self.first for answer in answers):
            if any(answer.ended is None for answer in answers):
                return dict.fromkeys(SIDES, "")
            self._allowed = math.inf
        elif all(len(answer.text) >= self.first for answer in answers):
            self._allowed = self.first
        else:
            return dict.fromkeys(SIDES, "")
        self._taken = now
        # Of what is written still, no more than there is of the other one.
        self._allowed = min(self._allowed, *(len(one.text) if one.ended is None else math.inf for one in answers))
        return {side: self._show(side) for side in SIDES}

    def _show(self, side: Side) -> str:
        answer = self._answers[side]
        to = int(min(self._allowed, len(answer.text)))
        piece = answer.text[answer.shown : to]
        answer.shown = max(answer.shown, to)
        return piece
