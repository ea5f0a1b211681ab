"""Tokens to text while they come: never half a character, never a piece of a stop string."""

from __future__ import annotations

from collections.abc import Sequence

from chatwheel.model.tokenizer import Tokenizer


class Detokenizer:
    """The text of one growing answer. After `add`, `take` gives what is certain by now."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str]) -> None:
        self._tokenizer, self._stop = tokenizer, stop
        self._ids: list[int] = []
        self._begin = 0  # ids before it are decoded for good
        self._context = 0  # from where ids are decoded again: some tokenizers drop the space before a text's first word
        self._context_text = ""
        self._settled = ""
        self._given = 0
        self.text = ""
        self.stopped = False

    def add(self, token_id: int) -> None:
        """One more token. Sets `stopped` when a stop string is complete; `text` then ends before it."""
        self._ids.append(token_id)
        piece = self._tokenizer.decode(self._ids[self._context :]).removeprefix(self._context_text)
        self.text = self._settled + piece
        # Pieces are decoded independently of all but their neighbour once they end on a character's last byte. What
        # decodes to nothing, a special token, is no neighbour.
        if piece and not piece.endswith("\ufffd"):
            self._context_text = self._tokenizer.decode(self._ids[self._begin :])
            self._settled, self._context, self._begin = self.text, self._begin, len(self._ids)
        ends = [i for i in (self.text.find(s) for s in self._stop) if i >= 0]
        if ends:
            self.text, self.stopped = self.text[: min(ends)], True

    def take(self, *, final: bool) -> str:
        """The new text that can be shown. Unless final, holds back what may become a character or a stop string."""
        end = len(self.text)
        if not final and not self.stopped:
            end = len(self.text.rstrip("\ufffd"))
            end -= max((_overlap(self.text[:end], s) for s in self._stop), default=0)
        new = self.text[self._given : end]
        self._given = max(self._given, end)
        return new


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of text that begins the stop string."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
