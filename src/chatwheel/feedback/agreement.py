"""How far labellers agree, beyond what chance would have them agree.

    alpha = 1 - D_observed / D_expected

is Krippendorff's ("Computing Krippendorff's alpha-reliability", 2011): 1 is full agreement, 0 what values dealt out at
random give, below 0 is disagreement with a system. Of labels it takes what people gave; of rankings, for every two
answers that two labellers have placed, which of the two each placed first.

Shape suffixes: L labellers, I items (pairs of answers, for rankings), C the distinct values, B draws of a bootstrap.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from chatwheel.errors import InputError
from chatwheel.feedback.judgements import Comparisons
from chatwheel.feedback.significance import Array, Interval, Ints, middle, redrawn

Metric = Literal["nominal", "ordinal", "interval"]

DRAWS = 1000
LEVEL = 0.95
OUTCOMES = np.array([-1.0, 0.0, 1.0])
"""The other, a tie, the one."""


@dataclass(frozen=True)
class Agreement:
    """alpha: as above; NaN where everybody gave the same value everywhere, of which chance cannot be told. interval: of
    95 %, by a bootstrap over items. observed: of two values given to one item, how often they are the same. items: that
    at least two labellers valued. values: how many these have."""

    alpha: float
    interval: Interval
    observed: float
    items: int
    values: int


@dataclass(frozen=True)
class LabellerAgreement:
    """A labeller with all others. observed: the share of the comparisons with others that are the same; alpha: the same
    beyond chance, where chance is all labellers'; n: comparisons. All NaN and 0 for one who shares no item."""

    labeller: str
    observed: float
    alpha: float
    n: int


def krippendorff(values_LI: ArrayLike, metric: Metric = "nominal", *, draws: int = DRAWS, seed: int = 0) -> Agreement:
    """Alpha of a reliability matrix: a row a labeller, a column an item, NaN where a labeller gave no value.

    metric: how far two values are apart. "nominal": the same or not; "ordinal": by how many values lie between;
    "interval": their difference, squared. draws: of the bootstrap; 0 gives no interval (NaN).
    Raises InputError without an item that two have valued, and for values that are not finite.
    """
    try:
        values = np.asarray(values_LI, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError("agreement: expected numbers; give each label a number, and NaN where there is none") from None
    if values.ndim != 2 or np.isinf(values).any():
        raise InputError("agreement: expected a row of finite numbers (or NaN) for each labeller, a column an item")
    labeller, item = np.nonzero(~np.isnan(values))
    classes, code = np.unique(values[labeller, item], return_inverse=True)
    counts = np.zeros((values.shape[1], len(classes)))
    np.add.at(counts, (item, code), 1.0)
    return _agreement(counts, classes, metric, draws, seed)


def _agreement(counts_IC: Array, classes: Array, metric: Metric, times: int, seed: int) -> Agreement:
    counts = counts_IC[counts_IC.sum(axis=1) >= 2]
    if not len(counts):
        raise InputError("agreement: no item has been valued by two labellers; let some items be labelled twice")
    by_item = _coincidences(counts)
    whole = by_item.sum(axis=0)
    n = whole.sum()
    found = float(_alpha(whole[None], classes, metric)[0])
    interval = (math.nan, math.nan)
    if times:
        rng = np.random.default_rng(seed)
        flat = by_item.reshape(len(counts), -1)
        some = [(w @ flat).reshape(-1, *whole.shape) for w in redrawn(len(counts), times, rng)]
        interval = middle(np.concatenate([_alpha(one, classes, metric) for one in some]), LEVEL)
    return Agreement(found, interval, float(np.trace(whole) / n), len(counts), round(n))


def _coincidences(counts_IC: Array) -> Array:
    """I x C x C: how often the values c and k stand together in an item, of its m values each weighing 1: an item has
    m (m - 1) ordered pairs of them, each of which weighs 1 / (m - 1)."""
    size = counts_IC.sum(axis=1)
    pairs = counts_IC[:, :, None] * counts_IC[:, None, :] - np.eye(counts_IC.shape[1]) * counts_IC[:, :, None]
    return np.asarray(pairs / (size - 1)[:, None, None])


def _alpha(coincidences_BCC: Array, classes: Array, metric: Metric) -> Array:
    """1 - (n - 1) sum o_ck d_ck / sum n_c n_k d_ck; NaN where nothing differs."""
    n_BC = coincidences_BCC.sum(axis=2)
    n = n_BC.sum(axis=1)
    apart = _distances(n_BC, classes, metric)
    observed = (coincidences_BCC * apart).sum(axis=(1, 2))
    expected = np.einsum("bc,bk,bck->b", n_BC, n_BC, apart)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(expected > 0, 1 - (n - 1) * observed / expected, math.nan)


def _distances(n_BC: Array, classes: Array, metric: Metric) -> Array:
    """B x C x C, squared. Ordinal: (sum of n_g from c to k, less half of both ends') squared."""
    if metric == "nominal":
        return np.broadcast_to(1.0 - np.eye(len(classes)), (len(n_BC), len(classes), len(classes)))
    if metric == "interval":
        return np.broadcast_to((classes[:, None] - classes) ** 2, (len(n_BC), len(classes), len(classes)))
    if metric == "ordinal":
        middles = np.cumsum(n_BC, axis=1) - n_BC / 2
        return np.asarray((middles[:, :, None] - middles[:, None, :]) ** 2)
    raise InputError(f'agreement: metric {metric!r}; expected "nominal", "ordinal" or "interval"')


def ranking_agreement(comparisons: Comparisons, *, draws: int = DRAWS, seed: int = 0) -> Agreement:
    """How far rankings agree: the items are pairs of answers, the values "the one", "the other" and "tie", a tie being
    half as far from either as they are from each other (interval alpha on 1, 0 and -1).

    Which answer of a pair is called the one is arbitrary, so that chance gives either the same share: alpha is that of
    every pair taken both ways, and does not change with their names. The bootstrap is over prompts, whose pairs share
    answers.
    Raises InputError where no two labellers have placed the same two answers.
    """
    counts, prompt = _pair_counts(comparisons)
    if not len(counts):
        raise InputError("agreement: no two labellers have ranked the same two answers; let some be ranked twice")
    both = _coincidences(counts)
    both = (both + both[:, ::-1, ::-1]) / 2
    _, prompt = np.unique(prompt, return_inverse=True)
    flat = np.zeros((prompt.max() + 1, 9))
    np.add.at(flat, prompt, both.reshape(-1, 9))
    whole = flat.sum(axis=0).reshape(3, 3)
    interval = (math.nan, math.nan)
    if draws:
        rng = np.random.default_rng(seed)
        some = [(w @ flat).reshape(-1, 3, 3) for w in redrawn(len(flat), draws, rng)]
        interval = middle(np.concatenate([_alpha(one, OUTCOMES, "interval") for one in some]), LEVEL)
    return Agreement(
        float(_alpha(whole[None], OUTCOMES, "interval")[0]),
        interval,
        float(np.trace(whole) / whole.sum()),
        len(counts),
        round(whole.sum()),
    )


def _pair_counts(comparisons: Comparisons) -> tuple[Array, Ints]:
    """Of each pair that two or more have compared, how many said each (I x 3), and its prompt."""
    counts = np.zeros((comparisons.num_pairs, 3))
    np.add.at(counts, (comparisons.pair, np.rint(comparisons.outcome).astype(int) + 1), 1.0)
    prompt = np.zeros(comparisons.num_pairs, dtype=np.int64)
    prompt[comparisons.pair] = comparisons.prompt
    shared = counts.sum(axis=1) >= 2
    return counts[shared], prompt[shared]


def labeller_agreement(comparisons: Comparisons) -> list[LabellerAgreement]:
    """Each labeller with all the others, in the order of `comparisons.labellers`: over the pairs of answers that both
    have compared, with every other labeller in turn. alpha is 1 less the mean distance over what chance gives, as for
    `ranking_agreement`: near 0 for one who ranks at random, below it for one who turns the order around."""
    counts = np.zeros((comparisons.num_pairs, 3))
    code = np.rint(comparisons.outcome).astype(int) + 1
    np.add.at(counts, (comparisons.pair, code), 1.0)
    others = counts[comparisons.pair] - np.eye(3)[code]
    size = len(comparisons.labellers)
    n = np.bincount(comparisons.labeller, others.sum(axis=1), size)
    same = np.bincount(comparisons.labeller, others[np.arange(len(code)), code], size)
    apart = (others * (OUTCOMES - OUTCOMES[code][:, None]) ** 2).sum(axis=1)
    distance = np.bincount(comparisons.labeller, apart, size)
    decided = float((counts[:, 0] + counts[:, 2]).sum() / counts.sum())
    chance = 2 * decided  # the mean of (x - y)^2 of two independent outcomes of mean 0 is twice their mean square
    with np.errstate(divide="ignore", invalid="ignore"):
        observed, alpha = same / n, 1 - distance / n / chance if chance else np.full(size, math.nan)
    return [
        LabellerAgreement(name, float(observed[i]), float(alpha[i]), int(n[i]))
        for i, name in enumerate(comparisons.labellers)
    ]
