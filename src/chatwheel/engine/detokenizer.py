"""Tokens to text while they come: never half a character, never a piece of a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Mapping, Sequence

from chatwheel.model.tokenizer import Tokenizer


class Detokenizer:
    """The text of one growing answer. After `add`, `take` gives what is certain by now.

    Tokens are read when their text is wanted; at once only where it may have to stop.
    shown: special tokens that are text too, and which; else they are none.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str], shown: Mapping[int, str] | None = None) -> None:
        self._tokenizer, self._shown = tokenizer, shown or {}
        self._reader = self._new_reader()
        self._stop, self._longest = stop, max(map(len, stop), default=0)
        self._unread: list[int] = []
        self._given: list[str] = []
        self.num_given = 0  # characters
        self._rest = ""  # what is read and not given, but for a character that has only begun
        self.stopped = False

    def add(self, token_id: int, *, may_stop: bool = True) -> None:
        """One more token. Sets `stopped` when it completes a stop string; `text` then ends before it. may_stop: without
        it, it completes none."""
        self._unread.append(token_id)
        if self._stop and not self.stopped:
            # Of what was there before nothing is a stop string, and what is given will not begin one.
            begin = max(0, len(self._rest) - self._longest + 1)
            rest = self._read()
            if not may_stop:
                return
            ends = [i for s in self._stop if (i := rest.find(s, begin)) >= 0]
            if ends:
                self._rest, self.stopped = rest[: min(ends)], True

    @property
    def length(self) -> int:
        """How many characters are complete by now; those of a stop string that ended it are none."""
        self._read()
        return self.num_given + len(self._rest)

    @property
    def text(self) -> str:
        """All of it so far."""
        return "".join(self._given) + self._read()

    def take(self, *, final: bool) -> str:
        """The new text that can be shown. Unless final, holds back what may become a character or a stop string."""
        new = self._read()
        if final or self.stopped:
            self._rest = self._reader.begun = ""
        else:
            new = self._rest.rstrip("\ufffd")
            if self._stop:
                new = new[: len(new) - max(_overlap(new, s) for s in self._stop)]
            self._rest = self._rest[len(new) :]
        self._given.append(new)
        self.num_given += len(new)
        return new

    def _read(self) -> str:
        """All that is not given."""
        if self.stopped:
            return self._rest
        if self._unread:
            self._rest += self._reader.read(self._unread) if not self._shown else self._read_shown()
            self._unread.clear()
        return self._rest + self._reader.begun

    def _read_shown(self) -> str:
        text, begin = "", 0
        for i, token in enumerate(self._unread):
            if token in self._shown:
                text += self._reader.read(self._unread[begin:i]) + self._reader.begun + self._shown[token]
                self._reader, begin = self._new_reader(), i + 1
        return text + self._reader.read(self._unread[begin:])

    def _new_reader(self) -> _Window | _Bytes:
        pieces = self._tokenizer.pieces
        return _Window(self._tokenizer) if pieces is None else _Bytes(pieces)


def spelled(tokenizer: Tokenizer, token_ids: Sequence[int]) -> tuple[str, list[int]]:
    """Text of ids, special tokens as they are written, and the character at which each begins."""
    special = {i: tokenizer.token(i)[0] for i in set(token_ids) if tokenizer.token(i)[1] is None}
    reader, begins = Detokenizer(tokenizer, (), special), []
    for token in token_ids:
        begins.append(reader.length)
        reader.add(token)
    return reader.text, begins


class _Bytes:
    """Text of tokens that are bytes. The `tokenizers` library gives the same, forty times slower for one token.

    begun: of a character that is not complete.
    """

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = pieces
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.begun = ""

    def read(self, token_ids: Sequence[int]) -> str:
        """The complete characters that further tokens bring."""
        text = ""
        for i in token_ids:
            # A model may have more rows than the tokenizer has tokens: those mean nothing.
            piece = self._pieces[i] if i < len(self._pieces) else b""
            if piece.isascii() and not self.begun:  # most are, and the decoder takes its time
                text += piece.decode()
            else:
                text += self._decoder.decode(piece)
                self.begun = self._decoder.getstate()[0].decode("utf-8", "replace")
        return text


class _Window:
    """Text of any tokens: the last ones are decoded again with each new one. begun: what may change with the next."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._begin = 0  # ids before it are decoded for good
        self._context = 0  # from where ids are decoded again: some tokenizers drop the space before a text's first word
        self._context_text = ""
        self.begun = ""

    def read(self, token_ids: Sequence[int]) -> str:
        """The text that is certain with further tokens."""
        self._ids += token_ids
        piece = self._tokenizer.decode(self._ids[self._context :]).removeprefix(self._context_text)
        # Pieces are decoded independently of all but their neighbour once they end on a character's last byte. What
        # decodes to nothing, a special token, is no neighbour.
        if not piece or piece.endswith("\ufffd"):
            self.begun = piece
            return ""
        self._context_text = self._tokenizer.decode(self._ids[self._begin :])
        self._context, self._begin = self._begin, len(self._ids)
        self.begun = ""
        return piece


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of text that begins the stop string."""
    end = text[-len(stop) + 1 :] if len(stop) > 1 else ""
    if stop[:1] not in end:  # as a rule
        return 0
    return next((n for n in range(len(end), 0, -1) if end.endswith(stop[:n])), 0)
