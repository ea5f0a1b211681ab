"""Stage 4, PPO: the assistant learns to give answers that the reward model likes (Ouyang et al., 2022, section 3.5).

data: prompts -> models: actor, critic, frozen reference, reward -> rollout: answers, KL, advantages -> loss: clipped
policy and value losses (Schulman et al., 2017, eq. 7) -> loop.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from chatwheel.data.packing import Packed
from chatwheel.data.records import Prompt
from chatwheel.engine.engine import Engine
from chatwheel.engine.requests import Completion
from chatwheel.errors import InputError
from chatwheel.model.tokenizer import Tokenizer
from chatwheel.model.transformer import CausalLM, ScalarModel
from chatwheel.training.advantages import generalised_advantages, whiten
from chatwheel.training.batches import RowOrder, Rows
from chatwheel.training.kl_control import KLConfig, KLController
from chatwheel.training.loop import Loop, Metrics, OnProgress
from chatwheel.training.next_token import next_token_loss
from chatwheel.training.optimizers import OptimizerConfig
from chatwheel.training.precision import Precision, compute_dtype
from chatwheel.training.rewards import (
    OWN,
    Question,
    Reward,
    RewardModelReward,
    RewardSource,
    WeightedReward,
    ended,
)
from chatwheel.training.rollouts import Answers, sample_answers
from chatwheel.training.samples import FixedPrompt, Watch
from chatwheel.training.throughput import Work, forward_flops, training_flops


class PPOConfig(BaseModel):
    """How to run PPO.

    rollouts: times that new answers are sampled. prompts_per_rollout: answers of each. rewards: who judges them, in
    sum; the run's own reward model unless given. epochs, minibatches: how
    often, and in how many parts, a rollout is learnt from. clip, value_clip: how far probability ratios and values
    may move. missing_end_penalty: taken off the reward of an answer that was cut off. ptx: weight of the next-token
    loss on demonstrations mixed in against forgetting (PPO-ptx). step_kl: nats a token from the rollout's policy
    beyond which the rest of a rollout is skipped. The temperature is 1 always: it is the policy's own distribution
    that learns.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    rollouts: int = Field(ge=1)
    rewards: tuple[RewardSource, ...] = ()
    prompts_per_rollout: int = Field(default=128, ge=2)
    epochs: int = Field(default=2, ge=1)
    minibatches: int = Field(default=2, ge=1)
    max_tokens: int = Field(default=64, ge=1)
    row_length: int = Field(default=256, ge=2)
    gamma: float = Field(default=1.0, gt=0, le=1)
    lam: float = Field(default=0.95, ge=0, le=1)
    clip: float = Field(default=0.2, gt=0)
    value_clip: float = Field(default=0.2, gt=0)
    value_weight: float = Field(default=0.5, ge=0)
    missing_end_penalty: float = Field(default=1.0, ge=0)
    ptx: float = Field(default=0.0, ge=0)
    ptx_rows: int = Field(default=4, ge=1)
    step_kl: float = Field(default=0.1, gt=0)
    kl: KLConfig = KLConfig()
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=1e-4, warmup=0.05, decay=0.5)
    precision: Precision = "auto"

    @model_validator(mode="after")
    def _minibatches_have_answers(self) -> PPOConfig:
        if self.minibatches > self.prompts_per_rollout:
            raise ValueError(f"{self.minibatches} minibatches of {self.prompts_per_rollout} prompts_per_rollout")
        return self

    @property
    def judged_by_the_run(self) -> bool:
        """Whether the run's own reward model judges."""
        return not self.rewards or any(source.model == OWN for source in self.rewards)

    @property
    def updates_per_rollout(self) -> int:
        """Optimizer steps between two rollouts."""
        return self.epochs * self.minibatches


@dataclass(frozen=True, kw_only=True)
class Minibatch:
    """Some answers of a rollout and what was true when they were sampled; vectors are flat over their tokens (N)."""

    answers: Answers
    log_probs: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor


class PPOObjective:
    """Samples a rollout every `updates_per_rollout` steps and gives its minibatches to the loop."""

    def __init__(
        self,
        config: PPOConfig,
        actor: CausalLM,
        critic: ScalarModel,
        reward: Reward,
        tokenizer: Tokenizer,
        questions: Sequence[Question],
        seed: int,
        demonstrations: Packed | None = None,
    ) -> None:
        self.config, self.actor, self.critic, self.reward = config, actor, critic, reward
        self.reference = copy.deepcopy(actor).requires_grad_(False)
        self.engine = Engine(actor, tokenizer, max_running=config.prompts_per_rollout)
        self.end_id = tokenizer.end_id
        self.questions, self.seed, self.device = questions, seed, actor.model.device
        self.dtype = compute_dtype(config.precision, self.device.type)
        self.order = RowOrder(len(questions), config.prompts_per_rollout, seed)
        self.demonstrations = demonstrations
        self.demonstration_order = RowOrder(len(demonstrations or ()) or 1, config.ptx_rows, seed + 1)
        self.controller = KLController(config.kl)
        self.kl = 0.0
        self._minibatches: list[Minibatch] = []
        self._rollout_metrics: Metrics = {}
        self._rollout_tokens = 0
        self._rollout_work = Work(tokens=0, seen=0)
        self._skip_rest = self._skipped = False

    # -- rollout: sample, judge, and work out what each token was worth

    @torch.no_grad()
    def collect(self, rollout: int) -> None:
        """Samples answers and turns their rewards into advantages (`generate_experience`)."""
        config, began = self.config, time.monotonic()
        self.engine.update_weights()
        questions = [self.questions[i] for i in self.order.batch(rollout).tolist()]
        prompts = [question.ids for question in questions]
        seeds = [(self.seed << 48) + (rollout << 24) + i for i in range(len(prompts))]
        completions = sample_answers(self.engine, prompts, max_tokens=config.max_tokens, seeds=seeds)
        sampled = time.monotonic()
        answers = Answers.of(prompts, completions, config.row_length, self.device)
        log_probs_N, entropy_N = answers.log_probs(self.actor, self.dtype)
        reference_N, _ = answers.log_probs(self.reference, self.dtype)
        values_N = answers.values(self.critic, self.dtype)
        scores = self.reward(questions, completions).to(self.device)
        kl_N = log_probs_N - reference_N
        rewards_N = self._token_rewards(scores, completions, kl_N, answers.lengths)
        advantages_N, returns_N = generalised_advantages(
            rewards_N, values_N, answers.lengths, gamma=config.gamma, lam=config.lam
        )
        self.kl = float(kl_N.sum()) / len(prompts)
        sampled_N = torch.tensor([p for c in completions for p in c.logprobs], device=self.device)
        means = self.reward.means if isinstance(self.reward, WeightedReward) else {}
        self._rollout_metrics = {
            "reward": float(scores.mean()),
            "reward_std": float(scores.std()),
            "kl": self.kl,
            "kl_coefficient": self.controller.coefficient,
            "entropy": float(entropy_N.mean()),
            "answer_tokens": float(np.mean(answers.lengths)),
            "ended": float(np.mean([ended(c, self.end_id) for c in completions])),
            "explained_variance": float(1 - (returns_N - values_N).var() / (returns_N.var() + 1e-8)),
            # What the sampler believed against what the trainer computes of the same tokens.
            "sampler_gap": float((sampled_N - log_probs_N).abs().mean()),
            **{f"reward.{name}": mean for name, mean in means.items()},
            # Of the rollout's first step; the rest is the update's.
            "sampling_seconds": sampled - began,
            "judging_seconds": time.monotonic() - sampled,
        }
        self.controller.update(self.kl, len(prompts))
        advantages_N = whiten(advantages_N)
        flat = (log_probs_N, values_N, advantages_N, returns_N)
        self._rollout_tokens = sum(map(len, prompts)) + len(kl_N)
        self._rollout_work = Work.of_answers(prompts, [c.token_ids for c in completions], self.actor.config)
        self._minibatches = self._split(prompts, completions, flat, rollout)
        self._skip_rest = False

    def _token_rewards(
        self, scores: Tensor, completions: Sequence[Completion], kl_N: Tensor, lengths: Sequence[int]
    ) -> Tensor:
        """Each token pays for its divergence from the reference; the last one earns the answer's score."""
        cut_off = torch.tensor([not ended(c, self.end_id) for c in completions], device=self.device)
        rewards_N = -self.controller.coefficient * kl_N
        ends = torch.tensor(lengths, device=self.device).cumsum(0) - 1
        rewards_N[ends] += scores - self.config.missing_end_penalty * cut_off
        return rewards_N

    def _split(
        self,
        prompts: Sequence[Sequence[int]],
        completions: Sequence[Completion],
        flat: tuple[Tensor, ...],
        rollout: int,
    ) -> list[Minibatch]:
        """Minibatches of whole answers, a fresh shuffle each epoch."""
        pieces = [torch.split(v, [len(c.token_ids) for c in completions]) for v in flat]
        minibatches = []
        for epoch in range(self.config.epochs):
            order = np.random.default_rng((self.seed, rollout, epoch)).permutation(len(prompts))
            for part in np.array_split(order, self.config.minibatches):
                chosen = [int(i) for i in part]
                vectors = [torch.cat([piece[i] for i in chosen]) for piece in pieces]
                answers = Answers.of(
                    [prompts[i] for i in chosen], [completions[i] for i in chosen], self.config.row_length, self.device
                )
                minibatches.append(
                    Minibatch(
                        answers=answers,
                        log_probs=vectors[0],
                        values=vectors[1],
                        advantages=vectors[2],
                        returns=vectors[3],
                    )
                )
        return minibatches

    # -- update: what the loop asks

    def batches(self, step: int) -> Sequence[tuple[int, Minibatch]]:
        rollout, update = divmod(step, self.config.updates_per_rollout)
        if update == 0:
            self.collect(rollout)
        self._skipped = self._skip_rest
        return [] if self._skipped else [(step, self._minibatches[update])]

    def loss(self, batch: tuple[int, Minibatch]) -> tuple[Tensor, Metrics]:
        """Clipped policy and value losses, and the next-token loss on demonstrations where `ptx` asks for it."""
        step, old = batch
        config = self.config
        log_probs_N, _ = old.answers.log_probs(self.actor, self.dtype)
        log_ratio_N = log_probs_N - old.log_probs
        ratio_N = log_ratio_N.exp()
        gain_N = old.advantages * ratio_N
        clipped_gain_N = old.advantages * ratio_N.clamp(1 - config.clip, 1 + config.clip)
        policy_loss = -torch.minimum(gain_N, clipped_gain_N).mean()

        values_N = old.answers.values(self.critic, self.dtype)
        near_N = old.values + (values_N - old.values).clamp(-config.value_clip, config.value_clip)
        errors_N = torch.maximum((values_N - old.returns) ** 2, (near_N - old.returns) ** 2)
        value_loss = 0.5 * errors_N.mean()

        loss = policy_loss + config.value_weight * value_loss
        if config.ptx and self.demonstrations is not None:
            rows = self.demonstrations.rows(self.demonstration_order.batch(step))
            ptx_loss = next_token_loss(self.actor, Rows.of(rows, self.device), self.dtype) / max(
                1, int(rows.supervised.sum())
            )
            loss = loss + config.ptx * ptx_loss
        with torch.no_grad():
            moved = float((ratio_N - 1 - log_ratio_N).mean())  # k3 (Schulman, 2020): low variance, never negative
            self._skip_rest = moved > config.step_kl
            clip_fraction = float(((ratio_N - 1).abs() > config.clip).float().mean())
        return loss, {
            "policy_loss": float(policy_loss.detach()),
            "value_loss": float(value_loss.detach()),
            "step_kl": moved,
            "clip_fraction": clip_fraction,
        }

    def metrics(self, step: int) -> Metrics:
        return self._rollout_metrics if step % self.config.updates_per_rollout == 0 else {}

    def tokens(self, step: int) -> int:  # noqa: ARG002
        return self._rollout_tokens // self.config.updates_per_rollout

    def flops(self, step: int) -> float:
        """The rollout's are its first step's: the actor samples and reads, the reference, the critic and the reward
        model read. What is mixed in for PPO-ptx is left out."""
        whole, parts = self._rollout_work, self.config.minibatches
        part = Work(tokens=whole.tokens / parts, seen=whole.seen / parts, predicted=whole.predicted / parts)
        learnt = 0.0 if self._skipped else training_flops(self.actor, part) + training_flops(self.critic, part)
        if step % self.config.updates_per_rollout:
            return learnt
        return learnt + 3 * forward_flops(self.actor, whole) + 2 * forward_flops(self.critic, whole)

    def may_save(self, step: int) -> bool:
        return step % self.config.updates_per_rollout == 0

    def finished(self, step: int) -> bool:
        return self.may_save(step) and self.kl > self.config.kl.stop

    def state(self) -> dict[str, Any]:
        return {"kl_coefficient": self.controller.coefficient, "kl": self.kl}

    def load_state(self, values: dict[str, Any]) -> None:
        self.controller.coefficient = values["kl_coefficient"]
        self.kl = values["kl"]


def encode_prompts(prompts: Iterable[Prompt], tokenizer: Tokenizer, longest: int) -> list[Question]:
    """Prompts with their token ids; those that leave no room for an answer are left out. Raises InputError if none
    fits."""
    encoded = []
    for prompt in prompts:
        messages = tuple(message.model_dump(exclude_none=True) for message in prompt.messages)
        ids = tokenizer.encode_prompt(messages)
        if len(ids) <= longest:
            encoded.append(Question(tuple(ids), messages, prompt.reference))
    if not encoded:
        raise InputError(f"PPO: no prompt of at most {longest} tokens; check data.prompts or raise ppo.row_length")
    return encoded


def _of_samples(reward: Reward) -> Callable[[Sequence[FixedPrompt], Sequence[Completion]], Tensor]:
    return lambda prompts, answers: reward([Question(prompt.ids) for prompt in prompts], answers)


def ppo(
    config: PPOConfig,
    start: CausalLM,
    critic: ScalarModel,
    reward: Reward,
    tokenizer: Tokenizer,
    questions: Sequence[Question],
    *,
    directory: Path,
    seed: int,
    demonstrations: Packed | None = None,
    on_progress: OnProgress = lambda _: None,
    watch: Watch = Watch(),
) -> tuple[CausalLM, Metrics]:
    """Improves `start` (in place) in `directory`, going on from its last save. The critic is trained beside it."""
    objective = PPOObjective(config, start, critic, reward, tokenizer, questions, seed, demonstrations)
    loop = Loop(
        directory=directory,
        modules={"actor": start, "critic": critic},
        optimizer=config.optimizer,
        steps=config.rollouts * config.updates_per_rollout,
        seed=seed,
        on_progress=on_progress,
        peak=watch.peak,
        # What else judges may want a reference, or money.
        sampler=watch.sampler(start, reward=_of_samples(reward) if isinstance(reward, RewardModelReward) else None),
    )
    return start, loop.run(objective)
