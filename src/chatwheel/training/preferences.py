"""What DPO and KTO read: answers as token ids behind their prompts, and how likely a model finds each, beside the model
that training began with (the reference).

Shape suffixes: K answers, P pairs, N tokens of answers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from chatwheel.data.packing import grow_trees
from chatwheel.data.records import Json, Ranking
from chatwheel.model.checkpoint import load_state, save_state
from chatwheel.model.tokenizer import Tokenizer
from chatwheel.model.transformer import CausalLM
from chatwheel.training.answers import Answers, PromptedAnswer
from chatwheel.training.distributed import agreed, ranks, wait_for_all
from chatwheel.training.loop import Metrics
from chatwheel.training.reward import answered
from chatwheel.training.throughput import Work, positions_seen

RANKINGS_AT_ONCE = 250
REFERENCE = "reference"
"""Where a stage keeps the reference's log-probs."""


@dataclass(frozen=True)
class EncodedPreferences:
    """The answers of one ranking, and the (better, worse) pairs among them."""

    answers: list[PromptedAnswer]
    pairs: list[tuple[int, int]]


def encode_answers(conversations: Iterable[Sequence[Json]], tokenizer: Tokenizer) -> Iterator[PromptedAnswer]:
    """Conversations that end with an answer. What a chat template writes behind an answer's end is left out, and so are
    answers of earlier turns: they are the prompt's."""
    for ids, mask in tokenizer.encode_conversations(conversations):
        end = int(np.flatnonzero(mask)[-1]) + 1
        before = np.flatnonzero(~mask[:end])
        yield PromptedAnswer(ids[:end].tolist(), int(before[-1]) + 1)


def encode_preferences(
    rankings: Iterable[Ranking], tokenizer: Tokenizer, row_length: int
) -> tuple[list[EncodedPreferences], int]:
    """Rankings that have a pair and fit a row, and how many did not."""
    encoded, dropped = [], 0
    for ranking, answers in encoded_rankings(rankings, tokenizer):
        pairs = ranking.pairs()
        if not pairs or max(len(answer.tokens) for answer in answers) > row_length:
            dropped += 1
        else:
            encoded.append(EncodedPreferences(answers, pairs))
    return encoded, dropped


def encoded_rankings(
    rankings: Iterable[Ranking], tokenizer: Tokenizer
) -> Iterator[tuple[Ranking, list[PromptedAnswer]]]:
    """Each ranking with its answers as tokens."""
    remaining = iter(rankings)
    while some := list(islice(remaining, RANKINGS_AT_ONCE)):
        answers = encode_answers((answered(r, answer) for r in some for answer in r.answers), tokenizer)
        for ranking in some:
            yield ranking, [next(answers) for _ in ranking.answers]


def answer_log_probs(model: CausalLM, answers: Sequence[PromptedAnswer], row_length: int, dtype: torch.dtype) -> Tensor:
    """log p(answer | prompt) in nats, K: the sum over an answer's tokens."""
    packed = Answers.of(answers, row_length, model.model.device)
    return torch.stack([part.sum() for part in torch.split(packed.log_probs(model, dtype), packed.lengths)])


def work_of(answers: Sequence[PromptedAnswer], row_length: int, model: CausalLM) -> Work:
    """What a model goes through for the log-probs of answers."""
    trees = grow_trees([answer.tokens for answer in answers], row_length)
    seen = positions_seen(np.array([p for tree in trees for p in tree.positions]), model.config)
    predicted = sum(answer.length for answer in answers)
    return Work(tokens=sum(len(tree.tokens) for tree in trees), seen=seen, predicted=predicted)


@torch.no_grad()
def reference_log_probs(
    model: CausalLM,
    groups: Sequence[Sequence[PromptedAnswer]],
    *,
    directory: Path,
    at_once: int,
    row_length: int,
    dtype: torch.dtype,
) -> list[Tensor]:
    """The log-probs K of the answers of each group under the model as training begins with it: asked for before the
    first step, whole and without an adapter, it is the reference, and no second copy of the weights is needed.

    They are kept in `directory`, so that a run that goes on has the same bits. Of several processes each computes its
    share.
    """
    path = directory / REFERENCE
    digest = _digest(groups)
    saved = load_state(path) if ranks().first else None
    known = saved[0]["log_probs"] if saved is not None and saved[1] == digest else None
    if agreed(known is None):
        kept = torch.promote_types(dtype, torch.float32)
        chunks = [groups[i : i + at_once] for i in range(0, len(groups), at_once)]
        parts = [torch.zeros(sum(map(len, chunk)), dtype=kept) for chunk in chunks]
        for i in range(ranks().rank, len(chunks), ranks().size):
            parts[i] = answer_log_probs(model, list(chain(*chunks[i])), row_length, dtype).cpu()
        known = torch.cat(parts)
        if ranks().size > 1:
            dist.all_reduce(known)  # what the others have computed is 0 here
        if ranks().first:
            save_state(path, {"log_probs": known}, digest)
        wait_for_all()
    elif not ranks().first:
        saved = load_state(path)
        assert saved is not None
        known = saved[0]["log_probs"]
    assert known is not None
    return list(torch.split(known, [len(group) for group in groups]))


def _digest(groups: Sequence[Sequence[PromptedAnswer]]) -> Json:
    """Tells other answers from these."""
    digest = hashlib.blake2b(digest_size=16)
    for answer in chain(*groups):
        digest.update(np.array([answer.begin, len(answer.tokens), *answer.tokens], np.int32).tobytes())
    return {"answers": digest.hexdigest()}


@torch.no_grad()
def pair_accuracy(
    model: CausalLM,
    held_out: Sequence[EncodedPreferences],
    reference: Sequence[Tensor],
    *,
    at_once: int,
    row_length: int,
    dtype: torch.dtype,
    average: bool = False,
) -> Metrics:
    """The share of pairs whose better answer has gained more on the reference than the worse one, and how many pairs
    there are: "the model is secretly a reward model". average: by token."""
    right = total = 0
    for first in range(0, len(held_out), at_once):
        some = held_out[first : first + at_once]
        answers = [answer for one in some for answer in one.answers]
        gains_K = answer_log_probs(model, answers, row_length, dtype).cpu()
        gains_K -= torch.cat(list(reference[first : first + at_once]))
        if average:
            gains_K /= torch.tensor([answer.length for answer in answers])
        for one, gains in zip(some, torch.split(gains_K, [len(one.answers) for one in some]), strict=True):
            right += sum(bool(gains[i] > gains[j]) for i, j in one.pairs)
            total += len(one.pairs)
    return {"pair_accuracy": round(right / total, 4), "pairs": total} if total else {}
