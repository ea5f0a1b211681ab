"""Trains the classifier: logistic regression on hashed n-grams, by Adam, with classes and languages balanced.

The same data, settings and seed give the same weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from chatwheel.data.splits import fraction
from chatwheel.errors import InputError
from chatwheel.safety.categories import CATEGORIES
from chatwheel.safety.classifier import Classifier
from chatwheel.safety.examples import Example
from chatwheel.safety.features import BUCKETS, Bags, bags
from chatwheel.safety.measures import best_threshold
from chatwheel.safety.normalisation import WINDOW, normalised

FEWEST = 200
"""Texts that fall into a category, from which on it is learnt."""
VALIDATION = 0.1
"""The share of the training texts that only chooses thresholds."""
AT_ONCE = 256


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """epochs, batch_size and learning_rate (falls to 0) of Adam; weight_decay: of the penalty on squared weights,
    decoupled; ordinary_flagged: the largest share of ordinary validation texts that a threshold may let be flagged."""

    epochs: int = 3
    batch_size: int = 256
    learning_rate: float = 0.05
    weight_decay: float = 0.3
    ordinary_flagged: float = 0.002
    seed: int = 0


@dataclass(frozen=True)
class _Matrix:
    """Texts as bags (buckets, values); targets (N, L): 0 or 1; weights (N, L): how much each counts,
    0 where nothing is known."""

    found: list[tuple[Tensor, Tensor]]
    targets: Tensor
    weights: Tensor


def train(
    examples: Sequence[Example],
    ordinary: Sequence[Example],
    settings: TrainingSettings,
    lineage: dict[str, Any],
    say: Callable[[str], None] = lambda _: None,
) -> Classifier:
    """A classifier from the training part of the examples, and of texts in which there is nothing to be found. Raises
    InputError where there are too few examples of every category."""
    texts = [e for e in (*examples, *ordinary) if e.part == "train"]
    labels = tuple(name for name in CATEGORIES if sum(e.labels.get(name, False) for e in texts) >= FEWEST)
    if not labels:
        raise InputError(f"no category has {FEWEST} examples to learn from; add labelled texts")
    choosing = [fraction(f"validation {e.text}") < VALIDATION for e in texts]
    learnt = [e for e, held in zip(texts, choosing, strict=True) if not held]
    weights_LF, bias_L = _fit(_matrix(learnt, labels), settings, say)
    found = Classifier(labels, dict.fromkeys(labels, 0.5), lineage, weights_LF, bias_L)
    validation = [e for e, held in zip(texts, choosing, strict=True) if held]
    return Classifier(labels, _thresholds(found, validation, settings), lineage, weights_LF, bias_L)


def _fit(
    data: _Matrix, settings: TrainingSettings, say: Callable[[str], None]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    number, num_labels = data.targets.shape
    table = nn.EmbeddingBag(BUCKETS, num_labels, mode="sum")
    nn.init.zeros_(table.weight)
    bias = nn.Parameter(torch.zeros(num_labels))
    generator = torch.Generator().manual_seed(settings.seed)
    groups: list[dict[str, Any]] = [{"params": [table.weight]}, {"params": [bias], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    steps = settings.epochs * -(-number // settings.batch_size)
    step = 0
    for epoch in range(settings.epochs):
        losses = []
        for rows in torch.split(torch.randperm(number, generator=generator), settings.batch_size):
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * (1 - step / steps)
            buckets = [data.found[row] for row in rows.tolist()]
            offsets = torch.tensor([0, *(len(b) for b, _ in buckets[:-1])]).cumsum(0)
            logits_NL = bias + table(
                torch.cat([b for b, _ in buckets]), offsets, per_sample_weights=torch.cat([v for _, v in buckets])
            )
            losses_NL = F.binary_cross_entropy_with_logits(logits_NL, data.targets[rows], reduction="none")
            loss = (losses_NL * data.weights[rows]).mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            step += 1
            losses.append(loss.item())
        say(f"epoch {epoch + 1} of {settings.epochs}: loss {np.mean(losses):.4f}")
    return table.weight.detach().T.contiguous().numpy(), bias.detach().numpy()


def _matrix(examples: Sequence[Example], labels: Sequence[str]) -> _Matrix:
    known = np.array([[name in e.labels for name in labels] for e in examples], np.float32)
    targets = np.array([[e.labels.get(name, False) for name in labels] for e in examples], np.float32)
    return _Matrix(
        _bags(examples), torch.from_numpy(targets), torch.from_numpy(known * _balance(examples, targets, known))
    )


def _balance(
    examples: Sequence[Example], targets_NL: NDArray[np.float32], known_NL: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Weights with which, in each language, what falls into a category counts as much as what does not."""
    weights = np.ones_like(targets_NL)
    languages = np.array([e.language for e in examples])
    for language in sorted(set(languages)):
        for label in range(targets_NL.shape[1]):
            here = (languages == language) & (known_NL[:, label] > 0)
            positive = here & (targets_NL[:, label] > 0)
            if 0 < positive.sum() < here.sum():
                weights[positive, label] = here.sum() / (2 * positive.sum())
                weights[here & ~positive, label] = here.sum() / (2 * (here & ~positive).sum())
    return weights


def _bags(examples: Sequence[Example]) -> list[tuple[Tensor, Tensor]]:
    rows = []
    for begin in range(0, len(examples), AT_ONCE):
        found = bags([normalised(e.text[:WINDOW]) for e in examples[begin : begin + AT_ONCE]])
        rows += [(buckets.to(torch.int32), values) for buckets, values in _split(found)]
    return rows


def _split(found: Bags) -> list[tuple[Tensor, Tensor]]:
    cuts = found.begins[1:].tolist()
    buckets, values = np.split(found.buckets, cuts), np.split(found.values, cuts)
    return [(torch.from_numpy(b), torch.from_numpy(v)) for b, v in zip(buckets, values, strict=True)]


def _thresholds(found: Classifier, validation: Sequence[Example], settings: TrainingSettings) -> dict[str, float]:
    """For each label the threshold with the best mean of the languages' F0.5, of those that flag few ordinary texts."""
    scores = np.concatenate(
        [
            found.scores([normalised(e.text[:WINDOW]) for e in validation[begin : begin + AT_ONCE]])
            for begin in range(0, len(validation), AT_ONCE)
        ]
    )
    languages = np.array([e.language for e in validation])
    ordinary = np.array([len(e.labels) == len(CATEGORIES) for e in validation])
    thresholds = {}
    for column, label in enumerate(found.labels):
        known = np.array([label in e.labels for e in validation])
        truth = np.array([e.labels.get(label, False) for e in validation])
        places = [known & ~ordinary & (languages == name) for name in sorted(set(languages))]
        groups = [(truth[here], scores[here, column]) for here in places if truth[here].any()]
        thresholds[label] = best_threshold(groups, scores[ordinary, column], settings.ordinary_flagged)
    return thresholds
