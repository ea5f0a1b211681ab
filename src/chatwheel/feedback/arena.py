"""Ratings of models from blind pairs: Bradley and Terry's model with Davidson's ties (davidson.py), on Elo's scale.

    lead in nats between two models = (rating - rating) ln(10) / 400

"both bad" is a tie as far as strength goes; how often it was said of a model is counted beside. Intervals are by the
sandwich or by a bootstrap, both over prompts: battles over one prompt are no independent evidence.

Shape suffixes: M models, N battles, B draws.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from chatwheel.errors import InputError
from chatwheel.feedback.davidson import derivatives
from chatwheel.feedback.significance import NORMAL, Array, Interval, Ints, middle, redrawn

Outcome = Literal["left", "right", "tie", "both bad"]

ELO = 400 / math.log(10)
"""Points a nat."""
ANCHOR = 1000.0
LEVEL = 0.95
PRECISION = 0.05
"""Of the normal priors: weak (780 points), so that a model which has won all its battles has a finite rating."""


class Battle(BaseModel):
    """Two models' answers to one prompt, which of them somebody preferred, and what the ratings may be split by."""

    model_config = ConfigDict(frozen=True)
    left: str = Field(min_length=1)
    right: str = Field(min_length=1)
    outcome: Outcome
    prompt: str | None = None
    topic: str | None = None
    language: str | None = None

    @model_validator(mode="after")
    def _two_models(self) -> Battle:
        if self.left == self.right:
            raise ValueError(f"{self.left!r} against itself")
        return self


@dataclass(frozen=True)
class Rated:
    """A model. interval: of 95 % for the rating's distance from the anchor's. wins, ties, both_bad: of its battles."""

    model: str
    rating: float
    interval: Interval
    battles: int
    wins: int
    ties: int
    both_bad: int


@dataclass(frozen=True)
class Ratings:
    """models: the best first. tie: Davidson's leaning to call a tie, in nats. left_first: how much the left one is
    preferred, in points, with its interval: 0 is inside unless the page, or people, lean. errors: the standard error of
    the distance between each two models, in points, by their places in `models`."""

    models: tuple[Rated, ...]
    tie: float
    left_first: float
    left_first_interval: Interval
    battles: int
    errors: tuple[tuple[float, ...], ...]

    def win_probability(self, model: str, other: str) -> float:
        """That the one is preferred to the other, ties aside. Raises InputError for a name without battles."""
        by_name = {one.model: one.rating for one in self.models}
        for name in (model, other):
            if name not in by_name:
                raise InputError(f"arena: {name!r} has no battles")
        return 1 / (1 + math.exp((by_name[other] - by_name[model]) / ELO))


def rate_models(
    battles: Iterable[Battle],
    *,
    anchor: str | None = None,
    anchor_rating: float = ANCHOR,
    bootstrap: int = 0,
    seed: int = 0,
) -> Ratings:
    """anchor: the model whose rating is `anchor_rating`; without one the models' mean is. bootstrap: draws of prompts
    for the intervals; 0 takes the sandwich.

    Raises InputError without battles, for an anchor without battles, and where the models fall into groups that have
    never met: their ratings cannot be compared.
    """
    table = _Table.of(list(battles))
    if anchor is not None and anchor not in table.models:
        raise InputError(f"arena: the anchor {anchor!r} has no battles; it is among {', '.join(table.models)}")
    _check_connected(table)
    fixed = None if anchor is None else table.models.index(anchor)
    theta = _fit(table, np.ones(table.num_prompts))
    spread = _covariances(table, theta)
    if bootstrap:
        rng = np.random.default_rng(seed)
        drawn = [_fit(table, w, theta) for some in redrawn(table.num_prompts, bootstrap, rng) for w in some]
        spans = [middle(column, LEVEL) for column in np.stack([_placed(one, fixed) for one in drawn]).T]
    else:
        half = NORMAL.inv_cdf((1 + LEVEL) / 2)
        contrast = _contrast(len(table.models), fixed)
        errors = np.sqrt(_variances(spread, contrast))
        spans = [(v - half * e, v + half * e) for v, e in zip(_placed(theta, fixed), errors, strict=True)]
    return _described(table, theta, fixed, spans, spread, anchor_rating)


def rate_strata(
    battles: Iterable[Battle], by: Literal["topic", "language"], *, anchor: str | None = None
) -> dict[str, Ratings | str]:
    """The ratings of each topic or language that battles name, or in a line why there are none."""
    groups = dict[str, list[Battle]]()
    for battle in battles:
        name = battle.topic if by == "topic" else battle.language
        if name is not None:
            groups.setdefault(name, []).append(battle)
    found = dict[str, Ratings | str]()
    for name in sorted(groups):
        try:
            found[name] = rate_models(groups[name], anchor=anchor)
        except InputError as error:
            found[name] = error.message
    return found


@dataclass(frozen=True)
class _Table:
    models: list[str]
    left: Ints
    right: Ints
    outcome: Array
    bad: Array
    prompt: Ints
    num_prompts: int

    @staticmethod
    def of(battles: Sequence[Battle]) -> _Table:
        """A battle without a prompt is its own."""
        if not battles:
            raise InputError("arena: there are no battles")
        models = sorted({name for b in battles for name in (b.left, b.right)})
        number = {name: i for i, name in enumerate(models)}
        prompts = dict[str | int, int]()
        keys = [i if b.prompt is None else b.prompt for i, b in enumerate(battles)]
        return _Table(
            models,
            np.array([number[b.left] for b in battles]),
            np.array([number[b.right] for b in battles]),
            np.array([{"left": 1.0, "right": -1.0}.get(b.outcome, 0.0) for b in battles]),
            np.array([b.outcome == "both bad" for b in battles], dtype=np.float64),
            np.array([prompts.setdefault(key, len(prompts)) for key in keys]),
            len(prompts),
        )


def groups(battles: Iterable[Battle]) -> list[list[str]]:
    """The models that have met, if only by others: no two groups' ratings can be compared. In order of their names."""
    found = list(battles)
    return _groups(_Table.of(found)) if found else []


def _groups(table: _Table) -> list[list[str]]:
    """Zermelo (1929), Ford (1957): strengths can be compared where a chain of battles leads from each model to each."""
    group = list(range(len(table.models)))

    def root(i: int) -> int:
        while group[i] != i:
            group[i] = group[group[i]]
            i = group[i]
        return i

    for left, right in zip(table.left, table.right, strict=True):
        group[root(int(left))] = root(int(right))
    members = dict[int, list[str]]()
    for i, name in enumerate(table.models):
        members.setdefault(root(i), []).append(name)
    return sorted(members.values())


def _check_connected(table: _Table) -> None:
    found = _groups(table)
    if len(found) > 1:
        words = " | ".join(", ".join(names) for names in found)
        raise InputError(
            f"arena: these have never met, so that their ratings can't be compared: {words}; let them meet"
        )


def _parts(table: _Table, theta: Array) -> tuple[Array, Array]:
    """Of the parameters (M strengths, what the left one has ahead, tau): each battle's score, N x (M + 2), and the
    information it carries, N x 3, by eta eta, eta tau, tau tau."""
    size, n = len(table.models), len(table.left)
    eta = theta[table.left] - theta[table.right] + theta[size]
    found = derivatives(table.outcome, eta, np.full(n, theta[size + 1]))
    score = np.zeros((n, size + 2))
    score[np.arange(n), table.left] = found.eta
    score[np.arange(n), table.right] = -found.eta
    score[:, size], score[:, size + 1] = found.eta, found.tau
    return score, np.column_stack([-found.eta_eta, -found.eta_tau, -found.tau_tau])


def _information(table: _Table, curvature: Array, weight: Array) -> Array:
    size = len(table.models)
    design = np.zeros((len(table.left), size + 1))
    design[np.arange(len(design)), table.left] = 1.0
    design[np.arange(len(design)), table.right] = -1.0
    design[:, size] = 1.0
    found = np.empty((size + 2, size + 2))
    found[:-1, :-1] = (design * (weight * curvature[:, 0])[:, None]).T @ design
    found[-1, :-1] = found[:-1, -1] = design.T @ (weight * curvature[:, 1])
    found[-1, -1] = weight @ curvature[:, 2]
    return found + PRECISION * np.eye(size + 2)


def _fit(table: _Table, weight_of_prompt: Array, start: Array | None = None) -> Array:
    """Newton's method, the step halved while it is long; the posterior is concave."""
    theta = np.zeros(len(table.models) + 2) if start is None else start.copy()
    weight = weight_of_prompt[table.prompt]
    for _ in range(100):
        score, curvature = _parts(table, theta)
        step = np.linalg.solve(_information(table, curvature, weight), weight @ score - PRECISION * theta)
        theta += step * min(1.0, 2 / max(np.abs(step).max(), 1e-12))
        if np.abs(step).max() < 1e-8:
            break
    return theta


def _placed(theta: Array, fixed: int | None) -> Array:
    """In nats from the anchor; the left one's lead last."""
    strength = theta[:-2]
    return np.append(strength - (strength.mean() if fixed is None else strength[fixed]), theta[-2])


def _covariances(table: _Table, theta: Array) -> tuple[Array, Array]:
    """Of the parameters: the sandwich, information^-1 (sum over prompts of score score') information^-1; and
    information^-1 alone, as if each battle were of its own prompt."""
    score, curvature = _parts(table, theta)
    by_prompt = np.zeros((table.num_prompts, len(theta)))
    np.add.at(by_prompt, table.prompt, score)
    inverse = np.linalg.inv(_information(table, curvature, np.ones(len(score))))
    few = table.num_prompts / max(table.num_prompts - 1, 1)
    return inverse @ (few * by_prompt.T @ by_prompt) @ inverse, np.asarray(inverse, dtype=np.float64)


def _contrast(size: int, fixed: int | None) -> Array:
    """What `_placed` takes of the parameters: (M + 1) x (M + 2)."""
    contrast = np.eye(size + 1, size + 2)
    contrast[:size, :size] -= 1 / size if fixed is None else np.eye(size)[fixed]
    return contrast


def _variances(spread: tuple[Array, Array], contrast: Array) -> Array:
    """The larger of the two. Where a model has won (almost) all there is no variety of which the sandwich could learn
    how unsure that is: it would call ten wins of ten a lead of 630 points, give or take 67."""
    found = [np.einsum("ij,jk,ik->i", contrast, covariance, contrast) for covariance in spread]
    return np.asarray(np.maximum(np.maximum(*found), 0.0))


def _described(
    table: _Table,
    theta: Array,
    fixed: int | None,
    spans: Sequence[Interval],
    spread: tuple[Array, Array],
    anchor_rating: float,
) -> Ratings:
    size = len(table.models)
    placed = _placed(theta, fixed)
    count = {
        name: np.bincount(table.left, left, size) + np.bincount(table.right, right, size)
        for name, left, right in (
            ("battles", np.ones(len(table.left)), np.ones(len(table.left))),
            ("wins", table.outcome == 1, table.outcome == -1),
            ("ties", (table.outcome == 0) - table.bad, (table.outcome == 0) - table.bad),
            ("both_bad", table.bad, table.bad),
        )
    }
    rated = [
        Rated(
            name,
            anchor_rating + ELO * float(placed[i]),
            (anchor_rating + ELO * spans[i][0], anchor_rating + ELO * spans[i][1]),
            *(int(count[kind][i]) for kind in ("battles", "wins", "ties", "both_bad")),
        )
        for i, name in enumerate(table.models)
    ]
    lead = (ELO * spans[size][0], ELO * spans[size][1])
    rated.sort(key=lambda one: (-one.rating, one.model))
    order = [table.models.index(one.model) for one in rated]
    pairs = np.eye(size, size + 2)[order]
    errors = ELO * np.sqrt(_variances(spread, (pairs[:, None] - pairs[None]).reshape(size * size, size + 2)))
    apart = tuple(tuple(map(float, row)) for row in errors.reshape(size, size))
    return Ratings(tuple(rated), float(theta[-1]), ELO * float(theta[-2]), lead, len(table.left), apart)
