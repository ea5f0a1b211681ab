"""Chunks in several processes: in order, a few ahead, errors as they are, and nobody left when the parent is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from chatwheel.data.workers import AHEAD, Workers
from chatwheel.errors import ChatwheelError, InputError


def double(number: int) -> int:
    """Later chunks are done sooner."""
    time.sleep(0.02 if number % 3 == 0 else 0)
    return 2 * number


def refuse(number: int) -> int:
    if number == 3:
        raise InputError("three is not taken", param="number")
    return number


def die(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.parametrize("number", [0, 1, 2])
def test_results_come_in_order_and_few_chunks_are_ahead(number: int) -> None:
    taken = 0

    def chunks() -> Iterator[int]:
        nonlocal taken
        for i in range(40):
            taken += 1
            yield i

    with Workers(number) as workers:
        for i, result in enumerate(workers.in_order(double, chunks())):
            assert result == 2 * i
            assert taken - i <= AHEAD * max(1, number) + 1
        assert list(workers.in_order(double, range(3))) == [0, 2, 4]  # the same processes once more


def test_errors_arrive_as_they_are() -> None:
    with Workers(2) as workers:
        with pytest.raises(InputError, match="three is not taken") as error:
            list(workers.in_order(refuse, range(9)))
        assert error.value.param == "number"
    with Workers(2) as workers, pytest.raises(ChatwheelError, match=r"was killed.*run the same command again"):
        list(workers.in_order(die, range(9)))


def test_workers_leave_with_a_parent_that_was_killed() -> None:
    code = (
        "import time\nfrom chatwheel.data.workers import Workers\n"
        "if __name__ == '__main__':\n"
        "    with Workers(2) as workers:\n"
        "        print(list(workers.in_order(abs, [-1, -2, -3])), flush=True)\n        time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "[1, 2, 3]\n"
        children = psutil.Process(parent.pid).children()
        assert len(children) >= 2
        parent.kill()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive
