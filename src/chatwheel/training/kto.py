"""KTO: the assistant learns from answers that are good or bad, each by itself, as thumbs say (Ethayarajh et al., 2024).

data: rated answers and rankings -> model: the SFT model, or an adapter on it -> reference: what that model thinks of
the data, once -> loss: the value of each answer's gain on the reference, beside what strangers have gained -> loop.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from chatwheel.data.records import Ranking, Rating
from chatwheel.errors import InputError
from chatwheel.model.lora import LoRAConfig
from chatwheel.model.tokenizer import Tokenizer
from chatwheel.model.transformer import CausalLM
from chatwheel.training.answers import PromptedAnswer
from chatwheel.training.batches import RowOrder
from chatwheel.training.distributed import check_shares, mean, ranks, shares
from chatwheel.training.improving import adapt, improve
from chatwheel.training.loop import Metrics, OnProgress, PlainObjective
from chatwheel.training.optimizers import OptimizerConfig
from chatwheel.training.precision import Precision, compute_dtype
from chatwheel.training.preferences import (
    RANKINGS_AT_ONCE,
    EncodedPreferences,
    answer_log_probs,
    encode_answers,
    encoded_rankings,
    pair_accuracy,
    reference_log_probs,
    work_of,
)
from chatwheel.training.reward import answered
from chatwheel.training.samples import Watch, at_rest
from chatwheel.training.throughput import forward_flops, training_flops


class KTOConfig(BaseModel):
    """How to learn from good and bad answers.

    beta: how dear it is to move away from the reference. desirable_weight, undesirable_weight: the paper's lambdas.
    balanced: they are scaled so that the good answers of the data weigh together what the bad ones do.
    prompts_per_step: each with all its answers. prompts_at_once: in memory together. recompute: layers' activations on
    the way back, which costs a third more time and far less memory. lora: train an adapter, see there.

    epochs: passes over the prompts, or a part of one. row_length: tokens of a row, a prompt and an answer at most;
    longer ones are left out. optimizer: see there; what is not said of it is as it says there. precision: of
    activations; weights are fp32.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    epochs: float = Field(default=1.0, gt=0)
    beta: float = Field(default=0.1, gt=0)
    desirable_weight: float = Field(default=1.0, gt=0)
    undesirable_weight: float = Field(default=1.0, gt=0)
    balanced: bool = True
    prompts_per_step: int = Field(default=16, ge=1)
    prompts_at_once: int = Field(default=16, ge=1)
    row_length: int = Field(default=256, ge=2)
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=5e-5, warmup=0.1)
    precision: Precision = "auto"
    recompute: bool = False
    lora: LoRAConfig | None = None

    def steps(self, num_prompts: int) -> int:
        """Optimizer steps for so many prompts."""
        return max(1, round(self.epochs * num_prompts / self.prompts_per_step))


@dataclass(frozen=True)
class LabelledAnswers:
    """Answers to one prompt, and whether each is desirable."""

    answers: list[PromptedAnswer]
    desirable: list[bool]


def labels_of(ranking: Ranking) -> list[bool | None]:
    """Whether each answer of a ranking is desirable: if it is better than more of the others than are better than it.
    None where these are as many: an answer in the middle is neither."""
    better = [sum(rank < other for other in ranking.ranks) for rank in ranking.ranks]
    worse = [sum(rank > other for other in ranking.ranks) for rank in ranking.ranks]
    return [None if wins == losses else wins > losses for wins, losses in zip(better, worse, strict=True)]


def encode_labelled(
    rankings: Iterable[Ranking], ratings: Iterable[Rating], tokenizer: Tokenizer, row_length: int
) -> tuple[list[LabelledAnswers], int]:
    """The answers that are desirable or not and fit a row, by prompt, and how many were too long."""
    encoded, dropped = [], 0

    def labelled() -> Iterable[tuple[list[PromptedAnswer], list[bool | None]]]:
        for ranking, answers in encoded_rankings(rankings, tokenizer):
            yield answers, labels_of(ranking)
        remaining = iter(ratings)
        while some := list(islice(remaining, RANKINGS_AT_ONCE)):
            each = encode_answers((answered(rating, rating.answer) for rating in some), tokenizer)
            for rating, answer in zip(some, each, strict=True):
                yield [answer], [rating.rating > 0]

    for answers, labels in labelled():
        kept = [(a, label) for a, label in zip(answers, labels, strict=True) if label is not None]
        fitting = [(a, label) for a, label in kept if len(a.tokens) <= row_length]
        dropped += len(kept) - len(fitting)
        if fitting:
            encoded.append(LabelledAnswers([a for a, _ in fitting], [label for _, label in fitting]))
    return encoded, dropped


def mismatched(groups: Sequence[LabelledAnswers], row_length: int, seed: int) -> list[list[PromptedAnswer]]:
    """For each answer its prompt with an answer to another one: the next of a shuffled ring that is another's, cut to
    what a row leaves. If there is one prompt only, the next one."""
    flat = [(number, answer) for number, group in enumerate(groups) for answer in group.answers]
    ring = np.random.default_rng((seed, len(flat))).permutation(len(flat)).tolist()
    strangers: list[PromptedAnswer] = [flat[0][1]] * len(flat)
    following = _next_of_another([flat[i][0] for i in ring])
    for place, i in enumerate(ring):
        answer, other = flat[i][1], flat[ring[following[place]]][1]
        tokens = [*answer.tokens[: answer.begin], *other.tokens[other.begin :]]
        strangers[i] = PromptedAnswer(tokens[:row_length], answer.begin)
    remaining = iter(strangers)
    return [list(islice(remaining, len(group.answers))) for group in groups]


def _next_of_another(ring: Sequence[int]) -> list[int]:
    """For each place of a ring the next one that holds something else, or the next one if all hold the same."""
    size = len(ring)
    following = [(i + 1) % size for i in range(size)]
    if len(set(ring)) == 1:
        return following
    for i in reversed(range(2 * size)):  # twice around: the last ones look past the end
        here, after = i % size, (i + 1) % size
        following[here] = after if ring[after] != ring[here] else following[after]
    return following


def answer_losses(gains_K: Tensor, signs_K: Tensor, weights_K: Tensor, z0: float, beta: float) -> Tensor:
    """lambda (1 - sigmoid(beta s (gain - z0))), K, where s is 1 for a desirable answer and -1 for another
    (Ethayarajh et al., 2024, eq. 8; the paper's constant lambda is kept, so that the loss is never negative).

    gains_K: log-prob beside the reference's, in nats. z0: KL(model || reference), an answer, no gradient.
    """
    return weights_K * (1 - torch.sigmoid(beta * signs_K * (gains_K - z0)))


class KTOObjective(PlainObjective[list[int]]):
    """`answer_losses`, the mean over the step's answers. A batch is the numbers of some prompts. z0 is the same for the
    whole step: the mean gain of strangers, answers to other prompts, or 0 if they have lost."""

    def __init__(
        self,
        model: CausalLM,
        groups: Sequence[LabelledAnswers],
        strangers: Sequence[Sequence[PromptedAnswer]],
        reference: Sequence[Tensor],
        strangers_reference: Sequence[Tensor],
        config: KTOConfig,
        seed: int,
        dtype: torch.dtype,
        tensor_parallel: int = 1,
    ) -> None:
        self.model, self.groups, self.strangers = model, groups, strangers
        self.reference, self.strangers_reference = reference, strangers_reference
        self.config, self.dtype = config, dtype
        self.shares = shares(tensor_parallel)
        check_shares("prompts_per_step", config.prompts_per_step, ranks().size, tensor_parallel)
        self.order = RowOrder(len(groups), config.prompts_per_step, seed)
        self.weights = self._weights()
        self.z0, self._counts = 0.0, (1, 1)

    def _weights(self) -> tuple[float, float]:
        """Of a desirable answer and of another."""
        good = sum(sum(group.desirable) for group in self.groups)
        bad = sum(len(group.desirable) for group in self.groups) - good
        desirable, undesirable = self.config.desirable_weight, self.config.undesirable_weight
        if not self.config.balanced or not good or not bad:
            return desirable, undesirable
        return desirable * (good + bad) / (2 * good), undesirable * (good + bad) / (2 * bad)

    def batches(self, step: int) -> Sequence[list[int]]:
        whole = self.order.batch(step).tolist()
        labels = [label for i in whole for label in self.groups[i].desirable]
        self._counts = (sum(labels), len(labels) - sum(labels))
        mine, size = whole[self.shares.rank :: self.shares.size], self.config.prompts_at_once
        parts = [mine[i : i + size] for i in range(0, len(mine), size)]
        with at_rest(self.model):
            gained = sum(float(self._strangers_gain(part)) for part in parts)
        self.z0 = max(0.0, mean(gained * self.shares.size) / len(labels))
        return parts

    def _strangers_gain(self, batch: Sequence[int]) -> Tensor:
        answers = list(chain(*(self.strangers[i] for i in batch)))
        log_probs_K = answer_log_probs(self.model, answers, self.config.row_length, self.dtype)
        return (log_probs_K.cpu() - torch.cat([self.strangers_reference[i] for i in batch])).sum()

    def loss(self, batch: list[int]) -> tuple[Tensor, Metrics]:
        """`answer_losses` of a micro-batch, and what its answers have gained on the reference."""
        answers = self._answers(batch)
        log_probs_K = answer_log_probs(self.model, answers, self.config.row_length, self.dtype)
        reference_K = torch.cat([self.reference[i] for i in batch]).to(log_probs_K.device)
        gains_K = log_probs_K - reference_K
        labels = [label for i in batch for label in self.groups[i].desirable]
        desirable_K = torch.tensor(labels, device=gains_K.device)
        signs_K = torch.where(desirable_K, 1.0, -1.0)
        weights_K = torch.where(desirable_K, *self.weights)
        losses_K = answer_losses(gains_K, signs_K, weights_K, self.z0, self.config.beta)
        good, bad = self._counts
        # FSDP takes the mean over the processes, each of which has its share of the sum.
        share = self.shares.size / (good + bad)

        def mean_over(chosen_K: Tensor, values_K: Tensor, count: int) -> float:
            return float(values_K.detach()[chosen_K].sum()) * self.shares.size / max(1, count)

        desirable, undesirable = (
            self.config.beta * mean_over(chosen, gains_K, n) for chosen, n in ((desirable_K, good), (~desirable_K, bad))
        )
        return losses_K.sum() * share, {
            "label_accuracy": float((signs_K * (gains_K.detach() - self.z0) > 0).sum()) * share,
            "margin": desirable - undesirable,  # of the implicit rewards, beta x the gain
            "reward_desirable": desirable,
            "reward_undesirable": undesirable,
            "log_prob_desirable": mean_over(desirable_K, log_probs_K, good),
            "log_prob_undesirable": mean_over(~desirable_K, log_probs_K, bad),
        }

    def metrics(self, step: int) -> Metrics:  # noqa: ARG002
        return {"kl": self.z0}

    def _answers(self, batch: Sequence[int]) -> list[PromptedAnswer]:
        return [answer for i in batch for answer in self.groups[i].answers]

    def tokens(self, step: int) -> int:
        """Of what is learnt from, not of the strangers."""
        return int(work_of(self._answers(self.order.batch(step).tolist()), self.config.row_length, self.model).tokens)

    def flops(self, step: int) -> float:
        batch, length = self.order.batch(step).tolist(), self.config.row_length
        strangers = list(chain(*(self.strangers[i] for i in batch)))
        learnt = training_flops(self.model, work_of(self._answers(batch), length, self.model))
        return learnt + forward_flops(self.model, work_of(strangers, length, self.model))


def kto(
    config: KTOConfig,
    model: CausalLM,
    groups: Sequence[LabelledAnswers],
    *,
    directory: Path,
    seed: int,
    held_out: Sequence[EncodedPreferences] = (),
    tensor_parallel: int = 1,
    on_progress: OnProgress = lambda _: None,
    watch: Watch = Watch(),
) -> tuple[CausalLM | None, Metrics]:
    """Improves `model` (in place), or an adapter that it gets, in `directory`, going on from its last save; `model` as
    it comes is the reference. Of several processes the first one gets the model, and its accuracy on `held_out`; so
    many divide each matrix (`tensor_parallel`). Raises InputError where there is nothing to learn from."""

    if not groups:
        raise InputError(
            f"KTO: no answer of at most {config.row_length} tokens that is desirable or not; check data.rankings and "
            "data.ratings, or raise kto.row_length"
        )
    dtype = compute_dtype(config.precision, model.model.device.type)
    strangers = mismatched(groups, config.row_length, seed)
    answers = [group.answers for group in groups]
    reference = reference_log_probs(
        model,
        [*answers, *strangers, *(one.answers for one in held_out)],
        directory=directory,
        at_once=config.prompts_at_once,
        row_length=config.row_length,
        dtype=dtype,
    )
    of_answers, of_strangers = reference[: len(groups)], reference[len(groups) : 2 * len(groups)]
    adapt(model, config.lora, seed)
    objective = KTOObjective(model, groups, strangers, of_answers, of_strangers, config, seed, dtype, tensor_parallel)
    whole, metrics = improve(
        model,
        objective,
        lora=config.lora,
        recompute=config.recompute,
        optimizer=config.optimizer,
        steps=config.steps(len(groups)),
        dtype=dtype,
        directory=directory,
        seed=seed,
        tensor_parallel=tensor_parallel,
        on_progress=on_progress,
        watch=watch,
    )
    if whole is None:
        return None, {}
    measured = pair_accuracy(
        whole.eval(),
        held_out,
        reference[2 * len(groups) :],
        at_once=config.prompts_at_once,
        row_length=config.row_length,
        dtype=dtype,
    )
    return whole, {"loss": metrics.get("loss", 0.0)} | measured
