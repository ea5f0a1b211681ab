"""What is measured of a reward model: against known answers, and on scorers that are biased on purpose."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from random import Random

import numpy as np
import pytest
import torch

from chatwheel.data.records import Ranking
from chatwheel.training.reward import encode_rankings, pair_accuracy
from chatwheel.training.reward_report import (
    FORMS,
    HOTTEST,
    PROBED,
    Judged,
    Pairs,
    by_group,
    calibration,
    disagreement,
    fitted_temperature,
    form_probe,
    interval,
    judged_by,
    length_probe,
    measured,
    reliability,
    scorer,
    wilson,
)
from tests.tiny import scalar, tokenizer


def ranking(question: str, answers: Sequence[str], ranks: Sequence[int], **more: object) -> Ranking:
    return Ranking.model_validate(
        {"messages": [{"role": "user", "content": question}], "answers": answers, "ranks": ranks, **more}
    )


def judged(
    question: str, ranks: Sequence[int], rewards: Sequence[float], lengths: Sequence[int], **more: object
) -> Judged:
    answers = [f"answer {i} " + "x" * n for i, n in enumerate(lengths)]
    return Judged(ranking(question, answers, ranks, **more), rewards, lengths)


# -- pairs and intervals


def test_pairs_are_the_labeller_s_and_ties_make_none() -> None:
    some = [
        judged("a?", [2, 1, 2], [0.5, 2.0, 1.0], [3, 9, 4]),
        judged("b?", [1, 1], [1.0, 2.0], [3, 3]),
        judged(" A? ", [1, 2], [1.0, 4.0], [5, 2]),
    ]
    pairs = Pairs.of(some)
    assert pairs.lead.tolist() == [1.5, 1.0, -3.0]
    assert pairs.longer.tolist() == [6.0, 5.0, 3.0]
    assert pairs.prompt[0] == pairs.prompt[1] == pairs.prompt[2], "the same question in other letters"
    assert measured([some[1]]) == {}


def test_wilson_s_interval_is_the_published_one() -> None:
    # Newcombe (1998), table I: 81 of 263, 15 of 148, 0 of 20.
    for right, number, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)):
        assert wilson(right / number, number) == pytest.approx((low, high), abs=1e-4)


def test_an_interval_over_independent_prompts_is_the_normal_one() -> None:
    values = [1.0] * 700 + [0.0] * 300
    low, high = interval(values, range(1000))
    half = 1.96 * math.sqrt(0.7 * 0.3 / 1000)
    assert (low, high) == pytest.approx((0.7 - half, 0.7 + half), abs=0.004)


def test_pairs_of_one_prompt_are_one_piece_of_evidence() -> None:
    """Six pairs a prompt, all right or all wrong: as wide as if each prompt had one."""
    outcome = [1.0] * 70 + [0.0] * 30
    one = interval(outcome, range(100))
    six = interval([v for v in outcome for _ in range(6)], [p for p in range(100) for _ in range(6)])
    assert six == pytest.approx(one, abs=1e-9)
    as_if = interval([v for v in outcome for _ in range(6)], range(600))
    assert as_if[1] - as_if[0] < 0.5 * (six[1] - six[0])


def test_an_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(200):
        shares = rng.beta(7, 3, size=60)  # prompts differ; the mean is 0.7
        values = [float(v) for share in shares for v in rng.random(4) < share]
        low, high = interval(values, [p for p in range(60) for _ in range(4)])
        inside += low <= 0.7 <= high
    assert 0.89 <= inside / 200 <= 0.99


def test_where_all_are_right_the_interval_is_not_a_point() -> None:
    assert interval([1.0] * 30, [i // 3 for i in range(30)]) == wilson(1.0, 10)
    assert interval([0.0, 0.0], [0, 0]) == wilson(0.0, 1)


def test_groups_are_told_apart() -> None:
    some = [
        judged("a?", [1, 2], [1.0, 0.0], [1, 1], source="hh", labeller="anna", behaviour="facts"),
        judged("b?", [1, 2], [0.0, 1.0], [1, 1], source="hh", labeller="bo", behaviour="facts"),
        judged("c?", [1, 2, 3], [3.0, 2.0, 1.0], [1, 1, 1], source="oasst"),
    ]
    found = by_group(some, "source")
    assert list(found) == ["oasst", "hh"], "the most frequent first"
    assert (found["oasst"]["pairs"], found["oasst"]["accuracy"]) == (3, 1.0)
    assert (found["hh"]["pairs"], found["hh"]["accuracy"]) == (2, 0.5)
    assert {n: g["accuracy"] for n, g in by_group(some, "labeller").items()} == {"anna": 1.0, "bo": 0.0}
    assert by_group(some, "language") == {}
    assert set(measured(some)["groups"]) == {"source", "labeller", "behaviour"}


# -- calibration


def drawn(temperature: float, count: int, seed: int = 0) -> np.ndarray:
    """Leads of a model whose differences, divided by `temperature`, are the true log-odds."""
    rng = np.random.default_rng(seed)
    differences = rng.normal(0, 2, count)
    first_is_better = rng.random(count) < 1 / (1 + np.exp(-differences / temperature))
    return np.where(first_is_better, differences, -differences)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_made_the_labels_is_found(temperature: float) -> None:
    leads = drawn(temperature, 20_000)
    assert fitted_temperature(leads) == pytest.approx(temperature, rel=0.05)
    found = calibration(leads, np.arange(len(leads)))
    assert found["pairs"] == 20_000
    assert found["fitted_error"] < 0.02
    assert found["fitted_nats"] <= found["nats"] + 1e-3
    assert found["error"] < 0.02 if temperature == 1.0 else found["error"] > 0.08


def test_the_temperature_is_the_likeliest() -> None:
    leads = drawn(2.0, 300, seed=4)
    best = fitted_temperature(leads)

    def nats(temperature: float) -> float:
        return float(np.log1p(np.exp(-leads / temperature)).mean())

    assert all(nats(best) < nats(best * factor) for factor in (0.5, 0.9, 0.99, 1.01, 1.1, 2.0))


def test_a_model_that_is_always_wrong_has_nothing_to_be_sure_of() -> None:
    assert fitted_temperature(np.array([-1.0, -2.0])) == pytest.approx(HOTTEST, rel=1e-3)
    assert math.isfinite(fitted_temperature(np.array([1.0, 2.0])))
    assert math.isfinite(fitted_temperature(np.zeros(3)))


def test_bins_by_hand() -> None:
    # sigmoid(0.4) = 0.5987, sigmoid(2) = 0.8808, sigmoid(100) = 1
    bins, error = reliability(np.array([0.4, -0.4, 0.4, 0.4, 2.0, -2.0, 100.0, 0.0]))
    assert bins == [
        {"predicted": 0.5, "preferred": 0.5, "pairs": 1},
        {"predicted": 0.5987, "preferred": 0.75, "pairs": 4},
        {"predicted": 0.8808, "preferred": 0.5, "pairs": 2},
        {"predicted": 1.0, "preferred": 1.0, "pairs": 1},
    ]
    assert error == pytest.approx((4 * (0.75 - 0.598688) + 2 * (0.880797 - 0.5)) / 8, abs=1e-6)
    predicted = [b["predicted"] for b in reliability(drawn(1.0, 5000))[0]]
    assert len(predicted) == 10
    assert all(a < b for a, b in pairwise(predicted))


# -- probes


def length_scored(count: int, reward: Callable[[int, int], float], longer_is_better: float) -> list[Judged]:
    """Rankings of two answers, the longer one better with a probability; reward(length, place) is the scorer."""
    rng = Random(0)
    some = []
    for i in range(count):
        lengths = rng.sample(range(5, 60), 2)
        ranks = [1, 2] if (lengths[0] > lengths[1]) == (rng.random() < longer_is_better) else [2, 1]
        some.append(judged(f"{i}?", ranks, [reward(n, r) for n, r in zip(lengths, ranks, strict=True)], lengths))
    return some


def test_a_scorer_that_is_the_length_is_caught() -> None:
    found = length_probe(length_scored(400, lambda length, _: 0.1 * length + 3, longer_is_better=0.6))
    assert found["reward_correlation"] == pytest.approx(1.0)
    assert found["model_prefers"] == 1.0
    assert found["labellers_prefer"] == pytest.approx(0.6, abs=0.06)
    assert (found["accuracy_longer"], found["accuracy_shorter"]) == (1.0, 0.0)
    assert found["excess"] == pytest.approx(1 - found["labellers_prefer"], abs=1e-4)
    assert found["excess_interval"][0] > 0.3
    assert found["longer_pairs"] + found["shorter_pairs"] == found["pairs"] == 400


def test_a_scorer_that_reads_the_labels_is_not() -> None:
    found = length_probe(length_scored(400, lambda _, place: -place, longer_is_better=0.8))
    assert found["reward_correlation"] == pytest.approx(found["place_correlation"])
    assert found["reward_correlation"] > 0.2, "labellers like length, and so does it"
    assert found["excess"] == 0.0
    assert (found["accuracy_longer"], found["accuracy_shorter"]) == (1.0, 1.0)


def test_lengths_that_never_differ_say_nothing() -> None:
    found = length_probe([judged("a?", [1, 2], [1.0, 0.0], [5, 5])])
    assert found == {"reward_correlation": None, "place_correlation": None, "pairs": 0, "equal_pairs": 1}


def forms(score_text: Callable[[str], float | None], count: int = 50) -> dict[str, dict[str, float]]:
    rng, some = Random(3), []
    for i in range(count):
        answers = [" ".join(["word"] * rng.randint(1, 20)) + f".\nLine {k}." for k in range(2)]
        some.append(Judged(ranking(f"{i}?", answers, [2, 1]), [rng.gauss(0, 2) for _ in answers], [1, 1]))
    return form_probe(some, lambda pairs: [score_text(answer) for _, answer in pairs])


def test_a_scorer_that_likes_lists_is_caught_and_only_that() -> None:
    found = forms(lambda text: 3.0 * text.count("- "))
    assert set(found) == set(FORMS)
    assert found["list"]["effect"] == pytest.approx(2 * 3.0 / 2.0, rel=0.2), "two lines, three points each, spread 2"
    assert found["list"]["raised"] == 1.0
    assert found["list"]["interval"][0] > 0
    assert all(found[name]["effect"] == 0 for name in FORMS if name != "list")


@pytest.mark.parametrize(
    ("name", "mark"),
    [("opening", "Sure!"), ("closing", "helps!"), ("bold", "**"), ("emoji", "😊"), ("newline", "Line 1.\n")],
)
def test_each_form_is_caught_by_its_mark(name: str, mark: str) -> None:
    found = forms(lambda text: -1.0 if mark in text else 0.0)
    assert {n for n, one in found.items() if one["effect"] < -0.2} == {name}
    assert found[name]["raised"] == 0.0


def test_a_form_in_chinese_is_chinese_and_what_is_too_long_is_left_out() -> None:
    some = [Judged(ranking("什么?", ["一只小猫。", "狗。"], [1, 2]), [1.0, 0.0], [3, 1])]
    seen: list[str] = []

    def score_texts(pairs: Sequence[tuple[Ranking, str]]) -> list[float | None]:
        seen.extend(answer for _, answer in pairs)
        return [None if "希望" in answer else 1.0 for _, answer in pairs]

    found = form_probe(some, score_texts)
    assert "当然！一只小猫。" in seen
    assert set(found) == set(FORMS) - {"closing"}
    assert form_probe([Judged(some[0].ranking, [1.0, 1.0], [3, 1])], score_texts) == {}
    assert form_probe([], score_texts) == {}


def test_no_more_answers_than_needed_are_probed() -> None:
    assert all(one["answers"] == PROBED for one in forms(lambda text: float(len(text)), count=PROBED + 40).values())


# -- ensembles


def test_disagreement_by_hand() -> None:
    def member(*leads: float) -> list[Judged]:
        return [judged(f"{i}?", [1, 2], [lead, 0.0], [1, 1]) for i, lead in enumerate(leads)]

    found = disagreement([member(1.0, -1.0, 4.0, -2.0), member(6.0, 6.0, 0.0, -2.0)], [1.0, 2.0])
    # In deviations: (1, -1, 4, -2) and (3, 3, 0, -1); the means are 2, 1, 2, -1.5.
    assert found["members"] == 2
    assert found["member_pair_accuracy"] == [0.5, 0.5]
    assert found["pair_accuracy"] == 0.75
    assert found["deviation"] == pytest.approx((1 + 2 + 2 + 0.5) / 4)
    assert found["agreeing"] == 0.5
    assert (found["accuracy_agreeing"], found["accuracy_disagreeing"]) == (0.5, 1.0)
    assert disagreement([member(), member()], [1.0, 1.0]) == {}
    same = disagreement([member(1.0, 2.0)] * 3, [1.0] * 3)
    assert (same["deviation"], same["agreeing"], same["accuracy_disagreeing"]) == (0.0, 1.0, None)


# -- on a model


def test_a_model_s_scores_are_those_of_its_pair_accuracy() -> None:
    model = scalar()
    rankings = [
        ranking(f"What is {i}?", [f"It is {i}.", "I don't know.", "五。"], [1 + i % 2, 2 - i % 2, 3]) for i in range(12)
    ]
    rankings.append(ranking("Long?", ["word " * 200, "no"], [1, 2]))
    rankings.append(ranking("Tie?", ["a", "b"], [1, 1]))
    found = judged_by(model, rankings, tokenizer(), 64)
    assert [one.ranking for one in found] == rankings[:12]
    encoded, _ = encode_rankings(rankings, tokenizer(), 64)
    assert (Pairs.of(found).lead > 0).mean() == pytest.approx(pair_accuracy(model, encoded, 64))
    assert found[0].lengths == [len(tokenizer().encode(answer)) for answer in rankings[0].answers]
    again = scorer(model, tokenizer(), 64)([(one.ranking, one.ranking.answers[1]) for one in found])
    torch.testing.assert_close(torch.tensor(again), torch.tensor([one.rewards[1] for one in found]), atol=1e-4, rtol=0)
    assert scorer(model, tokenizer(), 64)([(rankings[12], "word " * 200), (rankings[0], "It is 0.")])[0] is None
