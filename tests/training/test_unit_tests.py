"""The reward for code: honest answers get what they deserve, and no trick gets more."""

from __future__ import annotations

import json
import os

import pytest

from chatwheel.errors import InputError
from chatwheel.sandbox import calls
from chatwheel.sandbox.process import Limits
from chatwheel.training.rules import RuleReward
from chatwheel.training.unit_tests import AT_A_TIME, LIMITS, at_a_time, check_tests, code_of, passes, unit_tests
from tests.training.test_rewards import asked, said

MBPP = "assert double(2) == 4\nassert double('a') == 'aa'\nassert double([1]) == [1, 1]"
HUMAN_EVAL = (
    "def check(candidate):\n    assert candidate(2) == 4\n    assert abs(candidate(1.5) - 3.0) < 1e-6\n\ncheck(double)"
)
RIGHT = "def double(x):\n    return x + x\n"


def test_a_rollout_is_judged_in_parallel() -> None:
    answers = said(*[f"Here it is.\n```python\n{RIGHT}```\n", "def double(x): return 4", "I do not know."] * 4)
    rewards = RuleReward("unit_tests")(asked(*["?"] * 12, reference=MBPP), answers)
    assert rewards.tolist() == [1.0, 0.0, 0.0] * 4


@pytest.mark.parametrize("available", [0, 2**30, 5 * 2**30, 2**36, 2**50])
def test_all_sandboxes_together_leave_half_of_the_free_memory(available: int) -> None:
    number = at_a_time(available)
    assert 1 <= number <= AT_A_TIME * (os.cpu_count() or 1)
    taken = 2 * LIMITS.memory  # the tests' process and the answer's
    assert number == 1 or number * taken <= available / 2
    full = number == AT_A_TIME * (os.cpu_count() or 1)
    assert full or number * taken <= available / 2 < (number + 1) * taken or available < 2 * taken


@pytest.mark.parametrize("tests", [MBPP, HUMAN_EVAL])
def test_both_styles_of_tests(tests: str) -> None:
    assert passes(RIGHT, tests)
    assert not passes("def double(x):\n    return 4\n", tests)


def test_which_code_is_meant() -> None:
    assert code_of("x = 1") == "x = 1"
    assert code_of("First\n```python\na\n```\nthen\n```\nb\n```\nsays\n```text\nc\n```") == "b\n"


@pytest.mark.parametrize(
    "answer",
    [
        "import sys; sys.exit(0)",
        "import os; os._exit(0)",
        "raise SystemExit(0)",
        "def double(x):\n    raise SystemExit(0)",
        "def double(x):\n    import os; os._exit(0)",
        "import builtins\nbuiltins.AssertionError = SystemExit\ndef double(x): return 0",
        "import builtins\nbuiltins.exec = builtins.compile = lambda *_: None\ndef double(x): return 0",
        "class Same(int):\n    def __eq__(self, other): return True\n    __hash__ = None\n"
        "def double(x): return Same(0)",
        "class Same:\n    def __eq__(self, other): return True\n    def __sub__(self, other): return 0\n"
        "    __rsub__ = __abs__ = __sub__\ndef double(x): return Same()",
        "def abs(x): return 0\ndef double(x): return 0",
        "def check(candidate): pass\ndef double(x): return 0",
        "import os\nos.write(1, b'passed\\n')\nwhile True: os.write(CHANNEL[1], b'{}\\n')",
        "import __main__, sys\nfor name in ('check', 'Remote', 'encode', 'decode'): setattr(__main__, name, None)\n"
        "def double(x): return 0",
        # What it is tested with lies nowhere in its process.
        "import gc\nseen = [o for o in gc.get_objects() if isinstance(o, str) and 'assert ' in o and 'double' in o]\n"
        "def double(x):\n    import sys\n    frame = sys._getframe()\n    while frame:\n"
        "        if 'tests' in frame.f_locals: return eval('4')\n        frame = frame.f_back\n    return 0",
        "def double(x):\n    return bytearray(2**33)",
        "def double(x",
        "",
    ],
)
@pytest.mark.parametrize("tests", [MBPP, HUMAN_EVAL])
def test_no_trick_passes(answer: str, tests: str) -> None:
    assert not passes(answer, tests)


def test_answers_that_never_end_fail() -> None:
    loops = ["while True: pass", "def double(x):\n    while True: pass"]
    assert unit_tests([*loops, RIGHT], [MBPP] * 3) == [False, False, True]
    assert not passes(f"import time\n{RIGHT}time.sleep(600)", MBPP, Limits(seconds=1))


def test_pythons_names_stay_pythons() -> None:
    tests = "assert all([double(i) == 2 * i for i in range(3)])"
    assert passes(RIGHT, tests)
    assert not passes("def all(x): return True\ndef double(x): return 0", tests)


@pytest.mark.parametrize(
    ("answer", "tests"),
    [
        (
            "class math:\n    isclose = staticmethod(lambda *_: True)\ndef f(x): return 0",
            "assert math.isclose(f(2), 4.0)",
        ),
        ("def f(x): raise StopIteration", "assert all(map(f, [1, 2]))"),
        ("def f(x): raise StopIteration", "assert not any(map(f, [3]))"),
    ],
)
def test_what_a_strict_reviewer_tried_does_not_pass(answer: str, tests: str) -> None:
    assert not passes(answer, tests)


def test_an_answer_that_speaks_for_itself_gives_no_builtins() -> None:
    """Whatever writes the first message: with these names in place of Python's, `len` would not be known."""
    (theirs, said), (_, mine) = os.pipe(), os.pipe()
    names = {"__builtins__": calls.encode({}, lambda _: 0), "double": calls.encode(4, lambda _: 0)}
    os.write(said, json.dumps({"names": names, "modules": []}).encode() + b"\n")
    calls.check("assert len([double]) == 1", [theirs, mine])


def test_a_function_may_be_called_as_a_module_is() -> None:
    assert passes("def bisect(a, x):\n    return sum(v < x for v in a)", "assert bisect([1, 3], 2) == 1")
    assert passes("import math\ndef f(x): return x / 3", "assert math.isclose(f(1), 1 / 3)")


def test_membership_is_judged_where_the_tests_are() -> None:
    assert passes("def up_to(n): yield from range(n)", "assert 3 in up_to(5)")
    always = "class All:\n    def __contains__(self, x): return True\n    def __iter__(self): return iter(())\n"
    assert not passes(f"{always}def up_to(n): return All()", "assert 3 in up_to(5)")


@pytest.mark.parametrize(
    ("code", "tests"),
    [
        ("def sort(a): a.sort()", "a = [3, 1]\nsort(a)\nassert a == [1, 3]"),
        ("def put(d, k): d[k] = {1}", "d = {}\nput(d, 'x')\nassert d == {'x': {1}}"),
        ("def f(x): raise KeyError(x)", "try:\n    f(1)\nexcept KeyError:\n    pass\nelse:\n    raise AssertionError"),
        ("import math\ndef root(x): return math.sqrt(x)", "assert math.isclose(root(2), 1.41421356, rel_tol=1e-6)"),
        ("from collections import Counter\ndef count(s): return Counter(s)", "assert count('aab') == {'a': 2, 'b': 1}"),
        (
            "def f(): return (1, [2.5, None], {'k': b'x'}, {frozenset({1j})}, float('inf'))",
            "assert f() == (1, [2.5, None], {'k': b'x'}, {frozenset({1j})}, float('inf'))\nassert type(f()) is tuple",
        ),
        ("import math\ndef f(n): return math.factorial(n)", "import math\nassert f(3000) == math.factorial(3000)"),
        (
            "class Stack:\n    def __init__(self): self.items = []\n"
            "    def push(self, x):\n        self.items.append(x)\n        return self\n"
            "    def __len__(self): return len(self.items)",
            "s = Stack()\ns.push(1).push(2)\nassert len(s) == 2 and s.items == [1, 2]",
        ),
        (
            "def naturals():\n    n = 0\n    while True:\n        yield n\n        n += 1",
            "import itertools\nassert list(itertools.islice(naturals(), 3)) == [0, 1, 2]",
        ),
        ("def f(a, *, b=1): return a - b", "assert f(3, b=2) == 1"),
        ("LIMIT = 3", "assert LIMIT == 3"),
        ("print('hello')\ndef f(): print('x' * 10**6); return 1", "assert f() == 1"),
    ],
)
def test_what_honest_answers_may_be(code: str, tests: str) -> None:
    assert passes(code, tests)


def test_references_that_are_no_tests_are_named() -> None:
    with pytest.raises(InputError, match="is not Python"):
        check_tests("assert f(")
    with pytest.raises(InputError, match="asserts nothing"):
        check_tests("f(1) == 2")
    with pytest.raises(InputError, match="add check"):
        unit_tests(["x = 1"], ["def check(candidate):\n    assert candidate(1)"])
    with pytest.raises(InputError, match="an empty answer passes"):
        check_tests("def test_f():\n    assert f(1) == 2")
    with pytest.raises(InputError, match="has no reference"):
        RuleReward("unit_tests")(asked("?"), said("x = 1"))
