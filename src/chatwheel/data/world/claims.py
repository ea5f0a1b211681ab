"""Which values a text asserts and which it denies: the reading that marks and rankings rest on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from chatwheel.data.world.items import Language
from chatwheel.data.world.terms import CHINESE_DIGITS, ENGLISH_NUMBERS, TENS

# A comma before "not" or after "No" parts what is denied from what is said; "but" and 而是 turn back to what is said.
_CLAUSES = re.compile(r"[,;:!?\n，；：！？。]|\.(?:\s|$)|\bbut\b|而是|\bbecause\b", re.IGNORECASE)
_NEGATION = {
    "en": re.compile(r"\bnot\b|n't\b|\bnever\b|\bcannot\b", re.IGNORECASE),
    "zh": re.compile(r"不(?!错|客气|用谢|过)|(?<!沉)没(?!错|关系)"),
}
_QUOTED = re.compile(r"[“\"「『]([^”\"」』]*)[”\"」』]")


def has_chinese(text: str) -> bool:
    """True if there is a Chinese character."""
    return any("\u4e00" <= c <= "\u9fff" for c in text)


@lru_cache(maxsize=8192)
def _pattern(forms: tuple[str, ...]) -> re.Pattern[str]:
    """A pattern that finds the longest form at each place; Latin ones as whole words only."""
    parts = []
    for form in sorted(set(forms), key=len, reverse=True):
        escaped = re.escape(form)
        parts.append(escaped if has_chinese(form) else rf"(?<![A-Za-z0-9]){escaped}(?![A-Za-z0-9])")
    return re.compile("|".join(parts) or r"(?!)", re.IGNORECASE)


def spelled(forms: Iterable[str]) -> re.Pattern[str]:
    """A pattern for the forms: whole words, longest first."""
    return _pattern(tuple(forms))


def mentions(text: str, forms: Iterable[str]) -> list[str]:
    """The forms in the order in which the text has them, lower case, longest first where they overlap."""
    return [m.group().lower() for m in spelled(forms).finditer(text)]


def clauses(text: str) -> list[str]:
    """The text cut where a statement may turn."""
    return [part for part in _CLAUSES.split(text) if part and part.strip()]


def denies(clause: str, language: Language) -> bool:
    """True if the clause is a negation."""
    return bool(_NEGATION[language].search(clause))


_SAID_AGAIN = re.compile(
    r"(?:^|(?<=[.!?] )|(?<=[。！？，\n]))(?:Hm, [^.!?,;\n]{1,40}\?|[^。！？，；\n]{1,14}吗？)\s*(?=\S)"
)


def without_claim(text: str) -> str:
    """An answer without the claim that it says again first, as in "Hm, Rome? It is Paris.": that asserts nothing.

    Any other question counts: who asks "Rome? Or London?" has not decided, nor who asks again behind an answer.
    """
    return _SAID_AGAIN.sub("", text, count=1)


_EQUATION = re.compile(r"\d+(?: ?[-+×*] ?\d+)+ ?= ?\d+")


def without_equations(text: str) -> str:
    """Text without its sums: "2? 2 + 2 = 4" says 2 three times and does not repeat itself."""
    return _EQUATION.sub("", text)


def claims(text: str, forms: Sequence[str], language: Language) -> tuple[set[str], set[str]]:
    """(asserted, denied): the forms in clauses without and with a negation."""
    asserted: set[str] = set()
    denied: set[str] = set()
    for clause in clauses(text):
        (denied if denies(clause, language) else asserted).update(mentions(clause, forms))
    return asserted, denied


def quoted(text: str) -> str:
    """What stands in quotation marks, or the whole text without its full stop if nothing does."""
    parts = _QUOTED.findall(text)
    return " ， ".join(parts) if parts else text.strip(" .。")


_ENGLISH_VALUES = {word: n for n, word in enumerate(ENGLISH_NUMBERS)}
_ENGLISH_VALUES |= {f"{TENS[t]}-{ENGLISH_NUMBERS[o]}": 10 * t + o for t in range(2, 10) for o in range(1, 10)}
_ENGLISH_VALUES |= {TENS[t]: 10 * t for t in range(2, 10)}
_NUMBER = {
    "en": re.compile(
        r"\d+|\b(?:(?:"
        + "|".join(TENS[2:])
        + r")(?:[- ](?:"
        + "|".join(ENGLISH_NUMBERS[1:10])
        + r"))?|"
        + "|".join(sorted(ENGLISH_NUMBERS, key=len, reverse=True))
        + r")\b",
        re.IGNORECASE,
    ),
    "zh": re.compile(r"\d+|[零一二三四五六七八九十两]+"),
}


_COUNTS = re.compile(r"(?:\b(?:is|are|has|have|count)\s|=\s*|等于|是|有|剩)$")
"""What stands before a "one" that is meant as a number."""


def _value(word: str) -> int | None:
    if word.isdigit():
        return int(word)
    if not has_chinese(word):
        return _ENGLISH_VALUES.get(word.lower().replace(" ", "-"))
    digits = word.replace("两", "二")
    if "十" not in digits:
        return CHINESE_DIGITS.index(digits) if len(digits) == 1 else None
    tens, _, ones = digits.partition("十")
    if len(tens) > 1 or len(ones) > 1 or "十" in ones:
        return None
    return 10 * (CHINESE_DIGITS.index(tens) if tens else 1) + (CHINESE_DIGITS.index(ones) if ones else 0)


def _is_counted(clause: str, match: re.Match[str]) -> bool:
    """True if a "one" or 一 stands alone or where a number is told."""
    alone = clause.strip(' .。“”"').lower() == match.group().lower()
    return alone or (bool(_COUNTS.search(clause[: match.start()])) and not clause[match.end() :].startswith("共"))


def numbers_said(text: str, language: Language) -> list[int]:
    """The numbers that the text asserts, in order, as digits or words, without a "one" or 一 that is an article."""
    found = []
    for clause in clauses(text):
        if denies(clause, language):
            continue
        for match in _NUMBER[language].finditer(clause):
            value = _value(match.group())
            article = match.group().lower() in ("one", "一") and not _is_counted(clause, match)
            if value is not None and not article:
                found.append(value)
    return found
