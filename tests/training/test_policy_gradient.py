"""GRPO, RLOO, best-of-n and PPO: whole steps against the same step by separate sequences and plain formulas; adapters;
averaging; and runs that are interrupted."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from pydantic import ValidationError
from torch import Tensor
from transformers import AutoModelForCausalLM

from chatwheel.engine.requests import Completion
from chatwheel.errors import InputError
from chatwheel.model.checkpoint import save_model
from chatwheel.model.lora import LoRAConfig, adapters_of, save_adapter
from chatwheel.model.transformer import CausalLM
from chatwheel.training import policy as policy_module
from chatwheel.training import rewards
from chatwheel.training.best_of_n import BestOfNConfig, BestOfNObjective, best_of_n
from chatwheel.training.grpo import GRPOConfig, GRPOObjective, grpo
from chatwheel.training.loop import Loop, read_metrics
from chatwheel.training.optimizers import OptimizerConfig
from chatwheel.training.policy_gradient import PolicyGradientObjective
from chatwheel.training.ppo import PPOConfig, PPOObjective, ppo
from chatwheel.training.rewards import FunctionReward, Question, ServerReward, WeightedReward, ended
from chatwheel.training.rloo import RLOOConfig, RLOOObjective, rloo
from chatwheel.training.rollouts import RolloutLog, repetition
from chatwheel.training.throughput import forward_flops, training_flops
from tests.tiny import causal, scalar, tokenizer, tokens
from tests.training.test_ppo import PowerCutError, fresh_critic, move

QUESTIONS = [Question(tuple(tokens(3 + 4 * i, seed=i).tolist())) for i in range(5)]
KINDS: dict[str, tuple[Any, Any]] = {
    "ppo": (PPOConfig, PPOObjective),
    "grpo": (GRPOConfig, GRPOObjective),
    "rloo": (RLOOConfig, RLOOObjective),
    "best_of_n": (BestOfNConfig, BestOfNObjective),
}
COMMON: dict[str, Any] = {
    "rollouts": 3,
    "prompts_per_rollout": 3,
    "samples_per_prompt": 4,
    "epochs": 1,
    "minibatches": 1,
    "max_tokens": 10,
    "row_length": 48,
    "missing_end_penalty": 0.5,
    "optimizer": OptimizerConfig(learning_rate=2e-3, matrices="adamw", warmup=0.0),
    "precision": "float32",
}
KL = {"coefficient": 0.2, "target": None, "stop": None}
LORA = LoRAConfig(rank=3)


class Judge:
    """Scores answers by their tokens, and remembers them. stops_in: the rollout in which the power fails."""

    def __init__(self, stops_in: int | None = None) -> None:
        self.calls: list[tuple[list[Question], list[Completion], Tensor]] = []
        self.stops_in = stops_in

    def __call__(self, questions: Sequence[Question], answers: Sequence[Completion]) -> Tensor:
        if len(self.calls) == self.stops_in:
            raise PowerCutError
        scores = torch.tensor([float(sum(a.token_ids) % 7) / 2 + 0.1 * len(a.token_ids) for a in answers])
        self.calls.append((list(questions), list(answers), scores.clone()))
        return scores


def talkative() -> CausalLM:
    """Ends some of its answers."""
    model = causal()
    with torch.no_grad():
        model.model.embed_tokens.weight[tokenizer().end_id] *= 4
    return model


def made(name: str, *, judge: Any = None, seed: int = 0, **changes: Any) -> Any:
    config, kind = KINDS[name]
    settings = config.model_validate(COMMON | changes)
    own = name == "ppo" and settings.critic == "own"
    critic = [scalar(seed=5) if own else None] if name == "ppo" else []
    return kind(settings, talkative(), *critic, judge or Judge(), tokenizer(), QUESTIONS, seed)


def alone(model: CausalLM, question: Question, answer: Completion) -> Tensor:
    """log p of an answer's tokens, by a forward pass of nothing else."""
    whole = torch.tensor([[*question.ids, *answer.token_ids]])
    logits = model(whole)[0, len(question.ids) - 1 : -1]
    return logits.log_softmax(-1).gather(1, torch.tensor(answer.token_ids)[:, None])[:, 0]


def step_of(subject: PolicyGradientObjective, number: int = 0) -> tuple[float, dict[str, Tensor]]:
    """A step's loss and gradients, from its micro-batches."""
    modules = list(subject.modules.values())
    for module in modules:
        module.zero_grad()
    total = 0.0
    for batch in subject._minibatches[number]:
        loss, _ = subject.loss(batch)
        loss.backward()
        total += float(loss.detach())
    return total, gradients(modules)


def gradients(modules: Sequence[torch.nn.Module]) -> dict[str, Tensor]:
    return {
        f"{i}.{name}": p.grad.clone()
        for i, module in enumerate(modules)
        for name, p in module.named_parameters()
        if p.grad is not None
    }


def assert_same_gradients(found: dict[str, Tensor], expected: dict[str, Tensor], rtol: float = 2e-3) -> None:
    assert found.keys() == expected.keys()
    largest = max(float(g.abs().max()) for g in expected.values())
    assert largest > 1e-3
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=rtol, atol=1e-4 * largest, msg=lambda m, n=name: n + m)


# -- whole steps, by hand


def rewards_by_hand(call: Any, subject: Any, before: CausalLM, coefficient: float) -> list[float]:
    """Score, less the penalty of the cut, less the KL of the answer from the reference."""
    found = []
    for question, answer, score in zip(*call, strict=True):
        with torch.no_grad():
            kl = float((alone(before, question, answer) - alone(subject.policy.reference, question, answer)).sum())
        cut = 0.0 if ended(answer, tokenizer().end_id) else 0.5
        found.append(float(score) - cut - coefficient * kl)
    return found


def moved_rollout(name: str, **changes: Any) -> tuple[Any, CausalLM, Any]:
    """A policy that has left its reference, a rollout of it, and a step away from that."""
    judge = Judge()
    subject = made(name, judge=judge, **changes)
    move(subject.policy.model, 0.1, seed=1)
    subject.collect(0)
    before = talkative()
    before.load_state_dict(subject.policy.model.state_dict())
    move(subject.policy.model, 0.05, seed=2)
    (call,) = judge.calls
    reasons = {answer.finish_reason for answer in call[1]}
    assert reasons == {"stop", "length"}
    return subject, before, call


@pytest.mark.parametrize("aggregation", ["answers", "tokens", "constant"])
@pytest.mark.parametrize("scale", ["group", "none"])
@pytest.mark.parametrize("place", ["loss", "reward"])
def test_a_step_of_grpo_by_hand(aggregation: str, scale: str, place: str) -> None:
    kl = {**KL, "place": place, "estimator": "k3" if place == "loss" else "k1"}
    subject, before, call = moved_rollout("grpo", aggregation=aggregation, scale=scale, kl=kl, clip=0.1, clip_high=0.15)
    loss, found = step_of(subject)
    worth = torch.tensor(rewards_by_hand(call, subject, before, 0.2 if place == "reward" else 0.0))
    groups = worth.view(3, 4)
    advantages = groups - groups.mean(1, keepdim=True)
    if scale == "group":
        advantages = advantages / (groups.std(1, keepdim=True) + 1e-4)
    now = subject.policy.model
    now.zero_grad()
    total, tokens_, clipped = torch.zeros(()), sum(len(a.token_ids) for a in call[1]), 0
    for question, answer, advantage in zip(call[0], call[1], advantages.flatten().tolist(), strict=True):
        new = alone(now, question, answer)
        old, ref = (alone(m, question, answer).detach() for m in (before, subject.policy.reference))
        for t, ratio in enumerate((new - old).exp()):
            far = 1.15 if ratio > 1.15 and advantage > 0 else 0.9 if ratio < 0.9 and advantage < 0 else None
            clipped += far is not None
            one = -ratio * advantage if far is None else torch.tensor(-far * advantage)
            if place == "loss":
                one = one + 0.2 * ((ref[t] - new[t]).exp() - (ref[t] - new[t]) - 1)
            share = {"answers": 12 * len(new), "tokens": tokens_, "constant": 12 * 10}[aggregation]
            total = total + one / share
    assert clipped > 3
    assert loss == pytest.approx(float(total.detach()), rel=1e-3, abs=1e-5)
    total.backward()
    assert_same_gradients(found, gradients([now]))


@pytest.mark.parametrize("normalise", [False, True])
def test_rloo_s_gradient_is_that_of_the_answers_log_probs(normalise: bool) -> None:
    """-mean(A log p(answer)) (Ahmadian et al., 2024, eq. 6), where the answers were sampled."""
    judge = Judge()
    subject = made("rloo", judge=judge, kl=KL, normalise=normalise)
    move(subject.policy.model, 0.1, seed=1)
    subject.collect(0)
    (call,) = judge.calls
    _, found = step_of(subject)
    now = subject.policy.model
    rewards = rewards_by_hand(call, subject, now, 0.2)
    advantages = []
    for i, reward in enumerate(rewards):
        first = i - i % 4
        siblings = [r for j, r in enumerate(rewards[first : first + 4]) if first + j != i]
        advantages.append(reward - sum(siblings) / 3)
    if normalise:
        advantages = (torch.tensor(advantages) / torch.tensor(advantages).std()).tolist()
    now.zero_grad()
    loss = torch.zeros(())
    for question, answer, advantage in zip(call[0], call[1], advantages, strict=True):
        loss = loss - advantage * alone(now, question, answer).sum() / 12
    loss.backward()
    assert_same_gradients(found, gradients([now]))


@pytest.mark.parametrize("some", [False, True], ids=["all", "those that are good enough"])
def test_best_of_n_is_the_next_token_loss_on_the_best_answers(some: bool) -> None:
    judge = Judge()
    subject = made("best_of_n", judge=judge, kl=KL)
    subject.collect(0)
    (call,) = judge.calls
    rewards = rewards_by_hand(call, subject, subject.policy.model, 0.2)
    kept = [max(range(first, first + 4), key=rewards.__getitem__) for first in (0, 4, 8)]
    if some:
        worst, middle, _ = sorted(rewards[i] for i in kept)
        assert worst < middle
        subject = made("best_of_n", kl=KL, least=(worst + middle) / 2)
        subject.collect(0)
        kept = [i for i in kept if rewards[i] > worst]
    loss, found = step_of(subject)
    now = subject.policy.model
    now.zero_grad()
    total = torch.cat([-alone(now, call[0][i], call[1][i]) for i in kept]).mean()
    assert loss == pytest.approx(float(total.detach()), rel=1e-4)
    total.backward()
    assert_same_gradients(found, gradients([now]))
    assert subject.metrics(0)["kept"] == pytest.approx(len(kept) / 3)


@pytest.mark.parametrize(("least", "minibatches"), [(1e9, 1), (3.2, 3)])
def test_where_few_or_no_answers_are_good_enough_steps_are_left_out(
    least: float, minibatches: int, tmp_path: Path
) -> None:
    model = talkative()
    config = BestOfNConfig.model_validate(
        COMMON | {"least": least, "minibatches": minibatches, "step_kl": 1e9, "kl": KL}
    )
    best_of_n(config, model, Judge(), tokenizer(), QUESTIONS, directory=tmp_path, seed=0)
    rows = read_metrics(tmp_path)
    assert len(rows) == 3 * minibatches
    skipped = ["loss" not in row for row in rows]
    assert any(skipped)
    moved = any(not torch.equal(a, b) for a, b in zip(model.parameters(), talkative().parameters(), strict=True))
    assert moved == (not all(skipped)) == (minibatches > 1)


# -- DAPO


def test_an_answer_near_the_limit_costs_what_dapo_says() -> None:
    """Yu et al. (2025), eq. 13: nothing up to L - c, then a slope down to -1 at L."""
    judge = Judge()
    subject = made(
        "grpo", judge=judge, overlong=4, scale="none", kl={**KL, "coefficient": 0.0, "place": "loss", "estimator": "k3"}
    )
    subject.collect(0)
    (call,) = judge.calls
    lengths = [len(answer.token_ids) for answer in call[1]]
    rewards = []
    for answer, score, length in zip(call[1], call[2].tolist(), lengths, strict=True):
        punished = 0.0 if length <= 6 else (6 - length) / 4
        rewards.append(score + punished - (0.0 if ended(answer, tokenizer().end_id) else 0.5))
    assert {length > 6 for length in lengths} == {True, False}
    found = {}
    for batch in subject._minibatches[0]:
        pieces = zip(batch.answers.lengths, torch.split(batch.answers.targets, batch.answers.lengths), strict=True)
        worth = torch.split(batch.per_token["advantages"], batch.answers.lengths)
        found |= {tuple(said.tolist()): set(worth[i].tolist()) for i, (_, said) in enumerate(pieces)}
    for i, answer in enumerate(call[1]):
        first = i - i % 4
        (value,) = found[answer.token_ids]
        assert value == pytest.approx(rewards[i] - sum(rewards[first : first + 4]) / 4, abs=1e-5)


class Indifferent(Judge):
    """Likes all answers to some prompts the same."""

    def __init__(self, bored_by: set[tuple[int, ...]]) -> None:
        super().__init__()
        self.bored_by = bored_by

    def __call__(self, questions: Sequence[Question], answers: Sequence[Completion]) -> Tensor:
        scores = super().__call__(questions, answers)
        return torch.where(torch.tensor([q.ids in self.bored_by for q in questions]), 1.0, scores)


def test_prompts_that_teach_nothing_are_replaced_the_same_way_each_time() -> None:
    first = made("grpo").order.batch(0).tolist()
    dull = {QUESTIONS[i].ids for i in first[:2]}
    rollouts = []
    for resample in (0, 3, 3):
        judge = Indifferent(dull)
        subject = made("grpo", judge=judge, resample=resample, missing_end_penalty=0.0)
        subject.collect(0)
        rollouts.append(subject._minibatches[0][0].answers.targets.tolist())
        idle = subject.metrics(0)["idle_groups"]
        assert ("surprise" in subject.metrics(0)) == (not resample)  # chosen answers are no fair sample
        asked = [{q.ids for q in questions} for questions, _, _ in judge.calls]
        if not resample:
            assert idle == pytest.approx(2 / 3)
            assert len(asked) == 1
            continue
        assert 2 <= len(asked) <= 4
        assert len(asked[1]) == 2  # only as many as are to be replaced
        assert idle < 0.5
        kept = {QUESTIONS[first[2]].ids}
        assert kept <= asked[0]
        seen = [a.token_ids for _, answers, _ in judge.calls for a in answers if len(a.token_ids) > 2]
        assert len(set(seen)) == len(seen)  # seeds of their own, for the same prompts too
    assert rollouts[1] == rollouts[2] != rollouts[0]


def test_with_others_in_their_places_all_metrics_are_of_the_answers_that_are_learnt_from() -> None:
    first = made("grpo").order.batch(0).tolist()
    likes = Indifferent({QUESTIONS[i].ids for i in first[:2]})
    length = lambda _, answers: torch.tensor([float(len(a.token_ids)) for a in answers])  # noqa: E731
    judge = WeightedReward([("taste", likes, 1.0), ("length", length, 0.0)])
    subject = made("grpo", judge=judge, resample=3, kl={**KL, "place": "loss", "estimator": "k3"})
    subject.collect(0)
    assert len(likes.calls) > 1, "some were replaced"
    (batch,) = subject._minibatches[0]
    numbers = subject.metrics(0)
    assert numbers["answer_tokens"] == pytest.approx(sum(batch.answers.lengths) / 12)
    assert numbers["reward.length"] == pytest.approx(numbers["answer_tokens"])
    assert numbers["reward.taste"] == pytest.approx(numbers["reward"])
    assert len(batch.answers.lengths) == 12
    assert numbers["entropy"] == pytest.approx(-float(batch.per_token["log_probs"].mean()), rel=1e-5)


def test_a_group_is_idle_only_where_nothing_is_learnt_from_it() -> None:
    """All answers score the same, but those that were cut off are punished."""
    same = lambda _, answers: torch.ones(len(answers))  # noqa: E731
    shares = []
    for penalty in (0.0, 0.5):
        subject = made("grpo", judge=same, missing_end_penalty=penalty, kl={**KL, "place": "loss", "estimator": "k3"})
        subject.collect(0)
        (batch,) = subject._minibatches[0]
        worth = torch.split(batch.per_token["advantages"], batch.answers.lengths)
        idle = [not any(piece.any() for piece in worth[i : i + 4]) for i in range(0, 12, 4)]
        assert subject.metrics(0)["idle_groups"] == pytest.approx(sum(idle) / 3)
        shares.append(sum(idle))
    assert shares[0] == 3 > shares[1]


def test_the_kl_in_the_loss_counts_as_the_rollout_began() -> None:
    """The controller moves its coefficient for the next rollout: what a rollout is learnt from has one."""
    kl = {"coefficient": 0.4, "target": 1e-3, "horizon": 20, "stop": None, "place": "loss", "estimator": "k2"}
    subject = made("grpo", kl=kl)
    move(subject.policy.model, 0.2, seed=1)
    subject.collect(0)
    assert subject.metrics(0)["kl_coefficient"] == 0.4
    assert subject.controller.coefficient > 0.41
    steps = [step_of(subject)]
    subject.controller.coefficient = 123.0
    steps.append(step_of(subject))
    assert steps[0][0] == steps[1][0]


def test_best_of_n_counts_what_it_learns_from() -> None:
    subject = made("best_of_n", kl=KL)
    subject.collect(0)
    (batch,) = subject._minibatches[0]
    assert subject._learnt_work.predicted == len(batch.answers.targets) < subject._rollout_work.predicted
    work, whole = subject._learnt_work, subject._rollout_work
    expected = training_flops(subject.policy.model, work) + subject.rollout_flops(whole)
    assert subject.flops(0) == pytest.approx(expected)


# -- micro-batches


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        *((name, {}) for name in KINDS),
        ("ppo", {"critic": "head"}),
        ("grpo", {"aggregation": "tokens"}),
        ("grpo", {"aggregation": "constant", "lora": LORA}),
    ],
)
def test_micro_batches_change_nothing(name: str, changes: dict[str, Any]) -> None:
    """However the answers are put together, a token counts the same: the number of all the step's tokens divides."""
    steps = []
    for at_once, row_length in ((None, 48), (1, 48), (3, 48), (None, 200)):
        kl = {**KL, "place": "loss", "estimator": "k2"} if name == "grpo" else KL
        subject = made(name, answers_at_once=at_once, row_length=row_length, kl=kl, **changes)
        subject.collect(0)
        move(subject.policy.model, 0.05, seed=2)
        steps.append(step_of(subject))
        sizes = [len(batch.answers.lengths) for batch in subject._minibatches[0]]
        assert max(sizes) == at_once or len(sizes) == 1
    for loss, found in steps[1:]:
        assert loss == pytest.approx(steps[0][0], rel=1e-4, abs=1e-5)
        assert_same_gradients(found, steps[0][1])


# -- PPO's critics


def test_the_head_reads_what_the_policy_reads_and_teaches_its_trunk() -> None:
    judge = Judge()
    subject = made("ppo", judge=judge, critic="head", kl=KL)
    with torch.no_grad():
        subject.head.weight.normal_(0, 0.2, generator=torch.Generator().manual_seed(3))
    subject.collect(0)
    (call,) = judge.calls
    ((batch,),) = subject._minibatches
    by_answer = dict(zip([a.token_ids for a in call[1]], call[0], strict=True))
    trunk = subject.policy.model.model
    parts = zip(
        torch.split(batch.answers.targets, batch.answers.lengths),
        torch.split(batch.per_token["values"], batch.answers.lengths),
        strict=True,
    )
    for said, values in parts:
        ids = by_answer[tuple(said.tolist())].ids
        with torch.no_grad():
            hidden = trunk(torch.tensor([[*ids, *said.tolist()]]))[0, len(ids) - 1 : -1]
            torch.testing.assert_close(values, (hidden @ subject.head.weight.T)[:, 0], rtol=1e-3, atol=1e-4)
    # Without a policy loss: what is left comes from the values.
    quiet = {**batch.per_token, "weights": torch.zeros_like(batch.per_token["weights"])}
    loss, _ = subject.loss(type(batch)(answers=batch.answers, per_token=quiet))
    loss.backward()
    touched = {name for name, p in subject.policy.model.named_parameters() if p.grad is not None and p.grad.any()}
    assert {"model.layers.0.mlp.up_proj.weight", "model.embed_tokens.weight"} <= touched
    assert subject.head.weight.grad is not None
    assert subject.head.weight.grad.any()


@pytest.mark.parametrize("at_once", [None, 5])
def test_a_critic_of_its_own_learns_in_passes_of_its_own_and_learns_the_same(at_once: int | None) -> None:
    """Bit for bit: no parameter is in both losses."""
    subject = made("ppo", critic="own", answers_at_once=at_once, kl=KL)
    batches = subject.batches(0)
    together = subject._minibatches[0]
    move(subject.policy.model, 0.05, seed=2)
    loss, expected = step_of(subject)
    for module in subject.modules.values():
        module.zero_grad()
    total, told, graphs = 0.0, [], []
    for batch in batches:
        part, numbers = subject.loss(batch)
        part.backward()
        total += float(part.detach())
        told.append(set(numbers))
        graphs.append([any(g.any() for g in gradients([m]).values()) for m in subject.modules.values()])
    assert len(batches) == 2 * len(together)
    assert [batch.learns for batch in batches] == ["critic"] * len(together) + ["policy"] * len(together)
    assert graphs[0] == [False, True], "the policy has no part in the critic's pass"
    assert told[0] == {"value_loss"}
    assert "value_loss" not in told[-1]
    assert total == pytest.approx(loss, rel=1e-5)
    found = gradients(list(subject.modules.values()))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], gradient) for name, gradient in expected.items())


def test_a_head_s_values_come_with_the_log_probs_where_the_policy_is_read_again() -> None:
    """As in bfloat16, whose sampler's log-probs are not the trainer's."""
    subject = made("ppo", critic="head", precision="bfloat16", answers_at_once=5, kl=KL)
    with torch.no_grad():
        subject.head.weight.normal_(0, 0.2, generator=torch.Generator().manual_seed(3))
    subject.collect(0)
    reads = 0
    for batch in subject._minibatches[0]:
        with torch.no_grad():
            assert torch.equal(
                batch.per_token["log_probs"], batch.answers.log_probs(subject.policy.model, subject.dtype)
            )
            assert torch.equal(batch.per_token["values"], subject.values(batch.answers))
        reads += 1
    assert reads == 3
    assert batch.per_token["values"].any()
    assert subject.rollout_flops(subject._rollout_work) == 3 * forward_flops(
        subject.policy.model, subject._rollout_work
    )  # it samples, it is read, and so is its reference


@pytest.mark.parametrize("critic", ["own", "head"])
def test_while_the_critic_warms_up_the_policy_does_not_move_at_all(critic: str, tmp_path: Path) -> None:
    subject = made("ppo", critic=critic, critic_warmup=2, epochs=2, minibatches=2, step_kl=1e9, kl=KL)
    judged = subject.critic if critic == "own" else subject.head
    start, seen = {n: p.clone() for n, p in judged.named_parameters()}, []
    loop = Loop(
        directory=tmp_path,
        modules=subject.modules,
        optimizer=subject.settings.optimizer,
        steps=12,
        on_progress=lambda _: seen.append(
            all(
                torch.equal(a, b)
                for a, b in zip(subject.policy.model.parameters(), talkative().parameters(), strict=True)
            )
        ),
    )
    loop.run(subject)
    assert seen == [True] * 8 + [False] * 4
    assert any(not torch.equal(p, start[n]) for n, p in judged.named_parameters())
    rows = read_metrics(tmp_path)
    assert all("value_loss" in row for row in rows)


# -- adapters

WITHOUT_KERNELS = pytest.mark.parametrize("kernels", [True, False], ids=["kernels", "no kernels"])


@WITHOUT_KERNELS
def test_an_adapter_s_reference_is_what_is_under_it_and_costs_nothing(
    kernels: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not kernels:
        monkeypatch.setattr(policy_module, "load_kernels", lambda: None)
    subject = made("grpo", lora=LORA)
    policy = subject.policy
    mine = {name.replace(".adapter", ""): p for name, p in policy.model.named_parameters() if "adapter" not in name}
    theirs = dict(policy.reference.named_parameters())
    assert mine.keys() == theirs.keys()
    assert all(p.data_ptr() == theirs[name].data_ptr() for name, p in mine.items())
    with torch.no_grad():
        for adapter in adapters_of(policy.model).values():
            adapter.lora_B.normal_(0, 0.2, generator=torch.Generator().manual_seed(1))
    ids = tokens(1, 12)
    with torch.no_grad():
        torch.testing.assert_close(policy.reference(ids), talkative()(ids))
        assert not torch.allclose(policy.model(ids), talkative()(ids), atol=1e-2)


@WITHOUT_KERNELS
@pytest.mark.parametrize("targets", [LORA.targets, (*LORA.targets, "lm_head")], ids=["layers", "output too"])
def test_with_an_adapter_the_sampler_tells_the_truth_after_each_update(
    kernels: bool, targets: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not kernels:
        monkeypatch.setattr(policy_module, "load_kernels", lambda: None)
    judge = Judge()
    model = causal(tied_embeddings=False)
    config = GRPOConfig.model_validate(COMMON | {"lora": LoRAConfig(rank=3, targets=targets)})
    subject = GRPOObjective(config, model, judge, tokenizer(), QUESTIONS, 0)
    for number in range(2):
        with torch.no_grad():
            for i, adapter in enumerate(adapters_of(model).values()):
                adapter.lora_B.normal_(0, 0.1, generator=torch.Generator().manual_seed(10 * number + i))
        subject.collect(number)
        for question, answer in zip(*judge.calls[-1][:2], strict=True):
            with torch.no_grad():
                expected = alone(model, question, answer)
            torch.testing.assert_close(torch.tensor(answer.logprobs), expected, atol=2e-4, rtol=0)
        assert subject.kl > 0.01


@pytest.mark.parametrize("name", ["grpo", "ppo own", "ppo head"])
def test_an_adapter_learns_on_weights_that_stay_and_peft_opens_it(name: str, tmp_path: Path) -> None:
    name, _, critic = name.partition(" ")
    model, before = causal(), causal()
    save_model(tmp_path / "base", before, tokenizer(), {})
    changes = {"lora": LORA, "minibatches": 2, "kl": {**KL, "coefficient": 0.0}}
    if name == "grpo":
        config = GRPOConfig.model_validate(COMMON | changes)
        grpo(config, model, Judge(), tokenizer(), QUESTIONS, directory=tmp_path / "run", seed=0)
    else:
        settings = PPOConfig.model_validate(COMMON | changes | {"critic": critic})
        own = fresh_critic() if critic == "own" else None
        ppo(settings, model, own, Judge(), tokenizer(), QUESTIONS, directory=tmp_path / "run", seed=0)
        if own is not None:
            base = {n: p for n, p in own.named_parameters() if "adapter" not in n and "score" not in n}
            assert all(torch.equal(p, fresh_critic().get_parameter(n)) for n, p in base.items())
    kept = {n: p for n, p in model.named_parameters() if "adapter" not in n}
    assert all(torch.equal(p, before.get_parameter(n)) for n, p in kept.items())
    assert all(adapter.lora_B.any() for adapter in adapters_of(model).values())
    save_adapter(tmp_path / "adapter", model, LORA, tokenizer(), base=str(tmp_path / "base"), lineage={})
    base_model = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    theirs = PeftModel.from_pretrained(base_model, tmp_path / "adapter").eval()
    ids = tokens(2, 20)
    with torch.no_grad():
        torch.testing.assert_close(model(ids), theirs(ids).logits, atol=1e-4, rtol=0)


# -- averaging


def test_the_average_is_the_recursion_over_the_steps(tmp_path: Path) -> None:
    config = RLOOConfig.model_validate(COMMON | {"average": 0.8, "minibatches": 2, "kl": KL})
    trajectory: list[dict[str, Tensor]] = []
    model = talkative()
    averaged, _ = rloo(
        config,
        model,
        Judge(),
        tokenizer(),
        QUESTIONS,
        directory=tmp_path,
        seed=0,
        on_progress=lambda _: trajectory.append({n: p.detach().clone() for n, p in model.named_parameters()}),
    )
    assert len(trajectory) == 6
    for name, parameter in averaged.named_parameters():
        mean = talkative().get_parameter(name).double()
        for weights in trajectory:
            mean = 0.8 * mean + 0.2 * weights[name].double()
        torch.testing.assert_close(parameter.double(), mean, rtol=1e-5, atol=1e-6)
    last = trajectory[-1]
    assert any(not torch.equal(p, last[n]) for n, p in averaged.named_parameters())
    again, _ = rloo(config, talkative(), Judge(), tokenizer(), QUESTIONS, directory=tmp_path, seed=0)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), averaged.parameters(), strict=True))


# -- runs that are interrupted

STEERED = {"coefficient": 0.05, "target": 0.5, "horizon": 50, "stop": 1e9}
LIVES: dict[str, tuple[str, dict[str, Any]]] = {
    "grpo": ("grpo", {"resample": 2, "epochs": 2, "minibatches": 2}),
    "grpo, averaged": (
        "grpo",
        {"average": 0.7, "minibatches": 2, "kl": {**STEERED, "place": "loss", "estimator": "k3"}},
    ),
    "grpo, adapter": ("grpo", {"lora": LORA}),
    "rloo": ("rloo", {"kl": STEERED, "minibatches": 2}),
    "best_of_n": ("best_of_n", {"kl": STEERED, "epochs": 2, "step_kl": 10.0}),
    "ppo, adapters": ("ppo", {"lora": LORA, "kl": STEERED, "minibatches": 2}),
    "ppo, head": ("ppo", {"critic": "head", "kl": STEERED, "minibatches": 2, "average": 0.5}),
    "ppo, head warms up": ("ppo", {"critic": "head", "critic_warmup": 2, "minibatches": 2}),
    "ppo, own warms up": ("ppo", {"critic_warmup": 2, "minibatches": 2}),
}


def life(which: str, directory: Path, stops_in: int | None) -> list[Tensor]:
    name, changes = LIVES[which]
    config = KINDS[name][0].model_validate(COMMON | {"rollouts": 4} | changes)
    model, judge = talkative(), Judge(stops_in)
    common: dict[str, Any] = {"directory": directory, "seed": 7}
    modules: list[torch.nn.Module] = [model]
    if name == "ppo":
        critic = fresh_critic() if config.critic == "own" else None
        ppo(config, model, critic, judge, tokenizer(), QUESTIONS, **common)
        modules += [critic] if critic is not None else []
    else:
        {"grpo": grpo, "rloo": rloo, "best_of_n": best_of_n}[name](
            config, model, judge, tokenizer(), QUESTIONS, **common
        )
    return [p for module in modules for p in module.parameters()]


def numbers(directory: Path) -> list[dict[str, float]]:
    return [
        {k: v for k, v in row.items() if not k.endswith("seconds") and k != "tokens_per_second"}
        for row in read_metrics(directory)
    ]


@pytest.mark.parametrize("which", LIVES)
def test_interrupted_in_every_rollout_it_ends_the_same(
    which: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = life(which, tmp_path / "whole", None)
    assert Loop.__init__.__kwdefaults__ is not None
    monkeypatch.setitem(Loop.__init__.__kwdefaults__, "save_seconds", -1.0)
    # Each life gets one rollout further: the first does not end one, the last ends them all.
    for rollout in (0, 1, 1, 1):
        with pytest.raises(PowerCutError):
            life(which, tmp_path / "broken", rollout)
    found = life(which, tmp_path / "broken", None)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert numbers(tmp_path / "broken") == numbers(tmp_path / "whole")


# -- settings


@pytest.mark.parametrize("name", KINDS)
def test_what_is_said_of_the_kl_changes_nothing_else(name: str) -> None:
    """`grpo: {kl: {coefficient: 0.1}}` is still GRPO: in the loss, and not steered."""
    config = KINDS[name][0]
    usual = config(rollouts=1).kl
    changed = config.model_validate({"rollouts": 1, "kl": {"coefficient": 0.123}}).kl
    assert changed == usual.model_copy(update={"coefficient": 0.123})


def test_best_of_n_has_no_loss_for_the_kl_to_be_in() -> None:
    with pytest.raises(ValidationError, match="best_of_n"):
        BestOfNConfig.model_validate({"rollouts": 1, "kl": {"place": "loss", "estimator": "k3"}})


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("grpo", {"samples_per_prompt": 1}),
        ("grpo", {"overlong": 65}),
        ("grpo", {"kl": {"estimator": "k1"}}),  # in the loss it does nothing
        ("rloo", {"samples_per_prompt": 1}),
        ("rloo", {"average": 1.0}),
        ("ppo", {"lora": {"dropout": 0.1}}),
        ("ppo", {"critic": "none"}),
        ("best_of_n", {"dual_clip": 1.0}),
    ],
)
def test_impossible_settings_are_refused(name: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        KINDS[name][0].model_validate({"rollouts": 1} | wrong)


# -- what is told of a rollout


def test_repetition() -> None:
    assert repetition([1, 2, 3]) == 0
    assert repetition([1, 2, 3, 4, 1, 2, 3, 4]) == pytest.approx(1 / 5)
    assert repetition([7] * 14) == pytest.approx(10 / 11)


def test_the_best_and_worst_answers_of_a_rollout_are_kept_once(tmp_path: Path) -> None:
    log = RolloutLog(tmp_path / "rollouts.jsonl")
    for step in (0, 4, 8):
        log.add(step, {"best": [], "worst": []})
    RolloutLog(tmp_path / "rollouts.jsonl").add(4, {"best": [1], "worst": []})  # it went on from step 4
    lines = (tmp_path / "rollouts.jsonl").read_text().splitlines()
    assert [line[:10] for line in lines] == ['{"step": 0', '{"step": 4']


# -- judges that fail


def fair(_: Any, answers: Sequence[str]) -> list[float]:
    return [len(answer) % 5 for answer in answers]


def raising(_: Any, answers: Sequence[str]) -> list[float]:
    return [1 / (len(answer) * 0) for answer in answers]


FAILURES: dict[str, tuple[Any, str]] = {
    "raises": (raising, r"ZeroDivisionError: .*line \d+"),
    "gives NaN": (lambda prompts, answers: [float("nan"), *fair(prompts, answers)[1:]], "gave nan for answer 1 of 12"),
    "gives too few": (lambda prompts, answers: fair(prompts, answers)[1:], "gave 11 numbers for 12 answers"),
    "gives no numbers": (lambda _, answers: ["good"] * len(answers), "expected 12 numbers"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_function_that_fails_is_one_line_and_the_run_goes_on_as_if_it_had_not(failure: str, tmp_path: Path) -> None:
    config = GRPOConfig.model_validate(COMMON)
    wrong, message = FAILURES[failure]

    def life(directory: Path, failing: int | None) -> CausalLM:
        calls = iter(range(9))
        judge = FunctionReward(
            lambda prompts, answers: (wrong if next(calls) == failing else fair)(prompts, answers), "judge.py:reward"
        )
        return grpo(config, talkative(), judge, tokenizer(), QUESTIONS, directory=directory, seed=0)[0]

    whole = life(tmp_path / "whole", None)
    with pytest.MonkeyPatch.context() as patch:
        assert Loop.__init__.__kwdefaults__ is not None
        patch.setitem(Loop.__init__.__kwdefaults__, "save_seconds", -1.0)
        with pytest.raises(InputError, match=f"reward judge.py:reward: {message}") as caught:
            life(tmp_path / "broken", 1)
    assert "\n" not in str(caught.value)
    again = life(tmp_path / "broken", None)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), whole.parameters(), strict=True))
    assert numbers(tmp_path / "broken") == numbers(tmp_path / "whole")


def test_a_server_that_is_silent_is_one_line_and_the_run_goes_on_as_if_it_had_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rewards, "PAUSE", 0.0)
    config = GRPOConfig.model_validate(COMMON)
    silent, awake = threading.Event(), threading.Event()

    class Judging(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if silent.is_set():
                awake.wait(30)
            found = json.dumps({"rewards": fair(None, body["answers"])}).encode()
            with suppress(OSError):  # nobody waits any more
                self.send_response(200)
                self.send_header("Content-Length", str(len(found)))
                self.end_headers()
                self.wfile.write(found)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Judging)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    judge = ServerReward(f"http://127.0.0.1:{server.server_port}/", timeout=0.5)

    def life(directory: Path, on_progress: Any = lambda _: None) -> CausalLM:
        return grpo(
            config, talkative(), judge, tokenizer(), QUESTIONS, directory=directory, seed=0, on_progress=on_progress
        )[0]

    try:
        whole = life(tmp_path / "whole")
        with pytest.raises(InputError, match=r"127\.0\.0\.1.*no answer within 0\.5 s; .* the same command goes on"):
            life(tmp_path / "broken", lambda _: silent.set())
        awake.set()
        silent.clear()
        again = life(tmp_path / "broken")
    finally:
        awake.set()
        server.shutdown()
        server.server_close()
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), whole.parameters(), strict=True))
