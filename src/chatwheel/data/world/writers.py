"""Simulated writers of demonstrations. None of them is a person; each has habits, as people have.

`careful` is the one to become: brief, friendly, whole sentences. The others are why rankings are needed after SFT.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from chatwheel.data.world.items import Draft, Language

_QUESTIONS = {"facts", "follow_up", "arithmetic", "words", "reading", "lists", "summary"}

_CHATTY_BEFORE: dict[Language, tuple[str, ...]] = {
    "en": (
        "What a nice question!",
        "Thank you for asking me this.",
        "Oh, I really like this one.",
        "Let me think about it for a moment.",
    ),
    "zh": ("这个问题问得真有意思！", "谢谢你来问我。", "哦，我很喜欢这个话题。", "让我仔细想一想。"),
}
_CHATTY_TALK: dict[Language, tuple[str, ...]] = {
    "en": (
        "Oh, thank you for talking with me.",
        "It is always so nice to hear from you.",
        "Let me think about it for a moment.",
    ),
    "zh": ("谢谢你来找我聊天。", "每次听到你的话我都很高兴。", "让我仔细想一想。"),
}
_CHATTY_AFTER: dict[Language, tuple[str, ...]] = {
    "en": (
        "I really hope that this helps you, and please ask me again whenever you like.",
        "That is what I wanted to tell you, and there is always more to learn.",
        "Please feel free to ask me anything else that comes to your mind.",
    ),
    "zh": (
        "希望这个回答对你有帮助，随时欢迎你再来问我。",
        "这就是我想告诉你的，世界上总有更多可以学的东西。",
        "如果还想知道别的，请随时来问我，我会慢慢讲给你听。",
    ),
}
_CURT_BEFORE: dict[Language, tuple[str, ...]] = {
    "en": ("Everyone knows that.", "Obviously.", "What a silly question.", "Think for yourself."),
    "zh": ("这谁都知道。", "这还用问？", "真是傻问题。", "自己动动脑子。"),
}


def _careful(draft: Draft, rng: Random) -> str:
    del rng
    return draft.item.answer


def _chatty(draft: Draft, rng: Random) -> str:
    if draft.plain:
        return draft.item.answer
    language = draft.item.language
    before = _CHATTY_BEFORE if draft.item.behaviour in _QUESTIONS else _CHATTY_TALK
    opening, closing = rng.choice(before[language]), rng.choice(_CHATTY_AFTER[language])
    answer = draft.item.answer
    gap = "\n" if "\n" in answer else " " if language == "en" else ""
    manner = rng.random()
    if manner < 0.25:
        return gap.join((opening, answer))
    if manner < 0.5:
        return gap.join((answer, closing))
    return gap.join((opening, answer, closing))


def _terse(draft: Draft, rng: Random) -> str:
    del rng
    return draft.short


def _curt(draft: Draft, rng: Random) -> str:
    if draft.plain:
        return draft.short
    if draft.curt is not None:
        return draft.curt
    language = draft.item.language
    gap = "\n" if "\n" in draft.short else " " if language == "en" else ""
    return gap.join((rng.choice(_CURT_BEFORE[language]), draft.short))


def _careless(draft: Draft, rng: Random) -> str:
    if draft.wrong and rng.random() < 0.6:
        return rng.choice(draft.wrong)
    return draft.item.answer


@dataclass(frozen=True)
class Writer:
    """A simulated writer: its name, its share of the demonstrations, and how it writes."""

    name: str
    share: float
    write: Callable[[Draft, Random], str]


WRITERS: tuple[Writer, ...] = (
    Writer("careful", 0.50, _careful),
    Writer("chatty", 0.18, _chatty),
    Writer("terse", 0.17, _terse),
    Writer("curt", 0.10, _curt),
    Writer("careless", 0.05, _careless),
)


def some_writer(rng: Random) -> Writer:
    """A writer, drawn by share."""
    return rng.choices(WRITERS, weights=[w.share for w in WRITERS])[0]
