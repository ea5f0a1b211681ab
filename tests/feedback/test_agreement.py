"""Agreement against Krippendorff's worked example and a plain reading of his formula."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from chatwheel.errors import InputError
from chatwheel.feedback.agreement import krippendorff, labeller_agreement, ranking_agreement
from chatwheel.feedback.judgements import Comparisons, RankedBy
from tests.feedback.simulated import Simulated, crew, rankings

N = math.nan
EXAMPLE = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, N, N, N],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, N, 3],
    [N, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, N],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, N],
]
"""Of "Computing Krippendorff's alpha-reliability" (2011), section C."""


def plain(values, apart) -> float:
    """Alpha as it is told in words: the mean distance within items over that between any two values."""
    items = [[v for v in column if not math.isnan(v)] for column in zip(*values, strict=True)]
    items = [item for item in items if len(item) > 1]
    everything = [v for item in items for v in item]
    n = len(everything)
    observed = sum(apart(a, b, everything) / (len(i) - 1) for i in items for a, b in itertools.permutations(i, 2)) / n
    expected = sum(apart(a, b, everything) for a, b in itertools.permutations(everything, 2)) / (n * (n - 1))
    return 1 - observed / expected


def between(a, b, everything) -> float:
    low, high = sorted((a, b))
    count = {v: everything.count(v) for v in everything}
    return (sum(count[v] for v in count if low <= v <= high) - (count[low] + count[high]) / 2) ** 2


PLAIN = {"nominal": lambda a, b, _: float(a != b), "interval": lambda a, b, _: (a - b) ** 2, "ordinal": between}


@pytest.mark.parametrize(("metric", "alpha"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_krippendorffs_own_example(metric: str, alpha: float) -> None:
    found = krippendorff(EXAMPLE, metric, draws=200)
    assert found.alpha == pytest.approx(alpha, abs=5e-4)
    assert found.alpha == pytest.approx(plain(EXAMPLE, PLAIN[metric]))
    assert (found.items, found.values) == (11, 40)
    assert found.interval[0] < found.alpha < found.interval[1] <= 1


@pytest.mark.parametrize("metric", ["nominal", "ordinal", "interval"])
def test_alpha_of_random_tables_with_holes_is_the_formula_whatever_the_order(metric: str) -> None:
    rng = np.random.default_rng(4)
    for _ in range(10):
        values = rng.integers(0, 4, (4, 15)).astype(float)
        values[rng.random(values.shape) < 0.3] = N
        found = krippendorff(values, metric, draws=0).alpha
        assert found == pytest.approx(plain(values.tolist(), PLAIN[metric]))
        shuffled = values[rng.permutation(4)][:, rng.permutation(15)]
        assert krippendorff(shuffled, metric, draws=0).alpha == pytest.approx(found)
    renamed = np.where(values == 0, 9.0, values)
    assert krippendorff(renamed, "nominal", draws=0).alpha == pytest.approx(krippendorff(values, draws=0).alpha)


def test_the_interval_covers_what_many_items_show() -> None:
    """Nine of ten 95 % intervals at least; 60 tables of 100 items, alpha known from 100,000."""
    rng = np.random.default_rng(1)

    def table(items: int) -> np.ndarray:
        truth = rng.integers(0, 3, items)
        return np.where(rng.random((3, items)) < 0.7, truth, rng.integers(0, 3, (3, items)))

    alpha = krippendorff(table(100_000), draws=0).alpha
    covered = 0
    for seed in range(60):
        low, high = krippendorff(table(100), draws=300, seed=seed).interval
        covered += low <= alpha <= high
    assert covered >= 54


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([], "expected a row"),
        ([[1, 2, 3]], "no item has been valued by two"),
        ([[1, N], [N, 2]], "no item has been valued by two"),
        ([[1, math.inf], [1, 2]], "finite"),
        ([["a", "b"], ["a", "b"]], "give each label a number"),
    ],
)
def test_what_cannot_be_measured_is_one_clear_error(values, words: str) -> None:
    with pytest.raises(InputError, match=words) as error:
        krippendorff(values)
    assert "\n" not in str(error.value)


def test_one_item_and_one_value() -> None:
    assert krippendorff([[1], [2]], draws=50).alpha == pytest.approx(0.0)
    assert math.isnan(krippendorff([[3, 3], [3, 3]], draws=50).alpha)
    with pytest.raises(InputError, match="metric"):
        krippendorff(EXAMPLE, "ratio")  # type: ignore[arg-type]


def test_rankings_agree_as_alpha_of_their_pairs_taken_both_ways() -> None:
    rng = np.random.default_rng(0)
    found, _ = rankings(crew(rng), rng, prompts=40, answers=3, each=4)
    c = Comparisons.of(found)
    columns: list[list[float]] = [[] for _ in c.labellers]
    for pair in range(c.num_pairs):
        for sign in (1, -1):
            own = dict(zip(c.labeller[c.pair == pair], sign * c.outcome[c.pair == pair], strict=True))
            for i, column in enumerate(columns):
                column.append(own.get(i, N))
    measured = ranking_agreement(c, draws=100)
    n = sum(not math.isnan(v) for column in columns for v in column)
    expected = plain(columns, PLAIN["interval"])
    # taking pairs twice doubles n, which is known exactly: D_expected has n / (n - 1)
    assert 1 - (1 - measured.alpha) * ((n - 1) / n) / ((n / 2 - 1) / (n / 2)) == pytest.approx(expected)
    assert measured.interval[0] < measured.alpha < measured.interval[1]


def test_each_labellers_agreement_tells_honest_random_and_contrary_ones_apart() -> None:
    rng = np.random.default_rng(2)
    people = [Simulated(f"honest {i}", beta=3) for i in range(4)] + [
        Simulated("contrary", beta=-3),
        Simulated("r", beta=0),
    ]
    found, _ = rankings(people, rng, prompts=300, each=4)
    by_name = {one.labeller: one for one in labeller_agreement(Comparisons.of(found))}
    assert all(one.alpha > 0.2 for name, one in by_name.items() if name.startswith("honest"))
    assert by_name["contrary"].alpha < -0.2
    assert abs(by_name["r"].alpha) < 0.15
    alone = RankedBy(messages=found[0].messages, answers=["p", "q"], ranks=[1, 2], labeller="alone")
    last = next(x for x in labeller_agreement(Comparisons.of([*found, alone])) if x.labeller == "alone")
    assert last.n == 0
    assert math.isnan(last.alpha)


def test_rankings_that_never_meet_have_no_agreement() -> None:
    rng = np.random.default_rng(0)
    found, _ = rankings(crew(rng), rng, prompts=10, each=1)
    with pytest.raises(InputError, match="no two labellers"):
        ranking_agreement(Comparisons.of(found))
