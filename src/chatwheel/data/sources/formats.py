"""The table of record shapes: a name, what it looks like, and what it yields. Messages and help list it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, cast

from chatwheel.data.records import Conversation, Document, Json, Ranking, Rating
from chatwheel.data.sources import argilla, conversations, rankings, ratings
from chatwheel.data.sources.fields import extras, text

Kind = Literal["documents", "conversations", "rankings", "ratings", "prompts"]
KINDS: tuple[Kind, ...] = ("documents", "conversations", "rankings", "ratings", "prompts")


@dataclass(frozen=True)
class Format:
    """One published shape. A converter takes one object and yields no, one or several records.

    dialogues: conversations, answered or not; prompts are cut from them, else from the rankings or ratings.
    """

    name: str
    looks_like: str
    matches: Callable[[Json], bool]
    documents: Callable[[Json], Iterator[Document]] | None = None
    dialogues: Callable[[Json], Iterator[Conversation]] | None = None
    rankings: Callable[[Json], Iterator[Ranking]] | None = None
    ratings: Callable[[Json], Iterator[Rating]] | None = None
    answered: bool = True

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """What `load` can make of it, the most telling first."""
        possible: dict[Kind, bool] = {
            "rankings": self.rankings is not None,
            "ratings": self.ratings is not None,
            "documents": self.documents is not None,
            "conversations": self.dialogues is not None and self.answered,
            "prompts": any(made is not None for made in (self.dialogues, self.rankings, self.ratings)),
        }
        return tuple(kind for kind, yes in possible.items() if yes)


def _whole(value: Json) -> Iterator[Document]:
    yield Document(text=text(value, "text"), **extras(value, "text"))


def _paragraphs(value: Json) -> Iterator[Document]:
    for paragraph in text(value, "text").replace("\r\n", "\n").split("\n\n"):
        if paragraph.strip():
            yield Document(text=paragraph.strip(), **extras(value, "text"))


def _lines(value: Json) -> Iterator[Document]:
    for line in text(value, "text").splitlines():
        if line.strip():
            yield Document(text=line.strip(), **extras(value, "text"))


def _strings(*names: str) -> Callable[[Json], bool]:
    return lambda value: all(isinstance(value.get(name), str) for name in names)


def _has(**types: type) -> Callable[[Json], bool]:
    return lambda value: all(isinstance(value.get(name), kind) for name, kind in types.items())


def _is_hh(value: Json) -> bool:
    both = [value.get("chosen"), value.get("rejected")]
    return all(isinstance(side, str) and side.lstrip().startswith("Human:") for side in both)


def _is_preference(value: Json) -> bool:
    sides = [value.get("chosen"), value.get("rejected")]
    return all(isinstance(side, list) for side in sides) or (
        all(isinstance(side, str) for side in sides) and bool(value.get("prompt"))
    )


def _is_openai_preference(value: Json) -> bool:
    outputs = (value.get("preferred_output"), value.get("non_preferred_output"))
    return isinstance(value.get("input"), dict) and all(isinstance(output, list) for output in outputs)


def _is_unpaired(value: Json) -> bool:
    return "prompt" in value and "completion" in value and isinstance(value.get("label"), bool)


def _is_fine_grained(value: Json) -> bool:
    return isinstance(value.get("preference"), list) and "prediction 1" in value and "question" in value


# The order is that of detection: the first shape that fits all of the first records wins.
_TABLE = (
    Format(
        "chatwheel-rankings",
        '{"messages": [...], "answers": [...], "ranks": [...]}',
        _has(messages=list, answers=list, ranks=list),
        rankings=rankings.from_native,
    ),
    Format(
        "chatwheel-ratings",
        '{"messages": [...], "answer", "rating": 1 or -1}',
        lambda value: _has(messages=list, answer=str)(value) and "rating" in value,
        ratings=ratings.from_native,
    ),
    Format(
        "openai-preference",
        '{"input": {"messages": [...]}, "preferred_output": [...], "non_preferred_output": [...]}',
        _is_openai_preference,
        rankings=rankings.from_openai,
    ),
    Format(
        "unpaired-preference",
        '{"prompt", "completion", "label": true or false}, strings or lists of messages',
        _is_unpaired,
        ratings=ratings.from_unpaired,
    ),
    Format(
        "oasst-tree",
        '{"message_tree_id", "prompt": {"text", "role", "replies": [...]}}',
        lambda value: isinstance(value.get("prompt"), dict) and "replies" in cast(Json, value["prompt"]),
        dialogues=conversations.from_tree,
        rankings=rankings.from_tree,
    ),
    Format(
        "argilla",
        '{"fields": {"prompt", "response-1", ...}, "responses": [{"user_id", "values": {question: {"value"}}}]}',
        argilla.is_argilla,
        dialogues=argilla.dialogues_of_argilla,
        rankings=argilla.from_argilla,
    ),
    Format(
        "fine-grained-qa",
        '{"question", "passages", "prediction 1".."prediction 4", "preference": [six labels 0/1/2]}',
        _is_fine_grained,
        dialogues=rankings.gold_of_fine_grained,
        rankings=rankings.from_fine_grained,
    ),
    Format(
        "hh-rlhf",
        '{"chosen": "\\n\\nHuman: ...\\n\\nAssistant: ...", "rejected": ...}',
        _is_hh,
        dialogues=conversations.from_chosen,
        rankings=rankings.from_hh,
    ),
    Format(
        "preference",
        '{"prompt"?, "chosen", "rejected"}, strings or lists of messages',
        _is_preference,
        rankings=rankings.from_preference,
    ),
    Format(
        "ranked-list",
        '{"instruction", "input"?, "output": [best, ..., worst]}',
        _has(instruction=str, output=list),
        dialogues=rankings.best_of_ranked_list,
        rankings=rankings.from_ranked_list,
    ),
    Format(
        "self-instruct",
        '{"instruction", "instances": [{"input", "output"}]}',
        _has(instruction=str, instances=list),
        dialogues=conversations.from_self_instruct,
    ),
    Format(
        "alpaca",
        '{"instruction", "input"?, "output"}',
        _strings("instruction", "output"),
        dialogues=conversations.from_alpaca,
    ),
    Format(
        "sharegpt",
        '{"conversations": [{"from", "value"}]}',
        _has(conversations=list),
        dialogues=conversations.from_sharegpt,
    ),
    Format(
        "messages",
        '{"messages": [{"role", "content"}], "tools"?}',
        _has(messages=list),
        dialogues=conversations.from_messages,
    ),
    Format(
        "prompt-completion",
        '{"prompt", "completion"}',
        _strings("prompt", "completion"),
        dialogues=conversations.from_prompt_completion,
    ),
    Format(
        "question-answer",
        '{"question", "answer"}',
        _strings("question", "answer"),
        dialogues=conversations.from_question_answer,
    ),
    Format(
        "prompt",
        '{"prompt"}',
        _strings("prompt"),
        dialogues=conversations.from_prompt,
        answered=False,
    ),
    Format(
        "text",
        '{"text"}, or a plain text file: one document',
        _strings("text"),
        documents=_whole,
        dialogues=conversations.from_text,
        answered=False,
    ),
    Format(
        "paragraphs",
        "as text, a document for each paragraph (by name only)",
        lambda _: False,
        documents=_paragraphs,
    ),
    Format(
        "lines",
        "as text, a document or a prompt for each line (by name only)",
        lambda _: False,
        documents=_lines,
        dialogues=conversations.from_lines,
        answered=False,
    ),
)
FORMATS: dict[str, Format] = {format.name: format for format in _TABLE}


def known(kind: Kind | None = None) -> str:
    """The names of the formats (that yield `kind`), for a message."""
    return ", ".join(f.name for f in FORMATS.values() if kind is None or kind in f.kinds)


def detect(values: list[Json], kind: Kind | None = None) -> Format | None:
    """The first format that fits all of these objects (and yields `kind`, where one does)."""
    fitting = [f for f in FORMATS.values() if all(f.matches(value) for value in values)]
    return next((f for f in fitting if kind in f.kinds), fitting[0] if fitting else None)
