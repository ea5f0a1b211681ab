"""A program's names used by another process's program: each call goes there and its value comes back, as plain data.

So what is tested cannot touch what tests it: it neither reads the tests nor ends them, and a value is data once it has
arrived, whatever its class makes of `==`. Plain data are None, numbers, texts, bytes, and lists, tuples, sets and
dictionaries of them; an instance of a subclass becomes one of the plain class. Anything else stays where it is and is
spoken to: called, its attributes read, gone through, measured, shown. It equals nothing but itself.

This file's text is run on both sides, so it imports the standard library alone.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import json
import os
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

LONGEST = 2**24
"""Bytes of a message."""
SEQUENCES: tuple[Any, ...] = (list, tuple, set, frozenset)
SPOKEN = ("__len__", "__str__", "__repr__", "__getitem__")
"""What a test may do to something that stayed there: what gives data. `==` and `in` would let it judge itself."""


def encode(value: Any, handle: Callable[[Any], int]) -> Any:
    """As JSON. handle: gives a number to what is no plain data, or raises TypeError."""
    for kind in SEQUENCES:
        if isinstance(value, kind):
            return [kind.__name__, *(encode(item, handle) for item in kind.__iter__(value))]
    if isinstance(value, dict):
        return ["dict", *([encode(k, handle), encode(v, handle)] for k, v in dict.items(value))]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int.__add__(value, 0)
    if isinstance(value, str):
        return str.__add__(value, "")
    if isinstance(value, float):
        return ["float", float.hex(value)]
    if isinstance(value, complex):
        return ["complex", float.hex(value.real), float.hex(value.imag)]
    if isinstance(value, bytes | bytearray):
        return [("bytes" if isinstance(value, bytes) else "bytearray"), value.hex()]
    return ["handle", handle(value)]


def decode(value: Any, held: Callable[[int], Any]) -> Any:
    """What `encode` wrote. held: gives what a number stands for."""
    if not isinstance(value, list):
        return value
    tag, *items = value
    if tag == "handle":
        return held(items[0])
    if tag == "float":
        return float.fromhex(items[0])
    if tag == "complex":
        return complex(float.fromhex(items[0]), float.fromhex(items[1]))
    if tag in ("bytes", "bytearray"):
        return (bytes if tag == "bytes" else bytearray).fromhex(items[0])
    if tag == "dict":
        return {decode(k, held): decode(v, held) for k, v in items}
    kind = next(kind for kind in SEQUENCES if kind.__name__ == tag)
    return kind(decode(item, held) for item in items)


class Line:
    """Messages to the other process and from it. Raises EOFError when it is gone."""

    def __init__(self, channel: list[int]) -> None:
        self._from, self._to = os.fdopen(channel[0], "rb"), os.fdopen(channel[1], "wb", buffering=0)

    def read(self) -> Any:
        text = self._from.readline(LONGEST)
        if not text.endswith(b"\n"):
            raise EOFError("the answer's process is gone")
        return json.loads(text)

    def write(self, message: Any) -> None:
        text = memoryview(json.dumps(message).encode() + b"\n")
        while text:
            text = text[self._to.write(text) :]


# The side that is used ------------------------------------------------------------------------------------------------


def serve(source: str, channel: list[int]) -> None:
    """Runs `source`, tells its names, and does what is asked until nobody asks."""
    sys.set_int_max_str_digits(0)  # a factorial may be long
    line = Line(channel)
    objects: list[Any] = []

    def handle(value: Any) -> int:
        objects.append(value)
        return len(objects) - 1

    space: dict[str, Any] = {"__name__": "answer"}
    try:
        exec(compile(source, "<answer>", "exec"), space)
    except BaseException as error:  # of whatever kind, SystemExit too
        line.write({"error": _described(error)})
        return
    modules = [name for name, value in space.items() if isinstance(value, types.ModuleType) and value.__name__ == name]
    names = {name: value for name, value in space.items() if not name.startswith("__") and name not in modules}
    line.write({"names": {name: encode(value, handle) for name, value in names.items()}, "modules": modules})
    while True:
        try:
            asked = line.read()
        except EOFError:
            return
        try:
            target = objects[asked["handle"]]
            args, named = (decode(asked[key], objects.__getitem__) for key in ("args", "named"))
            value = _done(target, asked["what"], args, named)
            reply = {"value": encode(value, handle), "args": encode(args, handle)}
        except BaseException as error:
            reply = {"error": _described(error)}
        line.write(reply)


def _done(target: Any, what: str, args: list[Any], named: dict[str, Any]) -> Any:
    if what == "__call__":
        return target(*args, **named)
    if what == "getattr":
        return getattr(target, *args)
    if what == "iter":
        return iter(target)
    if what == "next":
        return next(target)
    return getattr(type(target), what)(target, *args)


def _described(error: BaseException) -> list[str]:
    return [type(error).__name__, str(error)[:1000]]


# The side that uses ---------------------------------------------------------------------------------------------------


class Remote:
    """Something that stays in the other process."""

    __slots__ = ("_handle", "_line")

    def __init__(self, handle: int, line: Line) -> None:
        self._handle, self._line = handle, line

    def __call__(self, *args: Any, **named: Any) -> Any:
        return self._ask("__call__", args, named)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._ask("getattr", (name,))

    def __iter__(self) -> Iterator[Any]:
        # An iterator is one of theirs; each step is asked for.
        steps = self._ask("iter")
        if not isinstance(steps, Remote):
            raise TypeError("not an iterator")
        while True:
            try:
                item = steps._ask("next")
            except StopIteration:
                return
            yield item

    def __next__(self) -> Any:
        return self._ask("next")

    def _ask(self, what: str, args: tuple[Any, ...] = (), named: dict[str, Any] | None = None) -> Any:
        def held(number: int) -> Remote:
            return Remote(number, self._line)

        asked = {"handle": self._handle, "what": what}
        self._line.write({**asked, "args": encode(list(args), _handle_of), "named": encode(named or {}, _handle_of)})
        reply = self._line.read()
        if "error" in reply:
            raise _raised(*reply["error"])
        for given, now in zip(args, decode(reply["args"], held), strict=True):
            _update(given, now)
        return decode(reply["value"], held)


def _forwarded(name: str) -> Callable[..., Any]:
    def ask(self: Remote, *args: Any) -> Any:
        return self._ask(name, args)

    return ask


for _name in SPOKEN:
    setattr(Remote, _name, _forwarded(_name))


def _handle_of(value: Any) -> int:
    if isinstance(value, Remote):
        return value._handle
    raise TypeError(f"a test gives the answer {type(value).__name__}, which cannot leave its process")


def _raised(name: str, text: str) -> Exception:
    """The same exception where it is Python's own; one that would end the tests, as SystemExit, is a RuntimeError."""
    kind = getattr(builtins, str(name), None)
    ends = kind in (StopIteration, StopAsyncIteration)  # a loop, and with it what is asserted in it
    if isinstance(kind, type) and issubclass(kind, Exception) and not ends:
        try:
            return kind(text)
        except TypeError:  # UnicodeDecodeError wants more
            pass
    return RuntimeError(f"{name}: {text}")


def _update(given: Any, now: Any) -> None:
    """A function may change the lists, sets and dictionaries that it is given."""
    if isinstance(given, list):
        given[:] = now
    elif isinstance(given, set | dict):
        given.clear()
        given.update(now)
    elif isinstance(given, bytearray):
        given[:] = now


def check(tests: str, channel: list[int]) -> None:
    """Runs `tests` with the names of the other process's program, and exits with 0 if nothing was raised. Names that
    Python has itself (`all`, `sorted`, `math`) stay Python's."""
    sys.set_int_max_str_digits(0)
    line = Line(channel)
    first = line.read()
    if "error" in first:
        raise _raised(*first["error"])
    space: dict[str, Any] = {"__name__": "__main__"}
    for name, value in first["names"].items():
        # Whatever is on the other side may say any name.
        if name.isidentifier() and not name.startswith("__") and not hasattr(builtins, name):
            space[name] = decode(value, lambda number: Remote(number, line))
    # A module that the tests look into is Python's, whatever the answer calls by its name.
    looked_into = {
        node.value.id
        for node in ast.walk(ast.parse(tests))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    for name in {*first["modules"], *looked_into.intersection(first["names"])} & sys.stdlib_module_names:
        space[name] = importlib.import_module(name)
    space["__builtins__"] = builtins
    exec(compile(tests, "<tests>", "exec"), space)
