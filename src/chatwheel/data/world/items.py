"""What the world asks: items, their drafts, and the line between training and examination."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from chatwheel.data.records import Message

Language = Literal["en", "zh"]
Split = Literal["training", "examination"]
LANGUAGES: tuple[Language, ...] = ("en", "zh")

BEHAVIOURS: tuple[str, ...] = (
    "facts",
    "follow_up",
    "arithmetic",
    "words",
    "reading",
    "summary",
    "lists",
    "small_talk",
    "mistakes",
    "false_premise",
    "refusal",
    "unknown",
)
SIGNATURE: tuple[str, ...] = ("follow_up", "mistakes", "false_premise", "refusal")
"""The four behaviours that ChatGPT was announced with."""

HELD_OUT_PERCENT = 12


class Item(BaseModel):
    """A prompt with what is needed to mark an answer to it.

    `messages` end with the user's turn. `answer` is one good answer. `truth` is a JSON object whose "kind" says which
    rule of the judge applies. `template` and `entities` together decide on which side of the split the item lies.
    """

    model_config = ConfigDict(frozen=True)
    id: str
    behaviour: str
    language: Language
    template: str
    entities: tuple[str, ...]
    messages: tuple[Message, ...]
    answer: str
    truth: dict[str, Any]


@dataclass(frozen=True)
class Draft:
    """An item before a writer has answered it: the good sentences, the bare fragment, the curt and the wrong ones."""

    item: Item
    full: tuple[str, ...]
    short: str
    wrong: tuple[str, ...] = ()
    curt: str | None = None
    plain: bool = False
    """True where the asked form leaves no room for anything but the answer."""


@lru_cache(maxsize=200_000)
def _percent(key: str) -> float:
    digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64 * 100


def hash_percent(key: str) -> float:
    """A number in [0, 100) that depends on the text alone, on every machine."""
    return _percent(key)


def held_out(template: str, entities: Sequence[str]) -> bool:
    """True if this combination belongs to the examination and is never trained on.

    The bare form of a template ("-": "Hello!" and nothing else) always belongs to training.
    """
    if tuple(entities) == ("-",):
        return False
    return _percent("|".join((template, *entities))) < HELD_OUT_PERCENT


def turns(*contents: str, weights: dict[int, Literal[0, 1]] | None = None) -> tuple[Message, ...]:
    """Messages that alternate user, assistant, user ...; `weights` maps positions to a loss weight."""
    chosen = weights or {}
    return tuple(
        Message(role="assistant" if i % 2 else "user", content=text, weight=chosen.get(i))
        for i, text in enumerate(contents)
    )


def make_item(
    behaviour: str,
    language: Language,
    template: str,
    entities: Sequence[str],
    messages: tuple[Message, ...],
    answer: str,
    truth: dict[str, Any],
) -> Item:
    """An item whose id is a hash of its place in the world and of its text."""
    name = f"{language}/{behaviour}/{template}"
    text = "|".join((name, *entities, *(m.content for m in messages)))
    digest = hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
    return Item(
        id=f"{behaviour}-{language}-{digest}",
        behaviour=behaviour,
        language=language,
        template=name,
        entities=tuple(entities),
        messages=messages,
        answer=answer,
        truth=truth,
    )
