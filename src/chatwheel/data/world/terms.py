"""Terms of the world in both languages, and the small grammar that sentences need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from chatwheel.data.world.items import Language

ENGLISH_NUMBERS = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
    "twenty",
]
TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
CHINESE_DIGITS = "零一二三四五六七八九"


@dataclass(frozen=True)
class Term:
    """Something that has a name in English and in Chinese. `also` are other spellings of it in either language."""

    en: str
    zh: str
    plural: str = ""
    also: tuple[str, ...] = ()
    slots: tuple[tuple[str, str], ...] = ()
    """Further forms that sentence templates ask for by name."""

    def name(self, language: Language) -> str:
        return self.en if language == "en" else self.zh

    def forms(self, language: Language) -> list[str]:
        """All spellings by which an answer may mean this term."""
        own = [self.en, self.plural] if language == "en" else [self.zh]
        chinese = language == "zh"
        return [
            f for f in dict.fromkeys([*own, *(a for a in self.also if is_chinese(a) == chinese or a.isdigit())]) if f
        ]


def is_chinese(text: str) -> bool:
    """True if the text has a Chinese character."""
    return any("\u4e00" <= c <= "\u9fff" for c in text)


def with_article(noun: str) -> str:
    """The noun after a or an."""
    return f"an {noun}" if noun[0].lower() in "aeiou" else f"a {noun}"


def sentence(text: str) -> str:
    """The text with a capital first letter."""
    return text[:1].upper() + text[1:]


@lru_cache(maxsize=8192)
def subject_slots(term: Term, language: Language) -> dict[str, str]:
    """The forms of a sentence's subject: {s} its name, {a} with its article, {p} in the plural, and the term's own."""
    name = term.name(language)
    slots = {"s": name, **dict(term.slots)}
    if language == "en":
        slots["a"] = with_article(name)
        slots["p"] = term.plural or name
    return slots


def fill(template: str, language: Language, subject: Term, **values: str) -> str:
    """The template with the subject and the values in their places, beginning with a capital letter."""
    text = template.format(**subject_slots(subject, language), **values)
    return sentence(text) if language == "en" else text


def english_number(n: int) -> str:
    """0 to 99 in words."""
    if n <= 20:
        return ENGLISH_NUMBERS[n]
    tens, ones = divmod(n, 10)
    return TENS[tens] + (f"-{ENGLISH_NUMBERS[ones]}" if ones else "")


def chinese_number(n: int) -> str:
    """0 to 99 in Chinese numerals."""
    if n < 10:
        return CHINESE_DIGITS[n]
    tens, ones = divmod(n, 10)
    return ("" if tens == 1 else CHINESE_DIGITS[tens]) + "十" + (CHINESE_DIGITS[ones] if ones else "")


def number_word(n: int, language: Language) -> str:
    """A number in words."""
    return english_number(n) if language == "en" else chinese_number(n)


def listed(words: Sequence[str], language: Language) -> str:
    """`a, b, c`, or with the Chinese enumeration comma."""
    return (", " if language == "en" else "、").join(words)


def joined(words: Sequence[str], language: Language) -> str:
    """`a, b and c`."""
    if len(words) == 1:
        return words[0]
    return listed(words[:-1], language) + (" and " if language == "en" else "和") + words[-1]
