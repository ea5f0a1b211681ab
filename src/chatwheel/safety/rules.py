"""Rules for each category: concepts that follow each other within a few units of one sentence.

They see what nobody has labelled data for; they are precise where they speak and blind to what is said in other words.
What is told as having happened ("he killed him", 被杀) is no violence for them; threats, wishes and instructions are.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from chatwheel.safety.categories import PARENTS
from chatwheel.safety.concepts import CONCEPTS
from chatwheel.safety.words import Hit, Vocabulary

NEAR = 6
"""Units that may stand between two concepts of a rule."""
ACROSS = 120
"""So many: into the next sentence, which SENTENCE units are between."""
BEFORE = 3
"""Units before a rule's first concept in which a NOT counts."""
AROUND = 8
"""Units on either side in which CARE (prevent, report, 预防, 热线) counts."""


@dataclass(frozen=True)
class Rule:
    """category has at least this score where a text has the concepts in this order (alternatives between `|`), with at
    most `near` units between; unless a NOT stands before them or between, or, with `care`, CARE is around."""

    category: str
    score: float
    concepts: tuple[frozenset[str], ...]
    near: int = NEAR
    care: bool = True


def _rule(category: str, score: float, concepts: str, **options: int) -> Rule:
    return Rule(category, score, tuple(frozenset(slot.split("|")) for slot in concepts.split()), **options)  # type: ignore[arg-type]


RULES = (
    _rule("harassment", 0.9, "ABUSE", care=False),
    _rule("harassment", 0.8, "YOU INSULT", near=4, care=False),
    _rule("harassment", 0.7, "INSULT YOU", near=1, care=False),
    _rule("harassment/threatening", 0.95, "THREAT", care=False),
    _rule("harassment/threatening", 0.9, "WILL KILL|HURT YOU", near=3, care=False),
    _rule("harassment/threatening", 0.8, "KILL YOU", near=1, care=False),
    _rule("harassment/threatening", 0.8, "YOU GO DIE", near=2, care=False),
    _rule("hate", 0.75, "SLUR"),
    _rule("hate", 0.85, "HATE ALL|GROUP GROUP", near=2),
    _rule("hate", 0.7, "HATE GROUP", near=1),
    _rule("hate", 0.8, "ALL GROUP DEHUMAN"),
    _rule("hate", 0.75, "GROUP DEHUMAN", near=4),
    _rule("hate", 0.75, "DEHUMAN GROUP", near=0),
    _rule("hate", 0.75, "GROUP|SLUR GO LEAVE", near=3),
    _rule("hate", 0.75, "GROUP|SLUR LEAVE", near=3),
    _rule("hate", 0.7, "LEAVE GROUP|SLUR", near=2),
    _rule("hate/threatening", 0.9, "KILL|EXTERMINATE|HURT ALL GROUP|SLUR", near=3),
    _rule("hate/threatening", 0.9, "ALL GROUP|SLUR KILL|EXTERMINATE", near=4),
    _rule("hate/threatening", 0.8, "KILL|EXTERMINATE GROUP|SLUR", near=1),
    _rule("hate/threatening", 0.85, "GROUP|SLUR GO DIE|EXTERMINATE|KILL", near=3),
    _rule("hate/threatening", 0.85, "GROUP|SLUR DIE", near=1),
    _rule("illicit", 0.85, "HOW CRIME"),
    _rule("illicit", 0.85, "HOW MAKE|GET DRUG", near=4),
    _rule("illicit", 0.7, "GET DRUG", near=1),
    _rule("illicit", 0.8, "HOW GET GUN ILLEGALLY"),
    _rule("illicit", 0.7, "CRIME ILLEGALLY"),
    _rule("illicit", 0.7, "CRIME HOW", near=2),
    _rule("illicit/violent", 0.9, "HOW MAKE WEAPON", near=4),
    _rule("illicit/violent", 0.8, "HOW GET WEAPON", near=4),
    _rule("illicit/violent", 0.85, "MAKE WEAPON HOW", near=3),
    _rule("illicit/violent", 0.8, "HOW GET GUN ILLEGALLY"),
    _rule("illicit/violent", 0.85, "HOW KILL OTHER|YOU", near=3),
    _rule("illicit/violent", 0.85, "HOW KILL ILLEGALLY"),
    _rule("self-harm", 0.8, "I SELFHURT", near=5),
    _rule("self-harm", 0.7, "I SELFKILL", near=8),
    _rule("self-harm/intent", 0.9, "I WILL SELFKILL", near=4, care=False),
    _rule("self-harm/intent", 0.85, "I TIRED", near=5, care=False),
    _rule("self-harm/intent", 0.85, "I WILL SELFHURT", near=3, care=False),
    _rule("self-harm/instructions", 0.9, "HOW SELFKILL", near=4),
    _rule("self-harm/instructions", 0.9, "PAINLESS TODIE|SELFKILL", near=6),
    _rule("self-harm/instructions", 0.85, "SELFKILL HOW|PAINLESS", near=3),
    _rule("self-harm/instructions", 0.8, "HOW SELFHURT", near=3),
    _rule("sexual", 0.85, "STRONGSEX"),
    _rule("sexual", 0.7, "SEX SEX", near=ACROSS),
    _rule("sexual", 0.7, "SEX LEWD", near=ACROSS),
    _rule("sexual", 0.7, "LEWD SEX", near=ACROSS),
    _rule("sexual", 0.6, "LEWD LEWD LEWD", near=ACROSS),
    _rule("sexual/minors", 0.95, "CHILDPORN"),
    _rule("sexual/minors", 0.9, "MINOR SEX|STRONGSEX|ABUSED", near=10),
    _rule("sexual/minors", 0.9, "SEX|STRONGSEX|ABUSED MINOR", near=6),
    _rule("violence", 0.8, "I WILL KILL|HURT OTHER|GROUP|SLUR", near=4),
    _rule("violence", 0.8, "WILL KILL ALL|OTHER", near=2),
    _rule("violence", 0.8, "WILL MASSACRE"),
    _rule("violence", 0.75, "ALL|OTHER GO DIE", near=2),
    _rule("violence/graphic", 0.8, "GORE"),
)

IMPLIED = {
    "harassment/threatening": ("violence",),
    "hate/threatening": ("violence",),
}
"""A threat is of violence. A category below another one also counts for it (`PARENTS`)."""


@cache
def vocabulary() -> Vocabulary:
    """All words of all concepts."""
    terms: dict[str, set[str]] = {}
    for concept, written in CONCEPTS.items():
        for term in written.split("|"):
            terms.setdefault(term, set()).update([concept] if concept != "NOTHING" else [])
    return Vocabulary({term: frozenset(concepts) for term, concepts in terms.items()})


@cache
def _beginning(concepts: frozenset[str]) -> tuple[Rule, ...]:
    """The rules whose first concept is one of these."""
    return tuple(rule for rule in RULES if rule.concepts[0] & concepts)


def rule_scores(text: str) -> dict[str, float]:
    """The categories that the rules find in a normalised text, with their scores; nothing where they find none."""
    hits = vocabulary().find(text)
    turning = [hit for hit in hits if "NOT" in hit.concepts or "CARE" in hit.concepts]
    begins = [hit.begin for hit in turning]
    scores: dict[str, float] = {}
    for first, hit in enumerate(hits):
        for rule in _beginning(hit.concepts):
            if rule.score <= scores.get(rule.category, 0.0):
                continue
            last = _last(rule, hits, first, 1)
            if last is None:
                continue
            around = bisect_left(begins, hit.begin - AROUND), bisect_right(begins, hits[last].end + AROUND)
            if not any(_excused(rule, hit, hits[last], other) for other in turning[slice(*around)]):
                _raise(scores, rule.category, rule.score)
    # Who is meant may stand sentences away from what is done.
    if "sexual" in scores and any("MINOR" in hit.concepts for hit in hits):
        _raise(scores, "sexual/minors", scores["sexual"])
    return scores


def _last(rule: Rule, hits: Sequence[Hit], at: int, slot: int) -> int | None:
    """Which hit ends the rule whose slots before `slot` end at hit `at`; None if none does."""
    if slot == len(rule.concepts):
        return at
    end = hits[at].end + rule.near
    for follower in range(at + 1, len(hits)):
        if hits[follower].begin > end:
            return None
        if hits[follower].concepts & rule.concepts[slot]:
            last = _last(rule, hits, follower, slot + 1)
            if last is not None:
                return last
    return None


def _excused(rule: Rule, first: Hit, last: Hit, other: Hit) -> bool:
    """Whether a word near what a rule found turns its meaning: CARE around it, NOT before it or between."""
    if rule.care and "CARE" in other.concepts and not any(other.concepts & slot for slot in rule.concepts):
        return True
    return "NOT" in other.concepts and first.begin - BEFORE <= other.begin < last.begin


def _raise(scores: dict[str, float], category: str, score: float) -> None:
    for name in (category, PARENTS.get(category, category), *IMPLIED.get(category, ())):
        scores[name] = max(score, scores.get(name, 0.0))
