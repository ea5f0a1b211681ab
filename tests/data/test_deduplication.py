"""Near-duplicates against brute force over the exact sets of shingles."""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatwheel.data.deduplication import (
    BINS,
    FEWEST,
    firsts,
    near_duplicates,
    shingles,
    signature,
    signatures_of,
)
from chatwheel.data.records import Document

WORDS = [
    f"{a}{b}" for a in ("ba", "ko", "ti", "mu", "re", "sa") for b in ("lan", "dor", "mik", "pet", "sun", "fal", "gor")
]
HAN = "天地玄黄宇宙洪荒日月盈昃辰宿列张寒来暑往秋收冬藏闰余成岁律吕调阳云腾致雨露结为霜"


@functools.cache
def shingle_set(text: str) -> frozenset[int]:
    return frozenset(shingles(text).tolist())


def jaccard(a: str, b: str) -> float:
    x, y = shingle_set(a), shingle_set(b)
    return len(x & y) / len(x | y) if x | y else 0.0


def corpus(rng: Random, originals: int) -> list[str]:
    """Texts in words or characters, and edited copies of some: from hardly to heavily."""
    found = []
    for number in range(originals):
        chinese = number % 3 == 0
        units = [rng.choice(HAN if chinese else WORDS) for _ in range(rng.randint(60, 500))]
        for copy in range(rng.choice((1, 1, 2, 4))):
            edited = list(units)
            for _ in range(round(copy * rng.choice((0, 0.005, 0.02, 0.06)) * len(units))):
                edited[rng.randrange(len(edited))] = rng.choice(HAN if chinese else WORDS)
            found.append(("" if chinese else " ").join(edited))
    rng.shuffle(found)
    return found


def test_recall_and_precision_against_brute_force() -> None:
    many = corpus(Random(5), 180)
    groups = near_duplicates(signatures_of(many), 0.8)
    near, far, right, joined = 0, 0, 0, 0
    for i, j in itertools.combinations(range(len(many)), 2):
        together = groups[i] == groups[j]
        similarity = jaccard(many[i], many[j])
        near += similarity >= 0.85
        right += together and similarity >= 0.85
        joined += together
        far += together and similarity < 0.7
    assert near > 100
    assert right / near > 0.97  # recall
    assert 1 - far / joined > 0.97  # precision


def test_estimates_are_near_the_truth() -> None:
    rng = Random(2)
    errors = []
    for text in corpus(rng, 60):
        units = text.split() if " " in text else list(text)
        for share in (0.01, 0.05, 0.2):
            edited = [rng.choice(WORDS) if rng.random() < share else unit for unit in units]
            other = (" " if " " in text else "").join(edited)
            if min(len(shingles(text)), len(shingles(other))) < FEWEST:
                continue  # these are not estimated
            errors.append(float(np.mean(signature(text) == signature(other))) - jaccard(text, other))
    assert abs(float(np.mean(errors))) < 0.01
    assert float(np.std(errors)) < 1.3 * 0.5 / BINS**0.5


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("The cat sat on the mat.", "the CAT, sat on... the mat!", True),
        ("The cat sat on the mat.", "the cat sat on the mats.", False),
        ("天地玄黄，宇宙洪荒。", "天地玄黄 宇宙洪荒", True),
        ("one", "One", True),
        ("one", "two", False),
        ("ab cd ef gh ij", "abc def ghij", False),
        ("cafe\u0301 au lait", "café au lait", False),  # cleaning has made them one form before
    ],
)
def test_shingles_are_of_units(a: str, b: str, same: bool) -> None:
    assert (shingles(a).tolist() == shingles(b).tolist()) is same


def test_shingles_do_not_depend_on_where_they_stand() -> None:
    inner = "five words stand right here"
    alone = set(shingles(inner).tolist())
    assert len(alone) == 1
    for before in ("", "a ", "some more text before, " * 50, "天地" * 200):
        assert alone <= set(shingles(f"{before}{inner} and after").tolist())


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200))
def test_any_text_has_a_signature(text: str) -> None:
    assert signature(text).shape == (BINS,)
    assert np.array_equal(signature(text), signature(text))


def test_texts_without_units_are_like_nothing() -> None:
    many = ["...", "", "!!!", "  ", "a b c d e f", "..."]
    assert near_duplicates(signatures_of(many)) == [0, 1, 2, 3, 4, 5]
    assert near_duplicates(signatures_of([])) == []


def test_the_first_of_each_group_remains_and_the_others_are_counted() -> None:
    rng = Random(1)
    text = " ".join(rng.choice(WORDS) for _ in range(300))
    documents = [Document(text=t) for t in (text, "something else entirely is told here", text + " end", text.upper())]
    dropped: Counter[str] = Counter()
    leaders = near_duplicates(signatures_of(document.text for document in documents))
    kept = list(firsts(documents, leaders, dropped))
    assert kept == documents[:2]
    assert dropped == {"near-duplicate": 2}


def test_boilerplate_that_thousands_share_does_not_take_forever() -> None:
    rng = Random(3)
    shared = " ".join(rng.choice(WORDS) for _ in range(200))
    many = [shared + " " + " ".join(rng.choice(WORDS) for _ in range(rng.choice((4, 400)))) for _ in range(3000)]
    groups = near_duplicates(signatures_of(many))
    assert len(set(groups)) < 2500


@pytest.mark.parametrize(
    "form", ["What is the capital of {}?", "{}的首都是哪里呢？", "{} is a country. Many people live in {}."]
)
def test_short_texts_that_differ_in_a_name_are_all_kept(form: str) -> None:
    many = [form.format(word, word) for word in WORDS]
    assert near_duplicates(signatures_of(many), 0.8) == list(range(len(many)))
    assert near_duplicates(signatures_of([many[0], many[0].upper(), many[1]])) == [0, 0, 2]
