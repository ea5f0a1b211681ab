"""What there is to say of each labeller, in numbers and in words, and whether to rely on them.

Verdicts need three things: a test at a level that holds for all labellers (and habits) at once, Holm's; an effect that
matters; and, to be called random, a sensitivity that is certainly small, not just uncertain. So a labeller with few
comparisons is not accused: they are `ok`, with words that say how little is known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from chatwheel.feedback.agreement import LabellerAgreement, labeller_agreement
from chatwheel.feedback.davidson import expected
from chatwheel.feedback.judgements import FEATURES, POSITION
from chatwheel.feedback.labellers import LabellerModel
from chatwheel.feedback.significance import Array, below, holm, two_sided

Verdict = Literal["ok", "biased", "random", "adversarial"]

LEVEL = 0.01
"""Of the tests for habits and of those for adversaries, for all labellers together."""
LEVEL_OF_RANDOM = 0.05
"""Of the tests for labelling at random. It is reached by somebody at a third of the usual sensitivity; whoever labels
as others do is far from it."""
MATTERS = 0.6
"""From which share of pairs on a habit is called a bias: six of ten, quality being equal."""
INSENSITIVE = 1 / 3
"""Which part of the median labeller's sensitivity is as good as none."""
DEVIATION = np.sqrt(2.0)
"""Of the lead in worth of two answers, of which nothing is known."""
NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(20)
SHARES = _WEIGHTS / _WEIGHTS.sum()

HABITS = {
    POSITION: ("places the upper one first", "places the lower one first"),
    "length": ("prefers longer answers", "prefers shorter answers"),
    "lists": ("prefers lists", "avoids lists"),
    "markdown": ("prefers Markdown", "avoids Markdown"),
    "exclamation marks": ("prefers exclamation marks", "avoids exclamation marks"),
    "Chinese": ("prefers answers in Chinese", "prefers answers in English"),
}


@dataclass(frozen=True)
class Bias:
    """A habit that is significant and matters. share: of the labeller's pairs that differ in it, how many would go its
    way, ties being half, if the answers were equally good and else alike. p: corrected."""

    feature: str
    nats: float
    error: float
    p: float
    share: float
    words: str


@dataclass(frozen=True)
class LabellerReport:
    """n: comparisons. agreement: with the others (agreement.py). sensitivity: to worth, in nats a standard deviation of
    worth, with its standard error. reliability: the share of typical pairs that the labeller puts in the order of their
    worth, their habits included: 0.5 at random, ties being half. weight: for what they say, 0 to 1: (2 reliability - 1)
    over the best labeller's, and 0 for random and adversarial ones."""

    labeller: str
    n: int
    agreement: LabellerAgreement
    sensitivity: float
    sensitivity_error: float
    reliability: float
    weight: float
    biases: tuple[Bias, ...]
    verdict: Verdict
    words: str


def report(model: LabellerModel) -> list[LabellerReport]:
    """One a labeller, in the order of their names."""
    beta, error = model.sensitivity, np.maximum(model.sensitivity_error, 1e-9)
    median = float(np.median(beta))
    adversarial = holm(below(beta / error)) < LEVEL
    random = holm(below((beta - INSENSITIVE * median) / error)) < LEVEL_OF_RANDOM
    biases = _biases(model)
    verdicts = [_verdict(bool(adversarial[i]), biases[i], bool(random[i])) for i in range(len(beta))]
    reliability = _reliability(model)
    trusted = [v in ("ok", "biased") for v in verdicts]
    gain = np.maximum(2 * reliability - 1, 0.0) * trusted
    weight = gain / gain.max() if gain.max() > 0 else gain
    counts = np.bincount(model.comparisons.labeller, minlength=len(beta))
    agreements = labeller_agreement(model.comparisons)
    return [
        LabellerReport(
            labeller=name,
            n=int(counts[i]),
            agreement=agreements[i],
            sensitivity=float(beta[i]),
            sensitivity_error=float(error[i]),
            reliability=float(reliability[i]),
            weight=float(weight[i]),
            biases=tuple(biases[i]),
            verdict=verdicts[i],
            words=_words(verdicts[i], biases[i], float(reliability[i]), float(beta[i] / error[i]), int(counts[i])),
        )
        for i, name in enumerate(model.labellers)
    ]


def _verdict(adversarial: bool, biases: list[Bias], random: bool) -> Verdict:
    if adversarial:
        return "adversarial"
    if biases:
        return "biased"
    return "random" if random else "ok"


def _biases(model: LabellerModel) -> list[list[Bias]]:
    size = len(model.labellers)
    if not model.features:
        return [[] for _ in range(size)]
    p = holm(two_sided(model.bias / np.maximum(model.bias_error, 1e-9)))
    found: list[list[Bias]] = [[] for _ in range(size)]
    for i, f in zip(*np.nonzero(p < LEVEL), strict=True):
        feature, nats = model.features[f], float(model.bias[i, f])
        share = _share(model, int(i), int(f))
        if share >= MATTERS:
            words = f"{HABITS[feature][nats < 0]}: {share * 100:.0f} % of pairs, quality being equal"
            found[i].append(Bias(feature, nats, float(model.bias_error[i, f]), float(p[i, f]), share, words))
    return found


def _share(model: LabellerModel, labeller: int, feature: int) -> float:
    apart = np.abs(_own_features(model, labeller)[:, feature])
    apart = apart[apart > 0]
    if not len(apart):
        return 0.5
    return float(expected(np.abs(model.bias[labeller, feature]) * apart, float(model.tie[labeller])).mean())


def _own_features(model: LabellerModel, labeller: int) -> Array:
    columns = [FEATURES.index(name) for name in model.features]
    return np.asarray(model.comparisons.features[model.comparisons.labeller == labeller][:, columns])


def _reliability(model: LabellerModel) -> Array:
    """Over the lead in worth, half a normal, and the places and forms that the labeller saw; ties are half."""
    found = []
    lead = np.abs(DEVIATION * NODES)
    for i in range(len(model.labellers)):
        habits = _own_features(model, i) @ model.bias[i]
        habits = np.concatenate([habits, -habits])
        eta = model.sensitivity[i] * lead + habits[:, None]
        found.append(float((expected(eta, float(model.tie[i])) @ SHARES).mean()))
    return np.array(found)


def _words(verdict: Verdict, biases: list[Bias], reliability: float, z: float, n: int) -> str:
    parts = [bias.words for bias in biases]
    if verdict == "adversarial":
        parts.insert(
            0, f"turns the order around: puts the worse answer first in {100 - reliability * 100:.0f} % of pairs"
        )
    elif verdict == "random":
        parts.insert(0, "answers at random")
    elif z < 2 and not biases:
        parts.append(f"too little is known: {n} comparisons")
    else:
        parts.append(f"puts the better answer first in {reliability * 100:.0f} % of pairs")
    return "; ".join(parts)
