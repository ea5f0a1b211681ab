"""Simulated labellers agree mostly, slip sometimes, and put what is right first."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from random import Random

import pytest

from chatwheel.data.world import BEHAVIOURS, LABELLERS, LANGUAGES, Item, Labeller, rank
from chatwheel.data.world.items import Language
from chatwheel.data.world.labellers import TIE, seems_right
from chatwheel.data.world.streams import draft
from chatwheel.data.world.writers import WRITERS


def cases(count: int, seed: int = 3) -> Iterator[tuple[Item, dict[str, str]]]:
    """Items with answers of several sorts, as a small model gives them."""
    rng = Random(seed)
    for i in range(count):
        found = draft(rng, BEHAVIOURS[i % len(BEHAVIOURS)], rng.choice(LANGUAGES), "training")
        answers = {writer.name: writer.write(found, rng) for writer in WRITERS[:4]}
        if found.wrong:
            answers["wrong"] = found.wrong[0]
        answers["cut"] = found.item.answer[: max(1, len(found.item.answer) // 2)]
        yield found.item, answers


def preferred(labeller: Labeller, better: str, worse: str, count: int = 600) -> float:
    wins = total = 0
    rng = Random(1)
    for item, answers in cases(count):
        if better in answers and worse in answers and answers[better] != answers[worse]:
            ranks = rank(item, [answers[better], answers[worse]], labeller, rng).ranks
            total += ranks[0] != ranks[1]
            wins += ranks[0] < ranks[1]
    return wins / total


def test_rankings_are_records_that_name_a_simulated_labeller() -> None:
    item, answers = next(cases(1))
    ranking = rank(item, list(answers.values()), LABELLERS[0], Random(0))
    assert ranking.labeller == f"simulated:{LABELLERS[0].name}"
    assert ranking.source == "world"
    assert ranking.answers == list(answers.values())
    assert [m.content for m in ranking.messages] == [m.content for m in item.messages]


def test_equal_answers_tie_and_anything_can_be_ranked() -> None:
    for item, answers in cases(60):
        given = [answers["careful"], "", answers["careful"], "\ufffd\ufffd", "the the the the the the", "。", " "]
        ranks = rank(item, given, LABELLERS[1], Random(5)).ranks
        assert ranks[0] == ranks[2]
        assert min(ranks) == 1
        assert ranks[0] < ranks[1]
        assert ranks[0] < ranks[3]


def test_scores_say_how_far_apart_the_places_are() -> None:
    for item, answers in cases(40):
        ranking = rank(item, list(answers.values()), LABELLERS[2], Random(5))
        assert ranking.scores is not None
        for better, worse in ranking.pairs():
            assert ranking.scores[better] - ranking.scores[worse] > 0
        best = max(ranking.scores)
        assert all(best - s <= TIE + 1e-3 for s, place in zip(ranking.scores, ranking.ranks, strict=True) if place == 1)


def test_same_generator_gives_the_same_ranks() -> None:
    item, answers = next(cases(1))
    first = rank(item, list(answers.values()), LABELLERS[2], Random(9))
    assert first == rank(item, list(answers.values()), LABELLERS[2], Random(9))


@pytest.mark.parametrize("labeller", LABELLERS, ids=lambda labeller: labeller.name)
def test_every_labeller_likes_right_answers_most(labeller: Labeller) -> None:
    assert preferred(labeller, "careful", "wrong") > 0.95
    assert preferred(labeller, "terse", "wrong") > 0.9
    assert preferred(labeller, "careful", "cut") > 0.85
    assert preferred(labeller, "careful", "curt") > 0.85
    assert preferred(labeller, "careful", "terse") > 0.55


def test_labellers_agree_on_most_pairs_but_not_on_all() -> None:
    agreed = total = 0
    rng = Random(2)
    for item, answers in cases(500, seed=8):
        given = rng.sample(list(answers.values()), 4)
        ranked = [rank(item, given, labeller, rng).ranks for labeller in LABELLERS]
        for a, b in itertools.combinations(range(4), 2):
            for first, second in itertools.combinations(ranked, 2):
                # Better, worse, or a tie: who sees a difference where the other sees none does not agree.
                verdicts = [(ranks[a] > ranks[b]) - (ranks[a] < ranks[b]) for ranks in (first, second)]
                total += 1
                agreed += verdicts[0] == verdicts[1]
    assert 0.7 < agreed / total < 0.9


def test_tastes_differ() -> None:
    assert len({labeller.bias for labeller in LABELLERS}) == len(LABELLERS)
    long = next(labeller for labeller in LABELLERS if labeller.bias == "long")
    others = [preferred(labeller, "chatty", "careful") for labeller in LABELLERS if labeller is not long]
    assert preferred(long, "chatty", "careful") > max(others)


def test_the_users_language_matters() -> None:
    rng = Random(4)
    for labeller in LABELLERS:
        wins = 0
        items = [item for item, _ in cases(240) if item.behaviour == "small_talk"]
        for item in items:
            other = "你好，我很好，谢谢你。" if item.language == "en" else "Hello, I am very well, thank you."
            ranks = rank(item, [item.answer, other], labeller, rng).ranks
            wins += ranks[0] < ranks[1]
        assert wins == len(items)


def test_every_good_answer_seems_right() -> None:
    rng = Random(8)
    for behaviour in BEHAVIOURS:
        for language in LANGUAGES:
            for _ in range(60):
                found = draft(rng, behaviour, language, "training")
                for answer in (*found.full, found.short):
                    assert seems_right(found.item, answer) >= 0.9, (found.item.messages[-1].content, answer)


def _some_item(behaviour: str, language: Language, **truth: object) -> Item:
    """A drafted item whose truth holds the given values."""
    rng = Random(11)
    for _ in range(20_000):
        item = draft(rng, behaviour, language, "training").item
        if all(item.truth.get(key) == value for key, value in truth.items()):
            return item
    raise AssertionError(f"no {behaviour} item with {truth}")


@pytest.mark.parametrize(
    ("language", "said", "objects"),
    [
        ("en", "I'm afraid that's wrong. {right}", True),
        ("en", "That is not so, I'm afraid. {right}", True),
        ("en", "No, but I know this one. {right}", True),
        ("en", "{right} I'm afraid I don't know the reason.", False),
        ("en", "{right} That's true, but I don't know why.", False),
        ("en", "{right} There is another reason for that.", False),
        ("zh", "不过这不对。{right}", True),
        ("zh", "但我觉得不是这样。{right}", True),
        ("zh", "{right}这是真的，但我不知道为什么。", False),
        ("zh", "{right}更多的我就不知道了。", False),
        ("zh", "{right}别的我不太清楚。", False),
    ],
)
@pytest.mark.parametrize("false", [True, False])
def test_an_objection_is_not_an_i_do_not_know(language: Language, said: str, objects: bool, false: bool) -> None:
    item = _some_item("false_premise", language, false=false, relation="capital", since=None)
    country, capital = item.truth["echo"][0], item.truth["accept"][0]
    right = f"The capital of {country} is {capital}." if language == "en" else f"{country}的首都是{capital}。"
    seems = seems_right(item, said.format(right=right))
    assert seems == (1.0 if objects == false else 0.3), said


def test_a_name_that_holds_right_admits_nothing() -> None:
    item = _some_item("mistakes", "en", relation="maker", hint_right=False, echo=["the airplane"])
    answer = "The airplane was invented by the Wright brothers. I have checked it again."
    assert seems_right(item, answer) == 1.0
    assert seems_right(item, f"{answer} You're right, and I'm sorry.") == 0.3
