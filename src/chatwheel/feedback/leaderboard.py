"""What battles say of models, for people: ratings with intervals, places as far as they are known, who beat whom."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from chatwheel.feedback.arena import LEVEL, Battle, Ratings, groups, rate_models
from chatwheel.feedback.significance import NORMAL, Interval

FEWEST = 10
"""Prompts on which a model has fought before anything is said of it."""


@dataclass(frozen=True)
class Line:
    """A model. rating, interval, places: None where there are too few battles. places: the best and the worst that it
    may have, as far as the others' leads over it, and its over them, are beyond chance (95 % each)."""

    model: str
    battles: int = 0
    wins: int = 0
    ties: int = 0
    both_bad: int = 0
    rating: float | None = None
    interval: Interval | None = None
    places: tuple[int, int] | None = None


@dataclass(frozen=True)
class Meeting:
    """Battles between two models, whose names are in order. ties: "both bad" among them."""

    one: str
    other: str
    battles: int
    one_wins: int
    other_wins: int
    ties: int


@dataclass(frozen=True)
class Leaderboard:
    """lines: the rated first, the best of them first; then the others, those with most battles first. left_first: see
    `arena.Ratings`."""

    lines: tuple[Line, ...]
    meetings: tuple[Meeting, ...]
    battles: int
    left_first: float | None = None
    left_first_interval: Interval | None = None


def leaderboard(battles: Sequence[Battle], models: Iterable[str] = ()) -> Leaderboard:
    """models: that are to be on it though they have not fought. Where models have never met, not even by others, the
    group with most battles is rated; the others wait until they have."""
    counts = _counted(battles)
    names = sorted({*models, *(name for battle in battles for name in (battle.left, battle.right))})
    ratings, prompts = _main(battles)
    rated = [] if ratings is None else [one for one in ratings.models if len(prompts[one.model]) >= FEWEST]
    if ratings is None or len(rated) < 2:
        rated = []
    places = _places(ratings, [one.model for one in rated]) if ratings is not None and rated else {}
    lines = [
        Line(one.model, one.battles, one.wins, one.ties, one.both_bad, one.rating, one.interval, places[one.model])
        for one in rated
    ]
    rest = [_unrated(name, counts) for name in names if name not in places]
    rest.sort(key=lambda line: (-line.battles, line.model))
    lead = (ratings.left_first, ratings.left_first_interval) if ratings is not None and rated else (None, None)
    return Leaderboard((*lines, *rest), _meetings(battles), len(battles), *lead)


def _unrated(name: str, counts: Counter[tuple[str, str]]) -> Line:
    battles, wins, ties, both_bad = (counts[name, what] for what in ("battles", "wins", "ties", "both_bad"))
    return Line(name, battles, wins, ties, both_bad)


def _counted(battles: Iterable[Battle]) -> Counter[tuple[str, str]]:
    counts = Counter[tuple[str, str]]()
    for battle in battles:
        for name, side in ((battle.left, "left"), (battle.right, "right")):
            counts[name, "battles"] += 1
            counts[name, "wins"] += battle.outcome == side
            counts[name, "ties"] += battle.outcome == "tie"
            counts[name, "both_bad"] += battle.outcome == "both bad"
    return counts


def _main(battles: Sequence[Battle]) -> tuple[Ratings | None, dict[str, set[str | int]]]:
    """The ratings of the models that have met, and the prompts on which each of them has fought."""
    if not battles:
        return None, {}
    size = Counter[str]()
    for battle in battles:
        size[battle.left] += 1
    main = set(max(groups(battles), key=lambda names: sum(size[name] for name in names)))
    inside = [battle for battle in battles if battle.left in main]
    prompts: dict[str, set[str | int]] = {name: set() for name in main}
    for place, battle in enumerate(inside):
        for name in (battle.left, battle.right):
            prompts[name].add(place if battle.prompt is None else battle.prompt)
    return rate_models(inside), prompts


def _places(ratings: Ratings, among: Sequence[str]) -> dict[str, tuple[int, int]]:
    beyond = NORMAL.inv_cdf((1 + LEVEL) / 2)
    rated = [(place, one) for place, one in enumerate(ratings.models) if one.model in among]
    found = {}
    for place, one in rated:
        leads = [(other.rating - one.rating) / max(ratings.errors[place][at], 1e-9) for at, other in rated]
        better, worse = sum(lead > beyond for lead in leads), sum(lead < -beyond for lead in leads)
        found[one.model] = 1 + better, len(rated) - worse
    return found


def _meetings(battles: Iterable[Battle]) -> tuple[Meeting, ...]:
    counts = Counter[tuple[str, str, str]]()
    for battle in battles:
        one, other = sorted((battle.left, battle.right))
        winner = {"left": battle.left, "right": battle.right}.get(battle.outcome)
        counts[one, other, "ties" if winner is None else "one" if winner == one else "other"] += 1
    pairs = sorted({(one, other) for one, other, _ in counts})
    return tuple(
        Meeting(one, other, sum(won), *won)
        for one, other in pairs
        for won in [tuple(counts[one, other, who] for who in ("one", "other", "ties"))]
    )
