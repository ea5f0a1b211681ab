"""Rollouts sampled ahead: exactly so stale, the same whoever samples, weighed by what the formula says, and safe."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch import Tensor

from chatwheel.engine.requests import Completion
from chatwheel.errors import ChatwheelError
from chatwheel.model.transformer import CausalLM
from chatwheel.training.asynchronous import AsynchronousConfig
from chatwheel.training.grpo import GRPOConfig, GRPOObjective
from chatwheel.training.loop import Loop, read_metrics
from chatwheel.training.optimizers import OptimizerConfig
from chatwheel.training.policy import Policy
from chatwheel.training.policy_gradient import MOST_IMPORTANCE, run
from chatwheel.training.ppo import PPOConfig, PPOObjective
from chatwheel.training.rewards import Question
from chatwheel.training.rollout_workers import DEATHS, Assignment, Blueprint, LocalWorkers, weights_of
from tests.tiny import causal, tokenizer, tokens

PROMPTS = [Question(tuple(tokens(3 + 4 * i, seed=i).tolist())) for i in range(6)]
ROOT = Path(__file__).parents[2]
HERE = {"staleness": 1, "workers": 0}  # sampled as stale, by the learner itself: no processes to wait for


class PowerCutError(Exception):
    """Stands for whatever ends a process."""


class Judge:
    """Counts a token, and how long an answer is; may fail, and remembers what it saw."""

    def __init__(self, fails_in: int | None = None) -> None:
        self.fails_in = fails_in
        self.rollouts: list[list[tuple[int, ...]]] = []

    def __call__(self, _: Any, answers: Sequence[Completion]) -> Tensor:
        if len(self.rollouts) == self.fails_in:
            raise PowerCutError
        self.rollouts.append([a.token_ids for a in answers])
        return torch.tensor([a.token_ids.count(20) + 0.1 * len(a.token_ids) for a in answers])


def grpo_objective(
    directory: Path | None,
    ahead: dict[str, Any] | None,
    judge: Any = None,
    model: CausalLM | None = None,
    **changes: Any,
) -> GRPOObjective:
    values: dict[str, Any] = {
        "rollouts": 4,
        "prompts_per_rollout": 4,
        "samples_per_prompt": 2,
        "epochs": 2,
        "minibatches": 2,
        "max_tokens": 10,
        "row_length": 64,
        "optimizer": OptimizerConfig(learning_rate=3e-3),
        "precision": "float32",
        "compile": "never",
        "asynchronous": ahead,
    }
    config = GRPOConfig.model_validate(values | changes)
    return GRPOObjective(config, model or causal(), judge or Judge(), tokenizer(), PROMPTS, 3, directory=directory)


def learnt(directory: Path, ahead: dict[str, Any] | None, **more: Any) -> list[Tensor]:
    """The weights that come out."""
    objective = grpo_objective(directory, ahead, **more)
    run(objective, directory=directory)
    return [p.detach().clone() for p in objective.policy.model.parameters()]


def same(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> bool:
    return len(ours) == len(theirs) > 0 and all(map(torch.equal, ours, theirs))


def children() -> list[psutil.Process]:
    """Of this process, but for the one that Python itself keeps."""
    return [p for p in psutil.Process().children() if "resource_tracker" not in " ".join(p.cmdline())]


def without_times(directory: Path) -> list[dict[str, float]]:
    return [
        {k: v for k, v in row.items() if not k.endswith("seconds") and k != "tokens_per_second"}
        for row in read_metrics(directory)
    ]


# -- what is sampled, and when


@pytest.mark.parametrize("staleness", [0, 1, 2, 9])
def test_a_rollout_is_sampled_by_the_policy_of_exactly_so_many_rollouts_ago(staleness: int, tmp_path: Path) -> None:
    """Oracle: a learner that learns nothing new of it, and samples again with the weights kept of each beginning."""
    judge, kept = Judge(), []
    objective = grpo_objective(tmp_path, {"staleness": staleness, "workers": 0}, judge)
    collect = objective.collect

    def keeping(number: int) -> None:
        kept.append([p.detach().clone() for p in objective.policy.model.parameters()])
        collect(number)

    objective.collect = keeping  # type: ignore[method-assign]
    run(objective, directory=tmp_path)
    assert [row["staleness"] for row in read_metrics(tmp_path) if "staleness" in row] == [
        min(r, staleness) for r in range(4)
    ]
    other = grpo_objective(None, None)
    for number, answers in enumerate(judge.rollouts):
        with torch.no_grad():
            for parameter, was in zip(other.policy.model.parameters(), kept[max(0, number - staleness)], strict=True):
                parameter.copy_(was)
        completions = other.sample(number).completions
        assert [c.token_ids for c in completions] == answers
    assert not same(kept[0], kept[1])


def test_without_staleness_it_is_the_plain_run(tmp_path: Path) -> None:
    plain = learnt(tmp_path / "plain", None)
    assert same(learnt(tmp_path / "own", {"staleness": 0, "workers": 0}), plain)
    assert not same(learnt(tmp_path / "stale", HERE), plain)


@pytest.mark.parametrize(
    ("threads", "settings", "shares"),
    [
        (2, {}, (1, 1)),
        (1, {}, (1, 1)),
        (16, {"workers": 4}, (8, 2)),
        (16, {"workers": 3}, (8, 2)),
        (16, {"workers": 2, "threads": 1}, (14, 1)),
        (16, {"workers": 4, "staleness": 0}, (16, 4)),
        (16, {"workers": 0}, (16, 16)),
    ],
)
def test_learner_and_workers_share_the_threads(threads: int, settings: Any, shares: tuple[int, int]) -> None:
    assert AsynchronousConfig(**settings).shares(threads) == shares


def test_a_rollout_is_divided_by_whole_groups() -> None:
    whole = Assignment(prompts=[(i // 2,) for i in range(10)], seeds=range(10), max_tokens=3)
    for parts in range(1, 8):
        divided = whole.divided(parts, 2)
        assert len(divided) == min(parts, 5)
        assert [p for part in divided for p in part.prompts] == whole.prompts
        assert [s for part in divided for s in part.seeds] == list(whole.seeds)
        assert all(len(part.prompts) % 2 == 0 for part in divided)
        assert max(len(p.prompts) for p in divided) - min(len(p.prompts) for p in divided) <= 2


# -- what is learnt


def test_importance_is_the_formula(tmp_path: Path) -> None:
    """By hand: log-probs of a plain forward pass under the weights of then and of now."""
    objective = grpo_objective(tmp_path, HERE, epochs=1, minibatches=1, rollouts=2)
    then = causal()
    with objective.ahead.at_work():  # type: ignore[union-attr]
        objective.collect(0)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for p in objective.policy.model.parameters():
                p.add_(torch.randn(p.shape, generator=generator) * 0.1 * p.abs().mean())
        objective.collect(1)
    numbers = objective.metrics(0)
    now, reference = objective.policy.model, causal()
    ((batch,),) = objective._minibatches
    old = batch.per_token
    answers = batch.answers
    questions = [PROMPTS[i] for i in objective.order.batch(1) for _ in range(2)]
    first = 0
    targets = answers.targets.tolist()
    weights, kls, entropies, per_answer = [], [], [], []
    for question, length in zip(questions, answers.lengths, strict=True):
        said = targets[first : first + length]
        whole = torch.tensor([[*question.ids, *said]])
        states = slice(len(question.ids) - 1, whole.shape[1] - 1)
        p_then, p_now, p_ref = (
            m(whole)[0, states].log_softmax(-1).gather(-1, torch.tensor(said)[:, None])[:, 0].tolist()
            for m in (then, now, reference)
        )
        ratio = [min(math.exp(a - b), MOST_IMPORTANCE) for a, b in zip(p_now, p_then, strict=True)]
        assert old["log_probs"][first : first + length].tolist() == pytest.approx(p_now, abs=1e-4)
        assert old["importance"][first : first + length].tolist() == pytest.approx(ratio, rel=1e-3)
        weights += ratio
        per_answer.append(sum(w * (a - b) for w, a, b in zip(ratio, p_now, p_ref, strict=True)))
        kls += [math.exp(b - a) - 1 - (b - a) for a, b in zip(p_now, p_ref, strict=True)]
        entropies += [-w * a for w, a in zip(ratio, p_now, strict=True)]
        first += length
    n = len(weights)
    assert 0 < sum(w == MOST_IMPORTANCE for w in weights) < n
    assert numbers["importance"] == pytest.approx(sum(weights) / n, rel=1e-3)
    assert numbers["importance_truncated"] == pytest.approx(sum(w == MOST_IMPORTANCE for w in weights) / n, abs=1e-6)
    assert numbers["kl"] == pytest.approx(sum(per_answer) / len(per_answer), rel=1e-3)
    assert numbers["entropy"] == pytest.approx(sum(entropies) / n, rel=1e-3)
    assert "sampler_gap" not in numbers
    loss, told = objective.loss(batch)
    assert "sampler_gap" not in told
    # Nothing has moved since it was read: every ratio is 1.
    expected = sum(
        float(v) * (-float(a) + objective.controller.coefficient * k) * w
        for v, a, k, w in zip(old["weights"], old["advantages"], kls, weights, strict=True)
    )
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-3, abs=1e-6)


ARM = 20


def test_the_bandit_s_tilted_policy_is_found_from_stale_samples(tmp_path: Path) -> None:
    """pi(x) ~ pi_ref(x) exp(r(x) / beta), as in test_ppo.py, from rollouts that are two old."""
    prompt, coefficient = list(PROMPTS[0].ids), 0.4
    actor = causal(tied_embeddings=False)
    with torch.no_grad():
        hidden = actor.model(torch.tensor([prompt]))[0, -1]
        logits = actor.logits(hidden)
        others = torch.cat([logits[:ARM], logits[ARM + 1 :]]).logsumexp(-1)
        actor.lm_head.weight[ARM] += hidden * (others + math.log(0.15 / 0.85) - logits[ARM]) / hidden.square().sum()

    def probability() -> float:
        with torch.no_grad():
            return float(actor(torch.tensor([prompt]))[0, -1].softmax(-1)[ARM])

    before = probability()
    config = PPOConfig(
        rollouts=60,
        prompts_per_rollout=64,
        epochs=2,
        max_tokens=1,
        row_length=32,
        missing_end_penalty=0.0,
        critic="head",
        kl={"coefficient": coefficient, "target": None, "stop": 1e9},  # type: ignore[arg-type]
        optimizer=OptimizerConfig(learning_rate=3e-3, matrices="adamw", warmup=0.0, decay=0.7, weight_decay=0.0),
        precision="float32",
        compile="never",
        asynchronous=AsynchronousConfig(staleness=2, workers=0),
    )
    pays: Any = lambda _, answers: torch.tensor([float(a.token_ids.count(ARM)) for a in answers])  # noqa: E731
    objective = PPOObjective(config, actor, None, pays, tokenizer(), PROMPTS[:1], 0)
    run(objective, directory=tmp_path)
    tilted = before * math.exp(1 / coefficient)
    assert before == pytest.approx(0.15, abs=0.01)
    assert probability() == pytest.approx(tilted / (tilted + 1 - before), abs=0.08)
    kls = [row["kl"] for row in read_metrics(tmp_path) if "kl" in row]
    assert min(kls) > -0.05  # plain means over stale samples begin with the negative of a KL


@pytest.mark.parametrize("staleness", [1, 2])
@pytest.mark.parametrize("rollout", [0, 1, 3])
def test_a_run_interrupted_in_any_rollout_ends_the_same(
    staleness: int, rollout: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = {"staleness": staleness, "workers": 0}
    whole = learnt(tmp_path / "whole", ahead)
    assert Loop.__init__.__kwdefaults__ is not None
    monkeypatch.setitem(Loop.__init__.__kwdefaults__, "save_seconds", -1.0)
    with pytest.raises(PowerCutError):
        learnt(tmp_path / "cut", ahead, judge=Judge(fails_in=rollout))
    assert same(learnt(tmp_path / "cut", ahead), whole)
    assert without_times(tmp_path / "cut") == without_times(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        {"lora": {"rank": 4}},
        {"lora": {"rank": 4, "targets": ["q_proj", "lm_head"]}},
        {"precision": "bfloat16", "average": 0.5},
    ],
)
def test_adapters_bfloat16_and_averages_come_out_the_same_from_a_process(more: Any, tmp_path: Path) -> None:
    here = learnt(tmp_path / "here", HERE, model=causal(tied_embeddings=False), **more)
    there = learnt(tmp_path / "there", {"staleness": 1, "workers": 1}, model=causal(tied_embeddings=False), **more)
    assert same(here, there)


def test_groups_that_say_nothing_are_sampled_anew_by_the_policy_of_now(tmp_path: Path) -> None:
    """DAPO's dynamic sampling waits for the scores, so it cannot be ahead."""
    seen: list[int] = []

    def judge(_: Any, answers: Sequence[Completion]) -> Tensor:
        seen.append(len(answers))
        return torch.zeros(len(answers)) if len(answers) == 8 else torch.arange(len(answers)).float()

    run(grpo_objective(tmp_path, HERE, judge, resample=1, rollouts=2), directory=tmp_path)
    assert seen[:2] == [8, 8]


# -- in processes


def blueprint() -> Blueprint:
    config = causal().config
    return Blueprint(config=config, tokenizer=tokenizer(), dtype=torch.float32, max_running=8, lora=None, device="cpu")


def test_deaths_and_errors_are_a_line_and_the_worker_goes_on(tmp_path: Path) -> None:
    model = causal()
    workers = LocalWorkers(blueprint(), model, tmp_path / "ahead", number=1, threads=1)
    held = workers.hold(weights_of(model, trained=True))
    good = Assignment(prompts=[q.ids for q in PROMPTS], seeds=range(len(PROMPTS)), max_tokens=5)
    (dies,) = workers.answer(held, [good])
    killed: set[int] = set()
    while not dies.done():
        (process,) = workers.processes
        if process is not None and process not in killed:
            os.kill(process, signal.SIGKILL)
            killed.add(process)
        time.sleep(0.01)
    assert len(killed) == DEATHS
    with pytest.raises(ChatwheelError, match=r"died 3 times .* with fewer workers"):
        dies.result()
    (refused,) = workers.answer(held, [replace(good, prompts=[(1, 9999)], seeds=[0])])
    (well,) = workers.answer(held, [good])
    with pytest.raises(ChatwheelError) as error:
        refused.result()
    assert error.value.message == (
        "a process that samples failed: the prompt has a token that is not among the model's 400"
    )
    policy = Policy(model, tokenizer(), dtype=torch.float32, max_running=8)
    assert well.result().completions == policy.sample(good.prompts, max_tokens=5, seeds=good.seeds)
    # What is being sampled when it is closed is not waited for.
    much = replace(good, prompts=good.prompts * 200, seeds=range(1200), max_tokens=200)
    running, waiting = (workers.answer(held, [much])[0] for _ in range(2))
    time.sleep(0.3)
    assert running.running()
    workers.close()
    assert waiting.cancelled()
    with pytest.raises(ChatwheelError, match="sampling has ended"):
        running.result(timeout=0)
    assert not children()
    assert not (tmp_path / "ahead").exists()


UNGUARDED = """
import sys
from pathlib import Path
from chatwheel.training.rollout_workers import Assignment, LocalWorkers, weights_of
from tests.training.test_asynchronous import blueprint, causal

Path(sys.argv[1], "imported").open("a").write("once\\n")
model = causal()
workers = LocalWorkers(blueprint(), model, Path(sys.argv[1]) / "ahead", number=1, threads=1)
held = workers.hold(weights_of(model, trained=True))
(answer,) = workers.answer(held, [Assignment(prompts=[(5, 6)], seeds=[0], max_tokens=3)])
error = answer.exception()
assert held.exists(), "the worker that came here again has taken nothing away"
workers.close()
raise error
"""


@pytest.mark.slow
def test_a_script_without_a_guard_is_told_so(tmp_path: Path) -> None:
    """Each worker imports the script, which would start workers in turn."""
    (tmp_path / "script.py").write_text(UNGUARDED)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py"), str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 1
    assert 'which must do so below `if __name__ == "__main__":`' in done.stderr.splitlines()[-1]
    assert done.stderr.count("Traceback") == 1, "the learner's alone"
    assert (tmp_path / "imported").read_text() == "once\n" * 2, "not tried again"


LEARNER = """
import sys, time
from pathlib import Path
from tests.training.test_asynchronous import Judge, grpo_objective, run

class Slow(Judge):
    def __call__(self, questions, answers):
        Path(sys.argv[1], "judging").touch()
        time.sleep(600)

if __name__ == "__main__":
    place = Path(sys.argv[1])
    run(grpo_objective(place, {"staleness": 1, "workers": 1, "threads": 1}, Slow()), directory=place)
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_no_worker_outlives_its_learner(how: signal.Signals, tmp_path: Path) -> None:
    """The terminal's interrupt goes to all of them; a killed learner says nothing to anybody."""
    (tmp_path / "learner.py").write_text(LEARNER)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    learner = subprocess.Popen(
        [sys.executable, str(tmp_path / "learner.py"), str(tmp_path)],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not (tmp_path / "judging").exists():
        assert learner.poll() is None
        time.sleep(0.05)
    family = psutil.Process(learner.pid).children(recursive=True)
    assert any("spawn_main" in " ".join(p.cmdline()) for p in family)
    if how is signal.SIGINT:
        os.killpg(learner.pid, how)
    else:
        learner.send_signal(how)
    _, said = learner.communicate(timeout=60)
    gone, alive = psutil.wait_procs(family, timeout=20)
    assert not alive
    assert len(gone) == len(family)
    if how is signal.SIGINT:
        assert said.strip().splitlines()[-1] == "KeyboardInterrupt"
        assert said.count("Traceback") == 1  # the worker's own is not among it
        assert not (tmp_path / "ahead").exists()


@pytest.fixture(scope="module")
def by_itself(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Tensor], list[dict[str, float]]]:
    directory = tmp_path_factory.mktemp("by_itself")
    return learnt(directory, HERE), without_times(directory)


def test_two_processes_sample_what_the_learner_would_have(tmp_path: Path, by_itself: Any) -> None:
    """And one of them is killed while it samples."""
    objective = grpo_objective(tmp_path, {"staleness": 1, "workers": 2})
    killed: list[int] = []

    class Killing(Judge):
        def __call__(self, questions: Any, answers: Sequence[Completion]) -> Tensor:
            if len(self.rollouts) == 1:
                (one, _) = objective.ahead._workers.processes  # type: ignore[union-attr]
                os.kill(one, signal.SIGKILL)
                killed.append(one)
            return super().__call__(questions, answers)

    objective.reward = Killing()
    run(objective, directory=tmp_path)
    assert killed
    weights, rows = by_itself
    assert same(list(objective.policy.model.parameters()), weights)
    assert without_times(tmp_path) == rows
    assert not children()
    assert not (tmp_path / "ahead").exists()
    assert {"waiting_seconds", "sampling_seconds"} <= read_metrics(tmp_path)[0].keys()
