"""Moderation on held-out texts, beside a word list: by category and language, with intervals."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chatwheel.safety.categories import CATEGORIES
from chatwheel.safety.examples import Example
from chatwheel.safety.measures import f1_lead, quality
from chatwheel.safety.moderation import Moderator
from chatwheel.safety.normalisation import normalised

FEWEST = 20
"""Texts that fall into a category, below which nothing is said of it."""
AT_ONCE = 256
Json = dict[str, Any]


class WordList:
    """The baseline: a text is found if one of these words is in it; English ones as whole words."""

    def __init__(self, words: Sequence[str]) -> None:
        plain = sorted({normalised(word) for word in words}, key=len, reverse=True)
        whole = "|".join(re.escape(word) for word in plain if word.isascii())
        inside = "|".join(re.escape(word) for word in plain if not word.isascii())
        parts = ([rf"(?<![a-z0-9])(?:{whole})(?![a-z0-9])"] if whole else []) + ([inside] if inside else [])
        self._pattern = re.compile("|".join(parts)) if parts else None

    def finds(self, text: str) -> bool:
        """Whether it does."""
        return self._pattern is not None and self._pattern.search(normalised(text)) is not None


@dataclass(frozen=True)
class Judged:
    """What was said of texts: scores and flagged, (texts, categories)."""

    scores: NDArray[np.float64]
    flagged: NDArray[np.bool_]


def judge(
    moderator: Moderator, examples: Sequence[Example], progress: Callable[[int], None] = lambda _: None
) -> Judged:
    """The moderator's word on each text."""
    scores, flagged = [], []
    for begin in range(0, len(examples), AT_ONCE):
        for result in moderator.moderate([e.text for e in examples[begin : begin + AT_ONCE]]):
            scores.append(list(result.category_scores.values()))
            flagged.append(list(result.categories.values()))
        progress(len(scores))
    shape = (len(examples), len(CATEGORIES))
    return Judged(np.array(scores, np.float64).reshape(shape), np.array(flagged, bool).reshape(shape))


def evaluate(
    moderator: Moderator,
    examples: Sequence[Example],
    words: Sequence[str] = (),
    ordinary: Sequence[Example] = (),
    progress: Callable[[int], None] = lambda _: None,
) -> Json:
    """`categories`: for each source, language and category with enough texts the quality of the moderator, of the word
    list (if there are words), and by how much the first leads in F1. `ordinary`: how many of each source's texts are
    flagged though there is nothing in them."""
    said = judge(moderator, examples, progress)
    listed = np.array([WordList(words).finds(e.text) for e in examples]) if words else None
    rows = []
    for source, language in sorted({(e.source, e.language) for e in examples}):
        here = np.array([(e.source, e.language) == (source, language) for e in examples])
        for column, category in enumerate(CATEGORIES):
            known = here & np.array([category in e.labels for e in examples])
            truth = np.array([e.labels.get(category, False) for e in examples])[known]
            if FEWEST <= truth.sum() < len(truth):
                row: Json = {"source": source, "language": language, "category": category}
                row["moderation"] = _quality(truth, said.flagged[known, column], said.scores[known, column])
                if listed is not None:
                    row["word_list"] = _quality(truth, listed[known], listed[known].astype(float))
                    lead = f1_lead(truth, said.flagged[known, column], listed[known])
                    row["f1_lead"] = [round(x, 4) for x in lead]
                rows.append(row)
    return {"model": moderator.name, "categories": rows, "ordinary": _ordinary(moderator, ordinary)}


def _quality(truth: NDArray[np.bool_], flagged: NDArray[np.bool_], scores: NDArray[np.float64]) -> Json:
    return quality(truth, flagged, scores).as_json()


def _ordinary(moderator: Moderator, ordinary: Sequence[Example]) -> Json:
    said = judge(moderator, ordinary)
    found: Json = {}
    for source in sorted({e.source for e in ordinary}):
        here = np.array([e.source == source for e in ordinary])
        found[source] = {"texts": int(here.sum()), "flagged": int(said.flagged[here].any(1).sum())}
    return found


def in_words(result: Json) -> list[str]:
    """Lines for the terminal."""
    lines = [f"{result['model']}:"]
    for row in result["categories"]:
        ours = row["moderation"]
        lines.append(
            f"  {row['source']}, {row['language']}, {row['category']}: {ours['positives']:,} of {ours['texts']:,} texts"
        )
        for name in ("moderation", "word_list"):
            if name in row:
                parts = (f"{key} {_between(row[name][key])}" for key in ("precision", "recall", "f1", "auc"))
                lines.append(f"    {name.replace('_', ' '):<11}{'; '.join(parts)}")
        if "f1_lead" in row:
            lines.append(f"    leads in f1 by {_between(row['f1_lead'], '+.3f')}")
    for source, found in result["ordinary"].items():
        lines.append(f"  {source}: {found['flagged']} of {found['texts']:,} ordinary texts flagged")
    return lines


def _between(figure: Sequence[float], form: str = ".3f") -> str:
    value, low, high = (format(x, form) for x in figure)
    return f"{value} ({low} to {high})"
