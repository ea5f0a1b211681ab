"""Watching ratings while they come in: tests that may be looked at after every rating.

A test for a fixed number of ratings that is looked at again and again raises a false alarm sooner or later. These hold
their level whenever one looks and stops. They bet: capital starts at 1, and each rating stakes a part of it on "the new
model is worse". If it is not, capital is a supermartingale, and reaches 1 / level with a probability of at most `level`
(Ville, 1939; Waudby-Smith and Ramdas, 2024, "Estimating means of bounded random variables by betting"). The stakes are
a mixture over a grid: capital is the mean over the gamblers who always stake one part, so that nothing has to be tuned.

Ratings are numbers in [0, 1]: a thumb down is 0, up is 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from chatwheel.errors import InputError
from chatwheel.feedback.significance import Array, Interval, share_interval, t_quantile

Arm = Literal["old", "new"]

STAKES = np.concatenate([np.geomspace(0.01, 0.2, 12), np.linspace(0.25, 0.95, 12)])
"""Parts of the capital that gamblers stake. Small ones find small differences, late."""
BOUNDS = np.linspace(0.0, 1.0, 401)[1:-1]
"""Means that a confidence sequence considers."""


@dataclass
class FallingRatings:
    """Whether the new model's ratings are worse than the old one's by more than `margin`, the two being answered and
    rated side by side (5 % of chats and the rest, say).

    Ratings of both wait until there is one of each; then the mean of those that wait of the one is held against that of
    the other's. Which ratings meet depends on the arms alone, never on what the ratings are, so that a bet on
    old - new - margin is fair as long as the new model is no worse than that, and ratings that fall or rise for both (a
    weekend, a worse crowd) change nothing: they meet those of the same time.

    level: the probability of a false alarm, ever. alarm: whether it has been raised; it stays. evidence: the capital,
    how many times more likely "worse" has become in the gamblers' eyes. p: valid at any time, 1 / the largest capital.
    """

    level: float = 0.05
    margin: float = 0.0
    log_capital: Array = field(default_factory=lambda: np.zeros(len(STAKES)))
    waiting: dict[str, list[float]] = field(default_factory=lambda: {"old": [], "new": []})
    count: dict[str, int] = field(default_factory=lambda: {"old": 0, "new": 0})
    total: dict[str, float] = field(default_factory=lambda: {"old": 0.0, "new": 0.0})
    most: float = 1.0

    def __post_init__(self) -> None:
        _check_level(self.level)
        if not 0 <= self.margin < 1:
            raise InputError(f"margin={self.margin}; expected from 0 to below 1")

    def add(self, arm: Arm, rating: float) -> bool:
        """Returns whether the alarm is raised. Raises InputError for a rating outside [0, 1]."""
        if arm not in ("old", "new"):
            raise InputError(f'arm {arm!r}; expected "old" or "new"')
        value = _rating(rating)
        self.count[arm] += 1
        self.total[arm] += value
        self.waiting[arm].append(value)
        if self.waiting["old"] and self.waiting["new"]:
            old, new = (math.fsum(self.waiting[a]) / len(self.waiting[a]) for a in ("old", "new"))
            self.waiting = {"old": [], "new": []}
            self.log_capital = self.log_capital + np.log1p(STAKES * (old - new - self.margin) / (1 + self.margin))
            self.most = max(self.most, self.evidence)
        return self.alarm

    @property
    def evidence(self) -> float:
        return math.exp(min(_log_mean(self.log_capital), 700.0))

    @property
    def alarm(self) -> bool:
        return self.most >= 1 / self.level

    @property
    def p(self) -> float:
        return 1 / self.most

    def words(self) -> str:
        """The state in one line."""
        if not (self.count["old"] and self.count["new"]):
            return "no ratings of both models yet"
        shares = {arm: f"{self.total[arm] / self.count[arm]:.2f} ({self.count[arm]})" for arm in ("old", "new")}
        verdict = "worse" if self.alarm else "not shown to be worse"
        return f"{verdict}: {shares['new']} after {shares['old']}; p = {self.p:.2g} at any time"

    def state(self) -> dict[str, Any]:
        """All of it, as JSON; `FallingRatings.of` goes on from there."""
        return {
            "level": self.level,
            "margin": self.margin,
            "log_capital": self.log_capital.tolist(),
            "waiting": self.waiting,
            "count": self.count,
            "total": self.total,
            "most": self.most,
        }

    @staticmethod
    def of(state: dict[str, Any]) -> FallingRatings:
        """Raises InputError for what `state` has not given."""
        try:
            found = FallingRatings(**{**state, "log_capital": np.array(state["log_capital"], dtype=np.float64)})
        except (KeyError, TypeError, ValueError):
            raise InputError("sequential test: its saved state is damaged; start it anew") from None
        if len(found.log_capital) != len(STAKES):
            raise InputError("sequential test: its saved state is of another version; start it anew")
        return found


def confidence_sequence(ratings: Sequence[float], level: float = 0.95) -> list[Interval]:
    """After each rating, an interval that holds the mean with the probability `level` at all times at once, for
    ratings whose mean given all before does not change. It is what bets for and against each mean leave: a mean is out
    once those who bet that it is too low, or those that it is too high, have 2 / (1 - level) times what they began
    with. Once the mean has changed so much that none is left, the interval stays. Raises InputError for a rating
    outside [0, 1]."""
    _check_level(1 - level)
    values = np.array([_rating(value) for value in ratings])
    stakes = STAKES[:, None]
    up, down = np.zeros((len(STAKES), len(BOUNDS))), np.zeros((len(STAKES), len(BOUNDS)))
    found: list[Interval] = []
    low, high = 0, len(BOUNDS) - 1
    needed, step = math.log(2 / (1 - level)), float(BOUNDS[1] - BOUNDS[0])
    for value in values:
        up += np.log1p(stakes * (value / BOUNDS - 1))  # a stake of at most 1 / mean keeps capital above 0
        down += np.log1p(stakes * ((1 - value) / (1 - BOUNDS) - 1))
        too_low, too_high = _log_mean(up) >= needed, _log_mean(down) >= needed
        lower, upper = max(low, int(too_low.sum())), min(high, len(BOUNDS) - 1 - int(too_high.sum()))
        if lower <= upper:  # both capitals are monotonic in the mean
            low, high = lower, upper
        found.append((max(0.0, float(BOUNDS[low]) - step), min(1.0, float(BOUNDS[high]) + step)))
    return found


@dataclass
class BelowBaseline:
    """Whether the mean of a model's ratings is below what it was to be, where no other model is held against it: after
    a promotion to all. baseline: that mean, in (0, 1]; of a past of n ratings, take the lower end of an interval,
    for it is no truth. level, alarm, evidence and p as for `FallingRatings`."""

    baseline: float
    level: float = 0.05
    log_capital: Array = field(default_factory=lambda: np.zeros(len(STAKES)))
    most: float = 1.0

    def __post_init__(self) -> None:
        _check_level(self.level)
        if not 0 < self.baseline <= 1:
            raise InputError(f"baseline={self.baseline}; expected a mean of ratings, above 0 and at most 1")

    def add(self, rating: float) -> bool:
        """Returns whether the alarm is raised. Raises InputError for a rating outside [0, 1]."""
        fall = self.baseline - _rating(rating)
        largest = 1 / max(1 - self.baseline, 0.05)  # what may be staked on a fall of at most 1 - baseline the wrong way
        self.log_capital = self.log_capital + np.log1p(STAKES * largest * fall)
        self.most = max(self.most, math.exp(min(float(_log_mean(self.log_capital)), 700.0)))
        return self.alarm

    @property
    def alarm(self) -> bool:
        return self.most >= 1 / self.level

    @property
    def p(self) -> float:
        return 1 / self.most


@dataclass(frozen=True)
class WinRate:
    """rate: of pairs that the one wins, ties being half. interval: of 95 %. pairs, prompts: how many."""

    rate: float
    interval: Interval
    pairs: int
    prompts: int


def win_rate(wins: Sequence[float], prompts: Iterable[str], level: float = 0.95) -> WinRate:
    """wins: 1, 0.5 or 0 a pair (any share in between, of several judges); prompts: the prompt of each, whose pairs are
    one piece of evidence.

    The variance is that of a mean with clusters; Wilson's interval takes as many independent pairs as would have that
    variance (Korn and Graubard, 1998), with Student's t for few prompts. Raises InputError without pairs.
    """
    values, keys = np.array([_rating(value) for value in wins]), list(prompts)
    if not len(values):
        raise InputError("win rate: there are no pairs")
    if len(keys) != len(values):
        raise InputError(f"win rate: {len(values)} pairs but {len(keys)} prompts; expected one each")
    _check_level(1 - level)
    names, cluster = np.unique(np.array(keys, dtype=object).astype(str), return_inverse=True)
    rate, count = float(values.mean()), len(names)
    if count == 1:
        return WinRate(rate, (0.0, 1.0), len(values), 1)
    residual = np.bincount(cluster, values - rate)
    variance = count / (count - 1) * float((residual**2).sum()) / len(values) ** 2
    worth = rate * (1 - rate) / variance if variance > 1e-12 else float(count)
    most = 4.0 * len(values)  # nearly all ties, whose spread is small by chance as much as by nature
    interval = share_interval(rate, min(worth, most), t_quantile((1 + level) / 2, count - 1))
    return WinRate(rate, interval, len(values), count)


def _log_mean(logs: Array) -> Any:
    """Of the exponentials, over the first axis."""
    highest = logs.max(axis=0)
    return highest + np.log(np.exp(logs - highest).mean(axis=0))


def _rating(value: float) -> float:
    found = float(value)
    if not 0 <= found <= 1:
        raise InputError(f"rating {value!r}; expected a number from 0 to 1")
    return found


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise InputError(f"level={level:g}; expected a probability between 0 and 1")
