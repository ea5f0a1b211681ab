"""A reward for code: 1 for an answer whose code passes the prompt's tests, 0 for any other.

The reference holds the tests, as MBPP writes them (`assert` statements) or HumanEval (a `check(candidate)`, and below
it `check(NAME)`). All or nothing: a share of the tests would pay for the easy ones, and for code that returns a
constant. Both run in the sandbox, each in a process of its own, so that an answer sees no test and says nothing but the
values that its functions return.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import psutil

from chatwheel.errors import InputError
from chatwheel.sandbox import calls
from chatwheel.sandbox.process import Limits, check_available, run

CALLS = Path(calls.__file__).read_text(encoding="utf-8")
FENCED = re.compile(
    r"^```[ \t]*(?:python|py|python3)?[ \t]*\r?\n(.*?)^```[ \t]*$", re.DOTALL | re.MULTILINE | re.IGNORECASE
)


LIMITS = Limits(seconds=60, cpu_seconds=2)
"""Of an answer. The processor's seconds are what ends a loop: on a machine that is busy otherwise those of the clock
would fail right answers. They are for answers that sleep."""
AT_A_TIME = 4
"""Answers that are tried at a time for each processor: those that only wait should not hold up the others."""
SHARE_OF_MEMORY = 0.5
"""Of what is free, what all of them may take together: the rest is the training's."""


def unit_tests(answers: Sequence[str], references: Sequence[str]) -> list[bool]:
    """Whether each answer's code passes its tests, many at a time. Raises InputError for tests that are none, and where
    there is no sandbox."""
    check_available()
    for reference in sorted(set(references)):
        check_tests(reference)
    with ThreadPoolExecutor(at_a_time(psutil.virtual_memory().available)) as pool:
        return list(pool.map(passes, answers, references))


def at_a_time(available: int, limits: Limits = LIMITS) -> int:
    """How many answers may be tried at a time on a machine with so many bytes free: one at least, and no more than hold
    where each takes all it may, in both of its processes."""
    fitting = int(available * SHARE_OF_MEMORY) // (2 * limits.memory)
    return max(1, min(AT_A_TIME * (os.cpu_count() or 1), fitting))


def passes(answer: str, tests: str, limits: Limits = LIMITS) -> bool:
    """Whether the answer's code passes the tests within the limits."""
    return run(
        f"{CALLS}\ncheck({tests!r}, CHANNEL)",
        partner=f"{CALLS}\nserve({code_of(answer)!r}, CHANNEL)",
        limits=limits,
    ).succeeded


def code_of(answer: str) -> str:
    """The last fenced block that is Python or does not say what it is; without one, the whole answer."""
    blocks = FENCED.findall(answer)
    return str(blocks[-1]) if blocks else answer


@cache
def check_tests(reference: str) -> None:
    """Raises InputError for a reference that any answer would pass, or none. Each is tried once, on an empty answer."""
    try:
        tree = ast.parse(reference)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        said = getattr(error, "msg", None) or error
        raise InputError(f"reward rule unit_tests: the reference {reference[:40]!r} is not Python ({said})") from None
    nodes = list(ast.walk(tree))
    if not any(isinstance(node, ast.Assert | ast.Raise) for node in nodes):
        raise InputError(f"reward rule unit_tests: the reference {reference[:40]!r} asserts nothing")
    called = {node.func.id for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    defined = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    if "check" in defined and "check" not in called:
        raise InputError(
            "reward rule unit_tests: the reference defines check and never calls it; add check(NAME) below"
        )
    if passes("", reference):
        raise InputError(
            f"reward rule unit_tests: an empty answer passes the reference {reference[:40]!r}; does it call its tests?"
        )
