"""Calls of functions in an answer: the grammar that admits none but well-formed ones, and the reader that takes them
out of the text while it comes. What calls look like is the chat template's business (`model/call_format.py`).

The idea of a grammar that is free up to a mark and strict behind it is llguidance's (docs/toolcalls.md there).
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from chatwheel.engine.requests import Call, CallDelta
from chatwheel.engine.structured import SpecialToken, compact, fault_of, lark
from chatwheel.errors import InputError
from chatwheel.model.call_format import CALL_ID, ID_LENGTH, CallFormat

Json = Mapping[str, Any]
NAME = r"[a-zA-Z0-9_-]{1,64}"
_ID = f"[a-zA-Z0-9]{{{ID_LENGTH}}}"


@dataclass(frozen=True, kw_only=True)
class Function:
    """What may be called. parameters: a JSON schema of its arguments; None: it takes none. strict: a schema that cannot
    be followed in all it says is refused, else what is not known of it is left out."""

    name: str
    description: str | None = None
    parameters: Json | None = None
    strict: bool = False

    def definition(self) -> dict[str, Any]:
        """As chat templates take it."""
        given = {"name": self.name, "description": self.description, "parameters": self.parameters}
        return {"type": "function", "function": {k: v for k, v in given.items() if v is not None}}

    @cached_property
    def schema(self) -> str:
        """The schema of its arguments, for a grammar. Raises InputError if it is none, or not one of objects."""
        schema = dict(self.parameters) if self.parameters is not None else {"properties": {}}
        if schema.setdefault("type", "object") != "object":
            raise InputError(f"the schema must be of type 'object', not {json.dumps(schema['type'])}")
        if "properties" in schema and not schema.keys() & _OPEN:
            schema.setdefault("additionalProperties", False)  # an argument that nobody named is a mistake
        try:
            text = compact(schema, lenient=not self.strict)
            fault = fault_of(lark(f"start: %json {text}"))
        except RecursionError:
            fault = "nested too deeply; make it flatter"
        if fault:
            reason = fault.partition("failed to compile JSON schema: ")
            raise InputError(reason[2] or fault)
        return text


_OPEN = {"patternProperties", "unevaluatedProperties", "$ref", "$dynamicRef", "allOf", "anyOf", "oneOf", "if"}
"""Keywords with which properties may be named elsewhere."""


@dataclass(frozen=True, kw_only=True)
class ToolUse:
    """What an answer may or must call.

    choice: "auto" is an answer in words, or calls with or without words before them; "required" is calls alone.
    only: the one function that is called, once; it means "required". parallel: whether there may be several calls.
    """

    functions: Sequence[Function]
    choice: Literal["none", "auto", "required"] = "auto"
    only: str | None = None
    parallel: bool = True

    def definitions(self) -> list[dict[str, Any]]:
        """For the chat template; none where nothing may be called, so that nothing suggests it."""
        return [] if self.choice == "none" else [function.definition() for function in self.functions]


def call_grammar(
    use: ToolUse, form: CallFormat, special_tokens: Mapping[str, SpecialToken], content: Json | None = None
) -> str | None:
    """The grammar of an answer that may call functions; None if nothing has to be kept out. Raises InputError.

    special_tokens: as `Grammars.special_tokens` has them. content: a JSON schema that words must follow.
    """
    write = _Writer(form, special_tokens)
    if use.choice == "none":
        return lark(f"start: {write.words('TEXT', 'TEXT')}\nTEXT: {write.without_marker()}") if form.marker else None
    chosen = [f for f in use.functions if use.only is None or f.name == use.only]
    rules = ["call: " + " | ".join(f"function_{i}" for i in range(len(chosen)))]
    rules += [f"function_{i}: {write(f.name + form.middle)} %json {f.schema}" for i, f in enumerate(chosen)]
    several = use.parallel and use.only is None and form.following is not None
    rest = (
        f"call ({write(form.following or '')} call)* {write(form.closing)}"
        if several
        else f"call {write(form.closing)}"
    )
    calls = f"{write(form.opening)} {rest}"
    if use.choice == "required" or use.only is not None:
        rules.append(f"start: {calls}")
    elif content is not None:
        if not form.marker:
            what = "response_format and tools can't be told apart in this model's answers; send one of them"
            raise InputError(what, param="response_format")
        rules += [f"start: words | {calls}", f"words: %json {compact(content)}"]
    elif not form.marker:
        rules += [f"start: words | {calls}", f"words: {write.words('FIRST', 'TEXT')}"]
        rules += [f"FIRST: {write.without_brace()}", "TEXT: /(?s:.+)/"]
    else:
        marked = f"{write(form.opening.lstrip().removeprefix(form.marker))} {rest}"
        token = f" | words {write(form.marker)} {marked}" if form.marker in special_tokens else ""
        rules += [f"start: words | head {marked}{token}"]
        rules += [f"words: {write.words('TEXT', 'TEXT')}", "TEXT: /(?s:.+)/", f"head[lazy]: {write.up_to_marker()}"]
    return lark("\n".join(rules))


@dataclass(frozen=True)
class _Writer:
    """Writes parts of rules."""

    form: CallFormat
    special_tokens: Mapping[str, SpecialToken]

    def __call__(self, text: str) -> str:
        """Text of a call: strings, tokens and ids."""
        known = sorted(filter(None, self.special_tokens), key=len, reverse=True)
        terms = []
        for piece in re.split("(" + "|".join(map(re.escape, [*known, CALL_ID])) + ")", text):
            if piece == CALL_ID:
                terms.append(f"/{_ID}/")
            elif piece in self.special_tokens:
                terms.append(f"<[{self.special_tokens[piece].id}]>")
            elif piece:
                terms.append(json.dumps(piece))
        return " ".join(terms)

    def words(self, first: str, text: str) -> str:
        """Any text, with the tokens that are text for all but the grammar (`<think>`), but not with the marker's. Texts
        never follow each other: a marker could hide where they meet."""
        tokens = sorted(t.id for name, t in self.special_tokens.items() if t.is_text and name != self.form.marker)
        return f"{first}? (<[{','.join(map(str, tokens))}]> {text}?)*" if tokens else f"{first}?"

    def up_to_marker(self) -> str:
        return f"/(?s:.*){_escaped(self.form.marker)}/"

    def without_marker(self) -> str:
        return f"/(?s:.+)/ & ~/(?s:.*){_escaped(self.form.marker)}(?s:.*)/"

    def without_brace(self) -> str:
        return r"/[^{\s](?s:.*)/"


def _escaped(text: str) -> str:
    """Text in a regular expression between slashes."""
    return "".join(c if c.isalnum() or not c.isascii() else f"\\x{ord(c):02x}" for c in text)


def shown_tokens(form: CallFormat, special_tokens: Mapping[str, SpecialToken]) -> dict[int, str]:
    """The tokens that are no text, but part of how calls are written: the reader has to see them."""
    texts = "\n".join((form.opening, form.middle, form.closing, form.following or ""))
    return {t.id: name for name, t in special_tokens.items() if name and not t.is_text and name in texts}


class CallReader:
    """Takes the calls out of one answer's text, which comes in pieces of any size.

    What it gives depends on the whole text alone, not on where it was cut. only_at_start: a call is one only where the
    answer begins with it.
    """

    def __init__(
        self, form: CallFormat, *, only_at_start: bool = False, new_id: Callable[[], str] | None = None
    ) -> None:
        self._form = form
        self._anywhere = bool(form.marker) and not only_at_start
        self._marker = form.marker or form.opening.lstrip()[:1]
        self._new_id = new_id or (lambda: f"call_{secrets.token_hex(12)}")
        name = rf"({NAME}){_lenient(form.middle)}\s*(?=\{{)"
        self._first = re.compile(rf"\s*{_lenient(form.opening)}{name}")
        self._next = re.compile(rf"{_lenient(form.following)}{name}") if form.following is not None else None
        self._closing = re.compile(_lenient(form.closing))
        self._held = ""
        self._begun = False  # whether some words have been given
        self._step: Callable[[], bool] = self._read_words
        self._arguments = _ObjectReader()
        self._words: list[str] = []
        self._all_words: list[str] = []
        self._pieces: list[CallDelta] = []
        self._calls: list[tuple[str, str, list[str]]] = []

    @property
    def calls(self) -> tuple[Call, ...]:
        """So far; the last one's arguments may be incomplete."""
        return tuple(Call(id=i, name=name, arguments="".join(arguments)) for i, name, arguments in self._calls)

    @property
    def words(self) -> str:
        """All that was given of them."""
        return "".join(self._all_words)

    @property
    def cut(self) -> bool:
        """Whether the text ended within a call."""
        if self._step == self._read_closing:
            return self._closing.match(self._held) is None
        return self._step != self._read_words

    def feed(self, text: str) -> tuple[str, tuple[CallDelta, ...]]:
        """More of the answer: the new words, and pieces of calls."""
        self._held += text
        while self._step():
            pass
        return self._given()

    def finish(self) -> tuple[str, tuple[CallDelta, ...]]:
        """The end of the answer: words that might have become a call."""
        if self._step == self._read_words:
            self._words.append(self._held)
            self._held = ""
        return self._given()

    def _given(self) -> tuple[str, tuple[CallDelta, ...]]:
        words, pieces = "".join(self._words), tuple(self._pieces)
        self._all_words.append(words)
        self._begun = self._begun or bool(words)
        self._words.clear()
        self._pieces.clear()
        return words, pieces

    # Each of these takes what it can from the held text, and says whether another one may go on.

    def _read_words(self) -> bool:
        if self._anywhere:
            found = self._held.find(self._marker)
        else:
            begins = not self._begun and self._held.lstrip().startswith(self._marker)
            found = self._held.index(self._marker) if begins else -1
        if found >= 0:
            self._words.append(self._held[:found].rstrip())
            self._held = self._held[found:]
            self._step = self._read_name
            return True
        certain = len(self._held) - self._doubtful()
        self._words.append(self._held[:certain])
        self._held = self._held[certain:]
        self._begun = self._begun or certain > 0
        return False

    def _doubtful(self) -> int:
        """How much at the end may belong to a call: a marker that has begun, and white space before it."""
        if not self._anywhere and self._begun:
            return 0
        marker = self._marker
        sizes = range(min(len(marker) - 1, len(self._held)), 0, -1)
        size = next((n for n in sizes if self._held.endswith(marker[:n])), 0)
        before = self._held[: len(self._held) - size]
        if not self._anywhere and before.strip():
            return 0
        return size + len(before) - len(before.rstrip())

    def _read_name(self) -> bool:
        pattern = self._next if self._calls else self._first
        match = pattern.match(self._held) if pattern else None
        if match is None:
            return False
        call_id, name = self._new_id(), match[1]
        self._pieces.append(CallDelta(index=len(self._calls), id=call_id, name=name))
        self._calls.append((call_id, name, []))
        self._held = self._held[match.end() :]
        self._arguments = _ObjectReader()
        self._step = self._read_arguments
        return True

    def _read_arguments(self) -> bool:
        size = self._arguments.read(self._held)
        if size:
            self._pieces.append(CallDelta(index=len(self._calls) - 1, arguments=self._held[:size]))
            self._calls[-1][2].append(self._held[:size])
        self._held = self._held[size:]
        if self._arguments.complete:
            self._step = self._read_closing
        return self._arguments.complete

    def _read_closing(self) -> bool:
        if self._next is None or self._next.match(self._held) is None:
            return False
        self._step = self._read_name
        return True


class _ObjectReader:
    """Finds the end of a JSON object that comes in pieces."""

    def __init__(self) -> None:
        self._depth, self._in_string, self._escaped = 0, False, False
        self.complete = False

    def read(self, text: str) -> int:
        """How many of these characters belong to the object."""
        for i, character in enumerate(text):
            if self._escaped:
                self._escaped = False
            elif self._in_string:
                self._escaped = character == "\\"
                self._in_string = character != '"'
            elif character == '"':
                self._in_string = True
            elif character in "{[":
                self._depth += 1
            elif character in "}]":
                self._depth -= 1
                if self._depth == 0:
                    self.complete = True
                    return i + 1
        return len(text)


def _lenient(text: str) -> str:
    """The pattern of a call's text: some decoders drop the space behind a special token."""
    pieces = re.split(rf"(\s+|{CALL_ID})", text)
    return "".join(_ID if p == CALL_ID else r"\s*" if p.isspace() else re.escape(p) for p in pieces)
