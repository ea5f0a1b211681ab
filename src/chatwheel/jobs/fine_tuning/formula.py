"""Arithmetic over names: `0.7 * accuracy + 0.3 * min(style, 1)`. Parsed here, by nobody's `eval`.

sum      = product (("+" | "-") product)*
product  = sign (("*" | "/") sign)*
sign     = ("+" | "-") sign | power
power    = atom (("^" | "**") sign)?
atom     = number | name | function "(" sum ("," sum)* ")" | "(" sum ")"
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

Node = Callable[[Mapping[str, float]], float]

_TOKEN = re.compile(r"\s*(?:(\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?)|([A-Za-z_]\w*)|(\*\*|[-+*/^(),]))")
_LONGEST = 1000
_DEEPEST = 50
FUNCTIONS: dict[str, tuple[Callable[..., float], int | None]] = {
    "min": (min, None),
    "max": (max, None),
    "abs": (abs, 1),
    "floor": (lambda x: float(math.floor(x)), 1),
    "ceil": (lambda x: float(math.ceil(x)), 1),
    "exp": (math.exp, 1),
    "sqrt": (math.sqrt, 1),
    "log": (math.log, 1),
}
"""By name, and how many arguments each takes; None for one or more."""


class FormulaError(ValueError):
    """The text is no formula, or its value no finite number."""


@dataclass(frozen=True)
class Formula:
    """names: what it is a function of."""

    text: str
    names: frozenset[str]
    _node: Node

    @staticmethod
    def parse(text: str) -> Formula:
        """Raises FormulaError with the place."""
        if len(text) > _LONGEST:
            raise FormulaError(f"the formula is longer than {_LONGEST} characters")
        parser = _Parser(_tokens(text))
        node = parser.sum()
        if parser.next:
            raise FormulaError(f"unexpected {parser.next!r} in the formula")
        return Formula(text, frozenset(parser.names), node)

    def __call__(self, values: Mapping[str, float]) -> float:
        """Its value for those of its names. Raises FormulaError where it has none, as for log(0)."""
        try:
            value = float(self._node(values))
        except (ArithmeticError, ValueError, TypeError) as error:  # TypeError: a root of a negative number is complex
            raise FormulaError(f"{self.text}: {error}") from None
        if not math.isfinite(value):
            raise FormulaError(f"{self.text}: the value is {value}")
        return value


def _tokens(text: str) -> list[str]:
    found, place = [], 0
    while text[place:].strip():
        match = _TOKEN.match(text, place)
        if match is None:
            raise FormulaError(f"unexpected {text[place:].strip()[0]!r} in the formula")
        found.append(match[0].strip())
        place = match.end()
    return found


@dataclass
class _Parser:
    tokens: Sequence[str]
    place: int = 0
    depth: int = 0
    names: set[str] = field(default_factory=set)

    @property
    def next(self) -> str:
        return self.tokens[self.place] if self.place < len(self.tokens) else ""

    def take(self, *expected: str) -> str:
        token = self.next
        if not token or (expected and token not in expected):
            wanted = " or ".join(expected) or "a number or a name"
            raise FormulaError(f"expected {wanted}, found {token or 'the end'} in the formula")
        self.place += 1
        return token

    def sum(self) -> Node:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise FormulaError("the formula is nested too deeply")
        node = self.product()
        while self.next in ("+", "-"):
            node = _binary(self.take(), node, self.product())
        self.depth -= 1
        return node

    def product(self) -> Node:
        node = self.sign()
        while self.next in ("*", "/"):
            node = _binary(self.take(), node, self.sign())
        return node

    def sign(self) -> Node:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise FormulaError("the formula is nested too deeply")
        if self.next in ("+", "-"):
            sign = self.take()
            inner = self.sign()
            node: Node = inner if sign == "+" else lambda values: -inner(values)
        else:
            node = self.power()
        self.depth -= 1
        return node

    def power(self) -> Node:
        node = self.atom()
        if self.next in ("^", "**"):
            self.take()
            return _binary("^", node, self.sign())
        return node

    def atom(self) -> Node:
        token = self.take()
        if token == "(":
            node = self.sum()
            self.take(")")
            return node
        if token[0].isdigit() or token[0] == ".":
            value = float(token)
            return lambda _: value
        if not (token[0].isalpha() or token[0] == "_"):
            raise FormulaError(f"expected a number or a name, found {token!r} in the formula")
        return self.call(token) if self.next == "(" else self.name(token)

    def name(self, name: str) -> Node:
        self.names.add(name)
        return lambda values: float(values[name])

    def call(self, name: str) -> Node:
        if name not in FUNCTIONS:
            raise FormulaError(f"{name} is no function; known are {', '.join(FUNCTIONS)}")
        function, count = FUNCTIONS[name]
        self.take("(")
        arguments = [self.sum()]
        while self.next == ",":
            self.take()
            arguments.append(self.sum())
        self.take(")")
        if count is not None and len(arguments) != count:
            raise FormulaError(f"{name} takes {count} argument, not {len(arguments)}")
        if len(arguments) == 1 and count is None:
            return arguments[0]
        return lambda values: function(*(argument(values) for argument in arguments))


def _binary(sign: str, left: Node, right: Node) -> Node:
    return {
        "+": lambda values: left(values) + right(values),
        "-": lambda values: left(values) - right(values),
        "*": lambda values: left(values) * right(values),
        "/": lambda values: left(values) / right(values),
        "^": lambda values: left(values) ** right(values),
    }[sign]
