"""Log-probs as OpenAI has them: of chats, and the older form of completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chatwheel.engine.requests import TokenLogprobs
from chatwheel.model.tokenizer import Tokenizer

Json = dict[str, Any]
LEAST = -9999.0
"""JSON knows no minus infinity; OpenAI's stands for it."""


def content_logprobs(tokens: Sequence[TokenLogprobs], tokenizer: Tokenizer) -> list[Json]:
    """`choices[].logprobs.content`. Of a special token, which is no part of the text, `bytes` is null: all the others'
    are the text's."""

    def one(token_id: int, logprob: float) -> Json:
        written, piece = tokenizer.token(token_id)
        return {"token": written, "logprob": max(logprob, LEAST), "bytes": None if piece is None else list(piece)}

    return [
        one(token.token_id, token.logprob) | {"top_logprobs": [one(*likely) for likely in token.top]}
        for token in tokens
    ]


class LegacyLogprobs:
    """Gathers `choices[].logprobs` of a completion."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._places: list[tuple[str, float | None, dict[str, float] | None, int]] = []

    def add(self, tokens: Sequence[TokenLogprobs], begin: int = 0) -> None:
        """An answer's tokens, the answer beginning at a character of the text. The token itself is always among the
        likeliest."""
        for token in tokens:
            likely = {self._written(i): max(logprob, LEAST) for i, logprob in token.top}
            likely.setdefault(self._written(token.token_id), max(token.logprob, LEAST))
            self._places.append((self._written(token.token_id), max(token.logprob, LEAST), likely, begin + token.begin))

    def add_prompt(self, ids: Sequence[int], begins: Sequence[int], noted: Sequence[TokenLogprobs]) -> None:
        """The prompt's tokens; of the first one nothing was thought."""
        self._places.append((self._written(ids[0]), None, None, begins[0]))
        for token, begin in zip(noted, begins[1:], strict=True):
            self.add([token], begin)

    def json(self) -> Json:
        """The four lists."""
        tokens, logprobs, top, offsets = (
            (list(column) for column in zip(*self._places, strict=True)) if self._places else ([], [], [], [])
        )
        return {"tokens": tokens, "token_logprobs": logprobs, "top_logprobs": top, "text_offset": offsets}

    def _written(self, token_id: int) -> str:
        written, piece = self._tokenizer.token(token_id)
        try:
            return written if piece is None else piece.decode()
        except UnicodeDecodeError:
            return f"bytes:{written}"
