"""A plan as the arrays that a runner computes, and whose the rows are that come back.

While the same answers go on, a token each, their arrays stay, and only what is new is written: to put them together
anew took a third of the engine's own time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from chatwheel.engine.batch import Batch
from chatwheel.engine.blocks import BLOCK_SIZE
from chatwheel.engine.scheduler import Chunk, Plan, Scheduler
from chatwheel.engine.sequence import Sequence

SPARE_BLOCKS = 8
"""Places in a table beyond the blocks that are there, for answers that grow while their arrays stay."""


class Sampled(NamedTuple):
    """Rows of a step's logits that a sequence's next tokens are chosen from: the first, and one for each guess."""

    sequence: Sequence
    first: int
    guesses: list[int]


class Asked(NamedTuple):
    """Rows of a step's logits, from the first, that say what was thought of a chunk of a prompt."""

    sequence: Sequence
    first: int
    chunk: Chunk


class Read(NamedTuple):
    """Rows of a step's hidden states, from the first, that a text which is only read wants."""

    sequence: Sequence
    first: int
    size: int
    last: bool


@dataclass(kw_only=True, slots=True)
class Step:
    """A batch, and what becomes of its rows. ids: of its sequences, in order."""

    batch: Batch
    ids: list[int]
    sampled: list[Sampled]
    asked: list[Asked]
    read: list[Read]


class Assembly:
    """Makes steps of plans. sequences: those that the scheduler knows, by id."""

    def __init__(self, scheduler: Scheduler, sequences: Mapping[int, Sequence]) -> None:
        self._scheduler, self._sequences = scheduler, sequences
        self._answers: Step | None = None  # the last step, if it was a token for each of its answers and nothing else

    def start_over(self) -> None:
        """What was computed holds no more, and who goes on may do so from elsewhere."""
        self._answers = None

    def step(self, plan: Plan, guesses: Mapping[int, list[int]]) -> Step:
        """What a plan computes. guesses: tokens that may follow; the plan says how many are tried."""
        step = self._moved_on(plan) or self._assembled(plan, guesses)
        self._answers = step if plan.size == len(step.sampled) else None
        return step

    def _moved_on(self, plan: Plan) -> Step | None:
        """The last step, for the next token of each answer, if nothing else is planned and the tables have room."""
        step = self._answers
        if step is None or plan.size != len(step.ids) or [chunk.request_id for chunk in plan.chunks] != step.ids:
            return None
        for row, chunk in enumerate(plan.chunks):
            if chunk.begin % BLOCK_SIZE == 0:
                table = self._scheduler.table(chunk.request_id)
                if len(table) > step.batch.tables.shape[1]:
                    return None
                step.batch.tables[row, len(table) - 1] = table[-1]
        step.batch.tokens[:] = [sampled.sequence.token_ids[-1] for sampled in step.sampled]
        step.batch.positions[:] += 1
        return step

    def _assembled(self, plan: Plan, guesses: Mapping[int, list[int]]) -> Step:
        tokens: list[int] = []
        out: list[int] = []
        behind: list[int] = []  # the rows of texts that are only read come after the others
        sampled: list[Sampled] = []
        asked: list[Asked] = []
        read: list[Read] = []
        for chunk in plan.chunks:
            sequence, known = self._sequences[chunk.request_id], self._scheduler.entries[chunk.request_id].tokens
            drafts = guesses[chunk.request_id][: chunk.drafts] if chunk.drafts else []
            first = len(tokens)
            tokens += known[chunk.begin : chunk.end]
            tokens += drafts
            if sequence.began is None:
                sequence.begin(chunk.begin)
            complete = chunk.end - chunk.drafts == len(known)
            if sequence.pooling is not None:
                wanted = sequence.pooling.wanted(chunk.begin, chunk.end)
                read.append(Read(sequence, len(behind), len(wanted), complete))
                behind += [first + position - chunk.begin for position in wanted]
            elif sequence.params.prompt_logprobs and chunk.begin < len(sequence.request.prompt_ids) - 1:
                asked.append(Asked(sequence, len(out), chunk))
                out += range(first, len(tokens))
                if complete:
                    sampled.append(Sampled(sequence, len(out) - 1, []))
            elif complete:
                sampled.append(Sampled(sequence, len(out), drafts))
                out += range(len(tokens) - len(drafts) - 1, len(tokens))
        batch = self._batch(plan.chunks, tokens, out + behind, len(out))
        ids = [chunk.request_id for chunk in plan.chunks]
        return Step(batch=batch, ids=ids, sampled=sampled, asked=asked, read=read)

    def _batch(self, chunks: list[Chunk], tokens: list[int], out: list[int], scored: int) -> Batch:
        count = len(chunks)
        ends = np.array([chunk.end for chunk in chunks], np.int32)
        sizes = ends - np.array([chunk.begin for chunk in chunks], np.int32)
        tables = [self._scheduler.table(chunk.request_id) for chunk in chunks]
        table_SW = np.zeros((count, max(map(len, tables)) + SPARE_BLOCKS), np.int32)
        for row_W, table in zip(table_SW, tables, strict=True):
            row_W[: len(table)] = table
        return Batch(
            tokens=np.array(tokens, np.int32),
            positions=np.arange(len(tokens), dtype=np.int32) + np.repeat(ends - sizes.cumsum(dtype=np.int32), sizes),
            sequences=np.repeat(np.arange(count, dtype=np.int32), sizes),
            tables=table_SW,
            out=np.array(out, np.int32),
            scored=scored,
            adapters=np.array([self._sequences[chunk.request_id].adapter for chunk in chunks], np.int32),
        )
