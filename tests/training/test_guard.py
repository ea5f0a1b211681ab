"""The guard: it stops behind a planted peak, keeps the peak's weights, survives kills, and changes nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from chatwheel.engine.requests import Completion
from chatwheel.errors import InputError
from chatwheel.model.lora import LoRAConfig
from chatwheel.model.transformer import CausalLM
from chatwheel.training.best_of_n import BestOfNConfig, best_of_n
from chatwheel.training.grpo import GRPOConfig, grpo
from chatwheel.training.guard import HeldOut, read_looks
from chatwheel.training.loop import Loop, read_metrics
from chatwheel.training.ppo import PPOConfig, ppo
from chatwheel.training.rewards import Question
from chatwheel.training.rloo import RLOOConfig, rloo
from tests.tiny import causal, tokenizer
from tests.training.test_ppo import ARM, PROMPTS, PowerCutError, fresh_critic, liking, number_of, without_times

UNSEEN = [Question(PROMPTS[0].ids) for _ in range(48)]
"""Their answers differ by their seeds. That they are not trained on is the recipe's affair, see `test_held_out`."""
WANTED = 0.6
"""The share of answers with the arm that the planted judge likes best; learning goes past it."""
Judge = Callable[[Sequence[Question], Sequence[Completion]], Tensor]


def begin() -> CausalLM:
    """A model that takes the arm with a probability of 0.15."""
    model = causal(tied_embeddings=False)
    liking(model, list(PROMPTS[0].ids), 0.15)
    return model


def share_of_arm(answers: Sequence[Completion]) -> float:
    return sum(ARM in answer.token_ids for answer in answers) / len(answers)


def planted(_: Any, answers: Sequence[Completion]) -> Tensor:
    """Rises with the share of the arm up to WANTED, and falls with it from there on."""
    assert len(answers) == len(UNSEEN)
    return torch.full((len(answers),), -abs(share_of_arm(answers) - WANTED))


def settings(**changes: Any) -> PPOConfig:
    values: dict[str, Any] = {
        "rollouts": 16,
        "prompts_per_rollout": 64,
        "epochs": 2,
        "minibatches": 1,
        "max_tokens": 1,
        "row_length": 32,
        "missing_end_penalty": 0.0,
        "kl": {"coefficient": 0.0, "target": None, "stop": 1e9},
        "optimizer": {"learning_rate": 2e-4, "matrices": "adamw", "warmup": 0.0, "decay": 0.0},
        "precision": "float32",
        "guard": {"judge": "someone/else", "every": 1, "prompts": 48, "patience": 3},
    }
    return PPOConfig.model_validate(values | changes)


def guard(**changes: Any) -> dict[str, Any]:
    return {"judge": "someone/else", "every": 1, "prompts": 48, "patience": 3} | changes


def learnt(directory: Path, config: PPOConfig, *, reward: Judge | None = None, judge: Judge = planted) -> CausalLM:
    held_out = HeldOut(judge, UNSEEN) if config.guard is not None else None
    start, critic = begin(), fresh_critic()
    given: Any = reward or number_of(ARM)
    model, _ = ppo(
        config, start, critic, given, tokenizer(), PROMPTS[:1], held_out=held_out, directory=directory, seed=3
    )
    return model


def equal(a: CausalLM, b: CausalLM) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> tuple[CausalLM, Path]:
    directory = tmp_path_factory.mktemp("guarded")
    return learnt(directory, settings()), directory


def test_it_stops_behind_the_planted_peak(guarded: tuple[CausalLM, Path]) -> None:
    _, directory = guarded
    looks = read_looks(directory)
    rewards = [look["reward"] for look in looks]
    peak = rewards.index(max(rewards))
    assert [look["rollouts"] for look in looks] == list(range(len(looks)))
    assert peak > 0
    assert len(looks) == peak + 1 + 3
    assert rewards[0] < rewards[peak] - 0.1
    assert rewards[-1] < rewards[peak]
    rows = read_metrics(directory)
    assert len(rows) == 2 * (len(looks) - 1) < 2 * settings().rollouts
    # The learnt reward went on rising: nothing but the guard saw it.
    learnt_reward = [row["reward"] for row in rows if "reward" in row]
    assert learnt_reward[-1] > learnt_reward[peak] > learnt_reward[0]


def test_its_numbers_are_in_the_metrics_of_the_step_that_made_them(guarded: tuple[CausalLM, Path]) -> None:
    _, directory = guarded
    rows, looks = read_metrics(directory), read_looks(directory)
    logged = [(row["step"], row["held_out_reward"]) for row in rows if "held_out_reward" in row]
    assert logged == [(max(0, 2 * look["rollouts"] - 1), look["reward"]) for look in looks]
    for row in rows:
        if "held_out_reward" in row:
            assert row["held_out_error"] == 0  # the planted judge says the same of all
            assert 0 < row["guard_seconds"] < row["seconds"]
    assert [row["held_out_kl"] for row in rows if "held_out_kl" in row] == [look["kl"] for look in looks]
    assert abs(looks[0]["kl"]) < 1e-4
    assert looks[-1]["kl"] > 0.1


def test_the_result_is_the_policy_of_the_peak(guarded: tuple[CausalLM, Path], tmp_path: Path) -> None:
    """A run that is the same but for its end, at the peak and without a guard, has the same weights."""
    model, directory = guarded
    rewards = [look["reward"] for look in read_looks(directory)]
    peak = rewards.index(max(rewards))
    seen: list[CausalLM] = []
    reward = number_of(ARM)

    def watching(questions: Any, answers: Sequence[Completion]) -> Tensor:
        if len(seen) <= peak:
            seen.append(_copy(subject))
        return reward(questions, answers)

    subject = begin()
    ppo(settings(guard=None), subject, fresh_critic(), watching, tokenizer(), PROMPTS[:1], directory=tmp_path, seed=3)
    assert equal(model, seen[peak])
    assert not equal(model, seen[peak - 1])
    ours, theirs = without_times(directory), without_times(tmp_path)
    # Until it stops, all other numbers are those of a run without a guard.
    plain = [{k: v for k, v in row.items() if not k.startswith("held_out")} for row in ours]
    assert plain == theirs[: len(plain)]


def _copy(model: CausalLM) -> CausalLM:
    copy = begin()
    copy.load_state_dict(model.state_dict())
    return copy


def test_what_it_keeps_scores_what_it_said(guarded: tuple[CausalLM, Path]) -> None:
    """Its answers are sampled with the same seeds at each look, so the kept weights give the peak's value again."""
    from chatwheel.training.guard import Guard, GuardConfig
    from chatwheel.training.policy import Policy

    model, directory = guarded
    policy = Policy(_copy(model), tokenizer(), dtype=torch.float32, max_running=64, with_reference=False)
    config = GuardConfig.model_validate(guard())
    again = Guard(config, HeldOut(planted, UNSEEN), policy, rollouts=1, max_tokens=1, row_length=32)
    said = again.look(0)
    assert said["held_out_reward"] == max(look["reward"] for look in read_looks(directory))
    assert "held_out_kl" not in said


def test_without_patience_it_goes_on_to_the_end_and_keeps_the_best_or_the_last(
    guarded: tuple[CausalLM, Path], tmp_path: Path
) -> None:
    best = learnt(tmp_path / "best", settings(guard=guard(patience=None)))
    assert len(read_metrics(tmp_path / "best")) == 2 * settings().rollouts
    rewards = [look["reward"] for look in read_looks(tmp_path / "best")]
    before = [look["reward"] for look in read_looks(guarded[1])]
    assert len(rewards) == settings().rollouts + 1
    assert rewards[: len(before)] == before
    if max(rewards) == max(before):
        assert equal(best, guarded[0])
    last = learnt(tmp_path / "last", settings(guard=guard(patience=None, keep="last", every=5)))
    plain = learnt(tmp_path / "plain", settings(guard=None))
    assert equal(last, plain)
    # At the start, each fifth rollout, and at the end.
    assert [look["rollouts"] for look in read_looks(tmp_path / "last")] == [0, 5, 10, 15, 16]
    assert not read_looks(tmp_path / "plain")


def test_a_judge_that_only_rises_lets_the_run_end_with_its_last_weights(tmp_path: Path) -> None:
    rising: Judge = lambda _, answers: torch.full((len(answers),), share_of_arm(answers))  # noqa: E731
    model = learnt(tmp_path / "a", settings(rollouts=4), judge=rising)
    rewards = [look["reward"] for look in read_looks(tmp_path / "a")]
    assert rewards == sorted(rewards)
    assert len(rewards) == 5
    assert equal(model, learnt(tmp_path / "b", settings(rollouts=4, guard=None)))


def test_where_the_kl_ends_a_run_its_last_policy_is_looked_at(tmp_path: Path) -> None:
    """Between two looks: what came of it would be unknown otherwise, and could not be kept."""
    kl = {"coefficient": 0.0, "target": None, "stop": 0.02}
    learnt(tmp_path, settings(rollouts=7, kl=kl, guard=guard(every=4)))
    rollouts = [row["kl"] > 0.02 for row in read_metrics(tmp_path) if "kl" in row]
    assert rollouts == [False] * (len(rollouts) - 1) + [True]
    assert len(rollouts) not in (4, 7)
    assert [look["rollouts"] for look in read_looks(tmp_path)] == [0, len(rollouts)]


@pytest.mark.parametrize(
    ("judge", "refused"),
    [("someone/else", True), ({"url": "http://localhost:1"}, True), ("someone/third", False)],
)
def test_what_is_learnt_from_guards_nothing_even_beside_others(judge: Any, refused: bool) -> None:
    rewards = [
        {"model": "reward"},
        {"model": "someone/else", "weight": 0.1},
        {"url": "http://localhost:1", "timeout": 5},
    ]
    changes = {"rewards": rewards, "guard": guard(judge=judge)}
    if refused:
        with pytest.raises(ValidationError, match=r"guard\.judge: .* is what is learnt from; name another judge"):
            settings(**changes)
    else:
        assert settings(**changes).guard is not None


def test_a_critic_that_warms_up_does_not_try_its_patience(tmp_path: Path) -> None:
    config = settings(rollouts=7, critic_warmup=4, guard=guard(patience=1))
    learnt(tmp_path, config)
    assert [look["rollouts"] for look in read_looks(tmp_path)][:2] == [0, 5]


def cut_in(rollout: int | None) -> Judge:
    calls = 0

    def judge(questions: Any, answers: Sequence[Completion]) -> Tensor:
        nonlocal calls
        if calls == rollout:
            raise PowerCutError
        calls += 1
        return number_of(ARM)(questions, answers)

    return judge


@pytest.mark.parametrize("rollout", range(7))
def test_a_run_interrupted_in_any_rollout_ends_the_same(
    rollout: int, guarded: tuple[CausalLM, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Loop.__init__.__kwdefaults__ is not None
    monkeypatch.setitem(Loop.__init__.__kwdefaults__, "save_seconds", -1.0)
    model, whole = guarded
    assert len(read_looks(whole)) == 8  # seven rollouts: before the peak, at it, and in its patience
    with pytest.raises(PowerCutError):
        learnt(tmp_path, settings(), reward=cut_in(rollout))
    resumed = learnt(tmp_path, settings())
    assert equal(resumed, model)
    assert without_times(tmp_path) == without_times(whole)
    assert _values(tmp_path) == _values(whole)
    # And once more, behind its end: nothing is looked at again.
    nobody: Judge = lambda *_: pytest.fail("asked again")  # noqa: E731
    assert equal(learnt(tmp_path, settings(), judge=nobody), model)


def test_cut_off_in_a_look_it_looks_again(
    guarded: tuple[CausalLM, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Loop.__init__.__kwdefaults__ is not None
    monkeypatch.setitem(Loop.__init__.__kwdefaults__, "save_seconds", -1.0)
    looks = 0

    def failing(questions: Sequence[Question], answers: Sequence[Completion]) -> Tensor:
        nonlocal looks
        looks += 1
        if looks == 3:
            raise PowerCutError
        return planted(questions, answers)

    with pytest.raises(PowerCutError):
        learnt(tmp_path, settings(), judge=failing)
    assert equal(learnt(tmp_path, settings()), guarded[0])
    assert _values(tmp_path) == _values(guarded[1])


def _values(directory: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in look.items() if k != "seconds"} for look in read_looks(directory)]


def test_averaged_weights_are_what_is_looked_at_and_kept(tmp_path: Path) -> None:
    config = settings(average=0.7)
    model = learnt(tmp_path / "guarded", config)
    rewards = [look["reward"] for look in read_looks(tmp_path / "guarded")]
    peak = rewards.index(max(rewards))
    assert 0 < peak < len(rewards) - 1
    # Without a guard, a run of the same length has the same weights at each step; ended at the peak, the mean is this.
    shorter = learnt(tmp_path / "shorter", settings(average=0.7, rollouts=peak, guard=None))
    assert equal(model, shorter)


def test_an_adapter_is_kept_too(tmp_path: Path) -> None:
    config = settings(
        lora=LoRAConfig(rank=2), critic="head", optimizer={"learning_rate": 0.05, "matrices": "adamw", "decay": 0.0}
    )
    start = begin()
    held_out = HeldOut(planted, UNSEEN)
    model, told = ppo(
        config, start, None, number_of(ARM), tokenizer(), PROMPTS[:1], held_out=held_out, directory=tmp_path, seed=3
    )
    looks = read_looks(tmp_path)
    rewards = [look["reward"] for look in looks]
    assert told["peak_held_out_reward"] == max(rewards)
    assert told["peak_rollouts"] == rewards.index(max(rewards))
    assert told["last_held_out_reward"] == rewards[-1]
    assert told["stopped_behind_peak"] == float(len(looks) < config.rollouts + 1)
    state = json.loads((tmp_path / "state" / "state.json").read_text())
    assert len(state["objective"]["guard"]["looks"]) == len(looks)
    assert model is start


@pytest.mark.parametrize("method", [(GRPOConfig, grpo), (RLOOConfig, rloo), (BestOfNConfig, best_of_n)])
def test_all_who_sample_have_it(method: Any, tmp_path: Path) -> None:
    kind, learn = method
    values = {
        "rollouts": 3,
        "prompts_per_rollout": 4,
        "samples_per_prompt": 2,
        "max_tokens": 6,
        "row_length": 64,
        "precision": "float32",
        "optimizer": {"learning_rate": 1e-3},
    }
    results = []
    for name, watched in (("plain", None), ("guarded", guard(prompts=8, patience=None, keep="last"))):
        model, _ = learn(
            kind.model_validate(values | {"guard": watched}),
            begin(),
            number_of(ARM),
            tokenizer(),
            PROMPTS,
            held_out=HeldOut(lambda _, answers: torch.ones(len(answers)), UNSEEN),
            directory=tmp_path / name,
            seed=1,
        )
        results.append(model)
    assert equal(*results)
    assert [look["rollouts"] for look in read_looks(tmp_path / "guarded")] == [0, 1, 2, 3]
    assert {look["reward"] for look in read_looks(tmp_path / "guarded")} == {1.0}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"patience": 0}, "greater than or equal to 1"),
        ({"every": 0}, "greater than or equal to 1"),
        ({"prompts": 1}, "greater than or equal to 2"),
        ({"keep": "worst"}, "'best' or 'last'"),
        ({"judge": {}}, "one of model, function, url, rule and grader, not none"),
        ({"judge": "reward"}, "guard.judge: reward is what is learnt from"),
        ({"prompts": 65}, r"guard.prompts \(65\) are more than the 64 answers"),
    ],
)
def test_impossible_settings_are_refused_before_anything_runs(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        settings(guard=guard(**wrong))


def test_without_prompts_it_says_so(tmp_path: Path) -> None:
    for held_out in (None, HeldOut(planted, UNSEEN[:1])):
        with pytest.raises(InputError, match=r"ppo\.guard: there are no held-out prompts"):
            ppo(
                settings(),
                causal(),
                fresh_critic(),
                number_of(ARM),
                tokenizer(),
                PROMPTS[:1],
                held_out=held_out,
                directory=tmp_path,
                seed=0,
            )


def test_a_judge_that_errs_is_named(tmp_path: Path) -> None:
    nothing: Judge = lambda _, answers: torch.full((len(answers),), float("nan"))  # noqa: E731
    with pytest.raises(InputError, match="someone/else: gave nan for answer 1 of 48"):
        learnt(tmp_path, settings(), judge=nothing)
