"""What a relation is: one kind of fact, and the sentences in which it is asked and told.

Slots: {s} {a} {p} are the subject, with its article, in the plural; {v} the value, {w} a wrong one, {va} and {wa} with
article. The first answer is also the form in which a claim, right or wrong, is made.
"""

from __future__ import annotations

from dataclasses import dataclass

from chatwheel.data.world.items import Language
from chatwheel.data.world.knowledge import FACTS, Facts
from chatwheel.data.world.terms import Term, fill, with_article


@dataclass(frozen=True)
class Sentences:
    """A relation's sentences in one language."""

    ask: tuple[str, ...]
    answer: tuple[str, ...]
    deny: str
    """What is not so."""
    rather: str
    """Right value, and the wrong one denied, in one sentence."""
    why: str
    """A question that takes {w} for granted."""
    again: tuple[str, ...] = ()
    """Follow-ups on another subject."""
    own: tuple[str, ...] = ()
    """Follow-ups on the same subject, which they do not name."""
    tell: tuple[str, ...] = ()
    """Further statements, for prose."""


@dataclass(frozen=True)
class Relation:
    """One kind of fact."""

    name: str
    topic: str
    en: Sentences
    zh: Sentences

    @property
    def facts(self) -> Facts:
        return FACTS[self.name]

    def sentences(self, language: Language) -> Sentences:
        return self.en if language == "en" else self.zh

    def candidates(self) -> tuple[Term, ...]:
        """All values that an answer could give."""
        return tuple(dict.fromkeys(self.facts.values()))


def say(template: str, language: Language, subject: Term, value: Term, wrong: Term | None = None) -> str:
    """A sentence of a relation with its subject, its value and perhaps a wrong value."""
    other = wrong or value
    slots = {"v": value.name(language), "w": other.name(language)}
    if "{va}" in template or "{wa}" in template:
        slots |= {"va": with_article(value.en), "wa": with_article(other.en)}
    return fill(template, language, subject, **slots)


AGAIN_EN = ("And {s}?", "What about {s}?", "How about {s}?")
AGAIN_ZH = ("那{s}呢？", "{s}呢？")
