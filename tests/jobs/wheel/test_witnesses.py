"""Whether the judge is believed: witnesses with known answers, by judges whose truth is known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatwheel.data.records import Message, Ranking, Rating, write_jsonl
from chatwheel.jobs.wheel.gate import Check, decide
from chatwheel.jobs.wheel.material import is_correction, write_material
from chatwheel.jobs.wheel.witnesses import LEAST, Witness, hear

GOOD_JUDGE = {"pairs": 200, "accuracy": 0.7, "interval": [0.63, 0.76]}
BETTER = Check("preferred", 0.6, (0.55, 0.65), 400, "of 200 held-out prompts 60 %", {"prompts": 200})


def by_length(_: Sequence[Sequence[Message]], answers: Sequence[str]) -> list[float]:
    return [float(len(answer)) for answer in answers]


def asked(text: str) -> list[Message]:
    return [Message(role="user", content=text)]


def ranking(number: int, answers: list[str], ranks: list[int], models: list[str | None] | None = None) -> Ranking:
    extra = {"source": "feedback", "models": models} if models else {}
    return Ranking.model_validate({"messages": asked(f"question {number}"), "answers": answers, "ranks": ranks} | extra)


def written(directory: Path, **records: Sequence[Ranking | Rating]) -> Path:
    for name, some in records.items():
        write_jsonl(directory / f"{name}.jsonl", (one.model_dump(exclude_none=True) for one in some))
    return directory


def the_only(found: list[Witness]) -> Witness:
    (witness,) = found
    return witness


@pytest.mark.parametrize(("right", "contradicts"), [(30, False), (15, False), (2, True)])
def test_corrections_are_better_than_what_they_correct(right: int, contradicts: bool, tmp_path: Path) -> None:
    pairs = [(["longer", "short"] if n < right else ["short", "longer"]) for n in range(30)]
    written(tmp_path, corrected=[ranking(n, pair, [1, 2]) for n, pair in enumerate(pairs)])
    found = the_only(hear(by_length, tmp_path, None))
    assert (found.name, found.rate, found.cases) == ("corrections", right / 30, 30)
    assert found.contradicts == contradicts
    assert found.interval[0] < found.rate + 1e-9
    assert found.rate < found.interval[1] + 1e-9


def test_a_handful_accuses_nobody(tmp_path: Path) -> None:
    written(tmp_path, corrected=[ranking(n, ["short", "longer"], [1, 2]) for n in range(LEAST - 1)])
    found = the_only(hear(by_length, tmp_path, None))
    assert found.interval[1] < 0.5
    assert not found.contradicts


def test_all_pairs_of_a_ranking_are_one_case(tmp_path: Path) -> None:
    earlier = written(tmp_path, held_out=[ranking(n, ["a", "bb", "ccc"], [3, 2, 1]) for n in range(25)])
    found = the_only(hear(by_length, tmp_path / "nothing", earlier / "held_out.jsonl"))
    assert (found.name, found.rate, found.cases, found.contradicts) == ("earlier", 1.0, 25, False)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=40))
def test_thumbs_are_every_pair_of_one_up_and_one_down(
    tmp_path_factory: pytest.TempPathFactory, said: list[tuple[int, bool]]
) -> None:
    ratings = [Rating(messages=asked("?"), answer="x" * size, rating=1 if up else -1) for size, up in said]
    found = hear(by_length, written(tmp_path_factory.mktemp("material"), ratings=ratings), None)
    ups, downs = [size for size, up in said if up], [size for size, up in said if not up]
    if not ups or not downs:
        assert found == []
        return
    pairs = [0.5 if one == other else float(one > other) for one in ups for other in downs]
    assert the_only(found).rate == pytest.approx(sum(pairs) / len(pairs))
    assert the_only(found).cases == min(len(ups), len(downs))


def test_the_interval_of_thumbs_holds_the_truth_at_least_as_often_as_it_says(tmp_path: Path) -> None:
    """Two exponential scores, one twice as large: the larger one comes first in two of three pairs."""
    rng, held = Random(5), 0
    for repeat in range(200):
        values = [(rng.expovariate(0.5 if up else 1.0), up) for up in [True] * 40 + [False] * 25]
        ratings = [Rating(messages=asked("?"), answer=str(v), rating=1 if up else -1) for v, up in values]
        directory = written(tmp_path / str(repeat), ratings=ratings)
        low, high = the_only(hear(lambda _, answers: [float(a) for a in answers], directory, None)).interval
        held += low <= 2 / 3 <= high
    assert held >= 186  # of 190 on average, were it exact; fewer than 186 in one of 20 runs of such an interval


def test_a_judge_whom_people_contradict_promotes_nobody() -> None:
    against = Witness("corrections", 0.25, (0.18, 0.35), 95, "95 answers that people corrected: 25 %")
    with_it = Witness("thumbs", 0.7, (0.6, 0.8), 90, "thumbs: 70 %")
    assert decide("new", "old", [BETTER], GOOD_JUDGE, [with_it]).passed
    verdict = decide("new", "old", [BETTER], GOOD_JUDGE, [with_it, against])
    assert (verdict.passed, verdict.verdict) == (False, "no_judge")
    assert against.words in verdict.words
    assert with_it.words not in verdict.words
    assert [one["contradicts"] for one in verdict.to_json()["judge"]["witnesses"]] == [False, True]


def test_what_a_turn_keeps_for_its_witnesses(tmp_path: Path) -> None:
    corrections = [ranking(n, [f"right {n}", "wrong"], [1, 2], [None, "m"]) for n in range(40)]
    choices = [ranking(100 + n, ["a", "b"], [1, 2], ["m", "m"]) for n in range(40)]
    ratings = [Rating(messages=asked(f"q {n}"), answer="a", rating=1 if n % 2 else -1) for n in range(10)]
    write_material(tmp_path, corrections=[], rankings=[*corrections, *choices], ratings=ratings)
    kept = (tmp_path / "corrected.jsonl").read_text().splitlines()
    assert 0 < len(kept) < 40  # the judge's own prompts are left out
    assert all("right" in line for line in kept)
    assert len((tmp_path / "ratings.jsonl").read_text().splitlines()) == 10
    assert is_correction(corrections[0])
    assert not is_correction(choices[0])
