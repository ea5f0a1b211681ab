"""How alike two texts are, from 0 to 1, without a model: what OpenAI's `text_similarity` grader offers of it.

Words are runs of letters and digits, in lower case; a character of Chinese, Japanese or Thai is a word, since these
scripts put no spaces. Of two empty texts everything is 1, of an empty and another one 0.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Hashable, Sequence

from chatwheel.training.rules import UNSPACED

_WORD = re.compile(r"[^\W_]+")
_LONGEST = 20_000
"""Characters of a text that are compared; an answer that goes on forever is as wrong after them."""


def words(text: str) -> list[str]:
    """Units that measures by n-grams count."""
    spaced = UNSPACED.sub(lambda found: f" {found[0]} ", text[:_LONGEST].lower())
    return _WORD.findall(spaced)


def fuzzy_match(text: str, reference: str) -> float:
    """2 L / (sum of the lengths), where L is the length of the longest common subsequence of characters: one less the
    normalised distance by insertions and deletions, as RapidFuzz's `ratio` / 100."""
    text, reference = text[:_LONGEST], reference[:_LONGEST]
    total = len(text) + len(reference)
    return 2 * common_subsequence(text, reference) / total if total else 1.0


def bleu(text: str, reference: str) -> float:
    """BLEU of one sentence (Papineni et al., 2002): the geometric mean of the precisions of 1- to 4-grams, times the
    brevity penalty. Precisions without a match count as half of those before would (exponential smoothing: Chen and
    Cherry, 2014, method 3, as sacreBLEU); n-grams that neither text is long enough for are left out."""
    found, wanted = words(text), words(reference)
    if not found or not wanted:
        return float(found == wanted)
    logs, halved = [], 1.0
    for n in range(1, min(4, len(found)) + 1):
        matches, total, _ = _matches(found, wanted, n)
        if n == 1 and not matches:
            return 0.0
        if not matches:
            halved *= 2
        logs.append(math.log((matches or 1 / halved) / total))
    brevity = min(1.0, math.exp(1 - len(wanted) / len(found)))
    return brevity * math.exp(sum(logs) / len(logs))


def gleu(text: str, reference: str) -> float:
    """Google's BLEU (Wu et al., 2016, "Google's neural machine translation system", section 4.3): of all 1- to 4-grams,
    the smaller of precision and recall."""
    found, wanted = words(text), words(reference)
    if not found or not wanted:
        return float(found == wanted)
    counts = [_matches(found, wanted, n) for n in range(1, 5)]
    matches, of_text, of_reference = (sum(column) for column in zip(*counts, strict=True))
    return float(matches / max(of_text, of_reference))


def rouge(n: int) -> Callable[[str, str], float]:
    """ROUGE-N (Lin, 2004): the F1 of the n-grams that both have."""

    def measure(text: str, reference: str) -> float:
        found, wanted = words(text), words(reference)
        matches, of_text, of_reference = _matches(found, wanted, n)
        if not of_text or not of_reference:  # too short for one n-gram
            return float(found == wanted)
        return 2 * matches / (of_text + of_reference)

    return measure


def rouge_l(text: str, reference: str) -> float:
    """ROUGE-L (Lin, 2004): the F1 of the longest common subsequence of words."""
    found, wanted = words(text), words(reference)
    if not found or not wanted:
        return float(found == wanted)
    return 2 * common_subsequence(found, wanted) / (len(found) + len(wanted))


def common_subsequence(first: Sequence[Hashable], second: Sequence[Hashable]) -> int:
    """The length of the longest one. A row of the table is the bits of one number (Hyyrö, 2004, "Bit-parallel
    LCS-length computation revisited"), so that two answers of a thousand characters take a millisecond."""
    places: dict[Hashable, int] = {}
    for i, item in enumerate(first):
        places[item] = places.get(item, 0) | 1 << i
    every = (1 << len(first)) - 1
    row = every
    for item in second:
        both = row & places.get(item, 0)
        row = ((row + both) | (row - both)) & every
    return len(first) - row.bit_count()


def _matches(found: Sequence[str], wanted: Sequence[str], n: int) -> tuple[int, int, int]:
    """n-grams in common, in the text, and in the reference."""
    of_text, of_reference = (Counter(zip(*(units[i:] for i in range(n)), strict=False)) for units in (found, wanted))
    return (of_text & of_reference).total(), of_text.total(), of_reference.total()


MEASURES: dict[str, Callable[[str, str], float]] = {
    "fuzzy_match": fuzzy_match,
    "bleu": bleu,
    "gleu": gleu,
    **{f"rouge_{n}": rouge(n) for n in range(1, 6)},
    "rouge_l": rouge_l,
}
NOT_HERE = {
    "cosine": "needs a model of embeddings",
    "meteor": "needs WordNet's synonyms",
}
"""Measures that OpenAI has and that are refused here, with the reason."""
