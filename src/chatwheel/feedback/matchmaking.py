"""Which two models fight next: those pairs come more often that have met seldom, and of which it is open who is better.

After the sampling rule of Chiang et al. (2024, "Chatbot Arena", section 5): by how much one more battle makes a pair's
result surer, there its standard error sqrt(v / n) - sqrt(v / (n + 1)). v is here how open the order is.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations

from chatwheel.errors import InputError
from chatwheel.feedback.arena import Battle, groups, rate_models
from chatwheel.feedback.significance import NORMAL

Pair = tuple[str, str]
LEAST = 0.05
"""How open the order of two models counts as at least: what is known may have been chance, or have changed."""


def weights(battles: Sequence[Battle], models: Iterable[str]) -> dict[Pair, float]:
    """How often each pair of models is to come, for some scale."""
    names = sorted(set(models))
    met = Counter(tuple(sorted((battle.left, battle.right))) for battle in battles)
    openness = _openness(battles)
    found = {}
    for pair in combinations(names, 2):
        n = met[pair] + 1
        found[pair] = math.sqrt(max(openness.get(pair, 1.0), LEAST)) * (1 / math.sqrt(n) - 1 / math.sqrt(n + 1))
    return found


def draw(battles: Sequence[Battle], models: Iterable[str], rng: random.Random | None = None) -> Pair:
    """The models on the left and on the right; which is where is drawn too. Raises InputError for fewer than two."""
    rng = rng or random.SystemRandom()
    found = weights(battles, models)
    if not found:
        raise InputError("the arena needs two models that answer; there are fewer here", code="too_few_models")
    one, other = rng.choices(list(found), list(found.values()))[0]
    return (one, other) if rng.random() < 0.5 else (other, one)


def _openness(battles: Sequence[Battle]) -> dict[Pair, float]:
    """Of pairs that can be compared: twice the probability that the order is the other way round; 1 is wholly open."""
    found: dict[Pair, float] = {}
    for names in groups(battles):
        ratings = rate_models([battle for battle in battles if battle.left in names])
        for (i, one), (j, other) in combinations(enumerate(ratings.models), 2):
            lead = abs(one.rating - other.rating) / max(ratings.errors[i][j], 1e-9)
            first, second = sorted((one.model, other.model))
            found[first, second] = 2 * NORMAL.cdf(-lead)
    return found
