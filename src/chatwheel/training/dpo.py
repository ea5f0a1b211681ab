"""DPO: the assistant learns from rankings at once, without a reward model and without sampling (Rafailov et al., 2023).

data: rankings -> model: the SFT model, or an adapter on it -> reference: what that model thinks of the data, once ->
loss: how much more the better answer has gained on the reference than the worse one -> loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from chatwheel.errors import InputError
from chatwheel.model.lora import LoRAConfig
from chatwheel.model.transformer import CausalLM
from chatwheel.training.answers import PromptedAnswer
from chatwheel.training.batches import RowOrder
from chatwheel.training.distributed import check_shares, ranks, shares
from chatwheel.training.improving import adapt, improve
from chatwheel.training.loop import Metrics, OnProgress, PlainObjective
from chatwheel.training.optimizers import OptimizerConfig
from chatwheel.training.precision import Precision, compute_dtype
from chatwheel.training.preferences import (
    EncodedPreferences,
    answer_log_probs,
    pair_accuracy,
    reference_log_probs,
    work_of,
)
from chatwheel.training.samples import Watch
from chatwheel.training.throughput import training_flops


class DPOConfig(BaseModel):
    """How to learn from pairs of answers.

    beta: how dear it is to move away from the reference; the optimum is reference x exp(reward / beta). loss: "sigmoid"
    (DPO), or "ipo" (Azar et al., 2023), which does not run away where all labellers agree. label_smoothing: the share
    of pairs that are taken to be labelled the wrong way round (conservative DPO; Mitchell, 2023). average: log-probs by
    token instead of by answer, so that length is no reason to prefer one. rankings_per_step: each with all its pairs.
    rankings_at_once: in memory together. recompute: layers' activations on the way back, which costs a third more time
    and far less memory. lora: train an adapter, see there.

    epochs: passes over the rankings, or a part of one. row_length: tokens of a row, a prompt and an answer at most;
    longer ones are left out. optimizer: see there; what is not said of it is as it says there. precision: of
    activations; weights are fp32.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    epochs: float = Field(default=1.0, gt=0)
    beta: float = Field(default=0.1, gt=0)
    loss: Literal["sigmoid", "ipo"] = "sigmoid"
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    average: bool = False
    rankings_per_step: int = Field(default=16, ge=1)
    rankings_at_once: int = Field(default=16, ge=1)
    row_length: int = Field(default=256, ge=2)
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=5e-5, warmup=0.1)
    precision: Precision = "auto"
    recompute: bool = False
    lora: LoRAConfig | None = None

    def steps(self, num_rankings: int) -> int:
        """Optimizer steps for so many rankings."""
        return max(1, round(self.epochs * num_rankings / self.rankings_per_step))


def pair_losses(margins_P: Tensor, config: DPOConfig) -> Tensor:
    """The loss of each pair, P, from how much more the better answer has gained on the reference, in nats.

    DPO: -log sigmoid(beta m) (Rafailov et al., 2023, eq. 7). IPO: (m - 1 / (2 beta))^2 (Azar et al., 2023, eq. 17). A
    label that is wrong with probability e: (1 - e) loss(m) + e loss(-m).
    """

    def loss(m_P: Tensor) -> Tensor:
        return -F.logsigmoid(config.beta * m_P) if config.loss == "sigmoid" else (m_P - 1 / (2 * config.beta)) ** 2

    wrong = config.label_smoothing
    return (1 - wrong) * loss(margins_P) + wrong * loss(-margins_P) if wrong else loss(margins_P)


class DPOObjective(PlainObjective[list[int]]):
    """`pair_losses`, the mean over the pairs of a ranking, then over the step's rankings, as in the reward model. A
    batch is the numbers of some rankings."""

    def __init__(
        self,
        model: CausalLM,
        rankings: Sequence[EncodedPreferences],
        reference: Sequence[Tensor],
        config: DPOConfig,
        seed: int,
        dtype: torch.dtype,
        tensor_parallel: int = 1,
    ) -> None:
        self.model, self.rankings, self.reference = model, rankings, reference
        self.config, self.dtype = config, dtype
        self.shares = shares(tensor_parallel)
        check_shares("rankings_per_step", config.rankings_per_step, ranks().size, tensor_parallel)
        self.order = RowOrder(len(rankings), config.rankings_per_step, seed)

    def batches(self, step: int) -> Sequence[list[int]]:
        mine = self.order.batch(step)[self.shares.rank :: self.shares.size].tolist()
        return [mine[i : i + self.config.rankings_at_once] for i in range(0, len(mine), self.config.rankings_at_once)]

    def loss(self, batch: list[int]) -> tuple[Tensor, Metrics]:
        """`pair_losses` of a micro-batch, weighted, and what its answers have gained on the reference."""
        answers = self._answers(batch)
        log_probs_K = answer_log_probs(self.model, answers, self.config.row_length, self.dtype)
        reference_K = torch.cat([self.reference[i] for i in batch]).to(log_probs_K.device)
        if self.config.average:
            lengths_K = torch.tensor([answer.length for answer in answers], device=log_probs_K.device)
            log_probs_K, reference_K = log_probs_K / lengths_K, reference_K / lengths_K
        better_P, worse_P, weights_P = (tensor.to(log_probs_K.device) for tensor in self._pairs(batch))
        gains_K = log_probs_K - reference_K
        margins_P = gains_K[better_P] - gains_K[worse_P]
        loss = (pair_losses(margins_P, self.config) * weights_P).sum()

        def mean(values_P: Tensor) -> float:
            return float((values_P.detach() * weights_P).sum())

        beta = self.config.beta
        return loss, {
            "pair_accuracy": mean(margins_P > 0),
            "margin": beta * mean(margins_P),  # of the implicit rewards, beta x the gain
            "reward_better": beta * mean(gains_K[better_P]),
            "reward_worse": beta * mean(gains_K[worse_P]),
            "log_prob_better": mean(log_probs_K[better_P]),
            "log_prob_worse": mean(log_probs_K[worse_P]),
            # KL(reference || model), an answer, as far as the answers are the reference's own.
            "lost": -mean((gains_K[better_P] + gains_K[worse_P]) / 2),
        }

    def _answers(self, batch: Sequence[int]) -> list[PromptedAnswer]:
        return [answer for i in batch for answer in self.rankings[i].answers]

    def _pairs(self, batch: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Indices of the better and the worse answer of every pair, and the pairs' weights."""
        better, worse, weights, first = [], [], [], 0
        # They sum to 1 over a process's share of a step, and FSDP takes the mean over the processes.
        each = self.shares.size / self.config.rankings_per_step
        for ranking in (self.rankings[i] for i in batch):
            better += [first + i for i, _ in ranking.pairs]
            worse += [first + j for _, j in ranking.pairs]
            weights += [each / len(ranking.pairs)] * len(ranking.pairs)
            first += len(ranking.answers)
        return torch.tensor(better), torch.tensor(worse), torch.tensor(weights)

    def tokens(self, step: int) -> int:
        return int(work_of(self._answers(self.order.batch(step).tolist()), self.config.row_length, self.model).tokens)

    def flops(self, step: int) -> float:
        answers = self._answers(self.order.batch(step).tolist())
        return training_flops(self.model, work_of(answers, self.config.row_length, self.model))


def dpo(
    config: DPOConfig,
    model: CausalLM,
    rankings: Sequence[EncodedPreferences],
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

    if not rankings:
        raise InputError(
            f"DPO: no ranking with a preference and at most {config.row_length} tokens; check data.rankings or raise "
            "dpo.row_length"
        )
    dtype = compute_dtype(config.precision, model.model.device.type)
    reference = reference_log_probs(
        model,
        [one.answers for one in (*rankings, *held_out)],
        directory=directory,
        at_once=config.rankings_at_once,
        row_length=config.row_length,
        dtype=dtype,
    )
    adapt(model, config.lora, seed)
    objective = DPOObjective(model, rankings, reference[: len(rankings)], config, seed, dtype, tensor_parallel)
    whole, metrics = improve(
        model,
        objective,
        lora=config.lora,
        recompute=config.recompute,
        optimizer=config.optimizer,
        steps=config.steps(len(rankings)),
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
        reference[len(rankings) :],
        at_once=config.rankings_at_once,
        row_length=config.row_length,
        dtype=dtype,
        average=config.average,
    )
    return whole, {"loss": metrics.get("loss", 0.0)} | measured
