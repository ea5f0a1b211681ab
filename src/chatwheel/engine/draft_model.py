"""Guesses by a small model of the same vocabulary, which reads along (speculative decoding; Leviathan et al., 2023).

It draws its guess for a place with the same number that will draw the answer's token there. So the more the two models
agree, the more guesses come true; and as the answer's tokens are drawn as ever, a guess changes no answer, where
sampling by rejection would keep its distribution only. (Accepted are as many as the two distributions' intervals
overlap, which is somewhat less than the most that rejection could reach.)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile

import numpy as np

from chatwheel.engine.batch import Batch, FloatArray, Runner
from chatwheel.engine.blocks import BLOCK_SIZE, BlockPool
from chatwheel.engine.sampling import Rows
from chatwheel.engine.sequence import Sequence as Answer
from chatwheel.model.config import ModelConfig


@dataclass(kw_only=True)
class _Read:
    """What the draft model has read of an answer. tokens: those whose keys and values are in its cache; guesses may be
    among the last of them."""

    tokens: list[int] = field(default_factory=list)
    blocks: list[int] = field(default_factory=list)


class DraftModel:
    """A second model's runner, with a cache of its own.

    max_step_tokens: positions that it reads in a step at most; of a text that is behind by more it guesses nothing yet.
    """

    def __init__(self, runner: Runner, config: ModelConfig, *, num_blocks: int, max_step_tokens: int) -> None:
        self._runner, self._pool, self._max_step_tokens = runner, BlockPool(num_blocks), max_step_tokens
        self._context_length, self._vocab_size = config.max_positions, config.vocab_size
        self._read: dict[int, _Read] = {}

    def propose(self, answers: Iterable[Answer], count: int) -> dict[int, list[int]]:
        """At most `count` tokens that may follow each of the answers, by their numbers."""
        behind = {answer.number: answer for answer in answers}
        for number in self._read.keys() - behind.keys():
            self._pool.release(self._read.pop(number).blocks)
        ready = self._catch_up([a for a in behind.values() if self._has_room(a, count)], count)
        guesses: dict[int, list[int]] = {answer.number: [] for answer, _ in ready}
        if not ready:
            return guesses
        drawing = _Drawing(self._runner, [answer for answer, _ in ready])
        logits_NV = np.stack([logits_V for _, logits_V in ready])
        for ahead in range(count):
            if ahead:
                logits_NV = self._forward([(self._read[number], own[-1:]) for number, own in guesses.items()])
            for own, token in zip(guesses.values(), drawing.draw(logits_NV, ahead), strict=True):
                own.append(token)
        return guesses

    def _has_room(self, answer: Answer, count: int) -> bool:
        """Whether its context, and its cache, hold the answer and the guesses; takes the blocks."""
        length = len(answer.request.prompt_ids) + len(answer.token_ids) + count
        if length > self._context_length:
            return False
        read = self._read.setdefault(answer.number, _Read())
        missing = -(-length // BLOCK_SIZE) - len(read.blocks)
        if missing > self._pool.available:
            return False
        read.blocks += self._pool.take(max(0, missing))
        return True

    def _catch_up(self, answers: list[Answer], count: int) -> list[tuple[Answer, FloatArray]]:
        """Reads what is new of the answers; those that are read to their end, with the logits of what follows."""
        chunks: list[tuple[_Read, list[int]]] = []
        complete: list[tuple[Answer, int]] = []
        budget = self._max_step_tokens
        for answer in answers:
            read = self._read[answer.number]
            prompt, own = answer.request.prompt_ids, answer.token_ids
            certain = max(0, len(read.tokens) - count)  # behind it are guesses, which may have been wrong
            there = [*prompt[certain:], *own[max(0, certain - len(prompt)) :]]
            pairs = zip(read.tokens[certain:], there[:-1], strict=False)  # the last one is read again for its logits
            same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
            del read.tokens[certain + same :]
            new = there[same:][:budget]
            if not new or max(new) >= self._vocab_size:  # a large model may have tokens that no text has
                continue
            budget -= len(new)
            if len(new) == len(there) - same:
                complete.append((answer, len(chunks)))
            chunks.append((read, new))
        if not chunks:
            return []
        logits_NV = self._forward(chunks)
        return [(answer, logits_NV[row]) for answer, row in complete]

    def _forward(self, chunks: Sequence[tuple[_Read, list[int]]]) -> FloatArray:
        """The logits behind each chunk, which is read on the way."""
        sizes = np.array([len(tokens) for _, tokens in chunks], np.int32)
        table_SW = np.zeros((len(chunks), max(len(read.blocks) for read, _ in chunks)), np.int32)
        positions: list[int] = []
        for row_W, (read, tokens) in zip(table_SW, chunks, strict=True):
            row_W[: len(read.blocks)] = read.blocks
            positions += range(len(read.tokens), len(read.tokens) + len(tokens))
            read.tokens += tokens
        batch = Batch(
            tokens=np.array([token for _, tokens in chunks for token in tokens], np.int32),
            positions=np.array(positions, np.int32),
            sequences=np.repeat(np.arange(len(chunks), dtype=np.int32), sizes),
            tables=table_SW,
            out=sizes.cumsum(dtype=np.int32) - np.int32(1),
            scored=len(chunks),
            adapters=np.full(len(chunks), -1, np.int32),
        )
        return self._runner.forward(batch)[1]


class _Drawing:
    """Draws guesses as the answers' tokens will be drawn, but for penalties and biases: to know them would make a
    better guess of some answers, and cost time in all."""

    def __init__(self, runner: Runner, answers: list[Answer]) -> None:
        self._runner, self._answers = runner, answers
        self._rows = Rows([a.params for a in answers], [a.seed for a in answers])

    def draw(self, logits_NV: FloatArray, ahead: int) -> list[int]:
        """A token for each answer, for the place `ahead` of its next one."""
        positions = [len(answer.token_ids) + ahead for answer in self._answers]
        chosen = self._runner.choose(self._rows.choice(logits_NV, logits_NV, positions))
        return [int(token) for token in chosen.tokens]
