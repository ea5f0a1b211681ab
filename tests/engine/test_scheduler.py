"""The scheduler alone: whatever comes and goes, nobody is lost, nobody jumps the queue, and slots stay dense."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatwheel.engine.scheduler import Admission, Move, Scheduler
from chatwheel.errors import OverloadedError

# What happens, in order: a prompt of so many tokens comes (positive), a step (0), somebody leaves (negative).
events = st.lists(st.integers(1, 60) | st.just(0) | st.integers(-50, -1), max_size=120)


@settings(max_examples=300, deadline=None)
@given(events, st.integers(1, 5), st.integers(1, 8), st.integers(10, 100))
def test_any_story(story: list[int], max_running: int, max_waiting: int, max_prefill: int) -> None:
    scheduler = Scheduler(max_running=max_running, max_waiting=max_waiting, max_prefill_tokens=max_prefill)
    size: dict[int, int] = {}  # everybody who was let in
    slots: list[int] = []  # what the KV cache holds: a plain list that obeys admissions and moves
    queue: list[int] = []
    gone: set[int] = set()
    for number, event in enumerate(story):
        if event > 0:
            if len(queue) >= max_waiting:
                with pytest.raises(OverloadedError):
                    scheduler.add(number, event)
                continue
            scheduler.add(number, event)
            size[number] = event
            queue.append(number)
        elif event == 0:
            admitted = scheduler.admit()
            assert [a.request_id for a in admitted] == queue[: len(admitted)]  # first come, first served
            assert [a.slot for a in admitted] == list(range(len(slots), len(slots) + len(admitted)))
            slots += [a.request_id for a in admitted]
            del queue[: len(admitted)]
            assert len(slots) <= max_running
            longest = max((size[a.request_id] for a in admitted), default=0)
            assert len(admitted) <= 1 or longest * len(admitted) <= max_prefill
            if queue and len(slots) < max_running:  # somebody had to wait: only for the budget
                assert admitted
                assert max(longest, size[queue[0]]) * (len(admitted) + 1) > max_prefill
        elif size.keys() - gone:
            present = sorted(size.keys() - gone)
            leaving = present[event % len(present)]
            gone.add(leaving)
            move = scheduler.remove(leaving)
            if leaving in queue:
                queue.remove(leaving)
                assert move is None
            else:
                slot = slots.index(leaving)
                if move is None:
                    assert slot == len(slots) - 1
                else:
                    assert move == Move(source=len(slots) - 1, target=slot)
                    slots[slot] = slots[-1]
                slots.pop()
        assert scheduler.running == slots
        assert [i for i, _ in scheduler.waiting] == queue
        assert set(slots) | set(queue) == size.keys() - gone
        assert scheduler.idle == (not slots and not queue)


def test_everybody_gets_a_turn() -> None:
    scheduler = Scheduler(max_running=2, max_prefill_tokens=4)
    for i in range(9):
        scheduler.add(i, 10)  # each alone is beyond the budget, and still enters
    served = []
    while not scheduler.idle:
        served += [a.request_id for a in scheduler.admit()]
        scheduler.remove(scheduler.running[0])
    assert served == list(range(9))


def test_short_prompts_enter_together_up_to_the_budget() -> None:
    scheduler = Scheduler(max_running=8, max_prefill_tokens=10)
    for i, tokens in enumerate((4, 4, 4, 1)):
        scheduler.add(i, tokens)
    assert scheduler.admit() == [Admission(0, 0), Admission(1, 1)]
    assert scheduler.admit() == [Admission(2, 2), Admission(3, 3)]


def test_the_last_one_leaves_without_a_move_and_others_are_filled_in() -> None:
    scheduler = Scheduler(max_running=4)
    for i in range(4):
        scheduler.add(i, 1)
    scheduler.admit()
    assert scheduler.remove(3) is None
    assert scheduler.remove(0) == Move(source=2, target=0)
    assert scheduler.running == [2, 1]


def test_a_full_queue_is_said_so() -> None:
    scheduler = Scheduler(max_running=1, max_waiting=2)
    scheduler.add(0, 1)
    scheduler.add(1, 1)
    with pytest.raises(OverloadedError, match="2 requests are waiting") as caught:
        scheduler.add(2, 1)
    assert caught.value.code == "queue_full"
    scheduler.admit()
    scheduler.add(2, 1)
