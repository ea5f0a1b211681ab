"""Import and export: what goes out in a format of others' comes in again, and what is wrong is named."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from chatwheel.data.records import Message, Ranking, write_jsonl
from chatwheel.data.sources import inspect, load
from chatwheel.errors import InputError
from chatwheel.feedback.room.exporting import Exported, export_queue, formats_of
from chatwheel.feedback.room.importing import Imported, import_file, import_text
from chatwheel.feedback.room.judging import Said, decide, submit
from chatwheel.feedback.room.queues import NewAnswer, NewTask, add_tasks, create_queue
from chatwheel.feedback.room.reading import judged_tasks
from chatwheel.store import accounts
from chatwheel.store.database import Database
from chatwheel.store.tables import LabellingQueueRow, LabellingTaskRow, TaskKind
from tests.data.test_sources import SHARED
from tests.feedback.room.test_assigning import ask, hand, labels, people

Json = dict[str, Any]
DIALOGUE = [
    {"role": "user", "content": "你好"},
    {"role": "assistant", "content": "你好！"},
    {"role": "user", "content": "再见"},
]
ORDERS = {"question 0": [1, 2, 3], "question 1": [3, 1, 1], "再见": [2, 2, 1]}


def new_queue(session: Session, kind: TaskKind = "rank", labellers: int = 3) -> LabellingQueueRow:
    return create_queue(session, accounts.local_principal(session).project_id, "q", kind, labellers=labellers)


def judged_queue(session: Session) -> LabellingQueueRow:
    """Three tasks, of one or more turns, that three labellers have ranked alike."""
    queue = new_queue(session)
    three = [NewAnswer(text, model=f"m{place}") for place, text in enumerate("ABC")]
    tasks = [NewTask(ask("question 0"), three), NewTask(ask("question 1"), three)]
    tasks.append(NewTask([Message.model_validate(m) for m in DIALOGUE], three, language="zh"))
    add_tasks(session, queue, tasks)
    for who in people(session, 3):
        for _ in tasks:
            given = hand(session, queue, who)
            task = session.get_one(LabellingTaskRow, given.task_id)
            ranks = ORDERS[task.messages[-1]["content"]]
            submit(session, who, given.id, Said(ranks=[ranks[place] for place in given.order]))
    return queue


def written(exported: Exported, place: Path) -> Path:
    write_jsonl(place, exported.records)
    return place


def prompt_of(ranking: Ranking) -> str:
    return ranking.messages[-1].content


def test_merged_rankings_are_read_by_the_reward_stage(session: Session, tmp_path: Path) -> None:
    queue = judged_queue(session)
    file = written(export_queue(session, queue, None, "salt"), tmp_path / "ranked.jsonl")
    assert inspect(file).format.name == "chatwheel-rankings"
    found = {prompt_of(one): one for one in load(file, "rankings") if isinstance(one, Ranking)}
    assert {name: dict(zip(one.answers, one.ranks, strict=True)) for name, one in found.items()} == {
        name: dict(zip("ABC", ranks, strict=True)) for name, ranks in ORDERS.items()
    }
    assert all(0 < (one.weight or 0) < 1 for one in found.values())
    line = json.loads(file.read_text().splitlines()[0])
    assert line["models"] == ["m0", "m1", "m2"]
    assert len(line["labellers"]) == 3
    assert all(name.startswith("person-") for name in line["labellers"])


@pytest.mark.parametrize("format", ["ranked", "judgements", "hh-rlhf", "openassistant", "argilla", "openai"])
def test_what_goes_out_comes_in_again(session: Session, tmp_path: Path, format: str) -> None:
    queue = judged_queue(session)
    file = written(export_queue(session, queue, format, "salt"), tmp_path / f"{format}.jsonl")
    other = new_queue(session)
    done = import_file(session, other, file)
    again = import_file(session, other, file)
    assert (again.added, again.judgements) == (0, 0)
    ranked: dict[str, set[tuple[str, str]]] = {}
    for one in judged_tasks(session, other):
        for row in one.by.values():
            ranks = dict(zip((answer.content for answer in one.answers), row.ranks or (), strict=True))
            pairs = {(a, b) for a in ranks for b in ranks if ranks[a] < ranks[b]}
            ranked.setdefault(one.prompt[-1].content, set()).update(pairs)
            assert [m.content for m in one.prompt][:-1] == (
                ["你好", "你好！"] if one.prompt[-1].content == "再见" else []
            )
    assert ranked == {
        name: {(a, b) for a, i in zip("ABC", ranks, strict=True) for b, j in zip("ABC", ranks, strict=True) if i < j}
        for name, ranks in ORDERS.items()
    }
    whole = format not in ("hh-rlhf", "openai")  # those know pairs alone
    assert done.added == (3 if whole else 3 + 2 + 2)
    assert done.judgements == {"judgements": 9, "argilla": 9}.get(format, done.added)


def test_a_decision_is_what_is_exported(session: Session) -> None:
    queue = judged_queue(session)
    task = judged_tasks(session, queue)[0].task
    decide(session, people(session, 1)[0], task.id, Said(ranks=[3, 2, 1]))
    (first, *_) = export_queue(session, queue, "ranked", "salt").records
    assert isinstance(first, Ranking)
    assert (first.ranks, first.weight, first.model_extra["decided"]) == ([3, 2, 1], 1.0, True)  # type: ignore[index]
    (first, *_) = export_queue(session, queue, "openassistant", "salt").records
    assert [reply["rank"] for reply in first["prompt"]["replies"]] == [2, 1, 0]  # type: ignore[index]


def test_what_a_format_cannot_say_is_counted(session: Session) -> None:
    queue = new_queue(session, labellers=1)
    (ada,) = people(session, 1)
    told = [Message(role="system", content="be brief"), *ask("q")]
    add_tasks(session, queue, [NewTask(told, [NewAnswer("a"), NewAnswer("b")])])
    with pytest.raises(InputError, match="nobody has judged anything"):
        export_queue(session, queue, None, "salt")
    submit(session, ada, hand(session, queue, ada).id, Said(ranks=[1, 2]))
    for format in ("hh-rlhf", "openassistant"):
        with pytest.raises(InputError, match="system message"):
            export_queue(session, queue, format, "salt")
    assert len(export_queue(session, queue, "openai", "salt").records) == 1
    with pytest.raises(InputError, match="'chat' is none for a queue of the kind 'rank'; there are ranked, judgements"):
        export_queue(session, queue, "chat", "salt")


def test_a_tie_says_nothing_to_learn_from(session: Session) -> None:
    queue = new_queue(session, labellers=1)
    (ada,) = people(session, 1)
    add_tasks(session, queue, [NewTask(ask("q"), [NewAnswer("a"), NewAnswer("b")])])
    submit(session, ada, hand(session, queue, ada).id, Said(ranks=[1, 1]))
    with pytest.raises(InputError, match="1 x undecided"):
        export_queue(session, queue, "ranked", "salt")


def test_what_was_written_and_rated_goes_out_too(session: Session, tmp_path: Path) -> None:
    (ada,) = people(session, 1)
    kinds: list[tuple[TaskKind, list[NewAnswer], Said]] = [
        ("reply", [], Said(text="Hello!")),
        ("prompt", [], Said(text="What is a wheel?")),
        ("rate", [NewAnswer("so")], Said(labels=labels(quality=5, spam=True))),
    ]
    out = {}
    for kind, answers, said in kinds:
        queue = new_queue(session, kind, labellers=1)
        add_tasks(session, queue, [NewTask(ask("say something"), answers)])
        submit(session, ada, hand(session, queue, ada).id, said)
        for format in formats_of(kind):
            out[kind, format] = written(export_queue(session, queue, format, "s"), tmp_path / f"{kind}-{format}.jsonl")
    for kind, format, wanted, last in (
        ("reply", "chat", "conversations", "Hello!"),
        ("reply", "openassistant", "conversations", "Hello!"),
        ("reply", "argilla", "conversations", "Hello!"),
        ("prompt", "prompts", "prompts", "What is a wheel?"),
        ("rate", "labels", "conversations", "so"),
        ("rate", "openassistant", "conversations", "so"),
    ):
        (record,) = load(out[kind, format], wanted)  # type: ignore[arg-type]
        assert record.messages[-1].content == last  # type: ignore[attr-defined]
    rated = json.loads(out["rate", "labels"].read_text())
    assert (rated["labels"]["quality"], rated["labels"]["spam"], rated["labels"]["hateful"]) == (5, 1, 0)
    tree = json.loads(out["rate", "openassistant"].read_text())
    assert tree["prompt"]["replies"][0]["labels"]["quality"] == {"value": 1.0, "count": 1}
    values = json.loads(out["rate", "argilla"].read_text())["responses"][0]["values"]
    assert values["fails-the-task"] == {"value": "no"}
    assert values["quality"] == {"value": 5}


WRONG = [
    ('{"chosen": "\\n\\nHuman: a\\n\\nAssistant: b"', "q.jsonl, line 2: not JSON"),
    ('{"chosen": "\\n\\nHuman: a\\n\\nAssistant: b", "rejected": 3}', "q.jsonl, line 2: "),
    ('{"chosen": "\\n\\nHuman: a\\n\\nAssistant: b"}', "q.jsonl, line 2: no field 'rejected'"),
    ("[1, 2]", "q.jsonl, line 2: expected a JSON object, found list"),
]


@pytest.mark.parametrize(("line", "why"), WRONG)
def test_a_bad_line_is_named_and_nothing_is_half_imported(database: Database, line: str, why: str) -> None:
    with database.write() as session:
        queue = new_queue(session).id
    good = json.dumps({"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"})

    def bring(content: str, format: str = "auto") -> Imported:
        with database.write() as session:
            return import_text(session, session.get_one(LabellingQueueRow, queue), "../q.jsonl", content, format=format)

    with pytest.raises(InputError, match=why) as caught:
        bring(f"{good}\n{line}\n", "hh-rlhf")
    assert "/" not in caught.value.message.split(",")[0]
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(LabellingTaskRow)) == 0
    if line.startswith('{"chosen"') and line.endswith("}"):  # told from the records before it too
        with pytest.raises(InputError, match=r"q.jsonl, line 2: not of the shape of the records before it, hh-rlhf"):
            bring(f"{good}\n{line}\n")
    done = bring(f"{good}\n\n{good}\n")
    assert (done.format, done.added, done.already, done.judgements) == ("hh-rlhf", 1, 1, 1)


def test_argilla_s_other_shapes(session: Session) -> None:
    queue = new_queue(session)
    fields = {"prompt": "q", "response-1": "a", "response-2": "b"}
    tie = [{"value": "one", "rank": 1}, {"value": "two", "rank": 1}]
    lines: list[Json] = [
        {"fields": fields, "responses": {"preference": [{"value": ["response-2", "response-1"], "user_id": "u1"}]}},
        {
            "fields": {"chat": [{"role": "user", "content": "r"}], "one": "a", "two": "b"},
            "responses": [
                {"user_id": "u2", "status": "submitted", "values": {"p": {"value": tie}}},
                {"user_id": "u3", "status": "discarded", "values": None},
            ],
            "metadata": {"one-model": "m1"},
        },
        {"fields": fields, "responses": []},
    ]
    done = import_text(session, queue, "a.jsonl", "\n".join(map(json.dumps, lines)))
    assert (done.format, done.added, done.passed_over) == ("argilla", 2, {"nobody has ranked it": 1})
    first, second = judged_tasks(session, queue)
    assert first.by["imported:u1"].ranks == [1, 2]
    assert [answer.content for answer in first.answers] == ["b", "a"]
    assert second.by["imported:u2"].ranks == [1, 1]
    assert [answer.model for answer in second.answers] == ["m1", None]
    wrong = lines[0] | {"responses": [{"user_id": "u", "status": "submitted", "values": {"p": 3}}]}
    with pytest.raises(InputError, match=r"a.jsonl, line 1: field 'responses\[0\].values' should be"):
        import_text(session, queue, "a.jsonl", json.dumps(wrong))


@pytest.mark.skipif(not SHARED.is_dir(), reason="the published data is not here")
def test_published_data_is_imported(session: Session, tmp_path: Path) -> None:
    for name, format in (
        ("comparisons/hh_harmless.jsonl.gz", "hh-rlhf"),
        ("sft/oasst_en_trees.jsonl.gz", "oasst-tree"),
    ):
        part = tmp_path / Path(name).name.removesuffix(".gz")
        with gzip.open(SHARED / name, "rb") as lines:
            part.write_bytes(b"".join(line for line, _ in zip(lines, range(200), strict=False)))
        queue = new_queue(session)
        done = import_file(session, queue, part)
        assert done.format == format
        assert done.added == done.judgements > 20
        back = written(export_queue(session, queue, "openassistant", "s"), tmp_path / "back.jsonl")
        other = new_queue(session)
        assert import_file(session, other, back).added > 0.9 * done.added
