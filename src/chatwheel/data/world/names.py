"""Invented people and places, in two pools that do not meet: one for training, one for the examination.

All names are put together from the same few syllables or characters, so that a tokenizer trained on one pool can write
the other, while a model can only answer with a name of the examination by copying it.
"""

from __future__ import annotations

import re
from functools import lru_cache
from random import Random

from chatwheel.data.world.items import Language, Split, hash_percent

EXAMINATION_PERCENT = 20

_FIRST = ["Mi", "Ta", "Lo", "Ka", "Ne", "Ri", "Sa", "Jo", "El", "Da", "Be", "Ro", "Vi", "Lu", "No", "Fe"]
_SHE = ["ra", "na", "la", "sa", "ta", "da"]
_HE = ["lin", "vo", "rik", "mo", "den", "lo", "ko", "ben"]
_PLACE_FIRST = ["Mer", "Tal", "Lor", "Kam", "Nel", "Rin", "Sel", "Jun", "Dal", "Bren", "Vin", "Lum", "Nor", "Fen"]
_PLACE_LAST = ["ton", "ford", "dale", "wood", "port", "ville"]
_SURNAMES = "王李张刘陈林周吴"
_SHE_ZH = "丽芳梅兰红云玲雪"
_HE_ZH = "明强军伟亮平峰勇"
_PLACE_FIRST_ZH = ("东", "西", "南", "北", "青", "白", "红", "金", "新", "云")
_PLACE_MIDDLE_ZH = "山水河石林海"
_PLACE_LAST_ZH = "村镇城"


def _split(names: list[str]) -> dict[Split, tuple[str, ...]]:
    taken = [n for n in names if hash_percent(f"name|{n}") < EXAMINATION_PERCENT]
    return {"training": tuple(n for n in names if n not in set(taken)), "examination": tuple(taken)}


@lru_cache(maxsize=1)
def _people() -> dict[Language, dict[Split, tuple[str, ...]]]:
    english = [a + b for a in _FIRST for b in (*_SHE, *_HE) if b[0] != a[0].lower() or len(b) > 2]
    english = [n for n in english if n not in {"Sara", "Joben", "Elsa"}]
    chinese = [s + g for s in _SURNAMES for g in _SHE_ZH + _HE_ZH]
    return {"en": _split(english), "zh": _split(chinese)}


@lru_cache(maxsize=1)
def _places() -> dict[Language, dict[Split, tuple[str, ...]]]:
    english = [a + b for a in _PLACE_FIRST for b in _PLACE_LAST]
    chinese = [a + b + c for a in _PLACE_FIRST_ZH for b in _PLACE_MIDDLE_ZH for c in _PLACE_LAST_ZH]
    return {"en": _split(english), "zh": _split(chinese)}


def people(language: Language, split: Split) -> tuple[str, ...]:
    """The invented people of a pool."""
    return _people()[language][split]


def places(language: Language, split: Split) -> tuple[str, ...]:
    """The invented villages and towns of a pool."""
    return _places()[language][split]


def some_people(rng: Random, language: Language, split: Split, count: int) -> list[str]:
    """Different people, in random order."""
    return rng.sample(people(language, split), count)


def some_places(rng: Random, language: Language, split: Split, count: int) -> list[str]:
    """Different places, in random order."""
    return rng.sample(places(language, split), count)


def pronoun(name: str, language: Language) -> str:
    """she/he or 她/他, read off the name's last syllable."""
    if language == "zh":
        return "她" if name[-1] in _SHE_ZH else "他"
    return "she" if name[-1] == "a" else "he"


@lru_cache(maxsize=1)
def _every_name() -> frozenset[str]:
    pools = [pool[language][split] for pool in (_people(), _places()) for language in pool for split in pool[language]]
    return frozenset(name for names in pools for name in names)


_LATIN = re.compile(r"[A-Za-z]+")


def names_in(text: str) -> list[str]:
    """The invented people and places that a text speaks of."""
    known = _every_name()
    latin = [word for word in _LATIN.findall(text) if word in known]
    if text.isascii():
        return latin
    windows = (text[i : i + size] for size in (3, 2) for i in range(len(text) - size + 1))
    return latin + [window for window in windows if window in known]
