"""PPO: its losses against the formulas written out, bandits whose best policy is known, and its accidents."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from chatwheel.data.packing import pack
from chatwheel.data.records import Prompt
from chatwheel.engine.requests import Completion
from chatwheel.errors import InputError
from chatwheel.model.transformer import CausalLM, ScalarModel
from chatwheel.training.loop import Loop, read_metrics
from chatwheel.training.optimizers import OptimizerConfig
from chatwheel.training.policy_gradient import Minibatch
from chatwheel.training.ppo import PPOConfig, PPOObjective, ppo
from chatwheel.training.rewards import Question
from chatwheel.training.rollouts import encode_prompts
from tests.tiny import VOCAB, causal, scalar, tokenizer, tokens

PROMPTS = [Question(tuple(tokens(3 + 4 * i, seed=i).tolist())) for i in range(6)]
Judge = Callable[[Sequence[Question], Sequence[Completion]], Tensor]


def config(**changes: Any) -> PPOConfig:
    values: dict[str, Any] = {
        "rollouts": 3,
        "prompts_per_rollout": 8,
        "epochs": 2,
        "minibatches": 2,
        "max_tokens": 12,
        "row_length": 64,
        "kl": {"coefficient": 0.1, "target": None, "stop": 1e9},
        "optimizer": OptimizerConfig(learning_rate=1e-3),
        "precision": "float32",
    }
    return PPOConfig.model_validate(values | changes)


def fresh_critic() -> ScalarModel:
    critic = scalar(seed=5)
    torch.nn.init.zeros_(critic.score.weight)
    return critic


def number_of(token: int) -> Judge:
    """How often an answer says a token."""
    return lambda _, answers: torch.tensor([float(a.token_ids.count(token)) for a in answers])


def objective(
    settings: PPOConfig, *, reward: Judge | None = None, critic: ScalarModel | None = None, **more: Any
) -> Any:
    judge = reward or number_of(20)
    return PPOObjective(settings, causal(), critic or fresh_critic(), judge, tokenizer(), PROMPTS, 0, **more)


def move(model: torch.nn.Module, size: float, seed: int = 0) -> None:
    """Takes a model elsewhere, as a few updates would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * size * parameter.abs().mean())


# -- the rollout


@torch.no_grad()
def test_a_rollout_s_returns_are_score_penalty_and_kl() -> None:
    """With gamma = lambda = 1, the return at a token is the score and what the later tokens pay for their KL."""
    settings = config(gamma=1.0, lam=1.0, missing_end_penalty=2.5, kl={"coefficient": 0.3, "target": None, "stop": 1e9})
    scores: list[float] = []
    completions: list[Completion] = []

    def judge(_: Any, answers: Sequence[Completion]) -> Tensor:
        completions.extend(answers)
        scores.extend(float(i) for i in range(len(answers)))
        return torch.tensor(scores)

    subject = objective(settings, reward=judge)
    # Let the model end some of its answers.
    subject.policy.model.model.embed_tokens.weight[tokenizer().end_id] *= 4
    move(subject.policy.model, 0.3)
    subject.collect(0)
    assert {c.finish_reason for c in completions} == {"stop", "length"}
    expected: dict[tuple[int, ...], list[float]] = {}
    prompts = [PROMPTS[i].ids for i in subject.order.batch(0)]
    for prompt, answer, score in zip(prompts, completions, scores, strict=True):
        whole = torch.tensor([[*prompt, *answer.token_ids]])
        states = slice(len(prompt) - 1, whole.shape[1] - 1)
        said = whole[0, len(prompt) :, None]
        ours, theirs = (
            m(whole)[0, states].log_softmax(-1).gather(-1, said)[:, 0]
            for m in (subject.policy.model, subject.policy.reference)
        )
        cost = (0.3 * (ours - theirs)).tolist()
        final = score - (2.5 if answer.finish_reason == "length" else 0.0)
        expected[answer.token_ids] = [final - sum(cost[t:]) for t in range(len(cost))]
    seen = 0
    for (minibatch,) in subject._minibatches[:2]:  # the first epoch: each answer once
        for ids, returns in per_answer(minibatch, minibatch.per_token["returns"]):
            assert returns == pytest.approx(expected[ids], abs=1e-3)
            seen += 1
    assert seen == 8


def per_answer(minibatch: Minibatch, vector: Tensor) -> list[tuple[tuple[int, ...], list[float]]]:
    """(answer's tokens, the vector's part of it) for each answer."""
    said = minibatch.answers.targets.tolist()
    found, first = [], 0
    for n in minibatch.answers.lengths:
        found.append((tuple(said[first : first + n]), vector[first : first + n].tolist()))
        first += n
    assert first == len(said) == len(vector)
    return found


def test_the_policy_is_its_own_reference_at_first_and_the_sampler_tells_the_truth() -> None:
    subject = objective(config())
    subject.collect(0)
    numbers = subject.metrics(0)
    assert abs(numbers["kl"]) < 1e-5
    loss, told = subject.loss(*subject._minibatches[0])
    assert 0 < told["sampler_gap"] < 1e-4
    assert loss.isfinite()
    assert told["clip_fraction"] == 0
    assert abs(told["step_kl"]) < 1e-6


def test_each_epoch_has_every_answer_once_and_whitened() -> None:
    subject = objective(config(epochs=3, minibatches=3))
    subject.collect(0)
    assert len(subject._minibatches) == 9
    for epoch in range(3):
        parts = subject._minibatches[3 * epoch : 3 * epoch + 3]
        said = [ids for (m,) in parts for ids, _ in per_answer(m, m.per_token["advantages"])]
        assert len(said) == len(set(said)) == 8
        advantages = torch.cat([m.per_token["advantages"] for (m,) in parts])
        assert abs(float(advantages.mean())) < 1e-5
        assert float(advantages.std(correction=0)) == pytest.approx(1, abs=1e-4)
    first, second = (
        [ids for (m,) in subject._minibatches[a : a + 3] for ids, _ in per_answer(m, m.per_token["returns"])]
        for a in (0, 3)
    )
    assert first != second


# -- the losses


def test_the_losses_are_the_formulas() -> None:
    demonstrations = pack([tokens(12, seed=i).tolist() for i in range(8)], 16)
    settings = config(clip=0.2, value_clip=0.1, value_weight=0.7, ptx=0.5, ptx_rows=2, minibatches=1)
    subject = objective(settings, critic=scalar(seed=5), demonstrations=demonstrations)
    subject.collect(0)
    (old,) = subject._minibatches[0]
    was_N = old.per_token
    move(subject.policy.model, 0.15)
    move(subject.critic, 0.15)
    loss, told = subject.loss(old)
    subject._moved = 0.0
    ptx_loss, _ = subject.loss(subject.batches(3)[-1])
    loss = loss + ptx_loss
    with torch.no_grad():
        new_log_probs = old.answers.log_probs(subject.policy.model, torch.float32).tolist()
        new_values = old.answers.values(subject.critic, torch.float32).tolist()
    policy, value, clipped = [], [], 0
    for new, was, advantage in zip(
        new_log_probs, was_N["log_probs"].tolist(), was_N["advantages"].tolist(), strict=True
    ):
        ratio = math.exp(new - was)
        policy.append(-min(ratio * advantage, min(max(ratio, 0.8), 1.2) * advantage))
        clipped += abs(ratio - 1) > 0.2
    for new, was, target in zip(new_values, was_N["values"].tolist(), was_N["returns"].tolist(), strict=True):
        near = was + min(max(new - was, -0.1), 0.1)
        value.append(0.5 * max((new - target) ** 2, (near - target) ** 2))
    n = len(policy)
    assert 0 < clipped < n
    assert told["clip_fraction"] == pytest.approx(clipped / n, abs=1e-6)
    assert told["policy_loss"] == pytest.approx(sum(policy) / n, rel=1e-4)
    assert told["value_loss"] == pytest.approx(sum(value) / n, rel=1e-4)
    assert told["step_kl"] > 0
    rows = demonstrations.rows(subject.demonstration_order.batch(3))
    ptx = [
        torch.nn.functional.cross_entropy(
            subject.policy.model(torch.tensor(sequence[None]).long())[0, :-1], torch.tensor(sequence[1:]).long()
        )
        for row, segments in zip(rows.tokens, rows.segments, strict=True)
        for sequence in [row[segments == 1]]
    ]
    expected = sum(policy) / n + 0.7 * sum(value) / n + 0.5 * float(torch.stack(ptx).mean().detach())
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-4)


def test_the_clip_takes_away_the_gradient_of_what_has_moved_far_enough() -> None:
    subject = objective(config(value_weight=0.0, minibatches=1))
    subject.collect(0)
    (old,) = subject._minibatches[0]
    better = {
        **old.per_token,
        "log_probs": old.per_token["log_probs"] - 1.0,  # every ratio is e
        "advantages": torch.ones_like(old.per_token["advantages"]),
    }
    loss, _ = subject.loss(Minibatch(answers=old.answers, per_token=better))
    loss.backward()
    assert all(p.grad is None or p.grad.abs().max() == 0 for p in subject.policy.model.parameters())
    # Too likely and bad: it must come back.
    worse = {**better, "advantages": -better["advantages"]}
    loss, _ = subject.loss(Minibatch(answers=old.answers, per_token=worse))
    loss.backward()
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in subject.policy.model.parameters())


# -- learning

ARM = 20
BANDIT = {"max_tokens": 1, "row_length": 32, "prompts_per_rollout": 64, "missing_end_penalty": 0.0, "minibatches": 1}


def arm_probability(model: CausalLM, prompt: list[int]) -> float:
    with torch.no_grad():
        return float(model(torch.tensor([prompt]))[0, -1].softmax(-1)[ARM])


def liking(model: CausalLM, prompt: list[int], probability: float) -> None:
    """Gives the arm a known probability before training, by its bias-like output row."""
    with torch.no_grad():
        hidden = model.model(torch.tensor([prompt]))[0, -1]
        logits = model.logits(hidden)
        others = torch.cat([logits[:ARM], logits[ARM + 1 :]]).logsumexp(-1)
        wanted = others + math.log(probability / (1 - probability))
        model.lm_head.weight[ARM] += hidden * (wanted - logits[ARM]) / hidden.square().sum()


def play(tmp_path: Path, coefficient: float, *, rollouts: int = 40, rate: float = 3e-3) -> tuple[float, float]:
    """The arm's probability before and after; it pays 1, all others 0."""
    prompt = list(PROMPTS[0].ids)
    actor = causal(tied_embeddings=False)
    liking(actor, prompt, 0.15)
    before = arm_probability(actor, prompt)
    settings = config(
        **BANDIT,
        rollouts=rollouts,
        kl={"coefficient": coefficient, "target": None, "stop": 1e9},
        optimizer=OptimizerConfig(learning_rate=rate, matrices="adamw", warmup=0.0, decay=0.7, weight_decay=0.0),
    )
    ppo(settings, actor, fresh_critic(), number_of(ARM), tokenizer(), PROMPTS[:1], directory=tmp_path, seed=0)
    return before, arm_probability(actor, prompt)


def test_it_finds_the_arm_that_pays(tmp_path: Path) -> None:
    before, after = play(tmp_path, 0.0)
    assert before == pytest.approx(0.15, abs=0.01)
    assert after > 0.97


@pytest.mark.parametrize("coefficient", [0.4, 1.0])
def test_with_a_penalty_it_finds_the_tilted_policy(coefficient: float, tmp_path: Path) -> None:
    """The best policy is known: pi(x) ~ pi_ref(x) exp(r(x) / beta)."""
    before, after = play(tmp_path, coefficient, rollouts=60)
    tilted = before * math.exp(1 / coefficient)
    best = tilted / (tilted + 1 - before)
    assert after == pytest.approx(best, abs=0.08)


def test_it_learns_to_finish_when_cutting_off_costs(tmp_path: Path) -> None:
    actor = causal(tied_embeddings=False)
    with torch.no_grad():
        actor.lm_head.weight[tokenizer().end_id] = actor.lm_head.weight[ARM] * 1.5
    settings = config(
        rollouts=40,  # how many it takes depends on where a fresh model begins; here 25 gave 0.85
        max_tokens=6,
        prompts_per_rollout=48,
        missing_end_penalty=3.0,
        kl={"coefficient": 0.0, "target": None, "stop": 1e9},
        optimizer=OptimizerConfig(learning_rate=3e-3, matrices="adamw"),
    )
    nothing: Judge = lambda _, answers: torch.zeros(len(answers))  # noqa: E731
    ppo(settings, actor, fresh_critic(), nothing, tokenizer(), PROMPTS, directory=tmp_path, seed=0)
    ended = [row["ended"] for row in read_metrics(tmp_path) if "ended" in row]
    assert ended[0] < 0.6
    assert ended[-1] > 0.9


def test_the_reference_stays_and_the_policy_moves(tmp_path: Path) -> None:
    subject = objective(config())
    before = [p.clone() for p in subject.policy.reference.parameters()]
    loop = Loop(
        directory=tmp_path,
        modules=subject.modules,
        optimizer=config().optimizer,
        steps=8,
    )
    loop.run(subject)
    assert all(torch.equal(a, b) for a, b in zip(before, subject.policy.reference.parameters(), strict=True))
    assert not any(p.requires_grad for p in subject.policy.reference.parameters())
    assert subject.kl != 0


# -- accidents


@pytest.mark.parametrize("value", [0.0, 1.0, -7.5])
def test_equal_rewards_are_harmless(value: float, tmp_path: Path) -> None:
    actor = causal()
    same: Judge = lambda _, answers: torch.full((len(answers),), value)  # noqa: E731
    ppo(config(), actor, fresh_critic(), same, tokenizer(), PROMPTS, directory=tmp_path, seed=0)
    assert all(p.isfinite().all() for p in actor.parameters())
    assert all(math.isfinite(v) for row in read_metrics(tmp_path) for v in row.values())


def test_rewards_that_say_nothing_move_nothing(tmp_path: Path) -> None:
    """All 0 from the first token on, and a critic that expects 0: there is no gradient, not even from rounding."""
    actor = causal()
    settings = config(
        missing_end_penalty=0.0,
        kl={"coefficient": 0.0, "target": None, "stop": 1e9},
        optimizer=OptimizerConfig(learning_rate=1e-2, weight_decay=0.0, matrices="adamw"),
    )
    nothing: Judge = lambda _, answers: torch.zeros(len(answers))  # noqa: E731
    ppo(settings, actor, fresh_critic(), nothing, tokenizer(), PROMPTS, directory=tmp_path, seed=0)
    assert all(torch.equal(a, b) for a, b in zip(actor.parameters(), causal().parameters(), strict=True))


class PowerCutError(Exception):
    """Stands for whatever ends a process."""


def interrupted_in(rollout: int | None) -> Judge:
    calls = 0

    def judge(prompts: Any, answers: Sequence[Completion]) -> Tensor:
        nonlocal calls
        if calls == rollout:
            raise PowerCutError
        calls += 1
        return number_of(ARM)(prompts, answers) + torch.tensor([len(a.token_ids) * 0.1 for a in answers])

    return judge


def life(directory: Path, stop_in: int | None) -> tuple[CausalLM, ScalarModel]:
    actor, critic = causal(), fresh_critic()
    settings = config(
        rollouts=5,
        max_tokens=100,  # so that the cache grows within a life: a resumed one begins with a small cache
        row_length=128,
        kl={"coefficient": 0.05, "target": 0.5, "horizon": 50, "stop": 1e9},
    )
    ppo(settings, actor, critic, interrupted_in(stop_in), tokenizer(), PROMPTS, directory=directory, seed=7)
    return actor, critic


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, list[dict[str, float]]]:
    directory = tmp_path_factory.mktemp("uninterrupted")
    return life(directory, None), without_times(directory)


def without_times(directory: Path) -> list[dict[str, float]]:
    return [
        {k: v for k, v in row.items() if not k.endswith("seconds") and k != "tokens_per_second"}
        for row in read_metrics(directory)
    ]


@pytest.mark.parametrize("rollout", [0, 1, 3, 4])
def test_a_run_interrupted_in_any_rollout_ends_the_same(
    rollout: int, tmp_path: Path, uninterrupted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Loop.__init__.__kwdefaults__ is not None
    monkeypatch.setitem(Loop.__init__.__kwdefaults__, "save_seconds", -1.0)
    with pytest.raises(PowerCutError):
        life(tmp_path, rollout)
    resumed = life(tmp_path, None)
    expected, whole = uninterrupted
    for ours, theirs in zip(resumed, expected, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    rows = without_times(tmp_path)
    assert rows == whole
    coefficients = {row["kl_coefficient"] for row in whole if "kl_coefficient" in row}
    assert len(coefficients) > 1  # the controller's state mattered


def test_it_stops_early_when_the_policy_has_gone_too_far(tmp_path: Path) -> None:
    settings = config(rollouts=10, kl={"coefficient": 0.0, "target": None, "stop": 1e-4})
    ppo(settings, causal(), fresh_critic(), number_of(ARM), tokenizer(), PROMPTS, directory=tmp_path, seed=0)
    rows = read_metrics(tmp_path)
    assert rows[0]["kl"] < 1e-4  # the policy's own distribution
    assert rows[settings.updates_per_rollout]["kl"] > 1e-4
    assert len(rows) < settings.rollouts * settings.updates_per_rollout
    assert len(rows) % settings.updates_per_rollout == 0
    again = read_metrics(tmp_path)
    ppo(settings, causal(), fresh_critic(), number_of(ARM), tokenizer(), PROMPTS, directory=tmp_path, seed=0)
    assert read_metrics(tmp_path) == again  # and it remembers that it did


def test_the_rest_of_a_rollout_is_skipped_when_a_step_went_too_far(tmp_path: Path) -> None:
    settings = config(rollouts=2, epochs=4, step_kl=1e-4, optimizer=OptimizerConfig(learning_rate=2e-2, warmup=0.0))
    ppo(settings, causal(), fresh_critic(), number_of(ARM), tokenizer(), PROMPTS, directory=tmp_path, seed=0)
    rows = read_metrics(tmp_path)
    updated = ["loss" in row for row in rows]
    assert updated[0]
    assert updated[8]  # the next rollout begins afresh
    assert not any(updated[3:8])


@pytest.mark.parametrize(
    "wrong",
    [
        {"minibatches": 9},
        {"prompts_per_rollout": 1},
        {"clip": 0},
        {"rollouts": 0},
        {"critic_warmup": 3},
        {"temperature": 0.7},
    ],
)
def test_impossible_settings_are_refused_before_anything_runs(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        config(**wrong)


def test_prompts_that_leave_no_room_are_left_out() -> None:
    hello, long = [{"role": "user", "content": "Hi"}], [{"role": "user", "content": "x y " * 100}]
    short = Prompt.model_validate({"messages": hello, "reference": "Hello"})
    (encoded,) = encode_prompts([short, Prompt.model_validate({"messages": long})], tokenizer(), 20)
    assert encoded == Question(tuple(tokenizer().encode_prompt(hello)), tuple(hello), "Hello")
    with pytest.raises(InputError, match="at most 20 tokens"):
        encode_prompts([Prompt.model_validate({"messages": long})], tokenizer(), 20)
    assert max(encoded.ids) < VOCAB
