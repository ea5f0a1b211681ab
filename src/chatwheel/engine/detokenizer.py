"""Tokens to text while they come: never half a character, never a piece of a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from chatwheel.model.tokenizer import Tokenizer


class Detokenizer:
    """The text of one growing answer. After `add`, `take` gives what is certain by now."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str]) -> None:
        pieces = tokenizer.pieces
        self._reader = _Window(tokenizer) if pieces is None else _Bytes(pieces)
        self._stop = stop
        self._given = 0
        self.text = ""
        self.stopped = False

    def add(self, token_id: int) -> None:
        """One more token. Sets `stopped` when a stop string is complete; `text` then ends before it."""
        self.text = self._reader.read(token_id)
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


class _Bytes:
    """Text of tokens that are bytes. The `tokenizers` library gives the same, forty times slower for one token."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = pieces
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._settled = ""

    def read(self, token_id: int) -> str:
        """The text with one more token."""
        # A model may have more rows than the tokenizer has tokens: those mean nothing.
        piece = self._pieces[token_id] if token_id < len(self._pieces) else b""
        self._settled += self._decoder.decode(piece)
        begun = self._decoder.getstate()[0]  # bytes of a character that is not complete
        return self._settled + begun.decode("utf-8", "replace") if begun else self._settled


class _Window:
    """Text of any tokens: the last ones are decoded again with each new one."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._begin = 0  # ids before it are decoded for good
        self._context = 0  # from where ids are decoded again: some tokenizers drop the space before a text's first word
        self._context_text = ""
        self._settled = ""

    def read(self, token_id: int) -> str:
        """The text with one more token."""
        self._ids.append(token_id)
        piece = self._tokenizer.decode(self._ids[self._context :]).removeprefix(self._context_text)
        text = self._settled + piece
        # Pieces are decoded independently of all but their neighbour once they end on a character's last byte. What
        # decodes to nothing, a special token, is no neighbour.
        if piece and not piece.endswith("\ufffd"):
            self._context_text = self._tokenizer.decode(self._ids[self._begin :])
            self._settled, self._context, self._begin = text, self._begin, len(self._ids)
        return text


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of text that begins the stop string."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
