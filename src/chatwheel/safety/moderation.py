"""Moderation: which of OpenAI's categories a text falls into, by rules and a trained classifier together.

A category's score is the larger of what the rules and the classifier say of any window of the text. The classifier
knows the categories it was trained on (the one that ships: harassment and hate); of the others the rules alone speak.
Flagged is what reaches its threshold: the classifier's own, chosen on validation texts, or RULE_THRESHOLD.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from chatwheel import __version__
from chatwheel.safety.categories import CATEGORIES, PARENTS
from chatwheel.safety.classifier import FILE, SHIPPED, Classifier
from chatwheel.safety.features import bags
from chatwheel.safety.normalisation import normalised, windows
from chatwheel.safety.rules import rule_scores

RULE_THRESHOLD = 0.5
"""Every rule scores above it."""
AT_ONCE = 64
"""Windows that are judged together: what is in memory beside the texts."""


class StoppedError(Exception):
    """Whoever asked does not want to know any more."""


@dataclass(frozen=True)
class Result:
    """Of one text. category_scores: 0 to 1 for each category, in their order; categories: those at their thresholds.
    tokens: its words, and Chinese characters each (those where windows overlap count twice)."""

    flagged: bool
    categories: dict[str, bool]
    category_scores: dict[str, float]
    tokens: int


class Moderator:
    """Judges texts. name: of rules (by Chatwheel's version) and classifier (by its digest) together."""

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier
        self.name = f"chatwheel-moderation-{__version__}-{classifier.digest}"
        self.thresholds = {name: classifier.thresholds.get(name, RULE_THRESHOLD) for name in CATEGORIES}
        self._columns = [CATEGORIES.index(label) for label in classifier.labels]
        self._thresholds = np.array([self.thresholds[name] for name in CATEGORIES])

    @staticmethod
    def load(models: Path | None = None) -> Moderator:
        """With the classifier in `models`/moderation, if there is one, else with the one that ships. Raises InputError
        for one that is damaged."""
        own = models / "moderation" / FILE if models is not None else None
        return Moderator(Classifier.load(own if own is not None and own.is_file() else SHIPPED))

    def moderate(self, texts: Sequence[str], stopped: Callable[[], bool] = lambda: False) -> list[Result]:
        """A result for each text. Linear time and bounded memory in the texts' length. stopped: asked now and then;
        raises StoppedError when it says so."""
        scores_NC = np.zeros((len(texts), len(CATEGORIES)))
        tokens_N = np.zeros(len(texts), np.int64)
        pieces = self._pieces(texts)
        while batch := list(islice(pieces, AT_ONCE)):
            if stopped():
                raise StoppedError
            rows = [row for row, _ in batch]
            found, words = self.judge([piece for _, piece in batch])
            np.maximum.at(scores_NC, rows, found)
            np.add.at(tokens_N, rows, words)
        return [self._result(scores, int(tokens)) for scores, tokens in zip(scores_NC, tokens_N, strict=True)]

    def judge(self, pieces: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Scores (pieces, categories) of normalised windows, and how many words each has."""
        found = bags(pieces)
        scores = np.zeros((len(pieces), len(CATEGORIES)))
        scores[:, self._columns] = self.classifier.scores_of(found)
        for row, piece in enumerate(pieces):
            for category, score in rule_scores(piece).items():
                column = CATEGORIES.index(category)
                # What a rule finds is flagged, wherever the classifier's threshold is.
                scores[row, column] = max(scores[row, column], score, self._thresholds[column])
        for child, parent in PARENTS.items():
            column = CATEGORIES.index(parent)
            scores[:, column] = np.maximum(scores[:, column], scores[:, CATEGORIES.index(child)])
        return scores, found.words

    @staticmethod
    def _pieces(texts: Sequence[str]) -> Iterator[tuple[int, str]]:
        for row, text in enumerate(texts):
            for piece in windows(text):
                yield row, normalised(piece)

    def _result(self, scores: np.ndarray, tokens: int) -> Result:
        over = scores >= self._thresholds
        return Result(
            flagged=bool(over.any()),
            categories=dict(zip(CATEGORIES, map(bool, over), strict=True)),
            category_scores=dict(zip(CATEGORIES, map(float, scores), strict=True)),
            tokens=tokens,
        )
