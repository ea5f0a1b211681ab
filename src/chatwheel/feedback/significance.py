"""What the statistics of feedback share: tails of the normal distribution, intervals of a share, Holm's correction, and
draws with replacement."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
Interval = tuple[float, float]

NORMAL = NormalDist()
DRAWS_AT_ONCE = 100


def two_sided(z: Array) -> Array:
    """The probability of a standard normal at least as far from 0 as each z."""
    return np.array([math.erfc(abs(value) / math.sqrt(2)) for value in z.ravel()]).reshape(z.shape)


def below(z: Array) -> Array:
    """The probability of a standard normal below each z."""
    return np.array([math.erfc(-value / math.sqrt(2)) / 2 for value in z.ravel()]).reshape(z.shape)


def holm(p: Array) -> Array:
    """Values of p that hold for all of a family at once (Holm, 1979, "A simple sequentially rejective multiple test
    procedure"): the chance of even one false rejection is at most the level, whatever their dependence. Any shape."""
    flat = p.ravel()
    order = np.argsort(flat, kind="stable")
    factors = len(flat) - np.arange(len(flat))
    corrected = np.empty(len(flat))
    corrected[order] = np.minimum(np.maximum.accumulate(flat[order] * factors), 1.0)
    return corrected.reshape(p.shape)


def t_quantile(p: float, freedom: int) -> float:
    """Student's t, by an expansion about the normal (Abramowitz and Stegun, 26.7.5), within 1 % of the truth for
    p = 0.975 and 3 degrees of freedom, nearer beyond; in closed form for 1 and 2."""
    if freedom < 3:
        tail = p - 0.5
        return math.tan(math.pi * tail) if freedom == 1 else 2 * tail * math.sqrt(2 / (4 * p * (1 - p)))
    z, v = NORMAL.inv_cdf(p), float(freedom)
    terms = [
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    ]
    return z + sum(term / v**power for power, term in enumerate(terms, start=1))


def share_interval(share: float, n: float, quantile: float) -> Interval:
    """Of a share among n independent cases, which need not be whole (Wilson, 1927)."""
    square = quantile**2
    center = (share + square / (2 * n)) / (1 + square / n)
    half = quantile / (1 + square / n) * math.sqrt(max(share * (1 - share), 0.0) / n + square / (4 * n**2))
    return max(0.0, center - half), min(1.0, center + half)


def mean_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Of the mean of independent shares, each between 0 and 1: Student's, but never narrower than what one more share
    of 0 and one of 1 would make it, as few that are the same say little of those that are not."""
    n = len(values)
    seen = np.array([*values, 0.0, 1.0])
    half = t_quantile((1 + level) / 2, n + 1) * float(seen.std(ddof=1)) / math.sqrt(n + 2)
    mean = float(np.mean(values))
    return max(0.0, mean - half), min(1.0, mean + half)


def redrawn(count: int, times: int, rng: np.random.Generator) -> Iterator[Array]:
    """How often each of `count` things is drawn when as many are drawn with replacement, `times` times: B x count, in
    batches that fit the memory."""
    for first in range(0, times, DRAWS_AT_ONCE):
        size = min(DRAWS_AT_ONCE, times - first)
        yield rng.multinomial(count, np.full(count, 1 / count), size=size).astype(np.float64)


def middle(values: Array, level: float) -> Interval:
    """The range of the middle `level` of some draws; those that are no number are left out, and without any there is
    none (NaN)."""
    values = values[np.isfinite(values)]
    if not len(values):
        return math.nan, math.nan
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
