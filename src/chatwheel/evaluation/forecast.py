"""What twice the examples would do: the errors measured on parts of the data, a curve through them, and a sentence.

    wrong = {50: 92, 100: 70, 200: 46, 400: 32}      # of 400 questions, after training on so many examples
    forecast = Forecast.fit([Measured.binomial(examples, count, 400) for examples, count in wrong.items()])
    print(forecast.sentence)      # twice the examples would lower the error from 8 % to about ...

The curve is a power law with a floor (Hestness et al., 2017, "Deep learning scaling is predictable, empirically"):

    err(n) = a + b n^-c = L (f + (1 - f) (n / N)^-c)

L is the error with all N examples, f the share of it that no data takes away, c the exponent. Four points determine
three numbers badly, so the interval is Bayesian: a grid of f and c, each with its Gaussian of L in closed form. A
bootstrap would draw new points around one fit, and where that fit happens to lie at a border (a = 0, as it does for
every second curve) it knows of no other floor: its intervals end there. Priors:

    c    log-normal around 0.5, 95 % within 0.13 to 2: published exponents are 0.07 to 0.5, small tasks have faster ones
    f    Beta(1, 1.5): anything, rather less than more
    L    flat between 0 and 1
    t    what differs from run to run beyond the error's standard error, as a share of it: 0, 2.5, 5 or 10 %
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from chatwheel.errors import InputError

Array = NDArray[np.float64]
Interval = tuple[float, float]

SHARES = (1 / 8, 1 / 4, 1 / 2, 1.0)
"""Of the data, what is trained on."""
_EXPONENTS = np.geomspace(0.03, 3.0, 48)
_FLOORS = (np.arange(40) + 0.5) / 40
_BETWEEN_RUNS = np.array([0.0, 0.025, 0.05, 0.1])
_NUM_SAMPLES = 4_000
_FAR = 1000
"""Times the data, beyond which nobody collects."""
_TARGETS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
_CURVE_POINTS = 33


@dataclass(frozen=True)
class Measured:
    """The error, a share of 1, with so many examples, and the standard deviation of how it was measured."""

    examples: int
    error: float
    standard_error: float

    @staticmethod
    def binomial(examples: int, wrong: int, tested: int) -> Measured:
        """From so many wrong answers of so many that were tested. Its standard error is never 0 (Agresti and Coull,
        1998)."""
        return Measured(examples, wrong / tested, _binomial_error(wrong / tested, tested))

    @staticmethod
    def of_seeds(examples: int, errors: Sequence[float], tested: int) -> Measured:
        """From several runs that were tested with the same questions: more runs average their luck in training, not the
        questions'."""
        mean = sum(errors) / len(errors)
        between = float(np.var(errors, ddof=1)) / len(errors) if len(errors) > 1 else 0.0
        return Measured(examples, mean, math.sqrt(_binomial_error(mean, tested) ** 2 + between))


def _binomial_error(share: float, tested: int) -> float:
    if tested < 1:
        raise InputError("a forecast needs errors that were measured on at least one question")
    middle = (share * tested + 2) / (tested + 4)
    return math.sqrt(middle * (1 - middle) / tested)


def subset_sizes(examples: int) -> list[int]:
    """How many examples to train on for a forecast: an eighth, a quarter, a half and all; take nested parts of one
    random order. Raises InputError if there are too few."""
    if examples < 16:
        raise InputError(f"{examples} examples are too few for a forecast, which needs at least 16")
    return [round(examples * share) for share in SHARES]


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """measured: what it was made from. examples: all of the data, N. error, interval: at N, from the curve. forecast,
    forecast_interval: with 2 N, of the curve itself; what is measured there scatters more. All intervals are 95 %.
    floor, exponent: a and c, medians with intervals.
    target: an accuracy. needed: examples for it, None if not even a thousand times the data would do, in more than half
    of what the measurements allow; needed_interval: its ends, None where an end is that far. reachable: the probability
    that it can be reached at all by a thousand times the data. curve: (examples, low, middle, high), to be drawn.
    """

    measured: tuple[Measured, ...]
    examples: int
    error: float
    interval: Interval
    forecast: float
    forecast_interval: Interval
    floor: float
    floor_interval: Interval
    exponent: float
    exponent_interval: Interval
    target: float
    needed: int | None
    needed_interval: tuple[int | None, int | None]
    reachable: float
    curve: tuple[tuple[float, float, float, float], ...]

    @staticmethod
    def fit(measured: Sequence[Measured], *, target: float | None = None, seed: int = 0) -> Forecast:
        """target: an accuracy between 0 and 1; the next round one beyond what twice the examples give, unless given.
        Raises InputError for fewer than three sizes and for errors that are none."""
        points = _checked(measured, target)
        total = points[-1].examples
        L, f, c = _posterior(points, np.random.default_rng(seed))
        doubled = _errors(L, f, c, 2.0)
        forecast = float(np.median(doubled))
        wanted = target if target is not None else next((t for t in _TARGETS if t > 1 - forecast), _TARGETS[-1])
        needed = total * _times(L, f, c, 1 - wanted)
        ratios = np.geomspace(points[0].examples / total, 2.0, _CURVE_POINTS)
        return Forecast(
            measured=tuple(points),
            examples=total,
            error=float(np.median(L)),
            interval=_ends(L),
            forecast=forecast,
            forecast_interval=_ends(doubled),
            floor=float(np.median(L * f)),
            floor_interval=_ends(L * f),
            exponent=float(np.median(c)),
            exponent_interval=_ends(c),
            target=wanted,
            needed=_count(float(np.median(needed)), total),
            needed_interval=tuple(_count(end, total) for end in np.quantile(needed, (0.025, 0.975), method="nearest")),  # type: ignore[arg-type]
            reachable=float((needed <= _FAR * total).mean()),
            curve=tuple(_band(total * ratio, _errors(L, f, c, ratio)) for ratio in ratios),
        )

    @property
    def sentence(self) -> str:
        """What people are told."""
        low, high = self.forecast_interval
        now, then = percent(self.error), percent(self.forecast)
        between = f"({percent(low).removesuffix(' %')} to {percent(high)})"
        if self.forecast > 0.97 * self.error:
            doubling = f"twice the examples would leave the error about where it is, at {now} {between}"
        else:
            doubling = f"twice the examples would lower the error from {now} to about {then} {between}"
        return f"{doubling}; {self._about_target()}"

    def _about_target(self) -> str:
        wanted = f"{100 * self.target:.4g} %"
        if self.needed is None:
            return f"{wanted} is not reachable by more of the same data"
        if self.needed <= self.examples:
            return f"{wanted} is reached already"
        low, high = self.needed_interval
        least = f"{_round(max(low or 0, self.examples)):,}"
        most = f"{_round(high):,}" if high is not None else "more than anybody has"
        return f"{wanted} needs about {_round(self.needed):,} examples ({least} to {most})"

    def to_json(self) -> dict[str, Any]:
        """As plain data, with the sentence."""
        return {**asdict(self), "sentence": self.sentence}

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Forecast:
        """What `to_json` gave."""
        found: Forecast = TypeAdapter(Forecast).validate_python({k: v for k, v in values.items() if k != "sentence"})
        return found


def percent(share: float) -> str:
    """Two digits, as they matter: 38 %, 6.2 %, 0.84 %."""
    value = 100 * share
    return f"{value:.0f} %" if value >= 9.95 else f"{float(f'{value:.2g}'):g} %"


def _checked(measured: Sequence[Measured], target: float | None) -> list[Measured]:
    points = sorted(measured, key=lambda point: point.examples)
    for point in points:
        known = 0 <= point.error <= 1 and 0 < point.standard_error < math.inf and point.examples > 0
        if not known:
            raise InputError(
                f"a forecast needs errors between 0 and 1 with a standard error above 0, found {point.error} +- "
                f"{point.standard_error} with {point.examples} examples"
            )
    if len({point.examples for point in points}) < 3:
        raise InputError("a forecast needs errors with at least three sizes of the data")
    if target is not None and not 0 < target < 1:
        raise InputError(f"target is {target}; it must be an accuracy between 0 and 1")
    return points


def _posterior(points: Sequence[Measured], generator: np.random.Generator) -> tuple[Array, Array, Array]:
    """Samples of L, f and c. For each f, c and t on the grid, y_i = L g_i + noise is a line through the origin, whose
    slope L has a Gaussian and whose evidence has a closed form; slopes outside 0 to 1 are drawn again."""
    x, y, s = (
        np.array(column) for column in zip(*((p.examples, p.error, p.standard_error) for p in points), strict=True)
    )
    c, f, t = (part.ravel() for part in np.meshgrid(_EXPONENTS, _FLOORS, _BETWEEN_RUNS, indexing="ij"))
    g = f[:, None] + (1 - f[:, None]) * (x / x[-1]) ** -c[:, None]
    variance = s**2 + (t[:, None] * y) ** 2
    precision = (g**2 / variance).sum(1)
    mean = (g * y / variance).sum(1) / precision
    misfit = ((y - mean[:, None] * g) ** 2 / variance).sum(1)
    log_weight = -0.5 * (misfit + np.log(variance).sum(1) + np.log(precision))
    log_weight += -0.5 * (np.log(c / 0.5) / 0.7) ** 2 + 0.5 * np.log(1 - f)
    weight = np.exp(log_weight - log_weight.max())
    chosen = generator.choice(len(weight), size=2 * _NUM_SAMPLES, p=weight / weight.sum())
    level = mean[chosen] + generator.standard_normal(len(chosen)) / np.sqrt(precision[chosen])
    while not (possible := (level > 0) & (level <= 1)).any():  # never seen: the mean lies between, or next to it
        level = mean[chosen] + generator.standard_normal(len(chosen)) / np.sqrt(precision[chosen])
    # Within a cell of the grid anywhere, so that there are no steps between its values.
    exponent = c[chosen] * (_EXPONENTS[1] / _EXPONENTS[0]) ** generator.uniform(-0.5, 0.5, len(chosen))
    floor = f[chosen] + generator.uniform(-0.5, 0.5, len(chosen)) / len(_FLOORS)
    return level[possible], floor[possible], exponent[possible]


def _errors(L: Array, f: Array, c: Array, ratio: float) -> Array:
    """With so many times the data."""
    return np.minimum(1.0, L * (f + (1 - f) * ratio**-c))


def _times(L: Array, f: Array, c: Array, error: float) -> Array:
    """How many times the data an error needs; infinite below the floor."""
    share = error / L
    above = np.maximum((share - f) / (1 - f), 1e-300)
    return np.where(share > f, np.exp(np.minimum(-np.log(above) / c, 600.0)), np.inf)


def _ends(values: Array) -> Interval:
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)


def _band(examples: float, errors: Array) -> tuple[float, float, float, float]:
    low, high = _ends(errors)
    return float(examples), low, float(np.median(errors)), high


def _count(needed: float, total: int) -> int | None:
    return math.ceil(needed) if needed <= _FAR * total else None


def _round(count: int) -> int:
    """Two digits: the rest is not known."""
    return int(float(f"{count:.2g}"))
