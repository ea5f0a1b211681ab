"""The world's output: demonstrations, prompts and the examination, each a stream of its own from one seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from random import Random
from types import MappingProxyType

from chatwheel.data.records import Demonstration, Message
from chatwheel.data.world.arithmetic import draft_arithmetic
from chatwheel.data.world.corrections import draft_mistake, draft_premise
from chatwheel.data.world.facts import draft_fact, draft_follow_up
from chatwheel.data.world.items import BEHAVIOURS, LANGUAGES, Draft, Item, Language, Split, held_out
from chatwheel.data.world.lists import draft_list
from chatwheel.data.world.names import people, places
from chatwheel.data.world.reading import draft_reading
from chatwheel.data.world.refusals import draft_refusal
from chatwheel.data.world.small_talk import draft_small_talk
from chatwheel.data.world.summaries import draft_summary
from chatwheel.data.world.unknown import STRANGE, draft_unknown
from chatwheel.data.world.words import draft_words
from chatwheel.data.world.writers import some_writer

Drafter = Callable[[Random, Language, Split], Draft]

DRAFTERS: Mapping[str, Drafter] = MappingProxyType(
    {
        "facts": draft_fact,
        "follow_up": draft_follow_up,
        "arithmetic": draft_arithmetic,
        "words": draft_words,
        "reading": draft_reading,
        "summary": draft_summary,
        "lists": draft_list,
        "small_talk": draft_small_talk,
        "mistakes": draft_mistake,
        "false_premise": draft_premise,
        "refusal": draft_refusal,
        "unknown": draft_unknown,
    }
)
SHARES: Mapping[str, float] = MappingProxyType(
    {
        "facts": 9,
        "follow_up": 9,
        "arithmetic": 11,
        "words": 12,
        "reading": 15,
        "summary": 5,
        "lists": 8,
        "small_talk": 6,
        "mistakes": 12,
        "false_premise": 12,
        "refusal": 7,
        "unknown": 6,
    }
)
"""How much of the demonstrations and prompts each behaviour takes: more where more is to be learned."""

_ATTEMPTS = 400


@lru_cache(maxsize=1)
def examination_names() -> frozenset[str]:
    """All names that only the examination uses."""
    pools = (people, places)
    names = {name for pool in pools for language in LANGUAGES for name in pool(language, "examination")}
    return frozenset(names | {name for language in LANGUAGES for name in STRANGE[language]["examination"]})


def is_examination(item: Item) -> bool:
    """True if the item lies on the examination's side of the split."""
    return held_out(item.template, item.entities) or not examination_names().isdisjoint(item.entities)


def stream(seed: int, purpose: str) -> Random:
    """A generator of its own for each purpose, the same on every machine."""
    return Random(f"chatwheel world {purpose} {seed}")


def draft(rng: Random, behaviour: str, language: Language, split: Split) -> Draft:
    """A draft on the given side of the split.

    Where names mark the examination (reading, summary, unknown), every examination item has one.
    """
    named = behaviour in ("reading", "summary")
    while True:
        found = DRAFTERS[behaviour](rng, language, split)
        if split == "training" and not is_examination(found.item):
            return found
        if split == "examination" and is_examination(found.item):
            if named and examination_names().isdisjoint(found.item.entities):
                continue
            return found


def training_drafts(rng: Random, count: int, languages: Sequence[Language]) -> Iterator[Draft]:
    """Drafts of the training split, behaviours by share and languages in turn."""
    names, weights = list(SHARES), list(SHARES.values())
    for i in range(count):
        yield draft(rng, rng.choices(names, weights=weights)[0], languages[i % len(languages)], "training")


def demonstrations(seed: int, count: int, languages: Sequence[Language] = LANGUAGES) -> Iterator[Demonstration]:
    """Conversations written by the simulated writers.

    Each carries the extra fields `behaviour`, `item` (an id) and `writer` ("simulated:NAME").
    """
    rng = stream(seed, "demonstrations")
    for found in training_drafts(rng, count, languages):
        writer = some_writer(rng)
        answer = Message(role="assistant", content=writer.write(found, rng))
        item = found.item
        yield Demonstration.model_validate(
            {
                "messages": [*item.messages, answer],
                "source": "world",
                "language": item.language,
                "behaviour": item.behaviour,
                "item": item.id,
                "writer": f"simulated:{writer.name}",
            }
        )


def prompts(seed: int, count: int, languages: Sequence[Language] = LANGUAGES) -> Iterator[Item]:
    """Items of the training split, for rankings and reinforcement learning."""
    for found in training_drafts(stream(seed, "prompts"), count, languages):
        yield found.item


def examination(seed: int, count: int, languages: Sequence[Language] = LANGUAGES) -> list[Item]:
    """Different held-out items, as many of each behaviour in each language.

    The world is small: where a behaviour has no further held-out item, the examination is shorter than asked.
    """
    rng = stream(seed, "examination")
    cells = [(behaviour, language) for behaviour in BEHAVIOURS for language in languages]
    found: dict[str, Item] = {}
    texts: set[tuple[str, ...]] = set()
    for i in range(count):
        behaviour, language = cells[i % len(cells)]
        for _ in range(_ATTEMPTS):
            item = draft(rng, behaviour, language, "examination").item
            text = tuple(m.content for m in item.messages)
            if item.id not in found and text not in texts:
                found[item.id] = item
                texts.add(text)
                break
    return list(found.values())
