"""Whether a run's stages that learn from their own answers look healthy, from what they have written so far."""

from __future__ import annotations

import textwrap

from chatwheel.errors import InputError
from chatwheel.jobs.recipe import SAMPLING, Recipe
from chatwheel.jobs.run import Run
from chatwheel.store.curves import rows_of
from chatwheel.training.diagnosis import Finding, diagnose

WIDTH = 100


def findings(run: Run, stage: str) -> list[Finding]:
    """Of one stage; nothing where it has no rollout yet."""
    settings = run.recipe.sampling[stage].model_dump() if stage in run.recipe.sampling else {}
    return diagnose(rows_of(run.stage(stage) / "metrics.jsonl"), settings)


def is_finished(run: Run, stage: str) -> bool:
    """Whether there is nothing left to train."""
    return run.read_json(f"results/stage.{stage}.json") is not None


def explained(run: Run, stage: str) -> str:
    """What looks wrong in a stage and what to do, for a terminal."""
    found = findings(run, stage)
    if not found:
        return f"{stage}: no rollout yet; there is nothing to explain"
    warnings = [finding for finding in found if finding.level == "warning"]
    lines = [f"{stage} looks healthy" if not warnings else f"{stage}: {_counted(len(warnings))}"]
    for number, finding in enumerate(warnings, 1):
        lines += _wrapped(f"{number}. From step {finding.step}: {finding.text()}", "   ")
        lines += _wrapped(f"   {finding.advice()}", "   ")
    for finding in found:
        if finding.level != "warning":
            lines += _wrapped(" ".join(filter(None, (finding.text(), finding.advice()))), "")
    return "\n".join(lines)


def check_explained(recipe: Recipe, stage: str) -> None:
    """Raises InputError for a stage that cannot be explained."""
    if stage not in SAMPLING:
        raise InputError(f"--explain is for what learns from its own answers: {', '.join(SAMPLING)}; not for {stage}")
    if stage not in recipe.sampling:
        raise InputError(f"the recipe {recipe.name} has no {stage}; add it, or explain another stage")


def _counted(count: int) -> str:
    return f"{count} thing{'s' if count > 1 else ''} look{'' if count > 1 else 's'} wrong"


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent=indent, break_long_words=False, drop_whitespace=True)
