"""How large the world is, in numbers that the documentation cites."""

from __future__ import annotations

from chatwheel.data.world.arithmetic import STORIES
from chatwheel.data.world.items import BEHAVIOURS, LANGUAGES
from chatwheel.data.world.knowledge import ANIMALS, CITIES, COUNTRIES, EVENTS, FACTS, OPPOSITES, PEOPLE, PLANETS, WORKS
from chatwheel.data.world.names import people, places
from chatwheel.data.world.refusals import HARMFUL, HARMLESS
from chatwheel.data.world.relations import relations
from chatwheel.data.world.vocabulary import CATEGORIES, EVERYDAY


def dataset_card() -> dict[str, int]:
    """Counts of what the world holds; a fact or a template that exists in both languages counts once."""
    return {
        "behaviours": len(BEHAVIOURS),
        "languages": len(LANGUAGES),
        "relations": len(FACTS),
        "facts": sum(len(facts) for facts in FACTS.values()) + 2 * len(OPPOSITES),
        "countries": len(COUNTRIES),
        "cities": len(CITIES),
        "animals": len(ANIMALS),
        "works": len(WORKS),
        "people": len(PEOPLE),
        "events": len(EVENTS),
        "planets": len(PLANETS),
        "opposites": len(OPPOSITES),
        "categories": len(CATEGORIES),
        "translated_words": len(EVERYDAY),
        "question_templates_english": sum(len(r.en.ask) for r in relations().values()),
        "question_templates_chinese": sum(len(r.zh.ask) for r in relations().values()),
        "stories_with_sums": sum(len(stories) for stories in STORIES.values()),
        "harmful_requests": len(HARMFUL),
        "harmless_lookalikes": len(HARMLESS),
        "invented_people": sum(
            len(people(language, split)) for language in LANGUAGES for split in ("training", "examination")
        ),
        "invented_places": sum(
            len(places(language, split)) for language in LANGUAGES for split in ("training", "examination")
        ),
    }
