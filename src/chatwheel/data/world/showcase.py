"""Five prompts that show what the assistant can do; all from the examination, none is trained on."""

from __future__ import annotations

from chatwheel.data.world.items import Item, Language
from chatwheel.data.world.streams import draft, stream

_WANTED: tuple[tuple[str, Language], ...] = (
    ("false_premise", "en"),
    ("follow_up", "zh"),
    ("mistakes", "en"),
    ("reading", "zh"),
    ("refusal", "en"),
)


def showcase() -> tuple[Item, ...]:
    """The five items of `SHOWCASE`."""
    rng = stream(1, "showcase")
    return tuple(draft(rng, behaviour, language, "examination").item for behaviour, language in _WANTED)
