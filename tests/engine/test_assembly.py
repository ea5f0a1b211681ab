"""The arrays of a step that are kept from the one before, against those that are put together from nothing."""

from __future__ import annotations

import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from chatwheel.engine.assembly import Assembly, Step
from chatwheel.engine.blocks import BLOCK_SIZE, BlockPool
from chatwheel.engine.detokenizer import Detokenizer
from chatwheel.engine.requests import Request, SamplingParams
from chatwheel.engine.scheduler import Scheduler
from chatwheel.engine.sequence import Sequence
from tests.tiny import tokenizer


def sequence(number: int, prompt: list[int], max_tokens: int) -> Sequence:
    params = SamplingParams(max_tokens=max_tokens)
    return Sequence(
        number=number,
        request=Request(prompt_ids=tuple(prompt), params=params),
        seed=number,
        max_tokens=max_tokens,
        stops=frozenset(),
        text=Detokenizer(tokenizer(), ()),
        adapter=number % 3 - 1,
    )


def assert_same(step: Step, fresh: Step, blocks: list[int]) -> None:
    for name in ("tokens", "positions", "sequences", "out", "adapters"):
        np.testing.assert_array_equal(getattr(step.batch, name), getattr(fresh.batch, name), err_msg=name)
    for kept_W, new_W, count in zip(step.batch.tables, fresh.batch.tables, blocks, strict=True):
        assert kept_W[:count].tolist() == new_W[:count].tolist()
    assert (step.batch.scored, step.ids, step.sampled) == (fresh.batch.scored, fresh.ids, fresh.sampled)


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_kept_arrays_are_those_made_anew(seed: int) -> None:
    """Arrivals, ends, guesses, preemptions and moved weights."""
    r = random.Random(seed)
    running = r.randrange(1, 5)
    pool = BlockPool(r.randrange(30, 60))
    scheduler = Scheduler(pool, max_running=running, max_step_tokens=r.choice([running, 40]))
    sequences: dict[int, Sequence] = {}
    assembly = Assembly(scheduler, sequences)
    for number in range(150):
        if r.random() < 0.1:
            prompt = [r.randrange(3)] * r.choice([1, 16, 33])
            sequences[number] = sequence(number, prompt, max_tokens=r.choice([3, 200]))
            scheduler.add(number, prompt, 200)
        if r.random() < 0.02:
            scheduler.start_over()
            assembly.start_over()
        guesses = {i: [r.randrange(9)] * r.randrange(3) for i in scheduler.running if r.random() < 0.1}
        plan = scheduler.plan(drafts={i: len(g) for i, g in guesses.items()})
        if not plan.chunks:
            continue
        step, fresh = assembly.step(plan, guesses), Assembly(scheduler, sequences).step(plan, guesses)
        assert_same(step, fresh, [-(-chunk.end // BLOCK_SIZE) for chunk in plan.chunks])
        for s in step.sampled:
            new = [r.randrange(9) for _ in range(1 + r.randrange(len(s.guesses) + 1))]
            if any(s.sequence.append(token, 0.0, 0.0) for token in new):
                scheduler.remove(s.sequence.number)
                del sequences[s.sequence.number]
            else:
                scheduler.append(s.sequence.number, new)
