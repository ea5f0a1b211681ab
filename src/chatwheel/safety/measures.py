"""How well texts are told apart: precision, recall, F1 and the area under the ROC curve, with 95 % intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

DRAWS = 1000
"""Of a bootstrap over texts."""
Truth = NDArray[np.bool_]
Scores = NDArray[np.floating[Any]]
Interval = tuple[float, float]


@dataclass(frozen=True)
class Quality:
    """Of `texts` texts, `positives` fall into the category. Each figure with the bounds of its 95 % interval."""

    texts: int
    positives: int
    precision: tuple[float, float, float]
    recall: tuple[float, float, float]
    f1: tuple[float, float, float]
    auc: tuple[float, float, float]

    def as_json(self) -> dict[str, Any]:
        """For a report: `{"f1": [0.7, 0.68, 0.72], ...}`, four digits."""
        numbers = {name: [round(x, 4) for x in getattr(self, name)] for name in ("precision", "recall", "f1", "auc")}
        return {"texts": self.texts, "positives": self.positives, **numbers}


def quality(truth: Truth, flagged: Truth, scores: Scores, seed: int = 0) -> Quality:
    """truth: whether each text falls into the category. flagged, scores: what was said of it."""
    generator = np.random.default_rng(seed)
    drawn = [generator.integers(len(truth), size=len(truth)) for _ in range(DRAWS)]
    figures = [_figures(truth[rows], flagged[rows], scores[rows]) for rows in drawn]
    bounds = np.nanquantile(np.array(figures), [0.025, 0.975], axis=0)
    values = _figures(truth, flagged, scores)
    precision, recall, f1, area = ((v, float(low), float(high)) for v, low, high in zip(values, *bounds, strict=True))
    return Quality(len(truth), int(truth.sum()), precision, recall, f1, area)


def f1_lead(truth: Truth, ours: Truth, theirs: Truth, seed: int = 0) -> tuple[float, float, float]:
    """By how much the F1 of ours is above theirs on the same texts, with the 95 % interval of a paired bootstrap."""
    generator = np.random.default_rng(seed)
    leads = []
    for _ in range(DRAWS):
        rows = generator.integers(len(truth), size=len(truth))
        leads.append(f1(truth[rows], ours[rows]) - f1(truth[rows], theirs[rows]))
    low, high = np.quantile(leads, [0.025, 0.975])
    return f1(truth, ours) - f1(truth, theirs), float(low), float(high)


def f1(truth: Truth, flagged: Truth) -> float:
    """The harmonic mean of precision and recall; 0 where nothing was found."""
    right = int((truth & flagged).sum())
    return 2 * right / max(1, int(truth.sum()) + int(flagged.sum()))


def auc(truth: Truth, scores: Scores) -> float:
    """How likely a text of the category has the higher score of two; equal ones count half (Mann & Whitney, 1947)."""
    positives = int(truth.sum())
    negatives = len(truth) - positives
    if not positives or not negatives:
        return float("nan")
    _, which, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[which]
    return float((ranks[truth].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def best_threshold(groups: Sequence[tuple[Truth, Scores]], ordinary: Scores, share: float) -> float:
    """Of 0.05, 0.06 ... 0.95 the one with the best mean F0.5 over the groups, among those that at most this share of
    the ordinary texts reach (0.95 if none is so). F0.5, not F1: a false alarm is worse than a miss."""
    allowed = [t / 100 for t in range(5, 96) if not len(ordinary) or (ordinary >= t / 100).mean() <= share] or [0.95]
    return max(allowed, key=lambda t: float(np.mean([_f_half(truth, scores >= t) for truth, scores in groups])))


def _f_half(truth: Truth, flagged: Truth) -> float:
    """Precision and recall, of which precision counts twice (van Rijsbergen, 1979)."""
    right = int((truth & flagged).sum())
    return 1.25 * right / max(1.0, 0.25 * int(truth.sum()) + int(flagged.sum()))


def _figures(truth: Truth, flagged: Truth, scores: Scores) -> tuple[float, float, float, float]:
    right = int((truth & flagged).sum())
    precision = right / flagged.sum() if flagged.any() else float("nan")
    recall = right / truth.sum() if truth.any() else float("nan")
    return precision, recall, f1(truth, flagged), auc(truth, scores)
