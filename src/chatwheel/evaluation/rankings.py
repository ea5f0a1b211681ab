"""The suite `rankings`: a reward model on rankings that it has not seen, beside what a rule without sense reaches on
the same pairs.

Rankings are split by prompt (data/splits.py), so that no answer to a prompt of the test is in the training. Accuracies
and differences have 95 % intervals from a bootstrap over prompts: the pairs of one prompt share answers and a
labeller, and are no independent evidence, so that an interval which takes them for such is too narrow.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chatwheel.data.records import Ranking, read_records
from chatwheel.data.sources import load
from chatwheel.data.splits import key_of
from chatwheel.errors import InputError
from chatwheel.evaluation.baselines import longer_is_right, words_are_right
from chatwheel.model.transformer import ScalarModel
from chatwheel.store.loading import open_model
from chatwheel.store.registry import ModelEntry
from chatwheel.training.precision import training_device
from chatwheel.training.reward_report import Pairs, accuracy, form_probe, interval, judged_by, measured, scorer

LONGEST_ROW = 2048


def evaluate_rankings(entry: ModelEntry, runs: Path, file: Path | None = None) -> dict[str, Any]:
    """A reward model's accuracy with its interval, the baselines', and by how much it beats them; then what the stage's
    summary has (`reward_report`).

    runs: where the runs are; the model's own has the rankings that it learnt from. file: other rankings in any format
    of `chatwheel data import`, less those whose first question is among these; by default those that the run held out.
    Raises InputError for a model that gives no rewards, and where there is nothing to measure on.
    """
    if entry.kind != "reward":
        raise InputError(f"{entry.name} answers; --suite rankings measures reward models, as in RUN/reward")
    train, rankings, known = _data(entry, runs, file)
    model, tokenizer = open_model(entry.directory, ScalarModel)
    model.to(training_device())
    length = min(_row_length(entry.lineage) or LONGEST_ROW, model.config.max_positions)
    judged = judged_by(model, rankings, tokenizer, length)
    pairs = Pairs.of(judged)
    if not len(pairs):
        where = file or entry.name
        raise InputError(f"{where}: no ranking with a preference and at most {length} tokens to measure on")
    scored = [one.ranking for one in judged]
    right = np.where(pairs.lead == 0, 0.5, pairs.lead > 0)
    rivals: dict[str, NDArray[Any] | str] = {
        "chance": np.full(len(pairs), 0.5),
        "longer": longer_is_right(scored),
        "tf-idf": words_are_right(train, scored),
    }
    baselines = {name: _compared(right, theirs, pairs.prompt) for name, theirs in rivals.items()}
    found = measured(judged)
    groups = found.pop("groups")
    complete = all("accuracy" in one for one in baselines.values())
    return {
        "n": len(pairs),
        "prompts": found.pop("prompts"),
        "accuracy": round(accuracy(pairs.lead), 4),
        "interval": found.pop("pair_accuracy_interval"),
        "baselines": baselines,
        "beats_all": all(one["beaten"] for one in baselines.values()) if complete else None,
        "behaviours": _accuracies(groups.get("behaviour", {})),
        "languages": _accuracies(groups.get("language", {})),
        "groups": groups,
        **found,
        "form": form_probe(judged, scorer(model, tokenizer, length)),
        "left_out": {"no_pair_or_too_long": len(rankings) - len(judged), "learnt_from": known},
    }


def _compared(right: NDArray[Any], theirs: NDArray[Any] | str, prompts: NDArray[Any]) -> dict[str, Any]:
    """A baseline's accuracy, and the model's less it, pair by pair. beaten: the whole interval is above 0."""
    if isinstance(theirs, str):
        return {"missing": theirs}
    low, high = interval(right - theirs, prompts)
    return {
        "accuracy": round(float(theirs.mean()), 4),
        "difference": round(float((right - theirs).mean()), 4),
        "difference_interval": [round(low, 4), round(high, 4)],
        "beaten": low > 0,
    }


def _accuracies(groups: dict[str, Any]) -> dict[str, float]:
    return {name: one["accuracy"] for name, one in groups.items()}


def _data(entry: ModelEntry, runs: Path, file: Path | None) -> tuple[list[Ranking], list[Ranking], int]:
    """What the model learnt from, if it is here; what it is measured on; and how many of these were left out because
    their first question is among those."""
    run = entry.lineage.get("run")
    directory = runs / run / "data" if isinstance(run, str) else None
    train = _read(directory / "rankings.jsonl") if directory is not None else []
    if file is not None:
        questions = {_question(ranking) for ranking in train}
        found = [ranking for ranking in load(file, "rankings") if isinstance(ranking, Ranking)]
        kept = [ranking for ranking in found if _question(ranking) not in questions]
        return train, kept, len(found) - len(kept)
    held_out = _read(directory / "rankings.held_out.jsonl") if directory is not None else []
    if not held_out:
        raise InputError(f"{entry.name}: its run's held-out rankings are not here; name a file of rankings with --data")
    return train, held_out, 0


def _read(path: Path) -> list[Ranking]:
    return list(read_records(path, Ranking)) if path.is_file() else []


def _question(ranking: Ranking) -> str:
    return " ".join(key_of(ranking).casefold().split())


def _row_length(lineage: dict[str, Any]) -> int | None:
    """As in the recipe that made the model; a foreign model's lineage may hold anything."""
    value: Any = lineage
    for key in ("recipe", "reward", "row_length"):
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, int) and value > 1 else None


def in_words(result: dict[str, Any]) -> Sequence[str]:
    """The result in a few lines."""
    lines = [f"{result['accuracy']:.1%} of {result['n']} pairs in order (95 %: {_between(result['interval'])})"]
    for name, one in result["baselines"].items():
        if "accuracy" not in one:
            lines.append(f"  {name:<16}{one['missing']}")
            continue
        verdict = "beaten" if one["beaten"] else "not beaten"
        by = f"{one['difference']:+.1%} ({_between(one['difference_interval'], '+.1%')})"
        lines.append(f"  {name:<16}{one['accuracy']:6.1%}  {verdict}: {by}")
    for name, one in result["groups"].get("source", {}).items():
        lines.append(f"  {name:<24}{one['accuracy']:6.1%} of {one['pairs']} ({_between(one['interval'])})")
    calibration, length = result["calibration"], result["length"]
    lines.append(f"  calibration error {calibration['error']:.1%}; temperature {calibration['temperature']:.2f}")
    if length["pairs"]:
        shares = f"in {length['model_prefers']:.1%} of pairs, by the labellers in {length['labellers_prefer']:.1%}"
        lines.append(f"  the longer answer is preferred {shares}")
    lines += [f"  {name:<16}{one['effect']:+.2f} standard deviations" for name, one in result["form"].items()]
    return lines


def _between(interval: Sequence[float], form: str = ".1%") -> str:
    return f"{interval[0]:{form}} to {interval[1]:{form}}"
