"""Labelled texts for training and measuring moderation, from the formats in which they are published.

- COLD (Deng et al., 2022), Chinese, CSV `split, topic, label, TEXT`: label 1 is `harassment`. Its texts are on race,
  region and gender, but the label also covers attacks on single people and does not tell them apart, so of `hate` it
  says nothing, neither yes nor no; label 0 is neither.
- Davidson et al. (2017), English tweets, CSV `class, tweet`: 0 (hate speech) is `hate` and `harassment`, since it is
  language that attacks; 1 (offensive) is `harassment` and not `hate`; 2 is neither.
- OpenAI's moderation test set (Markov et al., 2022), JSON Lines `prompt, S, H, V, HR, SH, S3, H2, V2`; what a line does
  not name is not known. It is a test set: always held out.
- Our own, JSON Lines `{"text": "...", "categories": {"hate": true, "sexual": false}}`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from chatwheel.data.records import Json
from chatwheel.data.sources.language import language_of
from chatwheel.data.sources.readers import read
from chatwheel.data.splits import Part, fraction, split
from chatwheel.errors import InputError
from chatwheel.safety.categories import CATEGORIES
from chatwheel.safety.normalisation import WINDOW

HELD_OUT = 0.2
"""The share of texts, by a hash of each, that is held out where a file does not say which are."""
MOST_ORDINARY = 3_000
"""Pieces of ordinary text that are taken from one file, spread over it."""

OPENAI = {
    "S": "sexual",
    "H": "hate",
    "V": "violence",
    "HR": "harassment",
    "SH": "self-harm",
    "S3": "sexual/minors",
    "H2": "hate/threatening",
    "V2": "violence/graphic",
}
_SENTENCES = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])")
_ADDRESSED = re.compile(r"(?:\brt\b|@\w+|https?://\S+|&#?\w+;|[^\w\s])+", re.IGNORECASE)


@dataclass(frozen=True)
class Example:
    """A text and what is known of it: category -> whether it falls into it. source: the file's name."""

    text: str
    labels: dict[str, bool]
    language: str
    source: str
    part: Part


def read_examples(paths: Iterable[Path]) -> list[Example]:
    """All labelled texts of the files, each text once. Raises InputError naming the file, the place and the fault."""
    seen: set[str] = set()
    found: list[Example] = []
    for path in paths:
        before = len(found)
        for place, record in read(path):
            example = _example(path, place, record)
            key = _key(example.text)
            if key not in seen:
                seen.add(key)
                found.append(example)
        if len(found) == before:
            raise InputError(f"{path}: no labelled text that is not in the files before it")
    return found


def read_ordinary(paths: Iterable[Path], part: Part, most: int = MOST_ORDINARY) -> list[Example]:
    """Sentences and windows of texts in which nothing is to be found: documents, conversations, questions, answers."""
    found: list[Example] = []
    for path in paths:
        pieces = [piece for _, record in read(path) for piece in _pieces(record)]
        if not pieces:
            raise InputError(f"{path}: no text in it (fields: {', '.join(_FIELDS)} or messages)")
        step = max(1, -(-len(pieces) // most))
        labels = dict.fromkeys(CATEGORIES, False)
        found += [Example(piece, labels, language_of(piece) or "en", path.name, part) for piece in pieces[::step]]
    return found


def read_words(paths: Iterable[Path]) -> list[str]:
    """A word list, one a line."""
    return [
        word
        for path in paths
        for _, record in read(path, "text")
        for word in record["text"].split("\n")
        if word.strip()
    ]


_FIELDS = ("text", "prompt", "instruction", "input", "output", "question", "answer", "context")


def _pieces(record: Json) -> Iterator[str]:
    messages = record.get("messages")
    texts = [record.get(field) for field in _FIELDS]
    texts += [message.get("content") for message in messages] if isinstance(messages, list) else []
    for text in texts:
        if isinstance(text, str):
            for paragraph in re.split(r"\n\s*\n", text):
                # Half of the paragraphs by sentences: what people write in a chat is short.
                parts = _SENTENCES.split(paragraph) if fraction(paragraph) < 0.5 else [paragraph]
                for part in parts:
                    for begin in range(0, len(part), WINDOW):
                        if len(piece := part[begin : begin + WINDOW].strip()) > 1:
                            yield piece


def _example(path: Path, place: str, record: Json) -> Example:
    if "label" in record and "TEXT" in record:
        offensive = _number(path, place, record, "label", 1) == 1
        labels = {"harassment": True} if offensive else dict.fromkeys(("harassment", "hate"), False)
        text, part = (
            record["TEXT"],
            {"train": "train", "dev": "held_out", "test": "held_out"}.get(record.get("split", "")),
        )
    elif "class" in record and "tweet" in record:
        kind = _number(path, place, record, "class", 2)
        labels = {"hate": kind == 0, "harassment": kind < 2}
        text, part = record["tweet"], None
    elif "prompt" in record and any(name in record for name in OPENAI):
        named = [name for name in OPENAI if name in record]
        labels = {OPENAI[name]: bool(_number(path, place, record, name, 1)) for name in named}
        text, part = record["prompt"], "held_out"
    elif "text" in record and isinstance(record.get("categories"), dict):
        labels, text, part = record["categories"], record["text"], None
        if bad := [name for name, value in labels.items() if name not in CATEGORIES or not isinstance(value, bool)]:
            raise InputError(f"{path}, {place}: {bad[0]!r} is no category, or not true or false")
    else:
        raise InputError(
            f"{path}, {place}: expected the fields label and TEXT (COLD), class and tweet, prompt and S, H, ... "
            '(OpenAI\'s test set), or text and categories ({"hate": true})'
        )
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"{path}, {place}: the text is empty")
    chosen = part or split(_key(text), HELD_OUT)
    return Example(text, labels, language_of(text) or "en", path.name, chosen)  # type: ignore[arg-type]


def _number(path: Path, place: str, record: Json, field: str, most: int) -> int:
    value = record[field]
    if str(value) not in map(str, range(most + 1)):
        raise InputError(f"{path}, {place}: {field} is {value!r}, expected a number from 0 to {most}")
    return int(value)


def _key(text: str) -> str:
    """What the same tweet, passed on, has in common: its words without whom it is to and where it links to."""
    return " ".join(_ADDRESSED.sub(" ", text).casefold().split()) or text
