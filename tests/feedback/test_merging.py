"""Rankings of the same answers, made one: cycles, ties, spammers, and whether the merged order is nearer the truth."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from chatwheel.data.records import Ranking
from chatwheel.errors import InputError
from chatwheel.feedback.judgements import Comparisons, RankedBy
from chatwheel.feedback.labeller_report import report
from chatwheel.feedback.labellers import fit_labellers
from chatwheel.feedback.merging import Trust, merge, places, trust
from tests.feedback.simulated import crew, rankings

PROMPT = [{"role": "user", "content": "谁写了这本书？"}]


def by(labeller: str, *ranks: int, answers: str = "ABC") -> RankedBy:
    values = {"messages": PROMPT, "answers": list(answers[: len(ranks)]), "ranks": list(ranks), "labeller": labeller}
    return RankedBy.model_validate(values)


def ranks(found: Ranking) -> dict[str, int]:
    return dict(zip(found.answers, found.ranks, strict=True))


def test_who_agree_are_followed_and_the_more_they_are_the_more_it_counts() -> None:
    (one,) = merge([by("a", 1, 2, 3)])
    (three,) = merge([by(name, 1, 2, 3) for name in "abc"])
    assert ranks(one) == ranks(three) == {"A": 1, "B": 2, "C": 3}
    assert 0 < one.weight < three.weight < 1
    assert one.labeller == "a"
    assert three.labeller is None
    assert three.model_dump()["labellers"] == ["a", "b", "c"]
    assert [m.content for m in three.messages] == ["谁写了这本书？"]


def test_a_cycle_is_a_tie_that_counts_nothing() -> None:
    (found,) = merge([by("a", 1, 2, 3), by("b", 3, 1, 2), by("c", 2, 3, 1)])
    assert ranks(found) == {"A": 1, "B": 1, "C": 1}
    assert found.weight == 0
    assert found.pairs() == []


def test_a_cycle_below_what_all_agree_on() -> None:
    some = [(1, 2, 3, 4), (1, 3, 4, 2), (1, 4, 2, 3)]
    (found,) = merge([by(name, *order, answers="WXYZ") for name, order in zip("abc", some, strict=True)])
    assert ranks(found) == {"W": 1, "X": 2, "Y": 2, "Z": 2}
    assert found.weight > 0.3


def test_spammers_weigh_nothing_and_habits_are_taken_off() -> None:
    spam = {"s": Trust(weight=0.0), "t": Trust(sensitivity=0.0)}
    (alone,) = merge([by("s", 1, 2, 3), by("t", 1, 2, 3)], spam)
    assert alone.weight == 0
    assert ranks(alone) == {"A": 1, "B": 1, "C": 1}
    (found,) = merge([by("s", 3, 2, 1), by("t", 3, 2, 1), by("a", 1, 2, 3)], spam)
    assert ranks(found) == {"A": 1, "B": 2, "C": 3}
    upper = Trust(bias=(8.0, 0, 0, 0, 0, 0))
    values = by("u", 1, 2).model_dump() | {"shown": [1, 2]}
    (expected,) = merge([RankedBy.model_validate(values)], {"u": upper})
    (surprising,) = merge([RankedBy.model_validate(values | {"ranks": [2, 1]})], {"u": upper})
    assert expected.weight < 0.05
    assert ranks(surprising) == {"A": 2, "B": 1}
    assert surprising.weight > 0.3


def test_merged_rankings_are_nearer_the_truth_than_the_majority() -> None:
    """Where a third of the labellers has habits or answers at random, over four crews."""
    right = {"merged": 0, "usual": 0}
    for seed in range(4):
        rng = np.random.default_rng(seed)
        found, worth = rankings(crew(rng), rng, prompts=400, answers=3, each=4)
        model = fit_labellers(Comparisons.of(found))
        known = trust(model, report(model))
        for name, merged in (("merged", merge(found, known, sure=0.5)), ("usual", merge(found, sure=0.5))):
            for one, (i, j) in ((m, pair) for m in merged for pair in m.pairs()):
                right[name] += 1 if worth[one.answers[i]] > worth[one.answers[j]] else -1
    assert right["merged"] > right["usual"] * 1.05


def test_the_weight_says_how_often_the_order_is_right() -> None:
    """Of the pairs in rankings of about the same weight, (1 + weight) / 2 are in the order of worth."""
    rng = np.random.default_rng(8)
    found, worth = rankings(crew(rng), rng, prompts=1500, each=4)
    model = fit_labellers(Comparisons.of(found))
    seen = []
    for one in merge(found, trust(model, report(model)), sure=0.5):
        for i, j in one.pairs():
            seen.append((one.weight, worth[one.answers[i]] > worth[one.answers[j]]))
    weights, right = (np.array(column, dtype=float) for column in zip(*seen, strict=True))
    for low, high in itertools.pairwise([0.0, 0.4, 0.7, 1.0]):
        inside = (weights >= low) & (weights < high)
        assert inside.sum() > 80
        assert right[inside].mean() == pytest.approx((1 + weights[inside].mean()) / 2, abs=0.08)


def test_order_and_names_do_not_matter() -> None:
    some = [by("a", 1, 2, 3), by("b", 2, 1, 3), by("c", 1, 1, 2)]
    expected = ranks(merge(some)[0])
    for order in itertools.permutations(some):
        assert ranks(merge(order)[0]) == expected
    turned = [one.model_copy(update={"answers": one.answers[::-1], "ranks": one.ranks[::-1]}) for one in some]
    assert ranks(merge(turned)[0]) == expected


def test_partial_rankings_of_one_prompt_are_joined() -> None:
    first = by("a", 1, 2)
    second = RankedBy.model_validate(by("b", 1, 2).model_dump() | {"answers": ["B", "C"]})
    (found,) = merge([first, second], sure=0.5)
    assert ranks(found) == {"A": 1, "B": 2, "C": 3}


def test_places_from_a_posterior_that_is_known() -> None:
    assert places(np.array([2.0, 0.0, 1.9]), 0.01 * np.eye(3), 0.99) == ([1, 3, 1], pytest.approx(2 / 3, abs=1e-6))
    assert places(np.zeros(2), np.eye(2)) == ([1, 1], 0.0)


def test_bad_input() -> None:
    for sure in (0.4, 1.0, float("nan")):
        with pytest.raises(InputError, match="sure="):
            merge([by("a", 1, 2)], sure=sure)
    with pytest.raises(InputError, match="nothing is compared"):
        merge([])
