"""Tests that may be looked at at any time: their false alarms and their power, by simulation."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import stats

from chatwheel.errors import InputError
from chatwheel.feedback.sequential import BelowBaseline, FallingRatings, confidence_sequence, win_rate
from chatwheel.feedback.significance import holm, share_interval, t_quantile


def watch(
    seed: int, old: float, new: float, *, share: float = 0.05, most: int = 3000, drift: float = 0.0
) -> int | None:
    """After how many ratings of both the alarm comes; None if it does not. drift: that both fall by, to the end."""
    rng = np.random.default_rng(seed)
    test = FallingRatings()
    arms, thumbs = rng.random(most) < share, rng.random(most)
    for i, (is_new, thumb) in enumerate(zip(arms, thumbs, strict=True)):
        up = float(thumb < (new if is_new else old) - drift * i / most)
        if test.add("new" if is_new else "old", up):
            return i + 1
    return None


@pytest.mark.parametrize(("share", "drift"), [(0.05, 0.0), (0.5, 0.0), (0.3, 0.5)])
def test_the_level_holds_at_any_stopping_time(share: float, drift: float) -> None:
    """200 runs of 3,000 looks each; 5 % and three standard errors of it."""
    alarms = sum(watch(seed, 0.8, 0.8, share=share, drift=drift) is not None for seed in range(200))
    assert alarms <= 200 * 0.05 + 3 * math.sqrt(200 * 0.05 * 0.95)


def test_a_test_for_one_look_does_not_hold_it() -> None:
    """What the sequential one is for: the t-test, looked at after every 20 ratings, cries wolf."""
    alarms = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        old, new = rng.random((2, 1000)) < 0.8
        alarms += any(
            stats.ttest_ind(old[:n], new[:n], alternative="greater").pvalue < 0.05 for n in range(20, 1001, 20)
        )
    assert alarms > 15


def test_power() -> None:
    """Thumbs up from 80 to 40 %, at 5 % of chats: nearly always found, after some 60 of the new model's ratings."""
    found = [watch(seed, 0.8, 0.4) for seed in range(100)]
    assert sum(one is not None for one in found) >= 95
    assert np.median([one for one in found if one is not None]) * 0.05 < 60
    half = [watch(seed, 0.8, 0.6, share=0.5, most=1500) for seed in range(50)]
    assert sum(one is not None for one in half) >= 48


def test_a_state_that_is_saved_goes_on_as_if_nothing_had_been() -> None:
    rng = np.random.default_rng(0)
    test, saved = FallingRatings(margin=0.05), FallingRatings(margin=0.05)
    for _ in range(100):
        arm, value = ("new", "old")[rng.integers(2)], float(rng.random() < 0.5)
        test.add(arm, value)
        saved = FallingRatings.of(json.loads(json.dumps(saved.state())))
        saved.add(arm, value)
    assert saved.evidence == test.evidence
    assert saved.words() == test.words()
    assert 0 < test.p <= 1
    with pytest.raises(InputError, match="damaged"):
        FallingRatings.of({"level": 0.05})


def test_the_alarm_stays_and_is_said_in_words() -> None:
    test = FallingRatings()
    assert test.words() == "no ratings of both models yet"
    for _ in range(40):
        test.add("old", 1)
        test.add("new", 0)
    assert test.alarm
    assert test.words().startswith("worse: 0.00 (40) after 1.00 (40); p = ")
    for _ in range(400):
        test.add("old", 0)
        test.add("new", 1)
    assert test.alarm
    assert not FallingRatings().add("new", 0)


def test_below_a_baseline() -> None:
    alarms = [0, 0]
    for seed in range(100):
        rng = np.random.default_rng(seed)
        for which, mean in enumerate((0.7, 0.45)):
            test = BelowBaseline(0.7)
            alarms[which] += any(test.add(float(v)) for v in rng.random(500) < mean)
    assert alarms[0] <= 11
    assert alarms[1] >= 98


@pytest.mark.slow
def test_confidence_sequences_cover_at_all_times_and_shrink() -> None:
    missed, widths = 0, []
    for seed in range(100):
        values = (np.random.default_rng(seed).random(400) < 0.3).astype(float)
        found = confidence_sequence(list(values), 0.9)
        missed += any(not low <= 0.3 <= high for low, high in found)
        widths.append(found[-1][1] - found[-1][0])
    assert missed <= 10 + 9
    assert np.mean(widths) < 0.2
    assert confidence_sequence([]) == []
    low, high = confidence_sequence([1.0] * 200)[-1]
    assert low > 0.9
    assert high == 1.0


def test_win_rates_over_prompts() -> None:
    plain = win_rate([1, 1, 0, 0.5], ["a", "b", "c", "d"])
    assert (plain.rate, plain.pairs, plain.prompts) == (0.625, 4, 4)
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        chance = rng.beta(2, 2, 40)  # a prompt suits one model or the other
        wins = (rng.random((40, 5)) < chance[:, None]).astype(float)
        found = win_rate(wins.ravel().tolist(), [str(i // 5) for i in range(200)])
        covered += found.interval[0] <= 0.5 <= found.interval[1]
    assert 0.92 <= covered / 400 <= 0.98
    many = win_rate([1, 0, 1, 1] * 5, [str(i % 4) for i in range(20)])
    once = win_rate([1, 0, 1, 1], list("abcd"))
    np.testing.assert_allclose(many.interval, once.interval)  # five copies of a pair say what one says
    assert win_rate([1] * 30, [str(i) for i in range(30)]).interval[1] == 1.0
    assert 0.8 < win_rate([1] * 30, [str(i) for i in range(30)]).interval[0] < 1
    assert win_rate([1, 0], ["a", "a"]).interval == (0.0, 1.0)


@pytest.mark.parametrize("value", [math.nan, -1, 2, math.inf])
def test_ratings_outside_are_refused(value: float) -> None:
    for call in (
        lambda: FallingRatings().add("old", value),
        lambda: BelowBaseline(0.5).add(value),
        lambda: confidence_sequence([value]),
        lambda: win_rate([value], ["a"]),
    ):
        with pytest.raises(InputError, match="expected a number from 0 to 1"):
            call()


def test_bad_settings_are_refused() -> None:
    for call, words in (
        (lambda: FallingRatings(level=0), "level=0"),
        (lambda: FallingRatings(margin=1), "margin=1"),
        (lambda: FallingRatings().add("other", 1), "arm 'other'"),  # type: ignore[arg-type]
        (lambda: BelowBaseline(0), "baseline=0"),
        (lambda: win_rate([], []), "no pairs"),
        (lambda: win_rate([1], []), "1 pairs but 0 prompts"),
    ):
        with pytest.raises(InputError, match=words):
            call()


def test_quantiles_and_corrections_against_scipy() -> None:
    for freedom in (1, 2, 3, 5, 10, 50, 500):
        assert t_quantile(0.975, freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=0.01)
    expected = stats.binomtest(7, 20).proportion_ci(0.95, "wilson")
    np.testing.assert_allclose(share_interval(7 / 20, 20, stats.norm.ppf(0.975)), expected)
    p = np.array([0.01, 0.04, 0.03, 0.005])
    np.testing.assert_allclose(holm(p), [0.03, 0.06, 0.06, 0.02])  # statsmodels' example by hand
