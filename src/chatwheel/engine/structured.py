"""Answers that are what they must be: JSON, JSON of a schema, a regular expression. At each place the tokens that could
not go on to a valid answer are out of the question, by llguidance; so an answer that ends is valid by construction.

Near its last token JSON is led to its end: strings are closed, and nothing is begun that need not be.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import llguidance
import llguidance.numpy
import numpy as np
from numpy.typing import NDArray

from chatwheel.engine.batch import FloatArray
from chatwheel.errors import InputError
from chatwheel.model.tokenizer import Tokenizer

CLOSING_SHARE, CLOSING_TOKENS = 0.25, 40
"""Of an answer's tokens, in which JSON is led to its end: the larger of the two, but never more than two thirds."""


def json_schema(schema: Mapping[str, Any]) -> str:
    """The grammar of JSON that follows a JSON schema."""
    # White space is the writer's choice, and a small model would write nothing else.
    return _described(lambda: llguidance.LLMatcher.grammar_from_json_schema(compact(schema)))


def json_object() -> str:
    """The grammar of any JSON object."""
    return json_schema({"type": "object"})


def regular_expression(pattern: str) -> str:
    """The grammar of whole texts that match a regular expression: Rust's syntax, but `\\d` is 0 to 9."""
    return _described(lambda: llguidance.LLMatcher.grammar_from_regex(_ascii_digits(pattern)))


def schema_of(grammar: str) -> dict[str, Any]:
    """The JSON schema of a grammar that `json_schema` made. Raises InputError for any other."""
    schema = json.loads(grammar)["grammars"][0].get("json_schema")
    if not isinstance(schema, dict):
        raise InputError(
            "beside functions an answer may be JSON of a schema, no other grammar", param="response_format"
        )
    return schema


def lark(rules: str) -> str:
    """The grammar that rules describe: llguidance's dialect of Lark."""
    return json.dumps({"grammars": [{"lark_grammar": rules}]})


def compact(schema: Mapping[str, Any], *, lenient: bool = False) -> str:
    """A schema for a `%json` in rules. lenient: what llguidance does not know of it may be left out."""
    options = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": ", "lenient": lenient}
    return json.dumps({**schema, "x-guidance": options})


def fault_of(grammar: str) -> str:
    """What is wrong with a grammar, in one line; empty if nothing is."""
    wrong, messages = llguidance.LLMatcher.validate_grammar_with_warnings(grammar)
    return " ".join(messages[0].split("\n")[0].split()) if wrong else ""


def _ascii_digits(pattern: str) -> str:
    """The same with 0-9 for each `\\d`, which would match the digits of all scripts."""
    escape = re.compile(r"\\.", re.DOTALL)

    def replaced(match: re.Match[str]) -> str:
        digits = "0-9" if match[0].startswith("[") else "[0-9]"
        return escape.sub(lambda found: digits if found[0] == r"\d" else found[0], match[0])

    return re.sub(r"\[(?:\\.|[^\]\\])*\]|\\.", replaced, pattern)


def _described(make: Callable[[], str]) -> str:
    try:
        return make()
    except RecursionError:
        raise InputError("response_format: nested too deeply; make it flatter", param="response_format") from None
    except (ValueError, TypeError) as error:
        raise InputError(f"response_format: {error}", param="response_format") from None


class SpecialToken(NamedTuple):
    """is_text: whether it is part of an answer's text, for all that."""

    id: int
    is_text: bool


class Grammars:
    """Grammars over one tokenizer's tokens."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        self._tokenizer, self._vocab_size = tokenizer, vocab_size

    def matcher(self, grammar: str, max_tokens: int) -> Matcher:
        """What follows an answer of at most `max_tokens`. Raises InputError for a grammar that is none."""
        found = llguidance.LLMatcher(self._backend, grammar)
        described = json.loads(grammar)["grammars"][0]
        rules = described.get("lark_grammar") or ""
        param = "tools" if "%json" in rules else "response_format"
        if found.is_error():
            raise InputError(f"{param}: {' '.join(found.get_error().split())}", param=param)
        is_json = described.get("json_schema") is not None or "%json" in rules
        closing = min(max(CLOSING_TOKENS, int(max_tokens * CLOSING_SHARE)), max_tokens * 2 // 3) if is_json else 0
        return Matcher(found, self._vocab_size, self._closers if is_json else None, max_tokens - closing)

    @cached_property
    def special_tokens(self) -> Mapping[str, SpecialToken]:
        """Added tokens that are no text to a grammar, by how they are written: it has to name them by their ids."""
        added = self._tokenizer.backend.get_added_tokens_decoder()
        backend = self._backend
        return {t.content: SpecialToken(i, not t.special) for i, t in added.items() if backend.is_special_token(i)}

    @cached_property
    def _backend(self) -> llguidance.LLTokenizer:
        text = self._tokenizer.backend.to_str()
        return llguidance.LLTokenizer(text, n_vocab=self._vocab_size, eos_token=sorted(self._tokenizer.stop_ids))

    @cached_property
    def _closers(self) -> Closers:
        texts = [self._tokenizer.decode([i]) for i in range(self._tokenizer.vocab_size)]
        texts += [""] * (self._vocab_size - len(texts))
        stops = self._tokenizer.stop_ids

        def those(first: str, only: str) -> NDArray[np.bool_]:
            return np.array([bool(t) and t[0] in first and set(t) <= set(only) for t in texts])

        quote, bracket = those('"', '"}]'), those("}]", '"}]')
        bracket[list(stops)] = True
        return Closers(texts.index("#"), quote, bracket, those('",}]', '",}] '))


@dataclass(frozen=True)
class Closers:
    """Tokens that lead to the end of JSON, by what they begin with. in_string: a token that only a string can hold."""

    in_string: int
    quote: NDArray[np.bool_]
    bracket: NDArray[np.bool_]
    comma: NDArray[np.bool_]

    def best(self, allowed_V: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Of the tokens that may come those that end most."""
        kinds = (self.quote, self.bracket) if allowed_V[self.in_string] else (self.bracket, self.quote)
        for closers_V in (*kinds, self.comma):
            if (allowed_V & closers_V).any():
                return allowed_V & closers_V
        return allowed_V


class Matcher:
    """Follows one answer, and after `free_tokens` leads it to its end where there are closers."""

    def __init__(
        self, matcher: llguidance.LLMatcher, vocab_size: int, closers: Closers | None, free_tokens: int
    ) -> None:
        self._matcher, self._vocab_size, self._closers = matcher, vocab_size, closers
        self._left = free_tokens
        self._bits = llguidance.numpy.allocate_token_bitmask(1, vocab_size)

    def mask(self, scores_V: FloatArray) -> None:
        """Rules out, in place, what cannot come next."""
        llguidance.numpy.fill_next_token_bitmask(self._matcher, self._bits, 0)
        bits = np.unpackbits(self._bits.view(np.uint8), axis=-1, bitorder="little")
        allowed_V = bits[0, : self._vocab_size].astype(np.bool_)
        if self._left <= 0 and self._closers is not None and not self._in_free_text(self._closers, allowed_V):
            allowed_V = self._closers.best(allowed_V)
        scores_V[~allowed_V] = -np.inf

    def _in_free_text(self, closers: Closers, allowed_V: NDArray[np.bool_]) -> bool:
        """Whether anything may come, the end too: there is nothing to close then."""
        return bool(allowed_V[closers.in_string] and self._matcher.is_accepting())

    def take(self, token: int) -> None:
        """The answer has one more token."""
        self._left -= 1
        self._matcher.consume_token(token)

    @property
    def complete(self) -> bool:
        """Whether nothing more can come."""
        return bool(self._matcher.is_stopped())

    @property
    def failed(self) -> bool:
        """Whether that is because following was too much for the matcher: the answer is not whole."""
        return bool(self._matcher.is_error())
