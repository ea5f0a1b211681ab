"""Languages told from texts, and records kept by them."""

from __future__ import annotations

import sys
from collections import Counter

import pytest

from chatwheel.data import identification
from chatwheel.data.cleaning import Rules, clean
from chatwheel.data.identification import NO_LANGUAGE, identify
from chatwheel.data.records import Demonstration, Document, Message
from chatwheel.errors import InputError

# The Universal Declaration of Human Rights, article 1.
ARTICLE = {
    "en": "All human beings are born free and equal in dignity and rights. They are endowed with reason and conscience "
    "and should act towards one another in a spirit of brotherhood.",
    "zh": "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。",
    "fr": "Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont doués de raison et de "
    "conscience et doivent agir les uns envers les autres dans un esprit de fraternité.",
    "de": "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und Gewissen begabt "
    "und sollen einander im Geist der Brüderlichkeit begegnen.",
    "es": "Todos los seres humanos nacen libres e iguales en dignidad y derechos y, dotados como están de razón y "
    "conciencia, deben comportarse fraternalmente los unos con los otros.",
    "ja": "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。人間は、理性と良心とを"
    "授けられており、互いに同胞の精神をもって行動しなければならない。",
    "ko": "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다. 인간은 천부적으로 이성과 양심을 "
    "부여받았으며 서로 형제애의 정신으로 행동하여야 한다.",
    "ru": "Все люди рождаются свободными и равными в своем достоинстве и правах. Они наделены разумом и совестью и "
    "должны поступать в отношении друг друга в духе братства.",
}


@pytest.mark.parametrize("language", ARTICLE)
def test_a_language_is_told(language: str) -> None:
    assert identify(ARTICLE[language]) == language
    assert identify(ARTICLE[language] * 40) == language


def test_what_is_no_language_and_what_is_no_unicode() -> None:
    assert identify("0x3f 17.25 9934 == {} [] 88 <td></td> 0x1c 5512") == NO_LANGUAGE
    assert identify("") == NO_LANGUAGE
    assert identify(ARTICLE["en"] + "\ud800") == "en"


def test_only_chosen_languages_stay_and_are_tagged() -> None:
    dropped: Counter[str] = Counter()
    documents = [Document(text=text, language="en") for text in ARTICLE.values()]  # as everything Latin would be
    kept = list(clean(documents, Rules(languages=("fr", "zh")), dropped))
    assert {d.language: d.text for d in kept} == {name: ARTICLE[name] for name in ("fr", "zh")}
    assert dropped == {f"language {name}": 1 for name in ARTICLE if name not in ("fr", "zh")}
    asked, said = (Message(role=role, content=ARTICLE["en"]) for role in ("user", "assistant"))  # type: ignore[arg-type]
    assert list(clean([Demonstration(messages=[asked, said])], Rules(languages=("de",)), dropped)) == []


def test_an_unknown_language_and_a_missing_library_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"'english' is not known; ISO 639 codes are, like .*en, ") as caught:
        Rules(languages=("english",))
    assert "\n" not in str(caught.value)
    identification._identifier.cache_clear()
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)
    with pytest.raises(InputError, match=r"pip install 'chatwheel\[languages\]'"):
        Rules(languages=("en",))
    assert Rules().languages is None
    identification._identifier.cache_clear()
