"""The scheduler alone: a simulated model that checks, position by position, that what is read has been written."""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatwheel.engine.blocks import BLOCK_SIZE, BlockPool
from chatwheel.engine.scheduler import PATIENCE, Plan, Scheduler, Terms
from chatwheel.errors import ContextLengthError, OverloadedError


@dataclass
class Machine:
    """Computes plans on a cache of (token, position) instead of numbers, and answers with made-up tokens."""

    scheduler: Scheduler
    cache: dict[tuple[int, int], tuple[int, ...]] = field(default_factory=dict)  # what a place holds: all tokens before
    answers: dict[int, list[int]] = field(default_factory=dict)
    wanted: dict[int, int] = field(default_factory=dict)
    computed: Counter[int] = field(default_factory=Counter)
    done: dict[int, list[int]] = field(default_factory=dict)

    def add(self, request_id: int, prompt: list[int], wanted: int, terms: Terms | None = None) -> None:
        self.scheduler.add(request_id, prompt, wanted, terms)
        self.answers[request_id], self.wanted[request_id] = [], wanted

    def next_token(self, tokens: list[int]) -> int:
        return hash(tuple(tokens)) % 1000

    def step(self, now: float = 0.0, guess: random.Random | None = None) -> Plan:
        guesses: dict[int, list[int]] = {}
        for i in self.scheduler.running if guess is not None else ():
            known = list(self.scheduler.entries[i].tokens)
            guesses[i] = []
            for _ in range(guess.randrange(4)):  # some right, some wrong
                right = self.next_token([*known, *guesses[i]])
                guesses[i].append(right if guess.random() < 0.7 else 5000)
        plan = self.scheduler.plan(now, {i: len(g) for i, g in guesses.items()})
        assert sum(c.end - c.begin for c in plan.chunks) <= self.scheduler.max_step_tokens
        assert len(plan.chunks) == len({c.request_id for c in plan.chunks}) <= self.scheduler.max_running
        inputs = {}
        for chunk in plan.chunks:  # as in the kernels, all places of a step are written before any is read
            entry = self.scheduler.entries[chunk.request_id]
            known = [*entry.tokens, *guesses.get(chunk.request_id, [])[: chunk.drafts]]
            inputs[chunk.request_id] = known
            assert chunk.begin < chunk.end <= len(known)
            for p in range(chunk.begin, chunk.end):
                block = entry.blocks[p // BLOCK_SIZE]
                self.cache[block, p % BLOCK_SIZE] = (*entry.terms.scope, *known[: p + 1])
        for chunk in plan.chunks:
            entry, known = self.scheduler.entries[chunk.request_id], inputs[chunk.request_id]
            self.computed[chunk.request_id] += chunk.end - chunk.begin
            for p in range(chunk.end):  # what attention reads
                found = self.cache[entry.blocks[p // BLOCK_SIZE], p % BLOCK_SIZE]
                assert found == (*entry.terms.scope, *known[: p + 1])
            if chunk.end - chunk.drafts == len(entry.tokens):
                self._answer(chunk.request_id, known, chunk.drafts)
        return plan

    def _answer(self, request_id: int, known: list[int], drafts: int) -> None:
        base = len(known) - drafts
        new: list[int] = []
        for i in range(drafts + 1):
            new.append(self.next_token(known[: base + i]))
            if i < drafts and known[base + i] != new[-1]:
                break
        self.answers[request_id] += new
        self.scheduler.append(request_id, new)
        if len(self.answers[request_id]) >= self.wanted[request_id]:
            self.done[request_id] = self.answers[request_id]
            self.scheduler.remove(request_id)


def alone(prompt: list[int], wanted: int) -> list[int]:
    tokens = list(prompt)
    for _ in range(wanted):
        tokens.append(hash(tuple(tokens)) % 1000)
    return tokens[len(prompt) :]


@settings(max_examples=400, deadline=None)
@given(seed=st.integers(0, 2**32), guessing=st.booleans())
def test_any_schedule(seed: int, guessing: bool) -> None:
    """Arrivals, cancellations, evictions, preemptions, common beginnings, adapters, deadlines: each answer is the one
    that is computed alone, no block leaks, and nobody starves."""
    r = random.Random(seed)
    pool = BlockPool(r.randrange(6, 40))
    running = r.randrange(1, 7)
    scheduler = Scheduler(pool, max_running=running, max_step_tokens=r.randrange(running, 80))
    machine = Machine(scheduler)
    prompts: dict[int, list[int]] = {}
    given_up: set[int] = set()
    now, number = 0.0, 0
    for _ in range(r.randrange(5, 40)):
        for _ in range(r.randrange(3)):
            common = [r.randrange(3)] * r.choice([0, 0, 16, 20, 33])
            prompt = [*common, *(r.randrange(50) for _ in range(r.randrange(1, 30)))]
            wanted = r.randrange(1, 30)
            terms = Terms(
                key=r.choice("abc"),
                priority=r.randrange(3),
                scope=r.choice([b"", b"\x01"]),
                deadline=now + 20 if r.random() < 0.1 else math.inf,
            )
            if -(-(len(prompt) + wanted) // BLOCK_SIZE) > pool.num_blocks:
                with pytest.raises(ContextLengthError, match="shorten one of them"):
                    scheduler.add(number, prompt, wanted, terms)
                continue
            machine.add(number, prompt, wanted, terms)
            prompts[number] = prompt
            number += 1
        plan = machine.step(now, r if guessing else None)
        given_up |= {*plan.expired}
        now += 1
        if scheduler.entries and r.random() < 0.15:
            gone = r.choice(list(scheduler.entries))
            scheduler.remove(gone)
            given_up.add(gone)
        if r.random() < 0.02:
            pool.forget()
            # What is under way was computed with the old weights; this model has none, so it may go on.
    for _ in range(3000):
        if scheduler.idle:
            break
        given_up |= {*machine.step(now, r if guessing else None).expired}
    assert scheduler.idle, "somebody starved"
    assert pool.available == pool.num_blocks, "a block leaked"
    assert {*machine.done} == {*prompts} - given_up
    for request_id, answer in machine.done.items():
        wanted = machine.wanted[request_id]
        assert answer[:wanted] == alone(prompts[request_id], wanted)
    assert scheduler.num_waiting == 0
    assert not scheduler._served


def machine_with(blocks: int = 100, running: int = 4, tokens: int = 64, waiting: int | None = None) -> Machine:
    return Machine(Scheduler(BlockPool(blocks), max_running=running, max_step_tokens=tokens, max_waiting=waiting))


def test_answers_go_on_while_a_long_prompt_is_read_in_chunks() -> None:
    machine = machine_with()
    machine.add(0, [1, 2], 20)
    machine.step()
    machine.add(1, list(range(200)), 5)
    for expected in (63, 63, 63, 11):
        plan = machine.step()
        assert [(c.request_id, c.end - c.begin) for c in plan.chunks] == [(0, 1), (1, expected)]


def test_samples_of_one_prompt_read_it_once_even_in_one_step() -> None:
    machine = machine_with(tokens=256)
    prompt = list(range(100))
    for i in range(4):
        machine.add(i, prompt, 3)
    plan = machine.step()
    assert [c.end - c.begin for c in plan.chunks] == [100, 4, 4, 4]  # what is no full block is read again
    assert machine.scheduler.cached_tokens == 3 * 96


def test_the_next_turn_of_a_chat_reads_only_what_is_new() -> None:
    machine = machine_with()
    machine.add(0, list(range(40)), 10)
    while 0 not in machine.done:
        machine.step()
    machine.add(1, [*range(40), *machine.done[0], 7, 8, 9], 2)
    plan = machine.step()
    assert plan.chunks[0].begin == 48


def test_keys_share_fairly_and_the_late_one_need_not_wait_for_the_greedy_one() -> None:
    machine = machine_with(running=1)
    for i in range(20):
        machine.add(i, [i] * 30, 5, Terms(key="greedy"))
    machine.step()
    machine.add(100, [5] * 30, 5, Terms(key="modest"))
    while 100 not in machine.done:
        machine.step()
    assert len(machine.done) <= 3


def test_a_long_backlog_is_no_claim_against_who_comes_later() -> None:
    machine = machine_with(running=1)
    for i in range(3 * PATIENCE):
        machine.add(i, [i], 1, Terms(key="greedy"))
    for _ in range(2 * PATIENCE):
        machine.step()
    machine.add(10_000, [5], 1, Terms(key="modest"))
    before = len(machine.done)
    while 10_000 not in machine.done:
        machine.step()
    assert len(machine.done) - before <= 3


def test_a_higher_priority_comes_first_and_a_lower_one_in_the_end() -> None:
    machine = machine_with(running=1)
    machine.add(0, [1], 1, Terms(priority=-1))
    machine.add(1, [2], 1)
    machine.step()
    assert 1 in machine.done
    for i in range(2, 3 * PATIENCE):
        machine.add(i, [i], 1)
        machine.step()
        if 0 in machine.done:
            break
    assert 0 in machine.done


def test_the_last_of_the_least_gives_way_and_its_answer_does_not_change() -> None:
    machine = machine_with(blocks=6, tokens=128)
    machine.add(0, list(range(30)), 30, Terms(priority=0))
    machine.step()
    machine.add(1, list(range(100, 130)), 30, Terms(priority=1))
    preempted = []
    while not machine.scheduler.idle:
        preempted += machine.step().preempted
    assert preempted[0] == 0
    assert machine.done == {0: alone(list(range(30)), 30), 1: alone(list(range(100, 130)), 30)}


def test_a_full_queue_is_said_so() -> None:
    machine = machine_with(running=1, waiting=2)
    for i in range(2):
        machine.add(i, [1], 5)
    with pytest.raises(OverloadedError, match="2 requests are waiting already") as error:
        machine.add(2, [1], 5)
    assert (error.value.status, error.value.code) == (429, "queue_full")
    machine.step()
    machine.add(3, [1], 5)


def test_a_failed_step_leaves_nothing_behind() -> None:
    machine = machine_with()
    for i in range(6):
        machine.add(i, list(range(50)), 5)
    machine.scheduler.plan()
    assert machine.scheduler.reset() == list(range(6))
    assert machine.scheduler.idle
    assert machine.scheduler.pool.available == 100
    machine.add(9, list(range(50)), 5)
    assert machine.step().chunks[0].begin == 0  # nothing of the failed step is taken for computed
