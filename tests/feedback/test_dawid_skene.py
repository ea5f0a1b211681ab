"""Dawid and Skene's model on their table, against a plain reading of their equations, and on simulated labellers."""

from __future__ import annotations

import itertools
import math
import time

import numpy as np
import pytest
from pydantic import ValidationError

from chatwheel.errors import InputError
from chatwheel.feedback.dawid_skene import Label, dawid_skene

PATIENTS = (
    """
111 1 1 1 1|333 4 3 3 4|112 2 1 2 2|222 3 1 2 1|222 3 2 2 2|222 3 3 2 2|122 2 1 1 1|333 3 4 3 3|222 2 2 2 3
232 2 2 2 3|444 4 4 4 4|222 3 3 4 3|111 1 1 1 1|222 3 2 1 2|121 1 1 1 1|111 2 1 1 1|111 1 1 1 1|111 1 1 1 1|222 2 2 2 1
222 1 3 2 2|222 2 2 2 2|222 2 2 2 1|222 3 2 2 2|221 2 2 2 2|111 1 1 1 1|111 1 1 1 1|232 2 2 2 2|111 1 1 1 1|111 1 1 1 1
112 1 1 2 1|111 1 1 1 1|333 3 2 3 3|111 1 1 1 1|222 2 2 2 2|222 3 2 3 2|433 4 3 4 3|221 2 2 3 2|232 3 2 3 3|333 3 4 3 2
111 1 1 1 1|111 1 1 1 1|121 2 1 1 1|232 2 2 2 2|121 1 1 1 1|222 2 2 2 2""".strip()
    .replace("\n", "|")
    .split("|")
)
"""Table 1 of the paper: 45 patients' fitness for an operation, 1 to 4, by five anaesthetists, the first of whom was
asked three times."""


def anaesthetists() -> list[Label]:
    return [
        Label(item=f"{i:02}", labeller=str(j), label=int(said))
        for i, row in enumerate(PATIENTS)
        for j, all_said in enumerate(row.split(), start=1)
        for said in all_said
    ]


def plain(labels: list[Label], steps: int) -> tuple[list, list, float]:
    """Equations 2.3 to 2.5 and 2.7 in loops, from the shares of labels (3.1)."""
    items, people, classes = (sorted({getattr(x, n) for x in labels}) for n in ("item", "labeller", "label"))
    count = dict.fromkeys(itertools.product(items, people, classes), 0)
    for x in labels:
        count[x.item, x.labeller, x.label] += 1
    t = [[sum(count[i, k, c] for k in people) for c in classes] for i in items]
    t = [[v / sum(row) for v in row] for row in t]
    likelihood = 0.0
    for _ in range(steps):
        p = [sum(row[j] for row in t) / len(items) for j in range(len(classes))]
        pi = {}
        for k, j in itertools.product(people, range(len(classes))):
            row = [sum(t[i][j] * count[item, k, c] for i, item in enumerate(items)) for c in classes]
            pi[k, j] = [v / sum(row) for v in row]
        likelihood, joint = 0.0, []
        for item in items:
            own = [
                p[j] * math.prod(pi[k, j][m] ** count[item, k, c] for k in people for m, c in enumerate(classes))
                for j in range(len(classes))
            ]
            likelihood += math.log(sum(own))
            joint.append([v / sum(own) for v in own])
        t = joint
    return t, p, likelihood


def test_the_anaesthetists() -> None:
    found = dawid_skene(anaesthetists(), smoothing=0, tolerance=1e-10)
    assert found.converged
    np.testing.assert_allclose(found.prevalence, [0.40, 0.42, 0.11, 0.07], atol=0.005)  # the paper's table 2
    posterior, prevalence, likelihood = plain(anaesthetists(), found.iterations)
    np.testing.assert_allclose(found.posterior, posterior, atol=1e-8)
    np.testing.assert_allclose(found.prevalence, prevalence, atol=1e-8)
    assert found.log_likelihood == pytest.approx(likelihood)
    np.testing.assert_allclose(found.posterior.sum(axis=1), 1)
    np.testing.assert_allclose(found.confusion.sum(axis=2), 1)


def simulated(
    seed: int, accuracies: list[float], items: int = 300, each: int = 4
) -> tuple[list[Label], dict[str, int]]:
    rng = np.random.default_rng(seed)
    truth = {f"i{i}": int(rng.integers(0, 3)) for i in range(items)}
    labels = []
    for item, c in truth.items():
        for k in rng.permutation(len(accuracies))[:each]:
            said = c if rng.random() < accuracies[k] else (c + int(rng.integers(1, 3))) % 3
            labels.append(Label(item=item, labeller=f"l{k}", label=said))
    return labels, truth


def test_known_labellers_are_found_and_beat_the_majority() -> None:
    accuracies = [0.95, 0.9, 0.8, 0.7, 1 / 3, 1 / 3, 1 / 3, 0.05]
    model_right = majority_right = 0
    for seed in range(5):
        labels, truth = simulated(seed, accuracies)
        found = dawid_skene(labels)
        for k, accuracy in enumerate(accuracies):
            assert found.accuracy()[found.labellers.index(f"l{k}")] == pytest.approx(accuracy, abs=0.13)
        skill = found.informedness()
        assert max(abs(skill[4:7])) < 0.3 < min(skill[:4])
        assert skill[7] < -0.2
        best = found.posterior.argmax(axis=1)
        for i, item in enumerate(found.items):
            said = [x.label for x in labels if x.item == item]
            model_right += found.classes[best[i]] == truth[item]
            majority_right += sum(said.count(truth[item]) == max(map(said.count, said)) for _ in (0,)) / len(
                [c for c in set(said) if said.count(c) == max(map(said.count, said))]
            )
    assert model_right > majority_right + 100  # of 1,500


def test_order_and_names_do_not_matter() -> None:
    labels, _ = simulated(1, [0.9, 0.8, 0.7, 0.5])
    found = dawid_skene(labels)
    rng = np.random.default_rng(0)
    new = {0: 2, 1: 0, 2: 1}
    turned = [labels[i].model_copy(update={"label": new[labels[i].label]}) for i in rng.permutation(len(labels))]
    again = dawid_skene(turned)
    np.testing.assert_allclose(again.posterior[:, [2, 0, 1]], found.posterior, atol=1e-5)
    np.testing.assert_allclose(again.informedness(), found.informedness(), atol=1e-4)


def test_thumbs_and_odd_tables() -> None:
    thumbs = [Label(item=f"{i}", labeller=who, label=1) for i in range(3) for who in "ab"]
    same = dawid_skene(thumbs)
    assert same.classes == (1,)
    assert np.isnan(same.informedness()).all()
    two = dawid_skene([Label(item="x", labeller="a", label=1), Label(item="x", labeller="b", label=-1)])
    np.testing.assert_allclose(two.posterior, [[0.5, 0.5]], atol=1e-6)
    mixed = dawid_skene([Label(item="x", labeller="a", label="spam"), Label(item="y", labeller="b", label=True)])
    assert np.isfinite(mixed.posterior).all()


@pytest.mark.parametrize(
    ("labels", "options", "words"),
    [
        ([], {}, "there are none"),
        ([Label(item="x", labeller="a", label=1)], {}, "a is the only labeller"),
        (anaesthetists(), {"smoothing": -1}, "smoothing=-1"),
        (anaesthetists(), {"diligence": 2}, "diligence=2"),
    ],
)
def test_bad_input(labels, options, words: str) -> None:
    with pytest.raises(InputError, match=words):
        dawid_skene(labels, **options)
    with pytest.raises(ValidationError):
        Label(item="x", labeller="a", label=float("nan"))


def test_a_hundred_thousand_labels_take_seconds() -> None:
    labels, _ = simulated(0, [0.8] * 50, items=20_000, each=5)
    begin = time.process_time()
    dawid_skene(labels)
    assert time.process_time() - begin < 10
