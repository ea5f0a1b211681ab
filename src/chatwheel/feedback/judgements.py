"""Rankings by labellers, as the comparisons of two answers that they consist of, and what about an answer's form and
place could have swayed a labeller.

Shape suffixes: N comparisons, A answers, F features.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from pydantic import Field, model_validator

from chatwheel.data.records import Message, Ranking
from chatwheel.errors import InputError
from chatwheel.feedback.significance import Array, Ints

CHARACTERS_A_WORD = 1.6
"""Chinese characters that say as much as an English word."""

_WORD = re.compile(r"[A-Za-z0-9']+")
_CHINESE = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]")
_LIST = re.compile(r"^\s*(?:[-*•]|\d+[.)、])\s*\S.*\n+\s*(?:[-*•]|\d+[.)、])\s*\S", re.MULTILINE)
_MARKDOWN = re.compile(r"\*\*\S|__\S|^#{1,6} |`[^`\n]+`|^```|^\|.*\|\s*$|\]\(\S+\)", re.MULTILINE)


class RankedBy(Ranking):
    """A ranking by one labeller. shown: at which place each answer was shown, 1 is the upper or left one; places that
    were drawn at random tell a habit of the labeller's from the answers' worth. None: not known."""

    labeller: str = Field(min_length=1)
    shown: list[int] | None = None

    @model_validator(mode="after")
    def _a_place_an_answer(self) -> RankedBy:
        if self.shown is not None and sorted(self.shown) != list(range(1, len(self.answers) + 1)):
            raise ValueError(f"shown: expected the places 1 to {len(self.answers)}, one an answer")
        return self


def _length(text: str) -> float:
    """Of a text, in doublings of its words."""
    return math.log2(1 + len(_WORD.findall(text)) + len(_CHINESE.findall(text)) / CHARACTERS_A_WORD)


def _chinese(text: str) -> float:
    """1 for a text that is in Chinese more than in anything else."""
    return float(len(_CHINESE.findall(text)) / CHARACTERS_A_WORD > len(_WORD.findall(text)))


FORMS: dict[str, Callable[[str], float]] = {
    "length": _length,
    "lists": lambda text: float(_LIST.search(text) is not None),
    "markdown": lambda text: float(_MARKDOWN.search(text) is not None),
    "exclamation marks": lambda text: float("!" in text or "！" in text),
    "Chinese": _chinese,
}
"""What is measured of an answer's text."""

POSITION = "position"
FEATURES = (POSITION, *FORMS)
"""Position: how much earlier the one answer was shown than the other; 1 from the first place to the last."""


@dataclass(frozen=True)
class Comparisons:
    """What labellers said of two answers to a prompt each, sorted by labeller, then by pair. A ranking of K answers is
    its K (K - 1) / 2 comparisons.

    labellers, prompts: names and keys, sorted; prompt_of_answer: A, rising. labeller, prompt, pair, first, second: N
    indices, where `first` and `second` are answers and `pair` tells pairs of answers apart. outcome: N, 1 where `first`
    was placed before `second`, -1 behind it, 0 for a tie. weight: N, of `weight_of_pairs`.
    forms: of each answer, A x (F - 1), as `FORMS`. features: N x F, as `FEATURES`, of `first` less those of `second`.
    """

    labellers: tuple[str, ...]
    prompts: tuple[str, ...]
    texts: tuple[str, ...]
    prompt_of_answer: Ints
    labeller: Ints
    prompt: Ints
    pair: Ints
    first: Ints
    second: Ints
    outcome: Array
    weight: Array
    forms: Array
    features: Array

    @property
    def num_pairs(self) -> int:
        return int(self.pair.max()) + 1

    @staticmethod
    def of(rankings: Iterable[RankedBy]) -> Comparisons:
        """Answers with the same text to the same prompt are one answer. Raises InputError without a comparison, and
        where a labeller compares the same two answers twice."""
        known = [(prompt_key(r.messages), r) for r in rankings]
        answers = sorted({(key, text) for key, r in known for text in r.answers})
        index = {answer: i for i, answer in enumerate(answers)}
        names = sorted({r.labeller for _, r in known})
        rows = []
        for key, ranking in known:
            rows += _compared(ranking, [index[key, text] for text in ranking.answers], names.index(ranking.labeller))
        if not rows:
            raise InputError("rankings: there is none with two different answers; nothing is compared")
        rows.sort()
        table = np.array(rows, dtype=np.float64)
        labeller, first, second = (table[:, column].astype(np.int64) for column in range(3))
        twice = np.flatnonzero((np.diff(table[:, :3], axis=0) == 0).all(axis=1))
        if len(twice):
            raise InputError(
                f"rankings: {names[labeller[twice[0]]]} compares the same two answers twice "
                f"({answers[first[twice[0]]][1][:40]!r}, ...); keep the one that counts"
            )
        prompts = sorted({key for key, _ in answers})
        number = {key: i for i, key in enumerate(prompts)}
        prompt_of_answer = np.array([number[key] for key, _ in answers], dtype=np.int64)
        forms = np.array([[measure(text) for measure in FORMS.values()] for _, text in answers])
        _, pair = np.unique(first * len(answers) + second, return_inverse=True)
        return Comparisons(
            labellers=tuple(names),
            prompts=tuple(prompts),
            texts=tuple(text for _, text in answers),
            prompt_of_answer=prompt_of_answer,
            labeller=labeller,
            prompt=prompt_of_answer[first],
            pair=pair.astype(np.int64),
            first=first,
            second=second,
            outcome=table[:, 3],
            weight=table[:, 4],
            forms=forms,
            features=np.column_stack([table[:, 5], forms[first] - forms[second]]),
        )


def _compared(ranking: RankedBy, answers: list[int], labeller: int) -> list[tuple[float, ...]]:
    """(labeller, first, second, outcome, weight, how much earlier `first` was shown) of each two different answers; of
    two alike, which a model may well have written, the first alone counts."""
    size = len(set(answers))
    seen = [answers.index(answer) for answer in sorted(set(answers))]
    rows: list[tuple[float, ...]] = []
    for i, j in combinations(seen, 2):
        outcome = float(np.sign(ranking.ranks[j] - ranking.ranks[i]))
        earlier = 0.0 if ranking.shown is None else (ranking.shown[j] - ranking.shown[i]) / (len(answers) - 1)
        rows.append((float(labeller), float(answers[i]), float(answers[j]), outcome, weight_of_pairs(size), earlier))
    return rows


def weight_of_pairs(size: int) -> float:
    """What each pair of a ranking of K answers counts. If the ranking is Plackett and Luce's, each of its pairs is as
    Bradley and Terry say, but together they tell less than if they were independent: with 4 c / K each, where c is the
    mean of 1 - 1 / m for m from 2 to K, they have the Fisher information of the ranking, at equal worths.
    1 for 2 answers, 0.64 for 4, 0.47 for 6."""
    return 4 / size * sum(1 - 1 / m for m in range(2, size + 1)) / (size - 1)


def prompt_key(messages: Iterable[Message]) -> str:
    """Tells prompts apart."""
    return json.dumps([[m.role, m.content] for m in messages], ensure_ascii=False)
