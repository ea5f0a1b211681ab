"""The leaderboard, and who fights next, on simulated battles whose truth is known."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest

from chatwheel.errors import InputError
from chatwheel.feedback.arena import Battle
from chatwheel.feedback.leaderboard import FEWEST, leaderboard
from chatwheel.feedback.matchmaking import draw, weights

STRENGTH = {"best": 1.6, "good": 0.8, "fair": 0.0, "poor": -0.8}


def fight(count: int, strength: dict[str, float] = STRENGTH, seed: int = 0) -> list[Battle]:
    """Bradley and Terry's, with a tie now and then."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        left, right = map(str, rng.choice(list(strength), 2, replace=False))
        better = rng.random() < 1 / (1 + np.exp(strength[right] - strength[left]))
        outcome = "tie" if rng.random() < 0.1 else "left" if better else "right"
        found.append(Battle(left=left, right=right, outcome=outcome, prompt=f"{number}"))
    return found


def test_the_order_comes_out_and_places_say_how_sure_it_is() -> None:
    much, little = leaderboard(fight(1500)), leaderboard(fight(60))
    assert [line.model for line in much.lines] == list(STRENGTH)
    assert [line.places for line in much.lines] == [(1, 1), (2, 2), (3, 3), (4, 4)]
    for better, worse in pairwise(much.lines):
        assert better.rating is not None
        assert worse.rating is not None
        assert better.interval is not None
        assert better.rating > worse.rating
        assert better.interval[0] < better.rating < better.interval[1]
    spans = [line.places for line in little.lines if line.places is not None]
    assert sum(high - low for low, high in spans) > 0
    assert all(low <= place <= high for place, (low, high) in enumerate(spans, start=1))


def test_equal_models_are_told_apart_no_more_often_than_by_chance() -> None:
    apart = 0
    for seed in range(40):
        board = leaderboard(fight(200, {"one": 0.0, "other": 0.0}, seed))
        apart += board.lines[0].places == (1, 1)
    assert apart <= 6  # 2 are expected; 7 or more in one of 200 runs


def test_wins_are_counted_pair_by_pair() -> None:
    fought = [
        Battle(left="b", right="a", outcome="left", prompt="1"),
        Battle(left="a", right="b", outcome="left", prompt="2"),
        Battle(left="a", right="b", outcome="left", prompt="3"),
        Battle(left="b", right="a", outcome="tie", prompt="4"),
        Battle(left="b", right="a", outcome="both bad", prompt="5"),
    ]
    (met,) = leaderboard(fought).meetings
    assert (met.one, met.other, met.battles, met.one_wins, met.other_wins, met.ties) == ("a", "b", 5, 2, 1, 2)
    a, b = leaderboard(fought).lines
    assert (a.model, a.battles, a.wins, a.ties, a.both_bad) == ("a", 5, 2, 1, 1)
    assert (b.model, b.wins) == ("b", 1)


def test_of_what_little_is_known_nothing_is_said() -> None:
    few = [Battle(left="a", right="b", outcome="left", prompt=f"{i}") for i in range(FEWEST - 1)]
    board = leaderboard(few, models=["a", "b", "new"])
    assert [(line.model, line.battles, line.rating, line.places) for line in board.lines] == [
        ("a", FEWEST - 1, None, None),
        ("b", FEWEST - 1, None, None),
        ("new", 0, None, None),
    ]
    assert board.left_first is None
    same = [Battle(left="a", right="b", outcome="left", prompt="one prompt") for _ in range(50)]
    assert all(line.rating is None for line in leaderboard(same).lines)
    assert leaderboard([]).lines == ()


def test_models_that_have_never_met_the_others_wait() -> None:
    apart = [Battle(left="x", right="y", outcome="left", prompt=f"apart {i}") for i in range(20)]
    board = leaderboard([*fight(200), *apart])
    assert {line.model for line in board.lines if line.rating is not None} == set(STRENGTH)
    assert [line.model for line in board.lines[4:]] == ["x", "y"]
    newcomer = [Battle(left="new", right="good", outcome="left", prompt=f"new {i}") for i in range(3)]
    board = leaderboard([*fight(200), *newcomer])
    assert board.lines[-1].model == "new"
    assert board.lines[-1].rating is None


def test_who_has_won_all_is_ahead_but_nobody_knows_by_how_much() -> None:
    """Ten of ten are a little less than the intervals ask for, forty of forty are enough."""
    sides = [("a", "b", "left"), ("b", "a", "right")]
    for count, places in ((FEWEST, (1, 2)), (40, (1, 1))):
        sided = [sides[i % 2] for i in range(count)]
        first = leaderboard(
            [Battle(left=x, right=y, outcome=z, prompt=f"{i}") for i, (x, y, z) in enumerate(sided)]
        ).lines[0]
        assert (first.model, first.places) == ("a", places)
        assert first.interval is not None
        assert first.interval[1] - first.interval[0] > 600


def share(fought: Sequence[Battle], models: Sequence[str], *pair: str) -> float:
    found = weights(fought, models)
    return found[min(pair), max(pair)] / sum(found.values())


def test_pairs_come_more_often_that_are_new_or_open() -> None:
    equal = [
        Battle(left=x, right=y, outcome="left" if i % 2 else "right", prompt=f"{x}{y}{i}")
        for x, y in (("a", "b"), ("a", "c"), ("b", "c"))
        for i in range(40)
    ]
    assert share(equal, "abc", "a", "b") == pytest.approx(1 / 3, abs=0.02)
    assert share(equal, "abcd", "a", "d") > 10 * share(equal, "abcd", "a", "b")  # d has met nobody
    more = [*equal, *(Battle(left="a", right="b", outcome="tie", prompt=f"more {i}") for i in range(100))]
    assert share(more, "abc", "a", "b") < share(equal, "abc", "a", "b") / 2
    sides = {True: ("left", "right"), False: ("right", "left")}
    known = [
        Battle(**{sides[i % 2 > 0][0]: x, sides[i % 2 > 0][1]: y}, outcome=sides[won][not i % 2], prompt=f"{x}{y}{i}")
        for x, y in (("a", "b"), ("a", "c"), ("b", "c"))
        for i in range(40)
        for won in [y == "c" or i % 4 < 2]
    ]
    assert share(known, "abc", "a", "b") > 2 * share(known, "abc", "a", "c")


def test_draws_follow_the_weights_and_take_sides_by_chance() -> None:
    rng = random.Random(1)
    fought = fight(60)
    drawn = Counter(draw(fought, STRENGTH, rng) for _ in range(400))
    found = weights(fought, STRENGTH)
    for (one, other), weight in found.items():
        expected = weight / sum(found.values())
        count = drawn[one, other] + drawn[other, one]
        assert count / 400 == pytest.approx(expected, abs=0.1)
        assert abs(drawn[one, other] - drawn[other, one]) <= 4 * count**0.5
    assert all(left != right for left, right in drawn)
    with pytest.raises(InputError, match="two models"):
        draw(fought, ["best"])


def test_what_is_drawn_so_makes_the_order_known_sooner_than_what_is_drawn_evenly() -> None:
    """Six models of which two pairs are close: after as many battles the close pairs have met more often."""
    strength = {"a": 2.0, "b": 1.8, "c": 0.0, "d": -0.2, "e": -2.0, "f": -3.0}
    rng, truth = random.Random(0), np.random.default_rng(0)
    fought: list[Battle] = []
    for number in range(200):
        left, right = draw(fought, strength, rng)
        better = truth.random() < 1 / (1 + np.exp(strength[right] - strength[left]))
        fought.append(Battle(left=left, right=right, outcome="left" if better else "right", prompt=f"{number}"))
    met = Counter(tuple(sorted((one.left, one.right))) for one in fought)
    assert min(met["a", "b"], met["c", "d"]) > 200 / 15
    assert met["a", "f"] < 200 / 15
    assert len(met) == 15  # nobody is left out
