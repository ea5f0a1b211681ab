"""What a queue has come to, in our format and in those of others.

ranked          merged rankings with weights, which `chatwheel train reward` and `dpo` read
judgements      each labeller's ranking
hh-rlhf         a dialogue that was chosen and one that was rejected, for each two answers of a merged ranking
openai          the same as OpenAI's preference lines
openassistant   trees with merged ranks, or with labels
argilla         records with each labeller's response, and the merged ranking as a suggestion
chat            replies as demonstrations, which `chatwheel train sft` reads
prompts         prompts
labels          rated answers with the mean of each label
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import fmean
from typing import Any

from sqlalchemy.orm import Session

from chatwheel.data.records import Conversation, Message, Ranking, Record
from chatwheel.data.sources.turns import hh_messages
from chatwheel.errors import InputError
from chatwheel.feedback.room.outcome import (
    Named,
    demonstrations,
    merged_rankings,
    own_rankings,
    prompts,
    written,
)
from chatwheel.feedback.room.reading import Judged, consented, judged_tasks
from chatwheel.store.tables import LabellingJudgementRow, LabellingQueueRow

Json = dict[str, Any]
PEOPLE = uuid.UUID("6f0c7a39-2d3b-4f5e-9a61-0d2b8c1e7a55")
"""The namespace of labellers' ids in Argilla's records, which are UUIDs there."""


@dataclass
class Exported:
    """records: the lines. left_out: what the format cannot say, by reason."""

    format: str
    records: list[Record | Json] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class _Source:
    """What exports are made of."""

    queue: LabellingQueueRow
    judged: list[Judged]
    named: Named
    left_out: Counter[str]

    def merged(self) -> list[Ranking]:
        """Also counts what was not decided."""
        found = merged_rankings(self.judged, self.named)
        ranked = {repr(one.task.messages) for one in self.judged if one.by or one.decision is not None}
        undecided = len(ranked) - len({repr(_plain(ranking.messages)) for ranking in found})
        if undecided:
            self.left_out["undecided: labellers disagree, or cannot be relied on"] += undecided
        return found


def formats_of(kind: str) -> tuple[str, ...]:
    """Those that a queue's outcome can be written in, the usual one first."""
    return tuple(name for name, (kinds, _) in FORMATS.items() if kind in kinds)


def export_queue(session: Session, queue: LabellingQueueRow, format: str | None, salt: str) -> Exported:
    """What a queue has come to by now. salt: with another one labellers have other names. Raises InputError for a
    format that says nothing of the queue's kind, and where there is nothing yet."""
    possible = formats_of(queue.kind)
    name = format or possible[0]
    if name not in possible:
        raise InputError(
            f"format: {name!r} is none for a queue of the kind {queue.kind!r}; there are {', '.join(possible)}",
            param="format",
        )
    out = Exported(name)
    everything = judged_tasks(session, queue)
    judged = consented(session, everything)
    if len(judged) < len(everything):
        out.left_out["asked in chats that models may not learn from (any more)"] += len(everything) - len(judged)
    source = _Source(queue, judged, Named(salt), out.left_out)
    out.records = list(FORMATS[name][1](source))
    if not out.records:
        why = "; ".join(f"{n} x {reason}" for reason, n in out.left_out.items()) or "nobody has judged anything"
        raise InputError(f"{queue.name}: there is nothing to export yet ({why})")
    return out


def _hh(source: _Source) -> Iterator[Json]:
    for ranking in source.merged():
        for better, worse in ranking.pairs():
            sides = [[*ranking.messages, _reply(ranking.answers[place])] for place in (better, worse)]
            texts = [
                "".join(f"\n\n{_HH[m.role]}: {m.content.strip()}" for m in side) for side in sides if _sayable(side)
            ]
            if len(texts) == 2 and [len(hh_messages(text)) for text in texts] == [len(side) for side in sides]:
                yield {"chosen": texts[0], "rejected": texts[1], **_weight(ranking)}
            else:
                source.left_out["hh-rlhf knows no system message and no turn's mark in a text"] += 1


_HH = {"user": "Human", "assistant": "Assistant"}


def _sayable(messages: Sequence[Message]) -> bool:
    return all(message.role in _HH for message in messages)


def _weight(ranking: Ranking) -> Json:
    return {} if ranking.weight is None else {"weight": ranking.weight}


def _openai(source: _Source) -> Iterator[Json]:
    for ranking in source.merged():
        for better, worse in ranking.pairs():
            yield {
                "input": {"messages": _plain(ranking.messages), "tools": [], "parallel_tool_calls": True},
                "preferred_output": _plain([_reply(ranking.answers[better])]),
                "non_preferred_output": _plain([_reply(ranking.answers[worse])]),
            }


def _trees(source: _Source) -> Iterator[Json]:
    """Open-Assistant's export: a question with its replies, rank 0 being the best."""
    if source.queue.kind == "rank":
        for ranking in source.merged():
            models = (ranking.model_extra or {}).get("models") or [None] * len(ranking.answers)
            replies = [
                _node("assistant", text, ranking.language, rank=rank - 1, model=model)
                for text, rank, model in zip(ranking.answers, ranking.ranks, models, strict=True)
            ]
            yield from _tree(source, ranking.messages, replies, ranking.language)
        return
    for one in source.judged:
        replies = []
        if source.queue.kind == "reply":
            replies = [_node("assistant", text, one.task.language) for _, _, text in written([one])]
        elif source.queue.kind == "rate" and (labels := _labels(source.queue, one)):
            node = _node("assistant", one.answers[0].content, one.task.language, model=one.answers[0].model)
            replies = [node | {"labels": _shares(source.queue, labels, len(one.by) or 1)}]
        if replies:
            yield from _tree(source, one.prompt, replies, one.task.language)
        elif source.queue.kind == "prompt":
            for _, _, text in written([one]):
                yield from _tree(source, [Message(role="user", content=text)], [], one.task.language)


def _tree(source: _Source, messages: Sequence[Message], replies: list[Json], language: str | None) -> Iterator[Json]:
    if not _sayable(messages):
        source.left_out["Open-Assistant's trees know no system message"] += 1
        return
    nodes = [_node("prompter" if m.role == "user" else "assistant", m.content, language) for m in messages]
    nodes[-1]["replies"] = replies
    for node, below in pairwise(nodes):
        node["replies"] = [below]
    yield {
        "message_tree_id": nodes[0]["message_id"],
        "tree_state": "ready_for_export",
        "prompt": nodes[0],
    }


def _node(role: str, text: str, language: str | None, *, rank: int | None = None, model: str | None = None) -> Json:
    node: Json = {"message_id": str(uuid.uuid4()), "text": text, "role": role, "lang": language or "en"}
    node |= {} if rank is None else {"rank": rank}
    return node | ({} if model is None else {"model_name": model}) | {"deleted": False, "replies": []}


def _argilla(source: _Source) -> Iterator[Json]:
    merged = {}
    if source.queue.kind == "rank":
        merged = {(repr(_plain(ranking.messages)), frozenset(ranking.answers)): ranking for ranking in source.merged()}
    for one in source.judged:
        if not one.by and one.decision is None:
            continue
        names = [f"response-{place}" for place in range(1, len(one.answers) + 1)]
        prompt = one.prompt
        record: Json = {
            "external_id": one.task.id,
            "fields": {
                "prompt": prompt[0].content if len(prompt) == 1 else _plain(prompt),
                **{name: answer.content for name, answer in zip(names, one.answers, strict=True)},
            },
            "metadata": {
                key: value
                for key, value in {
                    "source": one.task.source,
                    "language": one.task.language,
                    **{f"{name}-model": a.model for name, a in zip(names, one.answers, strict=True)},
                }.items()
                if value
            },
            "responses": [
                {
                    "user_id": str(uuid.uuid5(PEOPLE, source.named.of(labeller))),
                    "status": "submitted",
                    "values": _values(row, names),
                }
                for labeller, row in one.by.items()
            ],
            "suggestions": [],
        }
        found = merged.get((repr(one.task.messages), frozenset(answer.content for answer in one.answers)))
        if found is not None:
            ranks = [found.ranks[found.answers.index(answer.content)] for answer in one.answers]
            suggestion = {"question_name": "ranking", "value": _ranked(names, ranks), "agent": "chatwheel"}
            record["suggestions"] = [suggestion | ({} if found.weight is None else {"score": found.weight})]
        yield record


def _values(row: LabellingJudgementRow, names: Sequence[str]) -> Json:
    """Answers to Argilla's questions: a RankingQuestion, a TextQuestion; a RatingQuestion a scale and a LabelQuestion a
    flag."""
    if row.ranks is not None:
        return {"ranking": {"value": _ranked(names, row.ranks)}}
    if row.text is not None:
        return {"reply": {"value": row.text}}
    yes = {True: "yes", False: "no"}
    said = row.labels or {}
    return {_slug(name): {"value": yes[v] if isinstance(v, bool) else v} for name, v in said.items()}


def _slug(name: str) -> str:
    return "-".join(name.lower().split())


def _ranked(names: Sequence[str], ranks: Sequence[int]) -> list[Json]:
    placed = sorted(zip(ranks, names, strict=True))
    return [{"value": name, "rank": rank} for rank, name in placed]


def _rated(source: _Source) -> Iterator[Record]:
    for one in source.judged:
        labels = _labels(source.queue, one)
        if labels:
            values = {
                "messages": [*one.task.messages, {"role": "assistant", "content": one.answers[0].content}],
                "labels": labels,
                "labellers": sorted(map(source.named.of, one.by)),
                "model": one.answers[0].model,
                "source": one.task.source,
                "language": one.task.language,
            }
            yield Conversation.model_validate({name: value for name, value in values.items() if value is not None})


def _labels(queue: LabellingQueueRow, one: Judged) -> dict[str, float]:
    """The mean of each label, true being 1; what was decided, where it was."""
    rows = [one.decision] if one.decision is not None else list(one.by.values())
    said = [row.labels for row in rows if row.labels]
    names = [label["name"] for label in queue.labels]
    found = {name: [float(labels[name]) for labels in said if name in labels] for name in names}
    return {name: fmean(values) for name, values in found.items() if values}


def _shares(queue: LabellingQueueRow, labels: dict[str, float], count: int) -> Json:
    """As Open-Assistant has them: from 0 to 1."""
    points = {one["name"]: one["points"] if one["kind"] == "scale" else None for one in queue.labels}
    return {
        _slug(name).replace("-", "_"): {
            "value": value if (most := points[name]) is None else (value - 1) / (most - 1),
            "count": count,
        }
        for name, value in labels.items()
    }


def _reply(text: str) -> Message:
    return Message(role="assistant", content=text)


def _plain(messages: Sequence[Message]) -> list[Json]:
    return [{"role": m.role, "content": m.content} for m in messages]


FORMATS: dict[str, tuple[tuple[str, ...], Callable[[_Source], Iterator[Record | Json] | Iterator[Json]]]] = {
    "ranked": (("rank",), lambda source: iter(source.merged())),
    "chat": (("reply",), lambda source: iter(demonstrations(source.judged, source.named))),
    "prompts": (("prompt",), lambda source: iter(prompts(source.judged, source.named))),
    "labels": (("rate",), _rated),
    "judgements": (("rank",), lambda source: iter(own_rankings(source.judged, source.named))),
    "hh-rlhf": (("rank",), _hh),
    "openassistant": (("rank", "reply", "prompt", "rate"), _trees),
    "argilla": (("rank", "reply", "prompt", "rate"), _argilla),
    "openai": (("rank",), _openai),
}
"""By name: of which kinds of queues, and how."""
