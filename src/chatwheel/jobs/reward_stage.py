"""The reward stage of a recipe: one model or an ensemble, and how far it can be trusted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from chatwheel.data.records import (
    Demonstration,
    Ranking,
    read_records,
)
from chatwheel.errors import InputError
from chatwheel.jobs.opening import opened
from chatwheel.jobs.recipe import WorldData
from chatwheel.jobs.run import Run
from chatwheel.jobs.watching import watch_rewards
from chatwheel.model.checkpoint import save_model
from chatwheel.model.lora import LoRAConfig, save_adapter
from chatwheel.model.tokenizer import Tokenizer
from chatwheel.model.transformer import CausalLM, ScalarModel
from chatwheel.training.loop import OnProgress, part_of
from chatwheel.training.reward import (
    EncodedRanking,
    demonstration_rewards,
    encode_rankings,
    pair_accuracy,
    train_reward,
)
from chatwheel.training.reward_report import (
    Judged,
    Pairs,
    accuracy,
    disagreement,
    form_probe,
    judged_by,
    measured,
    scorer,
)
from chatwheel.training.samples import Watch

SCALE_DEMONSTRATIONS = 400  # on which the reward becomes 0 and 1


def learn_reward(run: Run, on_progress: OnProgress) -> dict[str, Any]:
    """A reward model from the rankings, whole or as an adapter on the SFT model, or several of them; demonstrations
    score 0. What is known of it is measured on rankings that are held out."""
    config, seed = run.recipe.reward, run.recipe.seed
    assert config is not None
    length = config.row_length
    start, tokenizer = opened(run, run.model("sft"), CausalLM)
    encoded, dropped = encode_rankings(
        read_records(run.data("rankings"), Ranking),
        tokenizer,
        length,
        margin=config.margin,
        labellers=config.labellers,
    )
    watch = watch_rewards(run, tokenizer, config.precision, length)
    made: list[_Made] = []
    for member, name in enumerate(config.members):
        if member:  # an adapter changes the model that it is on
            start, _ = opened(run, run.model("sft"), CausalLM)
        model, metrics = train_reward(
            config,
            start,
            encoded,
            directory=run.stage(name),
            seed=seed,
            member=member,
            tensor_parallel=run.recipe.tensor_parallel,
            on_progress=part_of(on_progress, member, config.ensemble),
            watch=watch if not member else Watch(peak=watch.peak),
        )
        if model is None:
            continue
        made.append(_measured(run, model, tokenizer, length, {"loss": metrics.get("loss"), "dropped": dropped}))
        if member:  # the first one says what is known of all of them: it waits
            _save_reward(run, name, config.lora, made[-1], tokenizer)
            made[-1] = replace(made[-1], model=None)
    if not made:
        return {}
    first = made[0]
    if config.ensemble > 1:
        deviations = [one.summary["reward_scale"]["std"] for one in made]
        together = disagreement([one.judged for one in made], deviations)
        first = replace(first, summary={**first.summary, "ensemble": together})
    _save_reward(run, config.members[0], config.lora, first, tokenizer)
    return first.summary


@dataclass(frozen=True)
class _Made:
    """A reward model, its scores of the rankings that are held out, and what is known of it."""

    model: ScalarModel | None
    judged: list[Judged]
    summary: dict[str, Any]


def _measured(run: Run, model: ScalarModel, tokenizer: Tokenizer, length: int, learnt: dict[str, Any]) -> _Made:
    """What is known of a reward model: `learnt`, and what is measured on rankings that are held out."""
    judged = judged_by(model, read_records(run.data("rankings.held_out"), Ranking), tokenizer, length)
    sample = [
        d
        for d, _ in zip(
            read_records(run.data("demonstrations"), Demonstration), range(SCALE_DEMONSTRATIONS), strict=False
        )
    ]
    mean, std = demonstration_rewards(model, sample, tokenizer, length)
    leads = Pairs.of(judged).lead
    summary = {
        "loss": learnt["loss"],
        "pair_accuracy": round(accuracy(leads), 4) if len(leads) else None,
        "pairs": len(leads),
        **_sampled_pair_accuracy(run, model, tokenizer, length),
        "dropped": learnt["dropped"],
        "reward_scale": {"mean": mean, "std": std},
        **measured(judged),
    }
    if form := form_probe(judged, scorer(model, tokenizer, length)):
        summary["form"] = form
    return _Made(model, judged, summary)


def _save_reward(run: Run, name: str, lora: LoRAConfig | None, made: _Made, tokenizer: Tokenizer) -> None:
    assert made.model is not None
    lineage = run.lineage("reward", parents=["sft"], data=["rankings"], metrics=made.summary)
    if lora is None:
        save_model(run.model(name), made.model, tokenizer, lineage)
    else:  # the SFT model may be an adapter in turn
        base = str(run.model("sft").absolute())
        save_adapter(run.model(name), made.model, lora, tokenizer, base=base, lineage=lineage)


def _sampled_pair_accuracy(run: Run, model: ScalarModel, tokenizer: Tokenizer, length: int) -> dict[str, Any]:
    """The same among the sampled answers alone, where a written one was ranked among them: that one is easier to tell
    from the others than they are from each other, and PPO compares only what is sampled."""
    if not (isinstance(run.recipe.data, WorldData) and run.recipe.ranking.reference):
        return {}
    held_out = _held_out_rankings(run, tokenizer, length, answers=run.recipe.ranking.answers)
    if not held_out:
        return {}
    accuracy = pair_accuracy(model, held_out, length)
    return {"sampled_pair_accuracy": round(accuracy, 4), "sampled_pairs": sum(len(r.pairs) for r in held_out)}


def _held_out_rankings(run: Run, tokenizer: Tokenizer, length: int, answers: int) -> list[EncodedRanking]:
    """Those that can be scored, with their first answers only; a small run, or one that keeps all rankings for
    training, may have none."""
    rankings = [
        ranking.model_copy(
            update={"answers": ranking.answers[:answers], "ranks": ranking.ranks[:answers], "scores": None}
        )
        for ranking in read_records(run.data("rankings.held_out"), Ranking)
    ]
    try:
        return encode_rankings(rankings, tokenizer, length)[0]
    except InputError:
        return []
