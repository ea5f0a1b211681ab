"""What items are, from labels by people who err each in their own way: Dawid and Skene (1979), "Maximum likelihood
estimation of observer error-rates using the EM algorithm".

An item's true class c has probability p_c; labeller l then says k with probability pi_l[c, k], whatever the others say.
EM takes turns: the classes given the labellers (2.5 in the paper), the labellers given the classes (2.3, 2.4). Counts
are smoothed, so that somebody's few labels make nobody infallible.

Shape suffixes: I items, L labellers, C classes, N labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from chatwheel.errors import InputError
from chatwheel.feedback.significance import Array, Ints

SMOOTHING = 1.0
"""Labels that each row of a labeller's confusion matrix has before the first real one, dealt out as all labellers'."""
DILIGENCE = 0.5
"""The share of these that are on the diagonal: before anything is known, a labeller is taken to try."""


Name = TypeVar("Name", str, str | int)


class Label(BaseModel):
    """What a labeller says that an item is: a thumb (1 or -1), a yes or no, a category."""

    model_config = ConfigDict(frozen=True)
    item: str = Field(min_length=1)
    labeller: str = Field(min_length=1)
    label: str | int | bool


@dataclass(frozen=True)
class DawidSkene:
    """items, labellers, classes: sorted. posterior: I x C, the probability of each class, given all labels. confusion:
    how often a labeller says k (last) where the truth is c. prevalence: C, of the classes. log_likelihood: of all
    labels, in nats. iterations: of EM, and whether it came to rest."""

    items: tuple[str, ...]
    labellers: tuple[str, ...]
    classes: tuple[str | int, ...]
    posterior: Array
    confusion: Array
    prevalence: Array
    log_likelihood: float
    iterations: int
    converged: bool

    def accuracy(self) -> Array:
        """How often each labeller is right, L: over classes as frequent as they are."""
        return np.asarray(np.einsum("lcc,c->l", self.confusion, self.prevalence))

    def informedness(self) -> Array:
        """What each labeller's label tells, L: the mean over classes of the chance to name it, beyond that of naming it
        where it is another; 1 for the infallible, 0 for labelling at random however frequent the classes are, below 0
        for the contrary. NaN with one class."""
        size = len(self.classes)
        own = np.einsum("lcc->lc", self.confusion)
        others = (self.confusion.sum(axis=1) - own) / (size - 1) if size > 1 else np.full_like(own, np.nan)
        return np.asarray((own - others).mean(axis=1))


def dawid_skene(
    labels: Iterable[Label],
    *,
    smoothing: float = SMOOTHING,
    diligence: float = DILIGENCE,
    iterations: int = 1000,
    tolerance: float = 1e-6,
) -> DawidSkene:
    """EM from the shares of labels that each item has. An item may have one label or many, a labeller may label an item
    several times. smoothing 0 is the paper's maximum likelihood. tolerance: of the change in any posterior.

    Raises InputError without labels, and with one labeller alone, of whom nothing can be told.
    """
    rows = list(labels)
    if not rows:
        raise InputError("labels: there are none")
    if smoothing < 0 or not 0 <= diligence <= 1:
        raise InputError(f"smoothing={smoothing}, diligence={diligence}; expected at least 0, and from 0 to 1")
    items, item = _numbered([row.item for row in rows])
    labellers, labeller = _numbered([row.labeller for row in rows])
    classes, said = _numbered([row.label for row in rows])
    if len(labellers) == 1:
        raise InputError(f"labels: {labellers[0]} is the only labeller; how often they err needs a second one")
    size = len(classes)
    posterior = np.zeros((len(items), size))
    np.add.at(posterior, (item, said), 1.0)
    posterior /= posterior.sum(axis=1, keepdims=True)
    overall = np.bincount(said, minlength=size) / len(said)
    prior = smoothing * (diligence * np.eye(size) + (1 - diligence) * overall)
    moved, done = np.inf, 0
    while moved > tolerance and done < iterations:
        before = posterior
        prevalence = (posterior.sum(axis=0) + smoothing / size) / (len(items) + smoothing)
        confusion = _confusion(posterior, item, labeller, said, len(labellers), prior)
        posterior, likelihood = _posterior(prevalence, confusion, item, labeller, said, len(items))
        moved, done = float(np.abs(posterior - before).max()), done + 1
    return DawidSkene(items, labellers, classes, posterior, confusion, prevalence, likelihood, done, moved <= tolerance)


def _numbered(values: Sequence[Name]) -> tuple[tuple[Name, ...], Ints]:
    names = tuple(sorted(set(values), key=lambda value: (isinstance(value, str), value)))
    number = {name: i for i, name in enumerate(names)}
    return names, np.array([number[value] for value in values], dtype=np.int64)


def _confusion(posterior: Array, item: Ints, labeller: Ints, said: Ints, count: int, prior: Array) -> Array:
    size = posterior.shape[1]
    cell = labeller * size + said
    flat = np.stack([np.bincount(cell, posterior[item, c], count * size) for c in range(size)], axis=1)
    found: Array = flat.reshape(count, size, size).swapaxes(1, 2) + prior  # L x C x said
    whole = found.sum(axis=2, keepdims=True)
    return np.where(whole > 0, found / np.where(whole > 0, whole, 1.0), 1 / size)


def _posterior(
    prevalence: Array, confusion: Array, item: Ints, labeller: Ints, said: Ints, count: int
) -> tuple[Array, float]:
    with np.errstate(divide="ignore"):
        logs, prior = np.log(confusion), np.log(prevalence)
    by_label = logs[labeller, :, said]
    joint = np.stack([np.bincount(item, by_label[:, c], count) for c in range(len(prior))], axis=1) + prior
    highest = joint.max(axis=1, keepdims=True)
    shares = np.exp(joint - highest)
    whole = shares.sum(axis=1, keepdims=True)
    return shares / whole, float((highest + np.log(whole)).sum())
