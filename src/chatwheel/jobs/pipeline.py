"""All stages of a recipe in order, going on at the first unfinished one; after each model, what it answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, Protocol

from chatwheel.data.mixture import FilesData
from chatwheel.data.world import Item, examination
from chatwheel.engine.engine import Engine
from chatwheel.errors import InputError
from chatwheel.evaluation.examination import EXAMINATION_SEED, answers, mark, preference
from chatwheel.evaluation.report import write_report
from chatwheel.jobs import reward_stage, stages
from chatwheel.jobs.judges import check_judges
from chatwheel.jobs.recipe import IMPROVING, SAMPLING, ArchitectureConfig, Recipe, WorldData
from chatwheel.jobs.run import Run, members
from chatwheel.jobs.watching import Command, noted, showcase
from chatwheel.model.config import ModelConfig
from chatwheel.model.layout import read_object
from chatwheel.model.transformer import CausalLM
from chatwheel.store.loading import open_model
from chatwheel.training.distributed import check_shares, ranks, wait_for_all
from chatwheel.training.dpo import DPOConfig
from chatwheel.training.guard import read_looks
from chatwheel.training.kto import KTOConfig
from chatwheel.training.loop import OnProgress, Progress, read_metrics
from chatwheel.training.pretrain import PretrainConfig
from chatwheel.training.reward import RewardConfig
from chatwheel.training.sft import SFTConfig
from chatwheel.training.tensor_parallel import check_divides

PATIENCE = 20.0  # seconds


@dataclass(frozen=True)
class Stage:
    """A stage of the wheel.

    title: what it does, in a few words. part_of: the verbs of `chatwheel train` that run it, once. needs: models that
    must be there. makes: the model that comes out. answers: whether one can talk to it. sharded: under torchrun all
    processes work on it, else the first one alone.
    """

    name: str
    title: str
    work: Callable[[Run, OnProgress], dict[str, Any]]
    part_of: tuple[str, ...]
    needs: tuple[str, ...] = ()
    makes: str | None = None
    answers: bool = False
    sharded: bool = False


STAGES = (
    Stage("data", "Preparing data", stages.make_data, ("pretrain",)),
    Stage("tokenizer", "Training the tokenizer", stages.train_tokenizer, ("pretrain",)),
    Stage("pretrain", "Pretraining: language from text", stages.pretrain_base, ("pretrain",), (), "base", True, True),
    Stage("sft", "SFT: imitating demonstrations", stages.fine_tune, ("sft",), ("base",), "sft", True, True),
    Stage("ranking", "Ranking: which answers are better", stages.rank_answers, ("reward", "dpo", "kto"), ("sft",)),
    Stage(
        "reward",
        "Reward model: what people prefer",
        reward_stage.learn_reward,
        ("reward",),
        ("sft",),
        "reward",
        sharded=True,
    ),
    Stage("ppo", "PPO: improving on the reward", stages.learn_by_ppo, ("ppo",), ("sft", "reward"), "ppo", True),
    Stage("grpo", "GRPO: better than its siblings", stages.learn_by_grpo, ("grpo",), ("sft", "reward"), "grpo", True),
    Stage("rloo", "RLOO: better than the others", stages.learn_by_rloo, ("rloo",), ("sft", "reward"), "rloo", True),
    Stage(
        "best_of_n",
        "Best of n: imitating its best",
        stages.learn_from_best,
        ("best_of_n",),
        ("sft", "reward"),
        "best_of_n",
        True,
    ),
    Stage("dpo", "DPO: learning from pairs", stages.learn_from_pairs, ("dpo",), ("sft",), "dpo", True, True),
    Stage("kto", "KTO: learning from thumbs", stages.learn_from_thumbs, ("kto",), ("sft",), "kto", True, True),
)
VERBS = ("pretrain", "sft", "reward", *IMPROVING)


def stages_of(recipe: Recipe) -> list[Stage]:
    """Those that a recipe has: without `pretrain`, a model is there already, and without `sft` it is the one that
    learns from preferences. The data is made for whatever comes first."""
    data, *others = STAGES
    chosen = []
    for stage in others:
        if verbs := tuple(verb for verb in stage.part_of if getattr(recipe, verb) is not None):
            needs = tuple(recipe.start if name == "sft" else name for name in stage.needs)
            sampling = recipe.sampling.get(stage.name)
            if sampling is not None and recipe.reward is None:  # others judge
                needs = tuple(name for name in needs if name != "reward")
            chosen.append(replace(stage, part_of=verbs, needs=needs))
    return [replace(data, part_of=chosen[0].part_of), *chosen]


class Observer(Protocol):
    """Watches a run: the command line draws it, tests count it."""

    def begin(self, stage: Stage) -> None:
        """A stage starts, or goes on."""
        ...

    def progress(self, progress: Progress) -> None:
        """A training step is done."""
        ...

    def end(self, stage: Stage, result: dict[str, Any], *, skipped: bool) -> None:
        """A stage is finished; `skipped` if it had been before."""
        ...

    def answers(self, model: str, pairs: Sequence[tuple[str, str]], result: dict[str, Any]) -> None:
        """What a new model says to the showcase prompts, and its examination, if there is one."""
        ...


def run_recipe(
    run: Run,
    observer: Observer,
    only: str | None = None,
    *,
    restart: bool = False,
    command: Command | None = None,
) -> dict[str, Any]:
    """Runs all stages, or those of one verb of `chatwheel train`; the results, by `stage:<name>` and by model.

    restart: forget what the stages of `only` have made, once nothing speaks against running them. command: what goes
    on with it, for those who watch. Writes `report.html` at the end of a whole run.
    """
    check(run, only, ranks().size)
    # Where one of several died, it takes a moment until what is left of them has let go.
    with run.locked(PATIENCE if ranks().size > 1 else 0) if ranks().first else nullcontext():
        if restart and ranks().first:
            forget(run, only)
        wait_for_all()
        with noted(run, command):
            return _run_stages(run, observer, only)


def check(run: Run, only: str | None, processes: int) -> None:
    """Raises InputError for what can be known to go wrong, before the hours of the stages before it."""
    _check_data(run, only)
    for name, sampling in run.recipe.sampling.items():
        if only in (None, name):
            check_judges(run, sampling)
    if isinstance(run.recipe.model, str) and only in (None, *_beginning(run.recipe)):
        run.base()  # downloads it, or says what is wrong with it, before any data is made
    if processes > 1 or run.recipe.tensor_parallel > 1:
        _check_processes(run, only, processes)


def forget(run: Run, only: str | None) -> None:
    """Forgets what the stages of one verb have made; what other verbs read too stays."""
    run.restart({stage.name: stage.makes for stage in stages_of(run.recipe) if stage.part_of == (only,)})


def _beginning(recipe: Recipe) -> tuple[str, ...]:
    """The verbs that begin with the run's base model."""
    return ("sft",) if recipe.sft is not None else IMPROVING


def _check_processes(run: Run, only: str | None, processes: int) -> None:
    recipe = run.recipe
    parts = {name: getattr(recipe, name) for name in VERBS}
    chosen = {name: part for name, part in parts.items() if part is not None and only in (None, name)}
    for name in SAMPLING:
        if name in chosen and processes > 1:
            raise InputError(
                f"{name} runs in one process; run the other stages in several (`chatwheel train`), and {name} in one"
            )
    for name, part in chosen.items():
        if isinstance(part, PretrainConfig | SFTConfig):
            check_shares(f"{name}.rows_per_step", part.rows_per_step, processes, recipe.tensor_parallel)
        elif isinstance(part, KTOConfig):
            check_shares(f"{name}.prompts_per_step", part.prompts_per_step, processes, recipe.tensor_parallel)
        elif isinstance(part, RewardConfig | DPOConfig):
            check_shares(f"{name}.rankings_per_step", part.rankings_per_step, processes, recipe.tensor_parallel)
    config = _model_config(run, only)
    if config is not None and not set(chosen) <= set(SAMPLING):
        check_divides(config, recipe.tensor_parallel)


def _model_config(run: Run, only: str | None) -> ModelConfig | None:
    """What is known of the model's shape before a stage begins."""
    if isinstance(run.recipe.model, ArchitectureConfig):
        assert run.recipe.tokenizer is not None
        return run.recipe.model.model_config_for(run.recipe.tokenizer.vocab_size)
    path = (run.base() if only in (None, *_beginning(run.recipe)) else run.model("sft")) / "config.json"
    # An adapter's directory may have none.
    return ModelConfig.from_hugging_face(read_object(path), where=str(path)) if path.is_file() else None


def _check_data(run: Run, only: str | None) -> None:
    """A stage that can only fail for want of data says so before the hours of those before it."""
    data = run.recipe.data
    if not isinstance(data, FilesData):
        return
    needs = {"pretrain": "documents", "sft": "demonstrations", "reward": "rankings", "dpo": "rankings"}
    for verb, kind in needs.items():
        if getattr(run.recipe, verb) is not None and only in (None, verb) and not getattr(data, kind):
            raise InputError(
                f"data.{kind} is empty, and {verb} learns from it; name a file there (`chatwheel train` runs single "
                "stages)"
            )
    if run.recipe.kto is not None and only in (None, "kto") and not data.rankings and not data.ratings:
        raise InputError("data.ratings and data.rankings are empty, and kto learns from them; name a file in one")


def _run_stages(run: Run, observer: Observer, only: str | None) -> dict[str, Any]:
    results: dict[str, Any] = {}
    stages = stages_of(run.recipe)
    if only is not None and getattr(run.recipe, only) is None:
        raise InputError(f"the recipe {run.recipe.name} has no {only}; add it, or run another stage")
    for stage in stages:
        if only is not None and only not in stage.part_of:
            continue
        for name in stage.needs:
            if not _is_made(run, name):
                raise InputError(
                    f"{stage.name} needs the model {run.recipe.name}/{name}, which is not there yet; "
                    "run the earlier stages first (`chatwheel run` runs all)"
                )
        results[f"stage:{stage.name}"] = _run_stage(run, stage, observer)
        if stage.makes is not None and stage.answers:
            results[stage.makes] = examine(run, stage.makes, observer)
    if only is None:
        if comparison := _compare(run):
            results["comparison"] = comparison
        if ranks().first:
            write_report(run.directory / "report.html", run.recipe.name, _report_data(run, results))
    return results


def _is_made(run: Run, model: str) -> bool:
    """Whether the run has finished a model. A directory alone may be what a stage that began again left there; a base
    that the recipe names is looked for when it is opened."""
    if model == "base" and isinstance(run.recipe.model, str):
        return True
    maker = next(stage for stage in STAGES if stage.makes == model)
    return run.model(model).is_dir() and run.read_json(_result(maker)) is not None


def _result(stage: Stage) -> str:
    return f"results/stage.{stage.name}.json"


def _run_stage(run: Run, stage: Stage, observer: Observer) -> dict[str, Any]:
    observer.begin(stage)
    wait_for_all()
    name = _result(stage)
    result: dict[str, Any] | None = run.read_json(name)
    skipped = result is not None
    wait_for_all()  # all have read it
    if result is None and (stage.sharded or ranks().first):
        began = time.monotonic()
        result = stage.work(run, observer.progress)
        rows = [row for directory in members(run.stage(stage.name)) for row in read_metrics(directory)]
        # Training seconds add up over interruptions; the rest of the stage counts once.
        result["seconds"] = round(max(time.monotonic() - began, sum(row["seconds"] for row in rows)), 1)
        if ranks().first:
            run.write_json(name, result)
    wait_for_all()
    result = run.read_json(name)
    if ranks().first:
        run.drop_state(stage.name)  # also when a crash fell between the two lines above
    assert result is not None
    observer.end(stage, result, skipped=skipped)
    return result


def examine(run: Run, model_name: str, observer: Observer) -> dict[str, Any]:
    """Answers the showcase prompts and sits the examination, once."""
    name = f"results/model.{model_name}.json"
    result: dict[str, Any] | None = run.read_json(name)
    wait_for_all()
    if result is None and ranks().first:
        model, tokenizer = open_model(run.model(model_name), CausalLM)
        engine = Engine(model, tokenizer, max_running=128)
        prompts = showcase(run, tokenizer, engine.context_length // 2)
        result = {"samples": list(zip([m[-1].content for m in prompts], answers(engine, prompts), strict=True))}
        items = examination_of(run)
        if items:
            prompts = [item.messages for item in items]
            greedy = answers(engine, prompts)
            sampled = answers(engine, prompts, temperature=1.0, seed=EXAMINATION_SEED)
            result |= {**mark(items, greedy), "greedy": greedy, "sampled": sampled}
        run.write_json(name, result)
    wait_for_all()
    result = result if result is not None else run.read_json(name)
    assert result is not None
    observer.answers(model_name, result["samples"], result)
    return result


def _compare(run: Run) -> dict[str, Any]:
    """How often the gold judge prefers the answer of what came after SFT to SFT's, on held-out prompts, greedy and
    sampled."""
    items, sft = examination_of(run), run.read_json("results/model.sft.json")
    if not items or sft is None:
        return {}
    shares: dict[str, float] = {}
    for name in IMPROVING:  # models of the same names
        if getattr(run.recipe, name) is not None:
            theirs = run.read_json(f"results/model.{name}.json")
            shares |= {
                f"{name}_over_sft_{how}": preference(items, theirs[how], sft[how]) for how in ("greedy", "sampled")
            }
    return shares


def examination_of(run: Run) -> list[Item]:
    """The run's held-out items; none where people's files are the data."""
    data = run.recipe.data
    if not isinstance(data, WorldData):
        return []
    return examination(EXAMINATION_SEED, data.examination, data.languages)


def _report_data(run: Run, results: dict[str, Any]) -> dict[str, Any]:
    curves = {stage.name: read_metrics(run.stage(stage.name)) for stage in STAGES}
    items = [
        {"behaviour": i.behaviour, "language": i.language, "prompt": [m.model_dump() for m in i.messages]}
        for i in examination_of(run)
    ]
    looks = {stage.name: read_looks(run.stage(stage.name)) for stage in STAGES}
    return {
        "recipe": run.read_json("recipe.json"),
        "results": results,
        "curves": curves,
        "looks": looks,
        "items": items,
    }
