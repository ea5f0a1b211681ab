"""A study of a stage that learns from its own answers, on a run's SFT and reward models: how much its result depends on
the seed, and what becomes of it when it goes too far.

Each seed is a run of its own, `NAME-METHOD-seed0` and so on, which goes on where it was when the study is killed; one
more, `NAME-METHOD-far`, is longer, with hardly anything that holds it back, and a guard that looks and never stops it.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chatwheel import __version__
from chatwheel.atomic import write_atomically
from chatwheel.data.records import write_jsonl
from chatwheel.data.world import demonstrations, prompts
from chatwheel.errors import DivergedError, InputError
from chatwheel.evaluation.examination import preference
from chatwheel.evaluation.figures import Dots, below_each_other, dots_in_rows, shown
from chatwheel.evaluation.report import BEHAVIOURS, MODELS, frontier
from chatwheel.jobs.pipeline import STAGES, Observer, examination_of, examine, run_recipe
from chatwheel.jobs.recipe import IMPROVING, SAMPLING, Recipe, WorldData
from chatwheel.jobs.run import BEGUN, Run
from chatwheel.settings import Settings
from chatwheel.training.guard import read_looks
from chatwheel.training.loop import read_metrics
from chatwheel.training.policy_gradient_config import PolicyGradientConfig
from chatwheel.training.precision import training_device
from chatwheel.training.reward_report import wilson

GIVEN = ("base", "sft", "reward")
"""Models that the studied run has made, and trials read."""
TAX = 0.02
"""A behaviour that has lost more than this share of right answers has been paid with."""
FAR_AWAY = 1000.0
"""Nats an answer at which even the run that is to go too far ends."""
WINDOW = 2
"""Rollouts before and after one over which its reward is a mean."""


@dataclass(frozen=True)
class Trial(Run):
    """A run on the models and the data of another. shared: where data is that the other has not kept."""

    of: Run
    shared: Path

    def model(self, name: str) -> Path:
        """What was given is the other run's."""
        members = self.recipe.reward.members if self.recipe.reward is not None else ()
        return self.of.model(name) if name in (*GIVEN, *members) else super().model(name)

    def data(self, name: str) -> Path:
        """The other run's, where it is there."""
        path = self.of.data(name)
        return path if path.is_file() else self.shared / path.name

    def _parent(self, name: str) -> tuple[str, str]:
        return self.of._parent(name)


@dataclass(frozen=True, kw_only=True)
class Study:
    """What to study.

    seeds: how many, from the recipe's on. far: times as many rollouts for the run that goes too far; 0 leaves it out.
    coefficient: of its KL penalty. output: where the pictures and the JSON are written.
    """

    recipe: Recipe
    settings: Settings
    method: str = "ppo"
    seeds: int = 5
    far: float = 3.0
    coefficient: float = 0.0
    output: Path = field(default_factory=lambda: Path("docs/figures"))

    def __post_init__(self) -> None:
        """Raises InputError for what cannot be studied."""
        if self.method not in SAMPLING:
            raise InputError(f"--method {self.method}: expected {', '.join(SAMPLING)}")
        if self.method not in self.recipe.sampling:
            raise InputError(f"the recipe {self.recipe.name} has no {self.method}; add it, or study another method")
        if not isinstance(self.recipe.data, WorldData):
            raise InputError(
                f"the recipe {self.recipe.name} learns from files, and the study's judge marks the world's answers; "
                "take a recipe with data.kind world"
            )
        if self.recipe.sft is None:
            raise InputError(f"the recipe {self.recipe.name} has no sft, which the study compares with")
        missing = [name for name in self._needs if not self._of.model(name).is_dir()]
        if missing:
            raise InputError(
                f"the study needs the model {self.recipe.name}/{missing[0]}, which is not there; run the recipe's "
                "earlier stages first"
            )

    @property
    def _of(self) -> Run:
        return Run(self.recipe, self.settings.runs / self.recipe.name, self.settings.models / self.recipe.name)

    @property
    def _config(self) -> PolicyGradientConfig:
        return self.recipe.sampling[self.method]

    @property
    def _needs(self) -> tuple[str, ...]:
        return ("sft", *(["reward"] if self.recipe.reward is not None else []))

    def trial(self, suffix: str, **changes: Any) -> Trial:
        """A run of its own, begun or gone on with. Raises InputError if it was begun with other settings."""
        name = f"{self.recipe.name}-{self.method}-{suffix}"
        values = json.loads(self.recipe.model_dump_json()) | {"name": name} | dict.fromkeys(IMPROVING)
        part = json.loads(self._config.model_dump_json())
        seed = changes.pop("seed", self.recipe.seed)
        recipe = Recipe.parse(values | {"seed": seed, self.method: part | changes}, where=name)
        run = Run.open(recipe, self.settings)
        of, shared = self._of, self.settings.runs / f"{self.recipe.name}-{self.method}-study" / "data"
        if (begun := of.read_json(BEGUN)) is not None:
            run.write_json(BEGUN, begun)  # templates tell the same day
        for stage in STAGES:
            if stage.makes in self._needs and run.read_json(f"results/stage.{stage.name}.json") is None:
                run.write_json(f"results/stage.{stage.name}.json", {"made_by": of.recipe.name})
        return Trial(recipe, run.directory, run.models, of, shared)

    def make_data(self, trial: Trial) -> None:
        """What the run has not kept is made again: the world is the same for the same seed."""
        data, seed = self.recipe.data, self.recipe.seed
        assert isinstance(data, WorldData)
        if not trial.data("prompts").is_file():
            items = list(prompts(seed, data.ranked_prompts + data.ppo_prompts, data.languages))[data.ranked_prompts :]
            values = (json.loads(item.model_dump_json()) | {"reference": item.answer} for item in items)
            write_jsonl(trial.data("prompts"), values)
        if self._config.ptx and not trial.data("demonstrations").is_file():
            write_jsonl(trial.data("demonstrations"), demonstrations(seed, data.demonstrations, data.languages))

    def far_changes(self) -> dict[str, Any]:
        """What lets a run go too far: no demonstrations mixed in, hardly a penalty, and more rollouts."""
        config, every = self._config, 2
        kl = json.loads(config.kl.model_dump_json())
        return {
            "rollouts": max(2, round(self.far * config.rollouts)),
            "ptx": 0.0,
            "average": 0.0,
            "kl": kl | {"coefficient": self.coefficient, "target": None, "stop": FAR_AWAY},
            "guard": {
                "judge": "gold",
                "every": every,
                "prompts": max(2, min(256, every * config.answers)),
                "patience": None,
                "keep": "last",
            },
        }


def run_study(study: Study, observer: Observer, say: Callable[[str], None]) -> dict[str, Any]:
    """Runs what is not done yet, and writes the JSON and the pictures anew after each run. The study's result."""
    first = study.trial("study")
    study.make_data(first)
    with first.locked():
        before = examine(first, "sft", observer)
        result: dict[str, Any] = {
            "study": study.method,
            "run": study.recipe.name,
            "version": __version__,
            "device": training_device().type,
            "before": _marks(before),
            "seeds": [],
            "settings": json.loads(study._config.model_dump_json()),
        }
        for seed in range(study.recipe.seed, study.recipe.seed + study.seeds):
            say(f"seed {seed}: {seed - study.recipe.seed + 1} of {study.seeds}")
            trial = study.trial(f"seed{seed}", seed=seed)
            diverged = _run(trial, study.method, observer)
            result["seeds"].append(_of_seed(trial, study.method, before, diverged))
            result["summary"] = _summary(result["before"], result["seeds"])
            _write(study, result)
        if study.far:
            say("and one that is to go too far")
            trial = study.trial("far", **study.far_changes())
            diverged = _run(trial, study.method, observer)
            result["over_optimisation"] = _of_far(trial, study.method, before, diverged)
            _write(study, result, trial)
    return result


def _run(trial: Trial, method: str, observer: Observer) -> str | None:
    """Runs the stage and examines its model. What it said if it diverged."""
    try:
        run_recipe(trial, observer, only=method)
    except DivergedError as error:
        return error.message
    return None


# -- a seed


def _marks(result: dict[str, Any]) -> dict[str, Any]:
    return {key: result[key] for key in ("n", "accuracy", "quality", "behaviours", "languages")}


def _of_seed(trial: Trial, method: str, before: dict[str, Any], diverged: str | None) -> dict[str, Any]:
    rows = [row for row in read_metrics(trial.stage(method)) if "reward" in row]
    found: dict[str, Any] = {"seed": trial.recipe.seed, "rewards": [round(row["reward"], 4) for row in rows]}
    if diverged is not None:
        return found | {"collapsed": [diverged]}
    theirs = trial.read_json(f"results/model.{method}.json")
    items = examination_of(trial)
    preferred: dict[str, dict[str, Any]] = {}
    for how in ("greedy", "sampled"):
        share = preference(items, theirs[how], before[how])
        preferred[how] = {"share": share, "interval": [round(end, 4) for end in wilson(share, len(items))]}
    last = {
        key: round(rows[-1][key], 4) for key in ("reward", "kl", "ended", "repetition", "entropy") if key in rows[-1]
    }
    stop = trial.recipe.sampling[method].kl.stop
    return {
        **found,
        **_marks(theirs),
        "preferred": preferred,
        "last_rollout": last,
        "result": trial.read_json(f"results/stage.{method}.json"),
        "collapsed": reasons_of_collapse(rows, [p["interval"] for p in preferred.values()], stop),
    }


def reasons_of_collapse(
    rows: Sequence[dict[str, float]], intervals: Sequence[Sequence[float]], stop: float | None
) -> list[str]:
    """Why a run has collapsed; nothing for one that has not. rows: of its rollouts. intervals: between which shares its
    answers are preferred to those of before, greedy and sampled. stop: the KL at which a run ends."""
    first, last = rows[0], rows[-1]
    signs = {
        "its answers are worse than before (the 95 % interval of the preference is below a half)": any(
            high < 0.5 for _, high in intervals
        ),
        "its answers end less than half as often as before": last["ended"] < first["ended"] / 2,
        "its answers repeat themselves": last["repetition"] > 0.5 >= first["repetition"],
        "it was stopped by its KL": stop is not None and last.get("kl", 0.0) > stop,
    }
    return [text for text, seen in signs.items() if seen]


def _summary(before: dict[str, Any], seeds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means and spreads over the seeds that came to an end."""
    whole = [seed for seed in seeds if "accuracy" in seed]
    collapsed = [seed["seed"] for seed in seeds if seed["collapsed"]]
    if not whole:
        return {"seeds": len(seeds), "collapsed": collapsed}
    behaviours = {
        name: spread([seed["behaviours"][name] for seed in whole]) | {"before": share}
        for name, share in before["behaviours"].items()
    }
    return {
        "seeds": len(seeds),
        "collapsed": collapsed,
        "accuracy": spread([seed["accuracy"] for seed in whole]) | {"before": before["accuracy"]},
        "preferred": {
            how: spread([seed["preferred"][how]["share"] for seed in whole]) for how in ("greedy", "sampled")
        },
        "behaviours": behaviours,
        "paid_with": [name for name, said in behaviours.items() if said["mean"] < said["before"] - TAX],
    }


def spread(values: Sequence[float]) -> dict[str, float | None]:
    """Mean, standard deviation over the seeds (of one seed none), least and most."""
    deviation = round(statistics.stdev(values), 4) if len(values) > 1 else None
    return {"mean": round(statistics.fmean(values), 4), "std": deviation, "min": min(values), "max": max(values)}


# -- too far


def _of_far(trial: Trial, method: str, before: dict[str, Any], diverged: str | None) -> dict[str, Any]:
    rewards = [row["reward"] for row in read_metrics(trial.stage(method)) if "reward" in row]
    looks = read_looks(trial.stage(method))
    found: dict[str, Any] = {
        "settings": json.loads(trial.recipe.sampling[method].model_dump_json()),
        "rewards": [round(reward, 4) for reward in rewards],
        "looks": looks,
        "diverged": diverged,
        **verdict(rewards, looks),
    }
    theirs = trial.read_json(f"results/model.{method}.json") if diverged is None else None
    if theirs is not None:
        items = examination_of(trial)
        found |= {"accuracy": theirs["accuracy"], "behaviours": theirs["behaviours"]}
        found["preferred"] = {how: preference(items, theirs[how], before[how]) for how in ("greedy", "sampled")}
    return found


def verdict(rewards: Sequence[float], looks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Whether a run was over-optimised: behind its peak the judge fell by more than two standard errors, while what was
    learnt from rose. rewards: of each rollout. looks: what the guard saw."""
    if len(looks) < 2 or not rewards:
        return {"over_optimised": False, "said": "too short to see anything"}
    peak, last = max(looks, key=lambda look: look["reward"]), looks[-1]
    at_peak, at_end = (_around(rewards, look["rollouts"]) for look in (peak, last))
    fall, error = peak["reward"] - last["reward"], (peak["error"] ** 2 + last["error"] ** 2) ** 0.5
    over = fall > 2 * error and at_end > at_peak
    numbers = (
        f"the judge {peak['reward']:.3f} after {peak['rollouts']} rollouts, {last['reward']:.3f} at the end "
        f"(±{error:.3f}); the reward {at_peak:.2f}, then {at_end:.2f}"
    )
    said = "over-optimised: " if over else "not over-optimised: "
    return {
        "over_optimised": over,
        "peak": peak,
        "end": last,
        "reward_at_peak": round(at_peak, 4),
        "reward_at_end": round(at_end, 4),
        "said": said + numbers,
    }


def _around(rewards: Sequence[float], rollout: int) -> float:
    middle = min(rollout, len(rewards) - 1)
    return statistics.fmean(rewards[max(0, middle - WINDOW) : middle + WINDOW + 1])


# -- what is written


def _write(study: Study, result: dict[str, Any], far: Trial | None = None) -> None:
    method, output = study.method, study.output
    output.mkdir(parents=True, exist_ok=True)
    files = {f"{method}-study.json": json.dumps(result, ensure_ascii=False, indent=1)}
    if "accuracy" in result["summary"]:
        files[f"{method}-seeds.svg"] = picture_of_seeds(method, result)
    if far is not None:
        charts = frontier(method, read_metrics(far.stage(method)), read_looks(far.stage(method)))
        if shown(charts):
            title = f"{MODELS[method]} that goes too far"
            said = result["over_optimisation"]["said"].replace(": ", "; ").split("; ")
            files[f"{method}-over-optimisation.svg"] = below_each_other(title, charts, said)
    for name, text in files.items():
        write_atomically(output / name, [text.encode()])


def picture_of_seeds(method: str, result: dict[str, Any]) -> str:
    """Preferences and the examination, a dot a seed. result: of `run_study`."""
    summary, whole = result["summary"], [seed for seed in result["seeds"] if "accuracy" in seed]

    def said(numbers: dict[str, Any]) -> str:
        deviation = "" if numbers["std"] is None else f" ± {numbers['std'] * 100:.1f}"
        return f"{numbers['mean'] * 100:.1f}{deviation} %"

    preferred = [
        Dots(
            name=how,
            shares=[seed["preferred"][how]["share"] for seed in whole],
            before=0.5,
            intervals=[tuple(seed["preferred"][how]["interval"]) for seed in whole],
            said=said(summary["preferred"][how]),
        )
        for how in ("greedy", "sampled")
    ]
    right = [
        Dots(
            name="all questions",
            shares=[seed["accuracy"] for seed in whole],
            before=summary["accuracy"]["before"],
            said=said(summary["accuracy"]),
        ),
        *(
            Dots(
                name=BEHAVIOURS[name][0].lower() if name in BEHAVIOURS else name,
                shares=[seed["behaviours"][name] for seed in whole],
                before=numbers["before"],
                said=said(numbers),
            )
            for name, numbers in summary["behaviours"].items()
        ),
    ]
    collapsed = summary["collapsed"]
    fate = f"collapsed: {', '.join(map(str, collapsed))}" if collapsed else "none collapsed"
    return dots_in_rows(
        f"{MODELS[method]} with {len(result['seeds'])} seeds, {fate}",
        [("Preferred to SFT by the gold judge", preferred), ("Examination questions answered rightly", right)],
        "a dot a seed, with its 95 % interval; bar: mean, diamond: SFT (or a draw), ±: standard deviation",
    )
