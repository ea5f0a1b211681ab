"""report.html: one run of the wheel on one page that needs nothing else: no script, no font, no network."""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from chatwheel.atomic import write_atomically
from chatwheel.data.world.items import SIGNATURE
from chatwheel.evaluation.charts import LineChart, draw, finite, real
from chatwheel.evaluation.reward_view import reward_view
from chatwheel.training.diagnosis import Finding, diagnose
from chatwheel.training.reward_report import wilson

MODELS = {
    **{"base": "Base", "sft": "SFT", "ppo": "PPO", "grpo": "GRPO", "rloo": "RLOO", "best_of_n": "Best of n"},
    **{"dpo": "DPO", "kto": "KTO"},
}
SAMPLING = ("ppo", "grpo", "rloo", "best_of_n")
IMPROVED = (*SAMPLING, "dpo", "kto")
BEHAVIOURS = {
    "follow_up": ("Follow-up questions", "uses what was said before"),
    "mistakes": ("Admits mistakes", "takes back a wrong answer when told"),
    "false_premise": ("Challenges false premises", "does not go along with an untrue assumption"),
    "refusal": ("Declines harm", "refuses what would hurt somebody"),
    "facts": ("Facts", "tells what its text said"),
    "arithmetic": ("Arithmetic", "small sums"),
    "words": ("Words", "letters, order, translation"),
    "reading": ("Reading", "answers from a given text"),
    "summary": ("Summary", "says it shorter"),
    "lists": ("Lists", "gives what was asked, as many as asked"),
    "small_talk": ("Small talk", "greetings, feelings, who it is"),
    "unknown": ("Says it does not know", "where nothing could be known"),
}
LANGUAGES = {"en": "English", "zh": "中文 Chinese"}
NUM_SAMPLED_ITEMS = 60
LONGEST_TEXT = 1500


def write_report(path: Path, name: str, data: dict[str, Any]) -> None:
    """Writes the page of the run `name`, whole or not at all.

    data: "recipe"; "results", by "stage:<stage>" what a stage returned and by model its answers and examination;
    "curves", by stage the lines of its metrics; "looks", by stage what its guard saw; "items", the examination.
    Whatever is missing is left out of the page.
    """
    write_atomically(path, [render(name, data).encode("utf-8", errors="replace")])


def render(name: str, data: Mapping[str, Any]) -> str:
    """The page as text."""
    template = resources.files("chatwheel.evaluation").joinpath("report.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"percent": percent, "signed": signed, "duration": duration, "count": count, "cut": cut}
    return environment.from_string(template).render(name=name, **_view(data))


def _view(data: Mapping[str, Any]) -> dict[str, Any]:
    recipe, curves, items = data.get("recipe") or {}, data.get("curves") or {}, data.get("items") or []
    results = {key: value for key, value in (data.get("results") or {}).items() if value}
    models = {key: title for key, title in MODELS.items() if key in results}
    stages = _stages(results, curves)
    return {
        "facts": _facts(results, curves),
        "accuracies": {key: a for key in models if (a := real(results[key].get("accuracy"))) is not None},
        "bits_per_byte": _reals(results.get("stage:pretrain", {}).get("bits_per_byte")),
        "num_items": max((real(results[key].get("n")) or 0 for key in models), default=0),
        "total_seconds": sum(s.seconds or 0 for s in stages.values()) or None,
        "parameters": real(results.get("stage:pretrain", {}).get("parameters")),
        "seed": recipe.get("seed"),
        "kind": (recipe.get("data") or {}).get("kind"),
        "stages": stages,
        "charts": _charts(recipe, curves, data.get("looks") or {}),
        "titles": MODELS,
        "judged_by_own": {name: judged_by_own(recipe, name) for name in SAMPLING},
        "guards": {name: _guard_note(results.get(f"stage:{name}", {})) for name in SAMPLING},
        "diagnoses": _diagnoses(recipe, curves),
        "pair_accuracy": real(results.get("stage:reward", {}).get("pair_accuracy")),
        "reward": reward_view(results.get("stage:reward", {}), _describe),
        "models": models,
        "groups": _examination(results, models, items),
        "showcase": _showcase(results, models),
        "sampled": _sampled(results, models, items),
        "languages": LANGUAGES,
        "counts": _counts(results),
        "recipe": _as_yaml(recipe),
        "returned": _as_yaml({key: value for key, value in results.items() if key.startswith("stage:")}),
    }


# -- numbers as text


def _reals(values: Any) -> dict[str, float]:
    pairs = ((str(key), real(value)) for key, value in values.items()) if isinstance(values, Mapping) else ()
    return {key: value for key, value in pairs if value is not None}


def percent(share: float | None) -> str:
    """0.7025 -> 70.3 %, which no line break tears apart."""
    return "—" if share is None else f"{share * 100 + 1e-9:.1f}\N{NO-BREAK SPACE}%"


def signed(value: float | None, places: int = 2) -> str:
    """With its sign, and a minus sign that is one: −0.25."""
    return "—" if value is None else f"{value:+.{places}f}".replace("-", "−")


def duration(seconds: float | None) -> str:
    """Seconds in the two largest units that fit."""
    if seconds is None:
        return "—"
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    if whole < 60:
        text = f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    else:
        text = f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def count(value: float | None) -> str:
    """A number of things: 4,210; large ones as 3.15 million."""
    if value is None:
        return "—"
    return f"{value / 1e6:.2f} million" if value >= 1e6 else f"{value:,.0f}"


def cut(text: object) -> str:
    """Text that a page can bear; what is cut off is marked."""
    whole = str(text)
    return whole if len(whole) <= LONGEST_TEXT else whole[:LONGEST_TEXT] + "…"


def _counts(results: Mapping[str, Any]) -> dict[str, str]:
    """How many records each model learnt from, as text; empty where it is not known."""
    known = _reals(results.get("stage:data")) | _reals(results.get("stage:ranking"))
    names = ("documents", "demonstrations", "rankings", "prompts")
    return {name: count(known[name]) if name in known else "" for name in names}


def _as_yaml(value: Mapping[str, Any]) -> str:
    plain = json.loads(json.dumps(value, default=str))
    return yaml.safe_dump(plain, allow_unicode=True, sort_keys=False, width=110) if plain else ""


# -- the headline


@dataclass(frozen=True)
class Fact:
    """A number of the headline: what it is, the number, and what to hold it against."""

    title: str
    value: str
    note: str


def _facts(results: Mapping[str, Any], curves: Mapping[str, Any]) -> list[Fact]:
    reward, comparison = results.get("stage:reward", {}), results.get("comparison", {})
    facts = []
    if (accuracy := real(reward.get("pair_accuracy"))) is not None:
        pairs = f"of {count(reward['pairs'])} held-out pairs" if real(reward.get("pairs")) else "of held-out pairs"
        note = f"{pairs} ordered as the labellers did"
        if (ends := reward_view(reward, _describe).interval) is not None:
            note += f"; 95 %: {percent(ends[0])} to {percent(ends[1])}"
        if (sampled := real(reward.get("sampled_pair_accuracy"))) is not None:
            note += f"; among sampled answers alone: {percent(sampled)}"
        facts.append(Fact("Reward model agrees", percent(accuracy), note))
    for name in IMPROVED:
        if (greedy := real(comparison.get(f"{name}_over_sft_greedy"))) is not None:
            drawn = real(comparison.get(f"{name}_over_sft_sampled"))
            note = "of greedy answers; 50 % is a draw" + (f"; sampled: {percent(drawn)}" if drawn is not None else "")
            facts.append(Fact(f"{MODELS[name]} preferred to SFT", percent(greedy), note))
    kls = [kl for row in curves.get("ppo") or [] if (kl := real(row.get("kl"))) is not None]
    if kls:
        facts.append(Fact("KL at the end", f"{kls[-1]:.2f} nats", "an answer: how far PPO has moved from SFT"))
    return facts


# -- the wheel


@dataclass(frozen=True)
class StageView:
    """A stage on the wheel: `number` is its main result, in few characters, and `unit` what that counts."""

    title: str
    text: str
    seconds: float | None = None
    number: str = ""
    unit: str = ""
    steps: int = 0
    tokens_per_second: float | None = None


STAGES = {
    "data": StageView("Data", "Texts, demonstrations and prompts are made ready."),
    "tokenizer": StageView("Tokenizer", "Text becomes pieces that occur often."),
    "pretrain": StageView("Pretraining", "A network learns to go on with text, one token at a time."),
    "sft": StageView("SFT", "It imitates demonstrations: it becomes an assistant."),
    "ranking": StageView("Ranking", "Several answers to each prompt are put in order of preference."),
    "reward": StageView("Reward model", "A second network learns which answers are preferred."),
    "ppo": StageView("PPO", "The assistant practises against the reward model, kept near where it began by KL."),
    "grpo": StageView("GRPO", "The assistant learns which of its answers to a prompt are better than the others."),
    "rloo": StageView(
        "RLOO", "The assistant learns from each of its answers, the others to the prompt for comparison."
    ),
    "best_of_n": StageView("Best of n", "The assistant imitates the best of its own answers."),
    "dpo": StageView("DPO", "SFT's model learns from pairs of ranked answers at once, without a reward model."),
    "kto": StageView("KTO", "SFT's model learns from answers that are good or bad, each by itself."),
}
OTHER_WAYS = IMPROVED[1:]
"""Stages that most runs do not have; those do not show them."""


def _stages(results: Mapping[str, Any], curves: Mapping[str, Any]) -> dict[str, StageView]:
    views = {}
    for name, stage in STAGES.items():
        result = results.get(f"stage:{name}", {})
        if name in OTHER_WAYS and not result:
            continue
        number, unit = _main_number(name, result, results)
        speeds = [s for row in curves.get(name) or [] if (s := real(row.get("tokens_per_second")))]
        views[name] = replace(
            stage,
            seconds=real(result.get("seconds")),
            number=number,
            unit=unit,
            steps=len(curves.get(name) or []),
            tokens_per_second=statistics.median(speeds) if speeds else None,
        )
    return views


def _main_number(name: str, result: Mapping[str, Any], results: Mapping[str, Any]) -> tuple[str, str]:
    accuracy = real(results.get(name, {}).get("accuracy")) if name in MODELS else None
    if accuracy is not None:
        return percent(accuracy), "right"
    if name == "reward" and (pairs := real(result.get("pair_accuracy"))) is not None:
        return percent(pairs), "of pairs"
    counted = {"data": "documents", "tokenizer": "vocab_size", "ranking": "rankings"}.get(name)
    if counted and (number := real(result.get(counted))) is not None:
        return count(number), "pieces" if name == "tokenizer" else counted
    loss = real(result.get("loss"))
    return ("", "") if loss is None or name in SAMPLING else (f"{loss:.2f}", "loss")


# -- the curves


def _charts(recipe: Mapping[str, Any], curves: Mapping[str, Any], looks: Mapping[str, Any]) -> dict[str, Markup]:
    """The charts that have something to show, by "<stage>-<metric>"."""

    def chart(stage: str, metric: str, title: str, unit: str, **options: Any) -> LineChart:
        points = _points(curves.get(stage), lambda row: row.get("step"), lambda row: row.get(metric))
        return LineChart(
            **{"name": f"{stage}-{metric}", "title": title, "x_label": "step", "y_label": unit, "points": points}
            | options
        )

    zero = (0.0, "average demonstration")

    def of_own_answers(stage: str) -> tuple[LineChart, ...]:
        target = real(((recipe.get(stage) or {}).get("kl") or {}).get("target"))
        held = target and (target, f"target: {target:g}")
        return (
            chart(stage, "reward", "Reward", "reward", reference=zero if judged_by_own(recipe, stage) else None),
            chart(stage, "kl", "KL", "nats an answer", low=0.0, reference=held),
            chart(stage, "kl_coefficient", "Coefficient of the KL penalty", "coefficient", height=130.0),
            *frontier(stage, curves.get(stage), looks.get(stage)),
            chart(stage, "entropy", "Entropy", "nats a token", low=0.0),
            chart(stage, "answer_tokens", "Length of answers", "tokens"),
            chart(stage, "ended", "Share of answers that ended", "ended", height=130.0, **share),
        )

    share: dict[str, Any] = {"percent": True, "high": 1.0}
    charts = (
        chart("pretrain", "loss", "Loss of pretraining", "nats a token"),
        chart("sft", "loss", "Loss of SFT", "nats a token"),
        chart("reward", "loss", "Loss of the reward model", "nats a pair", reference=(math.log(2), "ln 2: a guess")),
        chart("reward", "pair_accuracy", "Pairs in order", "pairs in order", reference=(0.5, "a guess"), **share),
        *(drawn for stage in SAMPLING for drawn in of_own_answers(stage)),
        chart("dpo", "margin", "Margin of DPO", "beta x nats", reference=(0.0, "the reference")),
        chart("dpo", "pair_accuracy", "Pairs in order", "pairs in order", reference=(0.5, "a guess"), **share),
        chart("kto", "margin", "Margin of KTO", "beta x nats", reference=(0.0, "the reference")),
        chart("kto", "kl", "KL", "nats an answer", low=0.0),
        chart("ppo", "explained_variance", "Explained variance", "share", high=1.0, reference=(0.0, "their mean")),
    )
    return {chart.name: Markup(image) for chart in charts if (image := draw(chart))}


def judged_by_own(recipe: Mapping[str, Any], stage: str) -> bool:
    """Whether only the run's reward model judges, whose 0 is the average demonstration."""
    return not (recipe.get(stage) or {}).get("rewards")


def frontier(stage: str, rows: Any, looks: Any) -> list[LineChart]:
    """What is learnt from, and below it the guard's judge, each against √KL over the same stretch of it, with the
    judge's peak marked in both. rows: of metrics. looks: what a guard saw; without them there is no second chart."""
    bought = _points(rows, lambda row: _root(row.get("kl")), lambda row: row.get("reward"))
    seen = finite(_points(looks, lambda look: _root(look.get("kl")), lambda look: look.get("reward")))
    both = [x for x, _ in finite([*bought, *seen])]
    across = (min(both), max(both)) if seen else None
    mark = (max(seen, key=lambda point: point[1])[0], "the judge's peak") if seen else None
    shared: dict[str, Any] = {"x_label": "√KL", "across": across, "mark": mark}
    charts = [
        LineChart(name=f"{stage}-frontier", title="Reward against √KL", y_label="reward", points=bought, **shared),
        LineChart(
            name=f"{stage}-held_out",
            title="Held-out judge against √KL",
            y_label="held-out judge",
            points=seen,
            **shared,
        ),
    ]
    return charts if seen else charts[:1]


def _guard_note(result: Mapping[str, Any]) -> str:
    """Which weights a guarded stage ended with, in words."""
    peak, rollouts = real(result.get("peak_held_out_reward")), real(result.get("peak_rollouts"))
    if peak is None or rollouts is None:
        return ""
    stopped = "the run stopped behind it" if result.get("stopped_behind_peak") else "the run went on to its end"
    seconds, whole = real(result.get("guard_seconds")), real(result.get("seconds"))
    cost = f" Looking took {percent(seconds / whole)} of the time." if seconds is not None and whole else ""
    peaked = f"its peak, {peak:.3g}, was after {rollouts:g} rollouts; {stopped}"
    return f"Below, a judge that nothing is learnt from: {peaked}.{cost}"


def _diagnoses(recipe: Mapping[str, Any], curves: Mapping[str, Any]) -> dict[str, list[Finding]]:
    """What looks wrong in each stage that learnt from its own answers, perhaps nothing, by the stage's title."""
    diagnoses = {}
    for name in SAMPLING:
        rows = [
            {key: number for key, value in row.items() if (number := real(value)) is not None}
            for row in curves.get(name) or []
        ]
        if found := diagnose((row for row in rows if "step" in row), recipe.get(name) or {}):
            diagnoses[MODELS[name]] = [finding for finding in found if finding.level == "warning"]
    return diagnoses


Read = Callable[[Mapping[str, Any]], Any]


def _points(rows: Iterable[Mapping[str, Any]] | None, x: Read, y: Read) -> list[tuple[float, float]]:
    """Pairs of numbers, NaN among them, from the rows that have both."""
    pairs = ((x(row), y(row)) for row in rows or ())
    return [(float(a), float(b)) for a, b in pairs if isinstance(a, int | float) and isinstance(b, int | float)]


def _root(kl: Any) -> float | None:
    # An estimate of KL from samples can fall below zero.
    return None if (value := real(kl)) is None else math.sqrt(max(0.0, value))


# -- the examination


@dataclass(frozen=True)
class Row:
    """A row of the table: the share that each model got right, None where there is none. interval: 95 %, of each."""

    title: str
    note: str
    signature: bool
    n: int | None
    shares: Sequence[float | None]

    def interval(self, share: float) -> tuple[float, float]:
        """Between which shares the true one lies with 95 % (Wilson, 1927)."""
        return wilson(share, self.n or 1)


def _examination(
    results: Mapping[str, Any], models: Iterable[str], items: Sequence[Mapping[str, Any]]
) -> list[tuple[str, list[Row]]]:
    """Rows in groups: all, behaviours (the signature ones first), languages. Empty without an examination."""
    examined = [results[key] for key in models]
    if not any(real(result.get("accuracy")) is not None for result in examined):
        return []
    n = next((int(result["n"]) for result in examined if real(result.get("n"))), None)
    everything = Row("All questions", "", False, n, [real(result.get("accuracy")) for result in examined])
    groups = [("All", [everything])]
    for kind, key, heading in (("behaviours", "behaviour", "By behaviour"), ("languages", "language", "By language")):
        shares = [_reals(result.get(kind)) for result in examined]
        numbers = Counter(item.get(key) for item in items)
        rows = [
            Row(*_describe(name), name in SIGNATURE, numbers.get(name), [share.get(name) for share in shares])
            for name in _in_order({name for share in shares for name in share})
        ]
        if rows:
            groups.append((heading, rows))
    return groups


def _in_order(names: Iterable[str]) -> list[str]:
    known = [*BEHAVIOURS, *LANGUAGES]
    return sorted(names, key=lambda name: (known.index(name) if name in known else len(known), name))


def _describe(name: str) -> tuple[str, str]:
    """A behaviour or a language for people; an unknown one as it is."""
    return BEHAVIOURS.get(name) or (LANGUAGES.get(name) or name.replace("_", " ").capitalize(), "")


# -- answers


@dataclass(frozen=True)
class Exchange:
    """A prompt, as messages, and what each model answered; None where it gave none."""

    language: str | None
    prompt: Sequence[Mapping[str, Any]]
    answers: Sequence[str | None]


def _showcase(results: Mapping[str, Any], models: Iterable[str]) -> list[Exchange]:
    samples = [results[key].get("samples") or [] for key in models]
    longest = max(samples, key=len, default=[])
    return [
        Exchange(None, [{"role": "user", "content": prompt}], [s[i][1] if i < len(s) else None for s in samples])
        for i, (prompt, _) in enumerate(longest)
    ]


def _sampled(
    results: Mapping[str, Any], models: Iterable[str], items: Sequence[Mapping[str, Any]]
) -> list[tuple[str, list[Exchange]]]:
    """Some items with their greedy answers, by behaviour, as evenly over behaviours and languages as there are."""
    greedy = [results[key].get("greedy") or [] for key in models]
    if not any(greedy):
        return []
    chosen: dict[str, list[Exchange]] = defaultdict(list)
    for i in _balanced(items, NUM_SAMPLED_ITEMS):
        given = [answers[i] if i < len(answers) else None for answers in greedy]
        item = items[i]
        chosen[str(item.get("behaviour"))].append(Exchange(item.get("language"), item.get("prompt") or [], given))
    return [(_describe(name)[0], chosen[name]) for name in _in_order(chosen)]


def _balanced(items: Sequence[Mapping[str, Any]], most: int) -> list[int]:
    """Positions of at most `most` items: the first of each behaviour and language, then the second of each, ..."""
    seen: Counter[tuple[Any, Any]] = Counter()
    turns = []
    for i, item in enumerate(items):
        group = (item.get("behaviour"), item.get("language"))
        turns.append((seen[group], i))
        seen[group] += 1
    return sorted(i for _, i in sorted(turns)[:most])
