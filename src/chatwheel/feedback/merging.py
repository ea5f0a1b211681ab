"""Rankings of the same answers by several labellers, made one.

The answers' worths are learnt from all comparisons at once (worths.py), each labeller's counting by their sensitivity
and less their habits. Worths are numbers, so that a cycle (A before B, B before C, C before A) comes out as what it is:
answers about equally good. What is not decided is a tie.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from chatwheel.data.records import Ranking
from chatwheel.errors import InputError
from chatwheel.feedback.judgements import FEATURES, Comparisons, RankedBy, prompt_key
from chatwheel.feedback.labeller_report import LabellerReport
from chatwheel.feedback.labellers import LabellerModel
from chatwheel.feedback.significance import NORMAL, Array, below
from chatwheel.feedback.worths import learn, unknown

SURE = 0.7
"""How probable an order has to be to be no tie."""
USUAL_SENSITIVITY, USUAL_TIE = 1.5, -1.5
"""Of labellers of whom nothing is known, in nats: they order 77 % of typical pairs as they should."""


@dataclass(frozen=True)
class Trust:
    """How to read a labeller. weight: 0 leaves out what they say. bias: nats per unit of each of `FEATURES`."""

    sensitivity: float = USUAL_SENSITIVITY
    tie: float = USUAL_TIE
    bias: tuple[float, ...] = (0.0,) * len(FEATURES)
    weight: float = 1.0


def trust(model: LabellerModel, reports: Sequence[LabellerReport]) -> dict[str, Trust]:
    """By name. Random labellers and adversaries are left out: who turned orders around yesterday may not do so
    tomorrow."""
    found = {}
    for i, one in enumerate(reports):
        bias = np.zeros(len(FEATURES))
        bias[[FEATURES.index(name) for name in model.features]] = model.bias[i]
        left_out = one.verdict in ("random", "adversarial") or model.sensitivity[i] <= 0
        found[one.labeller] = Trust(
            max(float(model.sensitivity[i]), 0.0),
            float(model.tie[i]),
            tuple(map(float, bias)),
            0.0 if left_out else 1.0,
        )
    return found


def merge(
    rankings: Iterable[RankedBy], trusted: dict[str, Trust] | None = None, *, sure: float = SURE
) -> list[Ranking]:
    """One ranking a prompt, of all answers to it, in the order in which the prompts come first.

    ranks: by worth; an answer ties with the place before it unless the best there is better with a probability of
    `sure` or more. weight: 0 to 1, how sure the orders are: the mean of 2 p - 1 over the pairs, p the probability of
    the likelier order, ties as 0. Rankings by spammers alone have weight 0. trusted: of `trust`; who is not in it is
    taken as usual. labeller: the only one, if there is one; `labellers` names all.
    Raises InputError for `sure` outside [0.5, 1), and as `Comparisons.of`.
    """
    if not 0.5 <= sure < 1:
        raise InputError(f"sure={sure}; expected a probability from 0.5 to below 1")
    rankings = list(rankings)
    c = Comparisons.of(rankings)
    read = [(trusted or {}).get(name, Trust()) for name in c.labellers]
    beta, tie, weight = (
        np.array(column) for column in zip(*[(t.sensitivity, t.tie, t.weight) for t in read], strict=True)
    )
    bias = np.array([t.bias for t in read])
    worths = unknown(c.prompt_of_answer, c.first, c.second)
    learn(
        worths,
        c.first,
        c.second,
        c.outcome,
        c.weight * weight[c.labeller],
        beta=beta[c.labeller],
        offset=(c.features * bias[c.labeller]).sum(axis=1),
        tau=tie[c.labeller],
        steps=100,
        tolerance=1e-8,
    )
    posterior = {}
    for group, covariance in zip(worths.groups, worths.covariances, strict=True):
        for answers, spread in zip(group.answers, covariance, strict=True):
            key = c.prompts[c.prompt_of_answer[answers[0]]]
            posterior[key] = ([c.texts[a] for a in answers], worths.mean[answers], spread)
    merged, seen = [], dict[str, list[RankedBy]]()
    for ranking in rankings:
        seen.setdefault(prompt_key(ranking.messages), []).append(ranking)
    for key, own in seen.items():
        texts, mean, spread = posterior[key]
        merged.append(_merged(own, texts, mean, spread, sure))
    return merged


def _merged(own: list[RankedBy], texts: list[str], mean: Array, spread: Array, sure: float) -> Ranking:
    ranks, weight = places(mean, spread, sure)
    labellers = sorted({ranking.labeller for ranking in own})
    values = {
        "messages": own[0].messages,
        "language": own[0].language,
        "source": own[0].source,
        "answers": texts,
        "ranks": ranks,
        "labeller": labellers[0] if len(labellers) == 1 else None,
        "labellers": labellers,
        "weight": round(weight, 4),
    }
    return Ranking.model_validate({name: value for name, value in values.items() if value is not None})


def places(mean: Array, covariance: Array, sure: float = SURE) -> tuple[list[int], float]:
    """Ranks of K answers and their weight, from the posterior of their worths (K and K x K)."""
    deviation = np.sqrt(np.maximum(np.add.outer(np.diag(covariance), np.diag(covariance)) - 2 * covariance, 1e-12))
    z = np.subtract.outer(mean, mean) / deviation
    ranks = [1] * len(mean)
    order = [int(i) for i in np.argsort(-mean, kind="stable")]
    needed = max(NORMAL.inv_cdf(sure), 1e-9)
    best = place = 0
    for index, answer in enumerate(order):
        if z[order[best], answer] >= needed:
            best, place = index, index
        ranks[answer] = place + 1
    pairs = [(i, j) for i in range(len(mean)) for j in range(len(mean)) if ranks[i] < ranks[j]]
    certain = sum(2 * float(below(np.array([z[pair]]))[0]) - 1 for pair in pairs)
    return ranks, max(0.0, certain) / (len(mean) * (len(mean) - 1) / 2)
