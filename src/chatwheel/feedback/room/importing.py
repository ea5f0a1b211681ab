"""Published or exported files as tasks of a queue, whole or not at all; what they are is told by data/sources.

    rank             rankings: hh-rlhf, ranked lists, Open-Assistant's trees, Argilla, OpenAI's preferences, ours, ...
    rate             conversations: their last answer; of rankings each answer
    prompt, reply    prompts

How a file ranks its answers is kept as the judgement of whoever it names, or of the file itself: an outsider's, beside
those of the queue's own labellers.
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from sqlalchemy import select
from sqlalchemy.orm import Session

from chatwheel.data.records import Conversation, Ranking
from chatwheel.data.sources import Kind, inspect, load
from chatwheel.errors import InputError
from chatwheel.feedback.room.queues import MOST_ANSWERS, NewAnswer, NewTask, add_tasks, answers_of, check_task
from chatwheel.store.tables import LabellingJudgementRow, LabellingQueueRow

MOST_TASKS = 100_000


@dataclass(frozen=True)
class Read:
    """A task of a file, and how the file ranks its answers."""

    task: NewTask
    ranks: list[int] | None = None
    labeller: str | None = None


@dataclass(frozen=True)
class Imported:
    """format: what the file was taken for. added, already: tasks; judgements: of outsiders. passed_over: records in
    which there is nothing to judge, by reason."""

    format: str
    added: int
    already: int
    judgements: int
    passed_over: dict[str, int]


def import_file(
    session: Session,
    queue: LabellingQueueRow,
    path: Path,
    *,
    format: str = "auto",
    ranks: bool = True,
) -> Imported:
    """Puts a file's records into a queue. ranks: whether to keep how the file ranks. Raises InputError that names the
    file, the place, the field and what to do; the caller's transaction is to be given up then."""
    skipped: Counter[str] = Counter()
    name, read = read_tasks(path, queue.kind, format, skipped)
    added = add_tasks(session, queue, [one.task for one in read])
    judgements = 0
    if ranks:
        for task_id, one in zip(added.tasks, read, strict=True):
            if one.ranks is not None:
                judgements += _keep(session, task_id, one)
    session.flush()
    return Imported(name, added.added, added.already, judgements, dict(skipped))


def import_text(
    session: Session, queue: LabellingQueueRow, name: str, content: str, *, format: str = "auto", ranks: bool = True
) -> Imported:
    """`import_file` of a file's content; its name says of which kind it is."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / (re.sub(r"[^\w.-]", "_", Path(name).name)[-100:].lstrip(".") or "file.jsonl")
        path.write_text(content, encoding="utf-8", errors="replace")
        try:
            return import_file(session, queue, path, format=format, ranks=ranks)
        except InputError as error:
            raise InputError(error.message.replace(f"{place}/", ""), param="content") from None


def read_tasks(path: Path, kind: str, format: str, skipped: Counter[str]) -> tuple[str, list[Read]]:
    """The format's name, and the tasks. Raises InputError."""
    wanted: Kind = "prompts"
    if kind == "rank":
        wanted = "rankings"
    elif kind == "rate":
        found = inspect(path, format=format)
        wanted = "conversations" if "conversations" in found.format.kinds else "rankings"
    detected = inspect(path, wanted, format=format)
    read: list[Read] = []
    for number, record in enumerate(load(path, wanted, format=detected.format.name, skipped=skipped), start=1):
        for one in _tasks(cast(Conversation, record), kind, skipped):
            check_task(kind, one.task, f"{path}, record {number}")
            read.append(one)
        if len(read) > MOST_TASKS:
            raise InputError(f"{path}: more than {MOST_TASKS:,} tasks; divide the file")
    if not read:
        reasons = "; ".join(f"{n} x {reason}" for reason, n in skipped.most_common(3))
        raise InputError(f"{path}: there is nothing in it to judge in a queue of the kind {kind!r} ({reasons})")
    return detected.format.name, read


def _tasks(record: Conversation, kind: str, skipped: Counter[str]) -> Iterator[Read]:
    if record.uses_functions:
        skipped["it calls functions"] += 1
        return
    asked = NewTask(record.messages, source=record.source, language=record.language)
    if kind in ("prompt", "reply"):
        yield Read(asked)
    elif not isinstance(record, Ranking):
        yield Read(replace(asked, messages=record.messages[:-1], answers=[NewAnswer(record.messages[-1].content)]))
    elif kind == "rate":
        for answer in dict.fromkeys(record.answers):
            yield Read(replace(asked, answers=[NewAnswer(answer)]))
    else:
        yield from _ranked(record, asked, skipped)


def _ranked(record: Ranking, asked: NewTask, skipped: Counter[str]) -> Iterator[Read]:
    """Of answers that are the same, the first."""
    models = (record.model_extra or {}).get("models")
    if not isinstance(models, list) or len(models) != len(record.answers):
        models = [None] * len(record.answers)
    found = list(zip(record.answers, record.ranks, models, strict=True))
    kept = {answer: (rank, model) for answer, rank, model in reversed(found)}
    answers = [answer for answer in dict.fromkeys(record.answers) if answer.strip()]
    if not 2 <= len(answers) <= MOST_ANSWERS:
        skipped[f"not 2 to {MOST_ANSWERS} different answers"] += 1
        return
    ranks = [kept[answer][0] for answer in answers]
    task = replace(asked, answers=[NewAnswer(a, model=_text(kept[a][1])) for a in answers])
    labeller = record.labeller or record.source or "imported"
    yield Read(task, [1 + sum(other < rank for other in ranks) for rank in ranks], labeller[:200])


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _keep(session: Session, task_id: str, read: Read) -> int:
    """1 for a judgement that is new, 0 for one that was there."""
    by_text = dict(zip((answer.content for answer in read.task.answers), read.ranks or (), strict=True))
    # The task may have been there already, with its answers in another order.
    ranks = [by_text[text] for text in (answer.content for answer in answers_of(session, task_id)) if text in by_text]
    last = session.scalars(
        select(LabellingJudgementRow)
        .where(
            LabellingJudgementRow.task_id == task_id,
            LabellingJudgementRow.action == "imported",
            LabellingJudgementRow.labeller == read.labeller,
        )
        .order_by(LabellingJudgementRow.id.desc())
        .limit(1)
    ).first()
    if last is not None and last.ranks == ranks:
        return 0
    session.add(LabellingJudgementRow(task_id=task_id, labeller=read.labeller, action="imported", ranks=ranks))
    return 1
