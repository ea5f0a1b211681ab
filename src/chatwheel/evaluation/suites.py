"""The suites of `chatwheel evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chatwheel.data.world import LANGUAGES, SIGNATURE, Language, examination
from chatwheel.engine.engine import Engine
from chatwheel.errors import InputError
from chatwheel.evaluation.examination import EXAMINATION_ITEMS, EXAMINATION_SEED, answers, mark
from chatwheel.model.transformer import CausalLM
from chatwheel.store.loading import open_model
from chatwheel.store.registry import ModelEntry

SUITES = ("world", "behaviours")
REWARDS = "rankings"
"""The suite of reward models, see rankings.py."""


def evaluate(
    entry: ModelEntry,
    suite: str,
    *,
    languages: Sequence[Language] | None = None,
    count: int | None = None,
    temperature: float = 0.0,
    seed: int = 0,
) -> dict[str, Any]:
    """A model's marks: n, accuracy, quality, behaviours, languages. Raises InputError for an unknown suite.

    languages, count: those of the examination in the model's own run, so that the marks are the report's; both
    languages and EXAMINATION_ITEMS for a model whose lineage names none.
    """
    if suite not in SUITES:
        raise InputError(f"suite {suite!r} is not known; choose one of {', '.join([*SUITES, REWARDS])}")
    own_languages, own_count = _own_examination(entry.lineage)
    items = examination(EXAMINATION_SEED, count or own_count, languages or own_languages)
    if suite == "behaviours":
        items = [item for item in items if item.behaviour in SIGNATURE]
    model, tokenizer = open_model(entry.directory, CausalLM)
    engine = Engine(model, tokenizer, max_running=128)
    return mark(items, answers(engine, [item.messages for item in items], temperature=temperature, seed=seed))


def _own_examination(lineage: dict[str, Any]) -> tuple[list[Language], int]:
    """The languages, in the recipe's order, and the number of items. A foreign model's lineage may hold anything."""
    value: Any = lineage
    for key in ("recipe", "data"):
        value = value.get(key) if isinstance(value, dict) else None
    data = value if isinstance(value, dict) else {}
    languages, count = data.get("languages"), data.get("examination")
    named = [language for language in languages if language in LANGUAGES] if isinstance(languages, list) else []
    return named or list(LANGUAGES), count if isinstance(count, int) and count > 0 else EXAMINATION_ITEMS
