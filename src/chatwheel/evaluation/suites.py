"""The suites of `chatwheel evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from chatwheel.data.world import SIGNATURE, examination
from chatwheel.engine.engine import Engine
from chatwheel.errors import InputError
from chatwheel.evaluation.examination import EXAMINATION_SEED, answers, mark
from chatwheel.model.checkpoint import load_model
from chatwheel.model.transformer import CausalLM

SUITES = ("world", "behaviours")


def evaluate(directory: Path, suite: str, count: int) -> dict[str, Any]:
    """A model's marks: n, accuracy, quality, behaviours, languages. Raises InputError for an unknown suite."""
    if suite not in SUITES:
        raise InputError(f"suite {suite!r} is not known; choose one of {', '.join(SUITES)}")
    items = examination(EXAMINATION_SEED, count)
    if suite == "behaviours":
        items = [item for item in items if item.behaviour in SIGNATURE]
    model, tokenizer = load_model(directory, CausalLM)
    return mark(items, answers(Engine(model, tokenizer, max_running=128), [item.messages for item in items]))
