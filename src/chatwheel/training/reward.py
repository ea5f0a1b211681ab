"""Stage 3, the reward model: learns from rankings which answer people prefer (Ouyang et al., 2022, section 3.4).

data: rankings -> model: the SFT trunk with a scalar head -> loss: all pairs of each ranking -> loop -> normalise.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor

from chatwheel.data.packing import grow_trees, pack_trees
from chatwheel.data.records import Demonstration, Prompt, Ranking
from chatwheel.errors import InputError
from chatwheel.model.lora import LoRAConfig, add_lora
from chatwheel.model.tokenizer import Tokenizer
from chatwheel.model.transformer import CausalLM, ScalarModel, with_scalar_head
from chatwheel.training.batches import RowOrder, Rows
from chatwheel.training.distributed import check_shares, gathered, ranks, shard, shares
from chatwheel.training.loop import Loop, Metrics, OnProgress, PlainObjective
from chatwheel.training.optimizers import OptimizerConfig
from chatwheel.training.precision import Precision, compute_dtype
from chatwheel.training.samples import Sample, Watch, at_rest
from chatwheel.training.throughput import Work, positions_seen, training_flops

RANKINGS_AT_ONCE = 250
MEMBER_SEEDS = 2**15
"""Between the seeds of an ensemble's members: more than a recipe's own seed can be."""
HEAD_DEVIATION = 0.02
"""Of the head's weights that an ensemble's later members begin with: what transformers gives a classifier's head."""


class MarginConfig(BaseModel):
    """By how much a better answer must lead: `scale` for each point between the scores of two answers, or for each
    place between them. Without scores a ranking has no margins by scores.

    by: "scores", as a ranking gives them, or "ranks" (Touvron et al., 2023, section 3.2.2). scale: of the margin.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    by: Literal["scores", "ranks"]
    scale: float = Field(default=1.0, gt=0, allow_inf_nan=False)

    def of(self, ranking: Ranking, pairs: Sequence[tuple[int, int]]) -> list[float]:
        """The margin of each (better, worse) pair, at least 0."""
        if self.by == "scores":
            scores = ranking.scores
            return [self.scale * (scores[i] - scores[j]) if scores is not None else 0.0 for i, j in pairs]
        places = sorted(set(ranking.ranks))  # 1, 1, 3 are two places: how many share the first says nothing
        return [self.scale * (places.index(ranking.ranks[j]) - places.index(ranking.ranks[i])) for i, j in pairs]


class RewardConfig(BaseModel):
    """How to train the reward model. rankings_per_step: each with all its pairs. lora: train an adapter and the head
    only, not the whole model. margin: see MarginConfig; left out, there is none. labellers: how much the rankings of
    each count, by name; the others' count 1. ensemble: so many models that differ by their seeds; PPO's reward is their
    mean less `caution` standard deviations over them.

    epochs: passes over the rankings, or a part of one. row_length: tokens of a row, a prompt and an answer at most;
    rankings with a longer one are left out. optimizer: see there; what is not said of it is as it says there.
    precision: of activations; weights are fp32. caution: see ensemble.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    epochs: float = Field(default=2.0, gt=0)
    rankings_per_step: int = Field(default=16, ge=1)
    row_length: int = Field(default=256, ge=2)
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=5e-4)
    precision: Precision = "auto"
    lora: LoRAConfig | None = None
    margin: MarginConfig | None = None
    labellers: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = {}
    ensemble: int = Field(default=1, ge=1, le=16)
    caution: float = Field(default=1.0, ge=0, allow_inf_nan=False)

    @property
    def members(self) -> list[str]:
        """The names of the models: reward, reward-2, ..."""
        return ["reward", *(f"reward-{number}" for number in range(2, self.ensemble + 1))]

    @field_validator("lora")
    @classmethod
    def _has_these_matrices(cls, lora: LoRAConfig | None) -> LoRAConfig | None:
        if lora is not None and "lm_head" in lora.targets:
            raise ValueError("a reward model has no lm_head; take it out of the targets")
        return lora

    def steps(self, num_rankings: int) -> int:
        """Optimizer steps for so many rankings."""
        return max(1, round(self.epochs * num_rankings / self.rankings_per_step))


@dataclass(frozen=True)
class EncodedRanking:
    """The token ids of each prompt-with-answer of one ranking, and the (better, worse) pairs among them. margins: of
    each pair; none are zeros. weight: how much the ranking counts."""

    sequences: list[list[int]]
    pairs: list[tuple[int, int]]
    margins: Sequence[float] = ()
    weight: float = 1.0


def encode_rankings(
    rankings: Iterable[Ranking],
    tokenizer: Tokenizer,
    row_length: int,
    *,
    margin: MarginConfig | None = None,
    labellers: Mapping[str, float] | None = None,
) -> tuple[list[EncodedRanking], int]:
    """Rankings that have a pair, count, and fit a row, and how many do not. Raises InputError if none is left, or if
    none has the scores that margins are made of.

    labellers: see RewardConfig. Weights are divided by their mean, so that they leave the size of a step as it is.
    """
    encoded, dropped, have_scores = [], 0, False
    for ranking, found in fitting_rankings(rankings, tokenizer, row_length):
        weight = (labellers or {}).get(ranking.labeller or "", 1.0) * (
            1.0 if ranking.weight is None else ranking.weight
        )
        if found is None or weight == 0:
            dropped += 1
            continue
        have_scores |= ranking.scores is not None
        margins = margin.of(ranking, found.pairs) if margin is not None else ()
        encoded.append(replace(found, margins=margins, weight=weight))
    if not encoded:
        raise InputError(
            f"reward model: no ranking with a preference and at most {row_length} tokens ({dropped} dropped); "
            "check data.rankings, weights and reward.labellers, or raise reward.row_length"
        )
    if margin is not None and margin.by == "scores" and not have_scores:
        raise InputError(
            "reward.margin.by is scores, but no ranking has scores; give them in the data, or choose ranks"
        )
    mean = math.fsum(ranking.weight for ranking in encoded) / len(encoded)
    return [replace(ranking, weight=ranking.weight / mean) for ranking in encoded], dropped


def fitting_rankings(
    rankings: Iterable[Ranking], tokenizer: Tokenizer, row_length: int
) -> Iterator[tuple[Ranking, EncodedRanking | None]]:
    """Each ranking with its tokens and pairs, or None where it has no pair or does not fit a row."""
    remaining = iter(rankings)
    while some := list(islice(remaining, RANKINGS_AT_ONCE)):
        ids = tokenizer.encode_conversations(
            answered(ranking, answer) for ranking in some for answer in ranking.answers
        )
        for ranking in some:
            sequences = [next(ids)[0].tolist() for _ in ranking.answers]
            pairs = ranking.pairs()
            fits = bool(pairs) and max(map(len, sequences)) <= row_length
            yield ranking, EncodedRanking(sequences, pairs) if fits else None


def check_labellers(config: RewardConfig, known: Iterable[str]) -> None:
    """Raises InputError for a weight of somebody who has ranked nothing: a name is misspelt."""
    names = sorted(set(known))
    for name in config.labellers:
        if name not in names:
            raise InputError(
                f"reward.labellers: {name!r} has ranked nothing here; labellers: {', '.join(names) or 'none is named'}"
            )


def answered(prompt: Prompt, answer: str) -> list[dict[str, object]]:
    """A prompt with an answer; through the chat template, its last token is the end of the turn."""
    return [*(m.model_dump() for m in prompt.messages), {"role": "assistant", "content": answer}]


def last_values(model: ScalarModel, sequences: Sequence[Sequence[int]], row_length: int, dtype: torch.dtype) -> Tensor:
    """The value at the last token of each sequence, N. Answers to one prompt, side by side, share the prompt."""
    trees = grow_trees(sequences, row_length)
    packed = pack_trees(trees, row_length)
    places = [
        (row, begin + end) for tree, (row, begin, _) in zip(trees, packed.places, strict=True) for end in tree.ends
    ]
    device = model.model.device
    rows, ends = torch.tensor(places, device=device).unbind(1)
    return model.computing(lambda: model.values(Rows.of(packed, device).hidden(model.model, dtype))[rows, ends])


class RewardObjective(PlainObjective[list[EncodedRanking]]):
    """`ranking_loss`: all answers to one prompt are one element of the batch, so none is learnt K - 1 times over."""

    def __init__(
        self,
        model: ScalarModel,
        rankings: list[EncodedRanking],
        config: RewardConfig,
        seed: int,
        dtype: torch.dtype,
        tensor_parallel: int = 1,
    ) -> None:
        self.model, self.rankings, self.row_length, self.dtype = model, rankings, config.row_length, dtype
        self.shares = shares(tensor_parallel)
        check_shares("rankings_per_step", config.rankings_per_step, ranks().size, tensor_parallel)
        self.order = RowOrder(len(rankings), config.rankings_per_step, seed)

    def flops(self, step: int) -> float:
        trees = grow_trees([s for i in self.order.batch(step) for s in self.rankings[i].sequences], self.row_length)
        seen = positions_seen(np.array([p for tree in trees for p in tree.positions]), self.model.config)
        return training_flops(self.model, Work(tokens=sum(len(tree.tokens) for tree in trees), seen=seen))

    def batches(self, step: int) -> Sequence[list[EncodedRanking]]:
        # Equal shares: the mean over the processes, which FSDP takes of the gradients, is the mean over the step.
        return [[self.rankings[i] for i in self.order.batch(step)[self.shares.rank :: self.shares.size]]]

    def loss(self, batch: list[EncodedRanking]) -> tuple[Tensor, Metrics]:
        rewards = last_values(self.model, [s for r in batch for s in r.sequences], self.row_length, self.dtype)
        loss, accuracy = ranking_loss(rewards, batch)
        return loss, {"pair_accuracy": accuracy}

    def tokens(self, step: int) -> int:
        trees = (grow_trees(self.rankings[i].sequences, self.row_length) for i in self.order.batch(step))
        return sum(len(tree.tokens) for some in trees for tree in some)


def ranking_loss(rewards: Tensor, batch: list[EncodedRanking]) -> tuple[Tensor, float]:
    """-log sigmoid(r_better - r_worse), the mean over all pairs of a ranking, then over rankings (Ouyang et al., 2022,
    eq. 1); and the share of pairs in order. rewards: of all answers, one ranking after the other.

    With margins m, -log sigmoid(r_better - r_worse - m) (Touvron et al., 2023, "Llama 2", eq. 2); with weights, each
    ranking's share is as many times as large. The share of pairs in order knows neither.
    """
    better, worse, margins, shares, weights = (tensor.to(rewards.device) for tensor in _pairs(batch))
    lead = rewards[better] - rewards[worse]
    loss = -(F.logsigmoid(lead - margins) * weights).sum()
    return loss, float((shares * (lead > 0)).sum())


def _pairs(batch: list[EncodedRanking]) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Of every pair: indices of the better and the worse answer, the margin, the share of the batch, which sum to 1,
    and the same times its ranking's weight."""
    better, worse, shares, weights, first = [], [], [], [], 0
    margins: list[float] = []
    for ranking in batch:
        better += [first + i for i, _ in ranking.pairs]
        worse += [first + j for _, j in ranking.pairs]
        margins += ranking.margins or [0.0] * len(ranking.pairs)
        share = 1 / len(ranking.pairs) / len(batch)
        shares += [share] * len(ranking.pairs)
        weights += [share * ranking.weight] * len(ranking.pairs)
        first += len(ranking.sequences)
    return (
        torch.tensor(better),
        torch.tensor(worse),
        torch.tensor(margins),
        torch.tensor(shares),
        torch.tensor(weights),
    )


def train_reward(
    config: RewardConfig,
    start: CausalLM,
    rankings: list[EncodedRanking],
    *,
    directory: Path,
    seed: int,
    member: int = 0,
    tensor_parallel: int = 1,
    on_progress: OnProgress = lambda _: None,
    watch: Watch = Watch(),
) -> tuple[ScalarModel | None, Metrics]:
    """Trains a reward model that starts from a copy of an SFT model's trunk, or an adapter that the trunk itself gets,
    in `directory`, going on from its last save. Of several processes the first one gets the model; so many divide each
    matrix (`tensor_parallel`).

    member: of an ensemble; each has its own order of the rankings, and the later ones begin with a head, and an
    adapter, of their own.
    """
    seed += MEMBER_SEEDS * member

    def plain() -> ScalarModel:
        result = ScalarModel(start.config)
        if config.lora is not None:
            add_lora(result, config.lora, torch.Generator())
        return result

    model = with_scalar_head(copy.deepcopy(start) if config.lora is None else start)
    if member:
        model.score.weight.data.normal_(0.0, HEAD_DEVIATION, generator=torch.Generator().manual_seed(seed))
    if config.lora is not None:
        add_lora(model, config.lora, torch.Generator().manual_seed(seed))
        model.train(config.lora.dropout > 0)
    model.to(start.model.device)  # the head and the adapter are made on the processor
    dtype = compute_dtype(config.precision, model.model.device.type)
    objective = RewardObjective(model, rankings, config, seed, dtype, tensor_parallel)
    if ranks().size > 1:
        shard(model, tensor_parallel)
    loop = Loop(
        directory=directory,
        modules={"model": model},
        optimizer=config.optimizer,
        steps=config.steps(len(rankings)),
        seed=seed,
        on_progress=on_progress,
        peak=watch.peak,
    )
    if watch.prompts and ranks().size == 1:
        loop.sampler = lambda _: _judged(model, watch, config.row_length, objective.dtype)
    metrics = loop.run(objective)
    whole = gathered(model, plain)
    return whole.eval() if whole is not None else None, metrics


def _judged(model: ScalarModel, watch: Watch, row_length: int, dtype: torch.dtype) -> list[Sample]:
    """What the reward model thinks, so far, of answers that are always the same."""
    with at_rest(model):
        scores = score(model, [prompt.ids for prompt in watch.prompts], row_length, dtype)
    return [
        {"prompt": prompt.text, "text": prompt.answer, "reward": round(value, 3)}
        for prompt, value in zip(watch.prompts, scores.tolist(), strict=True)
    ]


@torch.no_grad()
def score(
    model: ScalarModel, sequences: Sequence[Sequence[int]], row_length: int, dtype: torch.dtype, at_once: int = 256
) -> Tensor:
    """The raw rewards N of many sequences."""
    parts = [
        last_values(model, sequences[i : i + at_once], row_length, dtype) for i in range(0, len(sequences), at_once)
    ]
    return torch.cat(parts).cpu()


def pair_accuracy(model: ScalarModel, rankings: list[EncodedRanking], row_length: int) -> float:
    """The share of pairs that the model puts in the labeller's order; every pair counts once."""
    right = total = 0
    rewards = iter(score(model, [s for r in rankings for s in r.sequences], row_length, torch.float32).tolist())
    for ranking in rankings:
        values = [next(rewards) for _ in ranking.sequences]
        right += sum(values[i] > values[j] for i, j in ranking.pairs)
        total += len(ranking.pairs)
    return right / max(1, total)


def demonstration_rewards(
    model: ScalarModel, demonstrations: Iterable[Demonstration], tokenizer: Tokenizer, row_length: int
) -> tuple[float, float]:
    """Mean and standard deviation of the raw reward of people's demonstrations: what becomes 0 and 1.

    Those longer than a row are left out; if all are, they count by their ends.
    """
    conversations = (d.model_dump(include={"messages", "tools"}) for d in demonstrations)
    sequences = [ids.tolist() for ids, _ in tokenizer.encode_conversations(conversations)]
    fitting = [s for s in sequences if len(s) <= row_length] or [s[-row_length:] for s in sequences]
    rewards = score(model, fitting, row_length, torch.float32).numpy()
    return float(np.mean(rewards)), float(np.std(rewards))
