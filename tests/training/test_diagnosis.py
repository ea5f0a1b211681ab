"""Runs that are spoilt on purpose, each really run, are named by the rule that is about them; healthy ones by none."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from string import Formatter
from typing import Any

import pytest
import torch
from torch import Tensor

from chatwheel.engine.requests import Completion, Request, SamplingParams
from chatwheel.errors import InputError
from chatwheel.training import policy as policy_module
from chatwheel.training.answers import PromptedAnswer
from chatwheel.training.checks import TIMES, is_due, reference_lead, surprise
from chatwheel.training.diagnosis import diagnose
from chatwheel.training.diagnosis_words import WORDS
from chatwheel.training.policy import Policy
from tests.tiny import causal, scalar, tokenizer, tokens
from tests.training import sabotage
from tests.training.sabotage import QUESTIONS, Rows, letters, run_best_of_n, run_grpo, run_ppo, run_rloo


def warnings(rows: Rows, **settings: Any) -> list[str]:
    return [finding.rule for finding in diagnose(rows, settings) if finding.level == "warning"]


def without(rows: Rows, *names: str) -> Rows:
    """As older versions wrote them."""
    return [{key: value for key, value in row.items() if key not in names} for row in rows]


def quick(rate: float) -> dict[str, Any]:
    return {"learning_rate": rate, "warmup": 0.0, "decay": 0.5, "matrices": "adamw"}


def sampled_otherwise(monkeypatch: pytest.MonkeyPatch, **params: Any) -> None:
    """Answers come from another distribution than the one that is learnt."""

    def sample(engine: Any, prompts: Any, *, max_tokens: int, seeds: Any, **_: Any) -> list[Completion]:
        return list(
            engine.generate(
                [
                    Request(
                        prompt_ids=tuple(prompt),
                        params=SamplingParams(max_tokens=max_tokens, seed=seed, **({"temperature": 1.0} | params)),
                    )
                    for prompt, seed in zip(prompts, seeds, strict=True)
                ]
            )
        )

    monkeypatch.setattr(policy_module, "sample_answers", sample)


# -- healthy


@pytest.mark.parametrize("run", [run_ppo, run_grpo, run_rloo, run_best_of_n])
def test_a_healthy_run_gets_no_warning(run: Callable[..., Rows], tmp_path: Path) -> None:
    faster = {} if run is run_ppo else {"optimizer": quick(5e-3), "rollouts": 20}
    rows = run(tmp_path, **faster)
    rewards = [row["reward"] for row in rows if "reward" in row]
    assert sum(rewards[-3:]) > sum(rewards[:3]) + 0.1  # it learns
    assert warnings(rows) == []
    # Nor did it at any moment when somebody looked.
    assert all(warnings(rows[:end]) == [] for end in range(len(rows)))


# -- spoilt


@pytest.mark.parametrize("params", [{"top_k": 20}, {"temperature": 0.7}, {"top_p": 0.7}])
def test_samples_of_another_distribution(
    params: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampled_otherwise(monkeypatch, **params)
    assert warnings(run_ppo(tmp_path, rollouts=2))[0] == "sampling_sharp"


def test_samples_that_are_too_wild(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sampled_otherwise(monkeypatch, temperature=1.5)
    assert warnings(run_ppo(tmp_path, rollouts=2))[0] == "sampling_flat"


def test_log_probs_that_are_shifted_by_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = Policy.sample

    def shifted(self: Policy, *arguments: Any, **named: Any) -> list[Completion]:
        from dataclasses import replace

        answers = right(self, *arguments, **named)
        return [replace(a, logprobs=(*a.logprobs[1:], a.logprobs[0])) for a in answers]

    monkeypatch.setattr(Policy, "sample", shifted)
    assert warnings(run_ppo(tmp_path, rollouts=2))[0] == "sampler_gap"


def test_no_end_token(tmp_path: Path) -> None:
    rows = run_ppo(tmp_path, model=sabotage.policy(ending=0.0), max_tokens=8)
    assert warnings(rows)[0] == "no_end"
    assert "no_end" not in warnings(rows, missing_end_penalty=0)


@pytest.mark.parametrize(("run", "rule"), [(run_ppo, "learning_rate"), (run_grpo, "leap")])
def test_an_exploding_learning_rate(run: Callable[..., Rows], rule: str, tmp_path: Path) -> None:
    rows = run(tmp_path, rollouts=6, optimizer=quick(0.3))
    assert warnings(rows)[0] == rule


def test_a_reward_that_likes_length(tmp_path: Path) -> None:
    def longer(_: Any, answers: Sequence[Completion]) -> Tensor:
        return torch.tensor([len(a.token_ids) / 10 for a in answers])

    rows = run_ppo(tmp_path, longer, missing_end_penalty=0.0, max_tokens=32, rollouts=24)
    assert warnings(rows)[0] == "length"


@pytest.mark.parametrize("silent", [True, False])
def test_a_dead_critic(silent: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says 0 for ever, or something else for every text, but never learns."""
    if not silent:
        monkeypatch.setattr(sabotage, "critic", partial(scalar, seed=5))
    rows = run_ppo(tmp_path, value_weight=0.0)
    assert warnings(rows)[0] == "critic"
    assert warnings(without(rows, "value", "return"))[0] == "critic_explains"


def test_a_reference_that_is_the_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begin = Policy.__init__

    def without_a_copy(self: Policy, *arguments: Any, **named: Any) -> None:
        begin(self, *arguments, **named)
        self.reference = self.model

    monkeypatch.setattr(Policy, "__init__", without_a_copy)
    rows = run_ppo(tmp_path)
    assert warnings(rows)[0] == "reference_moved"
    assert warnings(without(rows, "reference_log_prob"))[0] == "reference_follows"


def test_a_reward_with_its_sign_flipped(tmp_path: Path) -> None:
    def flipped(*given: Any) -> Tensor:
        return -letters(*given)

    assert warnings(run_ppo(tmp_path, flipped, rollouts=1))[0] == "reward_sign"


def test_without_references_the_sign_is_said_to_be_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    monkeypatch.setattr(sabotage, "QUESTIONS", [replace(q, reference=None) for q in QUESTIONS])
    found = diagnose(run_ppo(tmp_path, rollouts=1))
    assert [f.rule for f in found if f.level == "warning"] == []
    assert "unknown_sign" in [f.rule for f in found]


@pytest.mark.parametrize("run", [run_ppo, run_grpo, run_rloo])
@pytest.mark.parametrize("value", [0.0, 2.5])
def test_rewards_that_are_all_the_same(run: Callable[..., Rows], value: float, tmp_path: Path) -> None:
    def same(_: Any, answers: Sequence[Completion]) -> Tensor:
        return torch.full((len(answers),), value)

    assert warnings(run(tmp_path, same, rollouts=3))[0] == "equal_rewards"


def test_a_policy_that_says_one_word_for_ever(tmp_path: Path) -> None:
    """What a judge does not mind: first it is longer, then there is nothing else."""

    def twenty(_: Any, answers: Sequence[Completion]) -> Tensor:
        return torch.tensor([float(a.token_ids.count(20)) for a in answers])

    kl = {"coefficient": 0.0, "target": None, "stop": None}
    rows = run_grpo(tmp_path, twenty, missing_end_penalty=0.0, kl=kl, optimizer=quick(1e-2), rollouts=30)
    assert warnings(rows) == ["length", "entropy", "repetition", "ending"]


def test_a_run_that_its_kl_ended(tmp_path: Path) -> None:
    kl = {"coefficient": 0.0, "target": None, "stop": 0.2}
    rows = run_ppo(tmp_path, kl=kl)
    assert len(rows) < 48
    assert warnings(rows, kl=kl) == ["kl_stop"]
    assert warnings(rows) == []  # that it is less than it should be cannot be known


# -- what is measured for it


def test_surprise_is_what_the_formulas_say() -> None:
    model = causal()
    answers = [PromptedAnswer(tokens(n, seed=n).tolist(), begin) for n, begin in ((9, 4), (14, 3), (6, 5))]
    excess, variance = [], []
    for answer in answers:
        with torch.no_grad():
            log_p_TV = model(torch.tensor([answer.tokens]))[0].double().log_softmax(-1)
        for place in range(answer.begin, len(answer.tokens)):
            log_p_V = log_p_TV[place - 1]
            entropy = -float((log_p_V.exp() * log_p_V).sum())
            excess.append(-float(log_p_V[answer.tokens[place]]) - entropy)
            variance.append(float((log_p_V.exp() * (log_p_V + entropy) ** 2).sum()))
    found = surprise(model, answers, 16, torch.float32)
    assert found["surprise"] == pytest.approx(sum(excess) / len(excess), abs=1e-4)
    assert found["surprise_error"] == pytest.approx(math.sqrt(sum(variance)) / len(excess), rel=1e-4)


def test_checks_are_spread_over_a_run() -> None:
    for rollouts in (1, 2, 9, 10, 36, 1000):
        due = [number for number in range(rollouts) if is_due(number, rollouts)]
        assert due[0] == 0
        assert len(due) <= TIMES


def test_references_that_do_not_fit_or_cannot_be_judged_are_left_out() -> None:
    def refusing(*_: Any) -> Tensor:
        raise InputError("no")

    scores = [0.25] * len(QUESTIONS)
    found = reference_lead(letters, QUESTIONS, scores, tokenizer(), 64)
    assert found["reference_lead"] == pytest.approx(0.75)
    assert found["reference_lead_error"] == 0
    assert reference_lead(letters, QUESTIONS, scores, tokenizer(), 5) == {}
    assert reference_lead(refusing, QUESTIONS, scores, tokenizer(), 64) == {}
    assert reference_lead(letters, QUESTIONS[:1], scores[:1], tokenizer(), 64) == {}


# -- words


def test_all_rules_speak_both_languages_of_the_same_numbers() -> None:
    for rule, words in WORDS.items():
        assert set(words) == {"en", "zh"}, rule
        names = [
            {field for part in words[lang] for _, field, _, _ in Formatter().parse(part) if field} for lang in words
        ]
        assert names[0] == names[1], rule
        assert words["en"][0].endswith(".")


def test_rows_that_say_little_or_nonsense_are_no_reason_to_fail() -> None:
    assert diagnose([]) == []
    assert diagnose([{"step": 0, "loss": 1.0}]) == []
    bare: Rows = [{"step": i, "reward": 0.5, "answer_tokens": 9.0} for i in range(20)]
    assert warnings(bare) == []
    keys = {"kl", "kl_error", "surprise", "surprise_error", "entropy", "ended", "explained_variance", "reward_length"}
    assert warnings([row | dict.fromkeys(keys, math.nan) for row in bare]) == []
    assert warnings([row | dict.fromkeys(keys, math.inf) for row in bare]) == []
