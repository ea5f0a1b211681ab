"""Who judges at the gate: a reward model that has learnt from rankings of other prompts than the one that PPO pleased.

A policy learns to please its reward model, also where that errs; a judge that made the same errors would praise them
(Gao et al., 2023, "Scaling laws for reward model overoptimization", measure with a gold model for this reason).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from chatwheel.data.records import Message, Ranking, read_records
from chatwheel.feedback.significance import mean_interval
from chatwheel.jobs.opening import opened
from chatwheel.jobs.run import Run
from chatwheel.model.checkpoint import save_model
from chatwheel.model.transformer import CausalLM, ScalarModel
from chatwheel.training.loop import OnProgress
from chatwheel.training.precision import compute_dtype
from chatwheel.training.reward import encode_rankings, score, train_reward

Judge = Callable[[Sequence[Sequence[Message]], Sequence[str]], list[float]]
"""Prompts and an answer to each; how good each answer is, on any scale."""
SEED = 7919
"""Added to the turn's: the judge sees its rankings in another order and begins with other dropout."""


def learn_judge(run: Run, rankings: Path, on_progress: OnProgress = lambda _: None) -> tuple[Path, dict[str, Any]]:
    """Trains the judge, once; its directory, which is no model of the registry, and how well it tells held-out
    rankings: how many there are, accuracy and its interval. Goes on where a killed turn left it. Raises InputError."""
    config = run.recipe.reward
    assert config is not None
    directory, name = run.stage("judge") / "model", "results/judge.json"
    known: dict[str, Any] | None = run.read_json(name)
    if known is not None and directory.is_dir():
        return directory, known
    start, tokenizer = opened(run, run.base(), CausalLM)
    config = config.model_copy(update={"ensemble": 1, "lora": None})
    encoded, _ = encode_rankings(read_records(rankings, Ranking), tokenizer, config.row_length, margin=config.margin)
    model, _ = train_reward(
        config, start, encoded, directory=run.stage("judge"), seed=run.recipe.seed + SEED, on_progress=on_progress
    )
    assert model is not None
    save_model(directory, model, tokenizer, {"stage": "reward", "run": run.recipe.name})
    known = {"rankings": len(encoded), **_accuracy(reward_judge(run, directory), run)}
    run.write_json(name, known)
    run.drop_state("judge")
    return directory, known


def reward_judge(run: Run, directory: Path) -> Judge:
    """A reward model as the judge."""
    config = run.recipe.reward
    assert config is not None
    model, tokenizer = opened(run, directory, ScalarModel)
    dtype = compute_dtype(config.precision, model.model.device.type)

    def judge(prompts: Sequence[Sequence[Message]], answers: Sequence[str]) -> list[float]:
        conversations = (
            [*(m.model_dump() for m in prompt), {"role": "assistant", "content": answer}]
            for prompt, answer in zip(prompts, answers, strict=True)
        )
        ids = [found.tolist()[: config.row_length] for found, _ in tokenizer.encode_conversations(conversations)]
        return [float(value) for value in score(model, ids, config.row_length, dtype)]

    return judge


def told_right(judge: Judge, rankings: Iterable[Ranking]) -> list[float]:
    """Of each ranking that has pairs, the share of them that the judge puts in the ranking's order, ties being half."""
    prompts: list[Sequence[Message]] = []
    answers: list[str] = []
    places: list[tuple[int, Ranking]] = []
    for ranking in rankings:
        if ranking.pairs():
            places.append((len(answers), ranking))
            answers += ranking.answers
            prompts += [ranking.messages] * len(ranking.answers)
    scores = judge(prompts, answers) if answers else []
    shares = []
    for begin, ranking in places:
        said = [_sooner(scores[begin + i], scores[begin + j]) for i, j in ranking.pairs()]
        shares.append(sum(said) / len(said))
    return shares


def _sooner(one: float, other: float) -> float:
    return 0.5 if math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-9) else float(one > other)


def _accuracy(judge: Judge, run: Run) -> dict[str, Any]:
    """Of the turn's held-out rankings."""
    path = run.data("rankings.held_out")
    shares = told_right(judge, read_records(path, Ranking) if path.is_file() else ())
    if not shares:
        return {"held_out": 0, "accuracy": None, "interval": [0.0, 1.0]}
    low, high = mean_interval(shares)
    accuracy = sum(shares) / len(shares)
    return {"held_out": len(shares), "accuracy": round(accuracy, 4), "interval": [round(low, 4), round(high, 4)]}


def preferences(
    judge: Judge, prompts: Sequence[Sequence[Message]], ours: Sequence[str], theirs: Sequence[str]
) -> Iterator[float]:
    """1 where the judge puts ours first, 0 where theirs, 0.5 where they are the same."""
    scores = judge([*prompts, *prompts], [*ours, *theirs])
    for a, b, our, their in zip(ours, theirs, scores[: len(ours)], scores[len(ours) :], strict=True):
        same = a.strip() == b.strip() or math.isclose(our, their, rel_tol=1e-9, abs_tol=1e-9)
        yield 0.5 if same else float(our > their)
