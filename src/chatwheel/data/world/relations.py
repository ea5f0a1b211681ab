"""All relations of the world, and what is clearly false of a subject."""

from __future__ import annotations

from functools import lru_cache

from chatwheel.data.world.animals import CLASS, FOOD, HOME, LEGS
from chatwheel.data.world.geography import CAPITAL, CONTINENT, COUNTRY, TONGUE
from chatwheel.data.world.history import DEED, MAKER, YEAR
from chatwheel.data.world.knowledge import COLOURS, FOODS, HOMES
from chatwheel.data.world.nature import COLOUR, PLANET, POSITION, calendar
from chatwheel.data.world.relation import Relation
from chatwheel.data.world.terms import Term


@lru_cache(maxsize=1)
def relations() -> dict[str, Relation]:
    """All relations by name."""
    fixed = (
        CAPITAL,
        COUNTRY,
        CONTINENT,
        TONGUE,
        CLASS,
        FOOD,
        HOME,
        LEGS,
        MAKER,
        DEED,
        YEAR,
        POSITION,
        PLANET,
        COLOUR,
    )
    circles = [calendar(unit, side) for unit in ("day", "month") for side in ("after", "before")]
    return {relation.name: relation for relation in (*fixed, *circles)}


_FALSE_FOOD = {"meat": "grass", "fish": "grass", "mice": "grass", "insects": "grass", "krill": "grass"}
_FALSE_HOME = {"in the sea": "in forests", "in rivers": "in the mountains"}
_HALF_TRUE = {"Canada": {"French"}, "the United States": {"Spanish", "French"}}
_FALSE_COLOURS = {"the sky": ("green", "brown"), "the sea": ("orange", "yellow"), "coal": ("blue", "green")}


@lru_cache(maxsize=1024)
def false_values(relation: Relation, subject: Term) -> tuple[Term, ...]:
    """Values that are clearly not true of the subject: nothing that is half true in some light or season."""
    value = relation.facts[subject]
    if relation.name == "food":
        return (FOODS[_FALSE_FOOD.get(value.en, "meat")],)
    if relation.name == "home":
        return (HOMES[_FALSE_HOME.get(value.en, "in the sea")],)
    if relation.name == "colour":
        return tuple(COLOURS[c] for c in _FALSE_COLOURS.get(subject.en, ("blue", "black")))
    if relation.name in ("maker", "deed"):
        return _same_deed(relation, subject)
    half = _HALF_TRUE.get(subject.en, set())
    return tuple(v for v in relation.candidates() if v is not value and v.en not in half)


def _same_deed(relation: Relation, subject: Term) -> tuple[Term, ...]:
    """Other writers for what was written, other inventors for what was invented; where the verb is rare, anybody's."""
    verb = dict(subject.slots)["did"]
    others = [(s, v) for s, v in relation.facts.items() if s is not subject]
    return tuple(v for s, v in others if dict(s.slots)["did"] == verb) or tuple(v for _, v in others)
