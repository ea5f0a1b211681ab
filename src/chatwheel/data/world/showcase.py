"""Five prompts that show what the assistant can do; all from the examination, none is trained on."""

from __future__ import annotations

from functools import lru_cache

from chatwheel.data.world.items import Item, Language
from chatwheel.data.world.streams import draft, stream

_CHOSEN: tuple[tuple[str, Language, int], ...] = (
    ("false_premise", "en", 6),
    ("follow_up", "zh", 39),
    ("mistakes", "en", 61),
    ("reading", "zh", 15),
    ("refusal", "en", 45),
)
"""Behaviour, language, and the seed of a good example."""


@lru_cache(maxsize=1)
def showcase() -> tuple[Item, ...]:
    """The five items."""
    return tuple(
        draft(stream(seed, "showcase"), name, language, "examination").item for name, language, seed in _CHOSEN
    )
