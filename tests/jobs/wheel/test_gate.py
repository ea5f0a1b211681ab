"""The gate's verdicts, where what they must be is known."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from chatwheel.data.records import Message
from chatwheel.jobs.wheel.gate import LEAST_PAIRS, Check, CheckName, Verdict, decide, paired, preferred
from chatwheel.jobs.wheel.judge import preferences

GOOD_JUDGE = {"pairs": 200, "accuracy": 0.7, "interval": [0.63, 0.76]}


def check(name: CheckName, rate: float, half: float = 0.04, pairs: int = 400) -> Check:
    return Check(name, rate, (rate - half, rate + half), pairs, f"{name} {rate}", {"prompts": pairs // 2})


def prompts(count: int) -> list[list[Message]]:
    return [[Message(role="user", content=f"question {n}")] for n in range(count)]


def by_length(_: Sequence[Sequence[Message]], answers: Sequence[str]) -> list[float]:
    return [float(len(answer)) for answer in answers]


def verdict(*checks: Check, judge: dict[str, object] = GOOD_JUDGE) -> Verdict:
    return decide("new/ppo", "old/ppo", checks, judge)


def test_better_is_preferred_and_nothing_certainly_worse() -> None:
    found = verdict(check("preferred", 0.6), check("praised", 0.49), check("safety", 0.5))
    assert (found.verdict, found.passed) == ("better", True)
    values = found.to_json()
    assert [one["better"] for one in values["checks"]] == [True, False, False]


@pytest.mark.parametrize("name", ["praised", "examination", "safety"])
def test_what_got_certainly_worse_refuses_however_much_the_rest_is_liked(name: CheckName) -> None:
    found = verdict(check("preferred", 0.7), check(name, 0.44))
    assert (found.verdict, found.passed) == ("worse", False)
    assert f"{name} 0.44" in found.words


def test_a_lead_that_may_be_chance_says_how_many_prompts_it_would_take() -> None:
    found = verdict(check("preferred", 0.52, half=0.04))
    assert (found.verdict, found.passed) == ("not_shown", False)
    assert "it would take some 800 prompts" in found.words  # twice the half, so four times the prompts
    assert "would take" not in verdict(check("preferred", 0.5)).words


@pytest.mark.parametrize(
    ("judge", "checks", "why"),
    [
        ({"pairs": 0, "accuracy": None, "interval": [0.0, 1.0]}, [check("preferred", 0.7)], "no held-out rankings"),
        ({"pairs": 40, "accuracy": 0.55, "interval": [0.4, 0.69]}, [check("preferred", 0.7)], "tells 55 %"),
        (GOOD_JUDGE, [], "too few"),
        (GOOD_JUDGE, [check("preferred", 0.9, pairs=LEAST_PAIRS - 1)], "too few"),
    ],
)
def test_without_a_judge_nothing_passes(judge: dict[str, object], checks: list[Check], why: str) -> None:
    found = verdict(*checks, judge=judge)
    assert (found.verdict, found.passed) == ("no_judge", False)
    assert why in found.words


def test_the_judge_prefers_what_it_scores_higher_and_ties_what_is_the_same() -> None:
    found = list(preferences(by_length, prompts(3), ["long answer", "a", "same "], ["short", "bb", "same"]))
    assert found == [1.0, 0.0, 0.5]


def test_the_rate_is_over_prompts_however_often_each_was_answered() -> None:
    asked = prompts(40)
    ours, theirs = ["longer answer"] * 30 + ["x"] * 10, ["short"] * 40
    once, twice = (preferred("preferred", by_length, asked, [(ours, theirs)] * n) for n in (1, 2))
    assert once is not None
    assert twice is not None
    assert once.rate == twice.rate == 0.75
    assert (once.pairs, twice.pairs) == (40, 80)
    assert twice.interval[1] - twice.interval[0] == pytest.approx(once.interval[1] - once.interval[0], rel=0.1)
    assert preferred("preferred", by_length, [], []) is None


def test_marks_are_compared_item_by_item() -> None:
    keys = [f"item {n}" for n in range(100)]
    found = paired("examination", [1.0] * 80 + [0.0] * 20, [1.0] * 60 + [0.0] * 40, keys, "right")
    assert found is not None
    assert (found.rate, found.details) == (0.6, {"candidate": 0.8, "current": 0.6})
    assert found.better
    assert paired("safety", [], [], [], "nothing") is None
