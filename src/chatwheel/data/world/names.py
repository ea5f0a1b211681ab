"""Invented people and places, in two pools that do not meet: one for training, one for the examination.

All names are put together from the same few syllables or characters, so that a tokenizer trained on one pool can write
the other, while a model can only answer with a name of the examination by copying it. They are many, so that copying is
easier to learn than the list of names, and short, so that there is little to copy.
"""

from __future__ import annotations

import re
from functools import lru_cache
from random import Random

from chatwheel.data.world.items import Language, Split, hash_percent

EXAMINATION_PERCENT = 20
SPLITS: tuple[Split, ...] = ("training", "examination")

# fmt: off
_FIRST = [
    "Mi", "Ta", "Lo", "Ka", "Ne", "Ri", "Sa", "Jo", "El", "Da", "Be", "Ro", "Vi", "Lu",
    "No", "Fe", "Ha", "Ju", "Ma", "Pe", "So", "Ti", "Wi", "Ze", "Gu", "Bo", "Du",
]
_SHE = ["ra", "na", "la", "sa", "ta", "da", "ya", "ka", "va"]
_HE = ["lin", "vo", "rik", "mo", "den", "lo", "ko", "ben", "nik", "dor", "rus"]
_PLACE_FIRST = [
    "Mer", "Tal", "Lor", "Kam", "Nel", "Rin", "Sel", "Jun", "Dal", "Bren", "Vin", "Lum", "Nor", "Fen",
    "Hav", "Pol", "Tor", "Gal", "Wes", "Bir", "Cor", "Mun",
]
# fmt: on
_PLACE_LAST = ["ton", "ford", "dale", "wood", "port", "ville", "field", "bridge"]
_SURNAMES = "王李张刘陈林周吴赵孙蒋胡郭何罗梁宋郑谢韩唐冯董程"
_SHE_ZH = "丽芳梅兰红云玲雪娜静洁燕霞娟"
_HE_ZH = "明强军伟亮平峰勇杰涛辉刚斌鹏"
_PLACE_FIRST_ZH = "东西南北青白红金新云长大"
_PLACE_SECOND_ZH = "山水河石林海桥湖"
_PLACE_LAST_ZH = "村镇城"


def _split(names: list[str]) -> dict[Split, tuple[str, ...]]:
    # By the first two characters in Chinese, so that a place of the examination is not a village in training.
    keys = {n: n if n.isascii() else n[:2] for n in names}
    taken = {n for n in names if hash_percent(f"name|{keys[n]}") < EXAMINATION_PERCENT}
    return {split: tuple(n for n in names if (n in taken) == (split == "examination")) for split in SPLITS}


@lru_cache(maxsize=1)
def _people() -> dict[Language, dict[Split, tuple[str, ...]]]:
    # No syllable twice in a row; and none of these is a name or a word in the world's facts.
    english = [a + b for a in _FIRST for b in (*_SHE, *_HE) if b[:2] != a.lower()]
    chinese = [a + b for a in _SURNAMES for b in _SHE_ZH + _HE_ZH]
    return {"en": _split(english), "zh": _split(chinese)}


@lru_cache(maxsize=1)
def _places() -> dict[Language, dict[Split, tuple[str, ...]]]:
    english = [a + b for a in _PLACE_FIRST for b in _PLACE_LAST]
    chinese = [a + b + c for a in _PLACE_FIRST_ZH for b in _PLACE_SECOND_ZH for c in _PLACE_LAST_ZH]
    return {"en": _split(english), "zh": _split(chinese)}


def people(language: Language, split: Split) -> tuple[str, ...]:
    """The invented people of a pool."""
    return _people()[language][split]


def places(language: Language, split: Split) -> tuple[str, ...]:
    """The invented villages and towns of a pool."""
    return _places()[language][split]


def some_people(rng: Random, language: Language, split: Split, count: int) -> list[str]:
    """Different people, in random order, whom nobody confuses."""
    return _distinct(rng, people(language, split), count)


def some_places(rng: Random, language: Language, split: Split, count: int) -> list[str]:
    """Different places, in random order, which nobody confuses."""
    return _distinct(rng, places(language, split), count)


def some_names(rng: Random, language: Language, split: Split, count: int) -> list[str]:
    """Different people and places together, which nobody confuses."""
    return _distinct(rng, (*people(language, split), *places(language, split)), count)


def _distinct(rng: Random, names: tuple[str, ...], count: int) -> list[str]:
    """Names without a common syllable or character (but a place's last): no Milo beside Mira, no 王明 beside 李明."""
    found: list[str] = []
    taken: set[str] = set()
    while len(found) < count:
        name = rng.choice(names)
        parts = {name[:2], name[2:]} if name.isascii() else set(name[:2])
        if taken.isdisjoint(parts):
            found.append(name)
            taken |= parts
    return found


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
    return latin if text.isascii() else latin + _chinese_names(text, known)


def _chinese_names(text: str, known: frozenset[str]) -> list[str]:
    """From left to right, the longest first."""
    found, at = [], 0
    while at < len(text):
        name = next((text[at : at + size] for size in (3, 2) if text[at : at + size] in known), None)
        if name is not None:
            found.append(name)
        at += len(name) if name else 1
    return found
