"""Writes the files of docs/fine-tuning.md: 100 examples to learn from, and 100 questions that are none of them.

    python docs/topic_examples.py        # train.jsonl and test.jsonl, here

The task is a small real one: to say in a word that a program can read what a message is about. Messages are from the
world that the quickstart's models know; the questions are from its held-out half, with other words about other things.
"""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

from chatwheel.data.world.items import Item, Split
from chatwheel.data.world.streams import draft

TOPICS = {
    "geography": ("capital", "country", "continent", "tongue"),
    "animals": ("class", "food", "home", "legs"),
    "history": ("maker", "deed", "year"),
    "sums": (),
    "small talk": (),
}
EACH = 20


def examples(split: Split) -> list[dict[str, Any]]:
    """So many of each topic, no message twice."""
    rng, found, seen = Random(f"topics {split}"), dict.fromkeys(TOPICS, 0), set()
    lines = []
    while min(found.values()) < EACH:
        behaviour = rng.choice(("facts", "facts", "facts", "arithmetic", "small_talk"))
        item = draft(rng, behaviour, "en", split).item
        topic, text = topic_of(item), item.messages[-1].content
        if topic is None or found[topic] == EACH or text in seen or len(item.messages) > 1:
            continue
        seen.add(text)
        found[topic] += 1
        lines.append({"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": topic}]})
    rng.shuffle(lines)
    return lines


def topic_of(item: Item) -> str | None:
    """Its label, if it has one of these."""
    if item.behaviour in ("arithmetic", "small_talk"):
        return "sums" if item.behaviour == "arithmetic" else "small talk"
    return next((topic for topic, relations in TOPICS.items() if item.truth.get("relation") in relations), None)


if __name__ == "__main__":
    splits: tuple[tuple[str, Split], ...] = (("train", "training"), ("test", "examination"))
    for name, split in splits:
        lines = (json.dumps(line, ensure_ascii=False) + "\n" for line in examples(split))
        Path(f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
