"""An examination: a model answers held-out items, a judge marks them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from chatwheel.data.records import Message
from chatwheel.data.world import Item
from chatwheel.engine.engine import Engine
from chatwheel.engine.requests import Request, SamplingParams
from chatwheel.evaluation.judges import GoldJudge

MAX_TOKENS = 96
# The examination is drawn with a seed of its own, the same for every run.
EXAMINATION_SEED = 2026
# How many items, unless a recipe says otherwise.
EXAMINATION_ITEMS = 600


def answers(
    engine: Engine, conversations: Sequence[Sequence[Message]], *, temperature: float = 0.0, seed: int = 0
) -> list[str]:
    """One answer a conversation; the i-th is drawn with seed + i."""
    requests = [
        Request(
            prompt_ids=tuple(engine.tokenizer.encode_prompt([m.model_dump() for m in messages])),
            params=SamplingParams(temperature=temperature, max_tokens=MAX_TOKENS, seed=seed + i),
        )
        for i, messages in enumerate(conversations)
    ]
    return [completion.text for completion in engine.generate(requests)]


def mark(items: Sequence[Item], given: Sequence[str]) -> dict[str, Any]:
    """Accuracy overall, by behaviour and by language, and the mean quality (0 to 1) of the answers."""
    judge = GoldJudge()
    marks = [judge.mark(item, answer) for item, answer in zip(items, given, strict=True)]
    by: dict[str, dict[str, list[bool]]] = {"behaviours": defaultdict(list), "languages": defaultdict(list)}
    for item, result in zip(items, marks, strict=True):
        by["behaviours"][item.behaviour].append(result.correct)
        by["languages"][item.language].append(result.correct)
    return {
        "n": len(items),
        "accuracy": _mean([m.correct for m in marks]),
        "quality": _mean([m.quality for m in marks]),
        **{kind: {name: _mean(values) for name, values in sorted(groups.items())} for kind, groups in by.items()},
    }


def preference(items: Sequence[Item], ours: Sequence[str], theirs: Sequence[str]) -> float:
    """The share of prompts at which the gold judge prefers ours; a tie counts half."""
    judge = GoldJudge()
    return _mean([judge.prefer(item, a, b) for item, a, b in zip(items, ours, theirs, strict=True)])


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / max(1, len(values)), 4)
