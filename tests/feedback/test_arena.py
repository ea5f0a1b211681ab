"""Ratings of models against logistic regression and scipy, on battles whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import optimize
from sklearn.linear_model import LogisticRegression

from chatwheel.errors import InputError
from chatwheel.feedback.arena import ELO, PRECISION, Battle, rate_models, rate_strata

STRENGTH = {"a": 0.0, "b": 0.5, "c": 1.0, "d": -0.7}


def battles(seed: int, count: int, *, tie: float = 0.0, left: float = 0.0, each: int = 1, **more) -> list[Battle]:
    """By Davidson's model; `tie` is exp(tau). each: battles over a prompt, in which the left model may have luck."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(count):
        one, other = rng.choice(list(STRENGTH), 2, replace=False)
        lead = STRENGTH[one] - STRENGTH[other] + left
        odds = np.array([math.exp(lead / 2), tie, math.exp(-lead / 2)])
        outcome = rng.choice(["left", "tie", "right"], p=odds / odds.sum())
        if outcome == "tie" and rng.random() < 0.3:
            outcome = "both bad"
        found.append(Battle(left=one, right=other, outcome=outcome, prompt=f"{i // each}", **more))
    return found


def ratings(found) -> dict[str, float]:
    return {one.model: one.rating for one in found.models}


def test_without_ties_it_is_logistic_regression() -> None:
    fought = battles(0, 800)
    names = sorted(STRENGTH)
    x = np.array([[(b.left == n) - (b.right == n) for n in names] + [1.0] for b in fought], dtype=float)
    y = np.array([b.outcome == "left" for b in fought])
    fit = LogisticRegression(C=1 / PRECISION, fit_intercept=False, tol=1e-10, max_iter=1000).fit(x, y)
    found = rate_models(fought, anchor="a", anchor_rating=1200)
    for name, value in zip(names, fit.coef_[0, :-1] - fit.coef_[0, 0], strict=True):
        assert ratings(found)[name] == pytest.approx(
            1200 + ELO * value, abs=0.1
        )  # here a tie, never seen, has a chance
    assert found.left_first == pytest.approx(ELO * fit.coef_[0, -1], abs=0.1)


def test_with_ties_it_is_the_maximum_that_scipy_finds() -> None:
    fought = battles(1, 500, tie=0.8, left=0.3)
    names = sorted(STRENGTH)

    def negative(theta: np.ndarray) -> float:
        total = PRECISION / 2 * float(theta @ theta)
        for b in fought:
            lead = theta[names.index(b.left)] - theta[names.index(b.right)] + theta[4]
            odds = {"left": lead / 2, "right": -lead / 2}
            logs = [lead / 2, -lead / 2, theta[5]]
            total -= odds.get(b.outcome, theta[5]) - math.log(sum(map(math.exp, logs)))
        return total

    best = optimize.minimize(negative, np.zeros(6), method="BFGS").x
    found = rate_models(fought)
    for name, value in zip(names, best[:4] - best[:4].mean(), strict=True):
        assert ratings(found)[name] == pytest.approx(1000 + ELO * value, abs=0.5)
    assert found.tie == pytest.approx(best[5], abs=1e-3)
    assert sum(one.both_bad for one in found.models) == 2 * sum(b.outcome == "both bad" for b in fought)
    assert all(one.wins + one.ties + one.both_bad <= one.battles for one in found.models)


@pytest.mark.parametrize("bootstrap", [0, 200])
def test_intervals_cover_the_truth(bootstrap: int) -> None:
    """95 % intervals of three distances from the anchor, 60 arenas (20 for the bootstrap) of 300 battles."""
    arenas, covered = (20 if bootstrap else 60), 0
    for seed in range(arenas):
        found = rate_models(battles(seed, 300, tie=0.5), anchor="a", anchor_rating=0, bootstrap=bootstrap, seed=seed)
        for one in found.models:
            covered += one.model != "a" and one.interval[0] <= ELO * STRENGTH[one.model] <= one.interval[1]
    assert 0.88 <= covered / (3 * arenas) <= 0.995


def test_the_same_battle_told_five_times_makes_nothing_surer() -> None:
    fought = battles(3, 200)
    once = rate_models(fought, anchor="a")
    told = rate_models([b for b in fought for _ in range(5)], anchor="a")
    for one, many in zip(once.models, told.models, strict=True):
        wide, narrow = one.interval[1] - one.interval[0], many.interval[1] - many.interval[0]
        assert narrow == pytest.approx(wide, rel=0.1)


def test_names_order_and_sides_do_not_matter() -> None:
    fought = battles(4, 300, tie=0.5)
    found = rate_models(fought, anchor="b")
    new = {"a": "z", "b": "y", "c": "x", "d": "w"}
    flipped = {"left": "right", "right": "left"}
    rng = np.random.default_rng(0)
    turned = [
        Battle(left=new[b.right], right=new[b.left], outcome=flipped.get(b.outcome, b.outcome), prompt=b.prompt)
        for b in (fought[i] for i in rng.permutation(len(fought)))
    ]
    again = rate_models(turned, anchor="y")
    for name, rating in ratings(found).items():
        assert ratings(again)[new[name]] == pytest.approx(rating, abs=1e-4)
    assert again.left_first == pytest.approx(-found.left_first, abs=1e-4)


def test_a_page_that_leans_left_is_seen_and_taken_out() -> None:
    leaning = rate_models(battles(5, 1500, left=0.6), anchor="a", anchor_rating=0)
    assert leaning.left_first_interval[0] > 0
    assert leaning.left_first == pytest.approx(ELO * 0.6, abs=40)
    assert ratings(leaning)["c"] == pytest.approx(ELO, abs=60)
    assert leaning.win_probability("c", "a") == pytest.approx(1 / (1 + math.exp(-1)), abs=0.08)


def test_strata_and_who_has_won_everything() -> None:
    fought = [*battles(6, 200, language="en", topic="code"), *battles(7, 200, language="zh")]
    apart = [Battle(left=x, right=y, outcome="left", language="fr") for x, y in (("a", "b"), ("c", "d"))]
    by = rate_strata([*fought, *apart], "language", anchor="a")
    assert set(by) == {"en", "zh", "fr"}
    assert ratings(by["en"]) != ratings(by["zh"])
    assert by["fr"].startswith("arena: these have never met")
    assert set(rate_strata(fought, "topic")) == {"code"}
    won = rate_models([Battle(left="a", right="b", outcome="left")] * 5)
    assert [one.model for one in won.models] == ["a", "b"]
    assert all(math.isfinite(v) for one in won.models for v in (one.rating, *one.interval))


def test_bad_input_is_one_clear_error() -> None:
    fought = battles(0, 10)
    with pytest.raises(InputError, match="there are no battles"):
        rate_models([])
    with pytest.raises(InputError, match="anchor 'q' has no battles"):
        rate_models(fought, anchor="q")
    with pytest.raises(InputError, match=r"never met.*a, b \| x, y; let them meet"):
        rate_models([Battle(left="a", right="b", outcome="tie"), Battle(left="y", right="x", outcome="left")])
    with pytest.raises(InputError, match="'q' has no battles"):
        rate_models(fought).win_probability("a", "q")
    with pytest.raises(ValidationError, match="against itself"):
        Battle(left="a", right="a", outcome="tie")
