"""What PPO, GRPO, RLOO and best-of-n share: rollouts, and updates from them.

A rollout: prompts -> answers of the policy -> scores of the judges -> KL from the reference -> what each answer, or
each token, was worth (`credit`, which is what the methods differ in). Then so many steps of the loop learn from it.

Shape suffixes: A answers of a rollout, N tokens of answers; vectors are flat over the tokens, answer after answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from chatwheel.data.packing import Packed
from chatwheel.engine.requests import Completion
from chatwheel.errors import InputError
from chatwheel.model.tokenizer import Tokenizer
from chatwheel.model.transformer import CausalLM
from chatwheel.training.answers import Answers
from chatwheel.training.asynchronous import Ahead
from chatwheel.training.averaging import WeightAverage
from chatwheel.training.batches import RowOrder, Rows
from chatwheel.training.checks import is_due, reference_lead, reference_log_prob, surprise
from chatwheel.training.compilation import compiled
from chatwheel.training.guard import Guard, HeldOut
from chatwheel.training.kl_control import KLController, kl_estimate
from chatwheel.training.loop import Loop, Metrics, OnProgress
from chatwheel.training.next_token import next_token_loss
from chatwheel.training.policy import Policy
from chatwheel.training.policy_gradient_config import PolicyGradientConfig
from chatwheel.training.policy_loss import clipped_losses, importance
from chatwheel.training.precision import compute_dtype
from chatwheel.training.rewards import Question, Reward, RewardModelReward, WeightedReward, ended
from chatwheel.training.rollout_workers import Assignment, answered
from chatwheel.training.rollouts import Rollout, RolloutLog, correlation, pick, repetition
from chatwheel.training.samples import FixedPrompt, Watch
from chatwheel.training.throughput import Work, forward_flops, training_flops

MOST_IMPORTANCE = 2.0
"""What a token counts at most for being likelier to the policy than to who sampled it."""
SHOWN = 3
"""Of a rollout's best and worst answers, how many are kept to be read."""


@dataclass(frozen=True, kw_only=True)
class Minibatch:
    """What is learnt from at once: answers, and vectors N of their tokens. Beside the rollout's own and what `credit`
    gave ("advantages"), "weights": what each token counts in the loss, and "share": in a mean over the step's tokens.
    first: of the rollout, before any update. learns: who does from it; where two models do, one after the other, only
    one's activations are in memory."""

    answers: Answers
    per_token: Mapping[str, Tensor]
    first: bool = False
    learns: Literal["all", "policy", "critic"] = "all"


@dataclass(frozen=True)
class Demonstrated:
    """Packed rows of demonstrations, to be predicted."""

    rows: Packed


@dataclass(frozen=True)
class JudgedAnswers:
    """A prompt, an answer and a score each, A; by_judge: what each of several judges gave, before its weight. seconds:
    that judging took."""

    questions: list[Question]
    completions: list[Completion]
    scores: Tensor
    by_judge: dict[str, Tensor]
    seconds: float


class PolicyGradientObjective:
    """Samples a rollout every `updates_per_rollout` steps and gives its minibatches to the loop.

    This is a REINFORCE with clipping, where every answer is worth its reward; the methods say what else it is worth
    (`credit`), what a token counts (`weights`), and perhaps the loss.
    """

    name: ClassVar[str]

    def __init__(
        self,
        config: PolicyGradientConfig,
        model: CausalLM,
        reward: Reward,
        tokenizer: Tokenizer,
        questions: Sequence[Question],
        seed: int,
        *,
        demonstrations: Packed | None = None,
        held_out: HeldOut | None = None,
        directory: Path | None = None,
    ) -> None:
        self.settings, self.reward, self.tokenizer, self.seed = config, reward, tokenizer, seed
        self.dtype = compute_dtype(config.precision, model.model.device.type)
        self.policy = Policy(
            model,
            tokenizer,
            dtype=self.dtype,
            max_running=config.answers,
            lora=config.lora,
            seed=seed,
            with_reference=config.kl.needs_reference,
        )
        model.model.recompute = config.recompute
        self.device, self.end_id = self.policy.device, tokenizer.end_id
        self.questions = questions
        self.order = RowOrder(len(questions), config.prompts_per_rollout, seed)
        self.demonstrations = demonstrations
        self.demonstration_order = RowOrder(len(demonstrations or ()) or 1, config.ptx_rows, seed + 1)
        self.controller = KLController(config.kl)
        self.average = WeightAverage(model, config.average) if config.average else None
        self.guard = self._guard(config, held_out, directory)
        self.log = RolloutLog(directory / "rollouts.jsonl") if directory is not None else None
        self.ahead = self._ahead(config, directory) if config.asynchronous is not None else None
        self.kl = 0.0
        self._coefficient = config.kl.coefficient
        self._minibatches: list[list[Minibatch]] = []
        self._rollout_metrics: Metrics = {}
        self._rollout_work = self._learnt_work = Work(tokens=0, seen=0)
        self._moved, self._skip_rest, self._skipped = 0.0, False, False
        self._looked: Metrics = {}

    def _guard(self, config: PolicyGradientConfig, held_out: HeldOut | None, directory: Path | None) -> Guard | None:
        if config.guard is None:
            return None
        if held_out is None or len(held_out.questions) < 2:
            raise InputError(
                f"{self.name}.guard: there are no held-out prompts to answer; hold some out, or take it out"
            )
        return Guard(
            config.guard,
            held_out,
            self.policy,
            rollouts=config.rollouts,
            max_tokens=config.max_tokens,
            row_length=config.row_length,
            answers_at_once=config.answers_at_once,
            average=self.average,
            directory=directory,
        )

    def _ahead(self, config: PolicyGradientConfig, directory: Path | None) -> Ahead:
        assert config.asynchronous is not None
        return Ahead(
            config.asynchronous,
            self.policy,
            rollouts=config.rollouts,
            assignment=lambda number: self._assignment(self._asked(self.order.batch(number).tolist()), number),
            group=config.samples_per_prompt,
            max_running=config.answers,
            tokenizer=self.tokenizer,
            lora=config.lora,
            directory=directory / "ahead" if directory is not None else None,
        )

    @property
    def modules(self) -> dict[str, nn.Module]:
        """What is trained."""
        return {"actor": self.policy.model}

    @property
    def chooses(self) -> bool:
        """Whether a rollout is no fair sample of the policy, as some answers have made room for others."""
        return False

    @property
    def layers(self) -> list[nn.Module]:
        """Of what is trained: what is worth compiling."""
        return list(self.policy.model.model.layers)

    # -- what the methods say

    def credit(self, rollout: Rollout) -> tuple[Rollout, dict[str, Tensor], Metrics]:
        """What is learnt from of a rollout, vectors N of its tokens, "advantages" among them, and numbers to log."""
        raise NotImplementedError

    def weights(self, lengths: Sequence[int]) -> Tensor:
        """What each token of a step's answers counts in the loss, N: all the same, so that it does not matter how they
        are divided among micro-batches or answers."""
        return torch.full((sum(lengths),), 1 / sum(lengths), device=self.device)

    def loss(self, batch: Minibatch | Demonstrated) -> tuple[Tensor, Metrics]:
        """A micro-batch's share of the step's loss."""
        if isinstance(batch, Demonstrated):
            return self.demonstrated_loss(batch)
        return self.policy_loss(batch, batch.answers.log_probs(self.policy.model, self.dtype))

    # -- rollout: sample, judge, and work out what each token was worth

    @torch.no_grad()
    def collect(self, number: int) -> None:
        """Samples answers and turns their rewards into advantages."""
        began = time.monotonic()
        judged = self.sample(number)
        judging = judged.seconds
        sampled = time.monotonic() - judging
        rollout = self._read(judged)
        learnt, credit, numbers = self.credit(rollout)
        metrics = self._described(rollout) | numbers
        if is_due(number, self.settings.rollouts):
            metrics |= self._checked(rollout, number)
        self._coefficient = rollout.kl  # the controller moves it for the next rollout
        if self.settings.kl.needs_reference:
            self.controller.update(self.kl, len(rollout.completions))
        if self.log is not None:
            self.log.add(number * self.settings.updates_per_rollout, self._shown(rollout))
        self._minibatches = self._split(learnt, credit, number)
        self._rollout_work, self._learnt_work = self._work(rollout), self._work(learnt)
        self._rollout_metrics = metrics | {
            # Of the rollout's first step; the rest of its seconds is the update's.
            **({"sampling_seconds": sampled - began} if self.ahead is None else self.ahead.metrics),
            "judging_seconds": judging,
            "scoring_seconds": time.monotonic() - sampled - judging,
        }
        self._moved, self._skip_rest = 0.0, False

    def sample(self, number: int) -> JudgedAnswers:
        """A rollout's prompts, an answer to each, and their scores."""
        return self._answer(self.order.batch(number).tolist(), number)

    def _answer(self, chosen: Sequence[int], number: int) -> JudgedAnswers:
        questions = self._asked(chosen)
        if self.ahead is not None and number < self.settings.rollouts:
            completions = self.ahead.take(number)
        else:
            completions = answered(self.policy, self._assignment(questions, number)).completions
        began = time.monotonic()
        scores = self.reward(questions, completions).to(self.device)
        if not scores.isfinite().all():
            raise InputError(f"{self.name}: a judge gave an answer {float(scores[~scores.isfinite()][0])}; see to it")
        by_judge = dict(self.reward.values) if isinstance(self.reward, WeightedReward) else {}
        return JudgedAnswers(questions, completions, scores, by_judge, time.monotonic() - began)

    def _work(self, rollout: Rollout) -> Work:
        prompts, answers = [q.ids for q in rollout.questions], [c.token_ids for c in rollout.completions]
        return Work.of_answers(prompts, answers, self.policy.model.config)

    def _asked(self, chosen: Sequence[int]) -> list[Question]:
        """Prompts by their numbers, as often as each is answered."""
        return [self.questions[i] for i in chosen for _ in range(self.settings.samples_per_prompt)]

    def _assignment(self, questions: Sequence[Question], number: int) -> Assignment:
        seeds = [(self.seed << 48) + (number << 24) + i for i in range(len(questions))]
        return Assignment(prompts=[q.ids for q in questions], seeds=seeds, max_tokens=self.settings.max_tokens)

    def _read(self, judged: JudgedAnswers) -> Rollout:
        """What the policy and its reference think of each token."""
        rollout = Rollout(
            questions=judged.questions,
            completions=judged.completions,
            scores=judged.scores,
            by_judge=judged.by_judge,
            kl=self.controller.coefficient,
            per_token={},
            staleness=self._staleness,
        )
        parts = self.parts(rollout)
        sampled_N = torch.tensor([p for c in judged.completions for p in c.logprobs], device=self.device)
        per_token = {"log_probs": sampled_N}
        if self._rereads:
            per_token = self.read_again(parts)
            importance_N = importance(per_token["log_probs"], sampled_N, MOST_IMPORTANCE)
            # The gap is the sampler's error only where nothing was learnt in between.
            gap_N = (per_token["log_probs"] - sampled_N).abs()
            per_token |= {
                "importance": importance_N,
                **({"kl_weights": importance_N} if self._staleness else {"gap": gap_N}),
            }
        if self.policy.reference is not None:
            per_token["reference"] = self.policy.reference_log_probs(parts)
        return replace(rollout, per_token=per_token)

    @property
    def _staleness(self) -> int:
        return self.ahead.staleness if self.ahead is not None else 0

    @property
    def _rereads(self) -> bool:
        """Whether a rollout's log-probs are others than the sampler's."""
        return self._staleness > 0 or not self.policy.samples_as_it_is_read

    def read_again(self, parts: Sequence[Answers]) -> dict[str, Tensor]:
        """The policy's "log_probs" of a rollout, N, where the sampler's are not them, and what the same pass tells."""
        return {"log_probs": self.policy.log_probs(parts)}

    def parts(self, rollout: Rollout) -> list[Answers]:
        """The answers of a rollout, so many at once as memory holds, in their order."""
        return [
            Answers.of(rollout.prompted(some), self.settings.row_length, self.device)
            for some in self._some(range(len(rollout.completions)))
        ]

    def _some(self, chosen: Sequence[int]) -> list[Sequence[int]]:
        size = self.settings.answers_at_once or max(1, len(chosen))
        return [chosen[i : i + size] for i in range(0, len(chosen), size)]

    def penalised(self, rollout: Rollout) -> Tensor:
        """The scores, less what an answer that was cut off costs, A."""
        cut_off = torch.tensor([not ended(c, self.end_id) for c in rollout.completions], device=self.device)
        return rollout.scores - self.settings.missing_end_penalty * cut_off

    def kl_costs(self, rollout: Rollout) -> Tensor:
        """What each token's reward loses by the KL penalty, N; nothing where it is in the loss."""
        if self.settings.kl.place == "loss":
            return torch.zeros_like(rollout.per_token["log_probs"])
        return rollout.kl * kl_estimate(rollout.log_ratio, self.settings.kl.estimator)

    def answer_rewards(self, rollout: Rollout) -> Tensor:
        """What an answer as a whole is worth, its penalties included, A."""
        costs = [part.sum() for part in torch.split(self.kl_costs(rollout), rollout.lengths)]
        return self.penalised(rollout) - torch.stack(costs)

    def _described(self, rollout: Rollout) -> Metrics:
        """Numbers about a rollout."""
        completions, lengths = rollout.completions, rollout.lengths
        divergences = torch.stack(
            [part.sum() for part in torch.split(rollout.as_sampled_now(rollout.log_ratio), lengths)]
        )
        scores, tokens = rollout.scores, torch.tensor(lengths, dtype=torch.float32, device=self.device)
        metrics = {
            "reward": float(scores.mean()),
            "reward_std": float(scores.std()),
            # Of reward with length: whether longer answers please more.
            "reward_length": correlation(scores, tokens),
            # The policy's mean surprise at its own samples, whose expectation its entropy is.
            "entropy": -float(rollout.as_sampled_now(rollout.per_token["log_probs"]).mean()),
            "answer_tokens": float(tokens.mean()),
            "ended": float(np.mean([ended(c, self.end_id) for c in completions])),
            "repetition": float(np.mean([repetition(c.token_ids) for c in completions])),
        }
        if "reference" in rollout.per_token:
            self.kl = float(divergences.mean())
            metrics |= {
                "kl": self.kl,
                "kl_error": float(divergences.std() / len(lengths) ** 0.5),
                "kl_coefficient": rollout.kl,
            }
        if rollout.staleness:
            importance_N = rollout.per_token["importance"]
            metrics["importance"] = float(importance_N.mean())
            metrics["importance_truncated"] = float((importance_N >= MOST_IMPORTANCE).float().mean())
        if "gap" in rollout.per_token:  # what the sampler believed against what the trainer computes
            metrics["sampler_gap"] = float(rollout.per_token["gap"].mean())
        return metrics | {f"reward.{name}": float(values.mean()) for name, values in rollout.by_judge.items()}

    def _checked(self, rollout: Rollout, number: int) -> Metrics:
        """What tells a fault from bad luck, see `checks`."""
        config, policy = self.settings, self.policy
        answers = rollout.prompted(range(len(rollout.completions)))
        metrics = {} if self.chooses else surprise(policy.model, answers, config.row_length, self.dtype)
        if policy.reference is not None:
            metrics |= reference_log_prob(policy.reference, self.questions, config.row_length, self.dtype)
        # A schema is no answer that could be judged, nor are tests.
        if number == 0 and all(source.rule not in ("json_schema", "unit_tests") for source in config.rewards):
            metrics |= reference_lead(
                self.reward, rollout.questions, rollout.scores.tolist(), self.tokenizer, config.row_length
            )
        return metrics

    def _shown(self, rollout: Rollout) -> dict[str, Any]:
        order = rollout.scores.argsort(descending=True, stable=True).tolist()

        def shown(i: int) -> dict[str, Any]:
            question = rollout.questions[i]
            prompt = str(question.messages[-1]["content"]) if question.messages else self.tokenizer.decode(question.ids)
            return {
                "prompt": prompt,
                "text": rollout.completions[i].text,
                "reward": round(float(rollout.scores[i]), 3),
            }

        return {"best": [shown(i) for i in order[:SHOWN]], "worst": [shown(i) for i in order[::-1][:SHOWN]]}

    def _split(self, rollout: Rollout, credit: Mapping[str, Tensor], number: int) -> list[list[Minibatch]]:
        """For each step the micro-batches of its answers, a fresh shuffle each epoch."""
        config, lengths = self.settings, rollout.lengths
        vectors = {**rollout.per_token, **credit}
        steps: list[list[Minibatch]] = []
        for epoch in range(config.epochs):
            order = np.random.default_rng((self.seed, number, epoch)).permutation(len(lengths))
            for part in np.array_split(order, config.minibatches):
                chosen = sorted(map(int, part))  # answers to one prompt stay side by side, where they share it
                if not chosen:  # fewer answers were worth learning from than there are steps
                    steps.append([])
                    continue
                total = [lengths[i] for i in chosen]
                weights = torch.split(self.weights(total), total)
                of = dict(zip(chosen, weights, strict=True))
                share = 1 / sum(total)
                steps.append(
                    [
                        Minibatch(
                            answers=Answers.of(rollout.prompted(some), config.row_length, self.device),
                            per_token={
                                **{name: pick(vector, lengths, some) for name, vector in vectors.items()},
                                "weights": torch.cat([of[i] for i in some]),
                                "share": torch.full((sum(lengths[i] for i in some),), share, device=self.device),
                            },
                            first=not steps,
                        )
                        for some in self._some(chosen)
                    ]
                )
        return steps

    # -- update: what the loop asks

    def batches(self, step: int) -> Sequence[Minibatch | Demonstrated]:
        """A step's micro-batches, and demonstrations where `ptx` asks for them."""
        number, update = divmod(step, self.settings.updates_per_rollout)
        if update == 0:
            self._looked = self.guard.look(0) if self.guard is not None and step == 0 else {}
            self.collect(number)
        self._skip_rest |= self._moved > self.settings.step_kl
        self._moved = 0.0
        self._skipped = self._skip_rest or not self._minibatches[update]
        if self._skipped:
            return []
        batches: list[Minibatch | Demonstrated] = list(self._minibatches[update])
        if self.settings.ptx and self.demonstrations is not None:
            batches.append(Demonstrated(self.demonstrations.rows(self.demonstration_order.batch(step))))
        return batches

    def policy_loss(self, batch: Minibatch, log_probs_N: Tensor) -> tuple[Tensor, Metrics]:
        """Clipped losses, weighted by token, and the KL where it is in the loss."""
        config, old = self.settings, batch.per_token
        log_ratio_N = log_probs_N - old["log_probs"]
        losses_N = clipped_losses(
            log_ratio_N, old["advantages"], low=config.clip, high=config.clip_high or config.clip, dual=config.dual_clip
        )
        if "importance" in old:
            losses_N = losses_N * old["importance"]
        if config.kl.place == "loss" and "reference" in old:
            divergence_N = kl_estimate(log_probs_N - old["reference"], config.kl.estimator)
            if "kl_weights" in old:
                # As a mean over samples of the policy's own.
                divergence_N = divergence_N * old["kl_weights"]
            losses_N = losses_N + self._coefficient * divergence_N
        loss = (losses_N * old["weights"]).sum()
        return loss, {"policy_loss": float(loss.detach()), **self._moves(batch, log_ratio_N.detach())}

    def _moves(self, batch: Minibatch, log_ratio_N: Tensor) -> Metrics:
        """How far a step finds the policy from the one that sampled."""
        config, share = self.settings, batch.per_token["share"]
        ratio_N = log_ratio_N.exp()
        moved = float((kl_estimate(-log_ratio_N, "k3") * share).sum())  # the samples are the old policy's
        self._moved += moved
        outside_N = (ratio_N < 1 - config.clip) | (ratio_N > 1 + (config.clip_high or config.clip))
        metrics = {"step_kl": moved, "clip_fraction": float((outside_N * share).sum())}
        if batch.first and "importance" not in batch.per_token:
            # Nothing has moved yet: what the sampler believed against what the trainer computes of the same tokens.
            metrics["sampler_gap"] = float((log_ratio_N.abs() * share).sum())
        return metrics

    def demonstrated_loss(self, batch: Demonstrated) -> tuple[Tensor, Metrics]:
        """The next-token loss on demonstrations, a mean over what is supervised."""
        rows = Rows.of(batch.rows, self.device)
        loss = next_token_loss(self.policy.model, rows, self.dtype) / max(1, int(batch.rows.supervised.sum()))
        return self.settings.ptx * loss, {"ptx_loss": float(loss.detach())}

    def metrics(self, step: int) -> Metrics:
        """After a step: of its rollout, at its beginning."""
        if self.average is not None and not self._skipped:
            self.average.update()
        number, update = divmod(step, self.settings.updates_per_rollout)
        numbers = self._rollout_metrics | self._looked if update == 0 else {}
        if self.guard is not None and update == self.settings.updates_per_rollout - 1:
            numbers = numbers | self.guard.look(number + 1, last=self._too_far)
        return numbers

    def tokens(self, step: int) -> int:  # noqa: ARG002
        """Of the rollout, by step."""
        return int(self._rollout_work.tokens) // self.settings.updates_per_rollout

    def flops(self, step: int) -> float:
        """The rollout's are its first step's: the policy samples, the reference reads. What is mixed in for PPO-ptx is
        left out."""
        learnt = 0.0 if self._skipped else self.update_flops(_part(self._learnt_work, self.settings.minibatches))
        return learnt + (0.0 if step % self.settings.updates_per_rollout else self.rollout_flops(self._rollout_work))

    def update_flops(self, work: Work) -> float:
        """Of a step."""
        return training_flops(self.policy.model, work)

    def rollout_flops(self, work: Work) -> float:
        """Of a rollout, without its judges."""
        ahead = self.ahead is not None  # then others sample
        reads = (not ahead) + (self.policy.reference is not None) + self._rereads
        return reads * forward_flops(self.policy.model, work)

    def may_save(self, step: int) -> bool:
        """Between rollouts."""
        return step % self.settings.updates_per_rollout == 0

    def finished(self, step: int) -> bool:
        """When the policy has gone too far, by its KL or by what its guard has seen."""
        return self.may_save(step) and (self._too_far or (self.guard is not None and self.guard.stopped))

    @property
    def _too_far(self) -> bool:
        return self.settings.kl.stop is not None and self.kl > self.settings.kl.stop

    def state(self) -> dict[str, Any]:
        """What is carried from rollout to rollout."""
        guard = {"guard": self.guard.state()} if self.guard is not None else {}
        ahead = {"ahead": self.ahead.state()} if self.ahead is not None else {}
        return {"kl_coefficient": self.controller.coefficient, "kl": self.kl, **guard, **ahead}

    def load_state(self, values: dict[str, Any]) -> None:
        """What `state` gave."""
        self.controller.coefficient = values["kl_coefficient"]
        self.kl = values["kl"]
        if self.guard is not None:
            self.guard.load_state(values["guard"])
        if self.ahead is not None:
            self.ahead.load_state(values.get("ahead", {}))

    def tensors(self) -> dict[str, Tensor]:
        """The averaged weights and those of the guard's peak, if there are any."""
        averaged = self.average.weights if self.average is not None else {}
        return averaged | (self.guard.tensors() if self.guard is not None else {})


def _part(work: Work, parts: int) -> Work:
    return Work(tokens=work.tokens / parts, seen=work.seen / parts, predicted=work.predicted / parts)


def learn(
    objective_of: Callable[..., PolicyGradientObjective],
    config: PolicyGradientConfig,
    start: CausalLM,
    reward: Reward,
    tokenizer: Tokenizer,
    questions: Sequence[Question],
    *,
    directory: Path,
    seed: int,
    demonstrations: Packed | None = None,
    held_out: HeldOut | None = None,
    on_progress: OnProgress = lambda _: None,
    watch: Watch = Watch(),
) -> tuple[CausalLM, Metrics]:
    """Improves `start` (in place), or an adapter that it gets, by a method's objective in `directory`, going on from
    its last save."""
    objective = objective_of(
        config,
        start,
        reward=reward,
        tokenizer=tokenizer,
        questions=questions,
        seed=seed,
        demonstrations=demonstrations,
        held_out=held_out,
        directory=directory,
    )
    return run(objective, directory=directory, on_progress=on_progress, watch=watch)


def run(
    objective: PolicyGradientObjective,
    *,
    directory: Path,
    on_progress: OnProgress = lambda _: None,
    watch: Watch = Watch(),
) -> tuple[CausalLM, Metrics]:
    """Improves the objective's policy in `directory`, going on from its last save; the model, averaged or as it was at
    its guard's peak if so asked, and the last step's metrics with what the guard saw."""
    config, model, reward = objective.settings, objective.policy.model, objective.reward
    steps = config.rollouts * config.updates_per_rollout
    loop = Loop(
        directory=directory,
        modules=objective.modules,
        optimizer=config.optimizer,
        steps=steps,
        seed=objective.seed,
        on_progress=on_progress,
        peak=watch.peak,
        # What else judges may want a reference, or money.
        sampler=watch.sampler(model, reward=_of_samples(reward) if isinstance(reward, RewardModelReward) else None),
    )
    with (
        compiled(objective.layers, config.compile == "always"),
        objective.ahead.at_work() if objective.ahead is not None else nullcontext(),
    ):
        metrics = loop.run(objective)
    if objective.average is not None:
        objective.average.take()
    if objective.guard is not None:
        objective.guard.take()
        metrics |= objective.guard.summary()
    return model, metrics


def _of_samples(reward: Reward) -> Callable[[Sequence[FixedPrompt], Sequence[Completion]], Tensor]:
    return lambda prompts, answers: reward([Question(prompt.ids) for prompt in prompts], answers)
