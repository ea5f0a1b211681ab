"""Who judges at the gate: a reward model that has learnt from rankings of other prompts than the one that PPO pleased.

A policy learns to please its reward model, also where that errs; a judge that made the same errors would praise them
(Gao et al., 2023, "Scaling laws for reward model overoptimization", measure with a gold model for this reason).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from chatwheel.data.records import Message, Ranking, read_records
from chatwheel.errors import InputError
from chatwheel.feedback.significance import NORMAL, share_interval
from chatwheel.jobs.opening import opened
from chatwheel.jobs.run import Run
from chatwheel.model.checkpoint import save_model
from chatwheel.model.tokenizer import Tokenizer
from chatwheel.model.transformer import CausalLM, ScalarModel
from chatwheel.training.loop import OnProgress
from chatwheel.training.precision import compute_dtype
from chatwheel.training.reward import EncodedRanking, encode_rankings, pair_accuracy, score, train_reward

Judge = Callable[[Sequence[Sequence[Message]], Sequence[str]], list[float]]
"""Prompts and an answer to each; how good each answer is, on any scale."""
SEED = 7919
"""Added to the turn's: the judge sees its rankings in another order and begins with other dropout."""


def learn_judge(run: Run, rankings: Path, on_progress: OnProgress = lambda _: None) -> tuple[Path, dict[str, Any]]:
    """Trains the judge, once; its directory, which is no model of the registry, and how well it tells held-out
    rankings: pairs, accuracy and its interval. Goes on where a killed turn left it. Raises InputError."""
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
    known = {"rankings": len(encoded), **_accuracy(model, _held_out(run, tokenizer, config.row_length), config)}
    save_model(directory, model, tokenizer, {"stage": "reward", "run": run.recipe.name, "metrics": known})
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


def _held_out(run: Run, tokenizer: Tokenizer, length: int) -> list[EncodedRanking]:
    with suppress(InputError):  # all of them too long, or none
        return encode_rankings(read_records(run.data("rankings.held_out"), Ranking), tokenizer, length)[0]
    return []


def _accuracy(model: ScalarModel, rankings: list[EncodedRanking], config: Any) -> dict[str, Any]:
    pairs = sum(len(ranking.pairs) for ranking in rankings)
    if not pairs:
        return {"pairs": 0, "accuracy": None, "interval": [0.0, 1.0]}
    accuracy = pair_accuracy(model, rankings, config.row_length)
    # Pairs of one ranking depend on each other: as many independent ones as there are rankings, at least.
    low, high = share_interval(accuracy, max(1, len(rankings)), NORMAL.inv_cdf(0.975))
    return {"pairs": pairs, "accuracy": round(accuracy, 4), "interval": [round(low, 4), round(high, 4)]}


def preferences(
    judge: Judge, prompts: Sequence[Sequence[Message]], ours: Sequence[str], theirs: Sequence[str]
) -> Iterator[float]:
    """1 where the judge puts ours first, 0 where theirs, 0.5 where they are the same."""
    scores = judge([*prompts, *prompts], [*ours, *theirs])
    for a, b, our, their in zip(ours, theirs, scores[: len(ours)], scores[len(ours) :], strict=True):
        same = a.strip() == b.strip() or math.isclose(our, their, rel_tol=1e-9, abs_tol=1e-9)
        yield 0.5 if same else float(our > their)
