"""The labelling room by the API: a round from its queue to what a reward model learns from, and who may what."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from chatwheel.store import accounts
from chatwheel.store.database import Database
from chatwheel.store.tables import UsageRow
from tests.server.live import make_app

MODEL = "quickstart/ppo"
Json = dict[str, Any]


@dataclass(frozen=True)
class Room:
    """A project with an owner, who is no admin, and two labellers; and an admin."""

    client: TestClient
    database: Database
    keys: dict[str, str]

    def ask(self, who: str, method: str, path: str, status: int = 200, **options: Any) -> Any:
        """The answer's JSON, of a request that ends so."""
        headers = {"authorization": f"Bearer {self.keys[who]}"}
        reply = self.client.request(method, f"/v1/labelling/{path}", headers=headers, **options)
        assert reply.status_code == status, reply.text
        return reply.json() if reply.content and "jsonl" not in reply.headers["content-type"] else reply.text

    def queue(self, kind: str = "rank", **fields: Any) -> str:
        """A new one's id."""
        body = {"name": "Round 1", "kind": kind, "guidelines": "**Be fair.**"} | fields
        return str(self.ask("owner", "POST", "queues", 201, json=body)["id"])

    def fill(self, queue: str, count: int, answers: int = 2) -> None:
        """Puts tasks in."""
        tasks = [
            {
                "messages": [{"role": "user", "content": f"question {number}"}],
                "answers": [{"content": f"{number} {k}", "model": f"secret-model-{k}"} for k in range(answers)],
            }
            for number in range(count)
        ]
        assert self.ask("owner", "POST", f"queues/{queue}/tasks", json={"tasks": tasks})["added"] == count


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    app, database, _ = make_app(tmp_path)
    with database.write() as session:
        local = accounts.local_principal(session)
        people = {name: accounts.create_user(session, name).id for name in ("owner", "ada", "bob")}
        project = accounts.create_project(session, "Poetry", people["owner"]).id
        for name in ("ada", "bob"):
            accounts.set_member(session, project, people[name])
        scopes = {"owner": ("labelling", "project"), "ada": ("labelling", "project"), "bob": ("labelling",)}
        keys = {
            name: accounts.create_key(session, project_id=project, user_id=user, name=name, scopes=scopes[name]).secret
            for name, user in people.items()
        }
        keys["admin"] = accounts.create_key(
            session, project_id=local.project_id, user_id=local.user_id, name="admin", scopes=accounts.SCOPES
        ).secret
    with TestClient(app, base_url="http://localhost") as client:
        yield Room(client, database, keys)


def test_a_round_from_its_queue_to_what_is_learnt_from(room: Room) -> None:
    queue = room.queue(labellers=2)
    room.fill(queue, 3)
    (listed,) = room.ask("ada", "GET", "queues")["data"]
    assert (listed["id"], listed["manages"], listed["guidelines"]) == (queue, False, "**Be fair.**")
    assert listed["progress"] == {
        "tasks": 3, "done": 0, "judgements": 0, "wanted": 6, "mine": 0, "waiting": 3, "reported": 0,
    }  # fmt: skip
    for who in ("ada", "bob"):
        while (task := room.ask(who, "POST", f"queues/{queue}/next")) is not None:
            assert "secret-model" not in json.dumps(task)
            assert task["said"] is None
            better = task["answers"].index(min(task["answers"]))
            ranks = [1 if place == better else 2 for place in range(2)]
            if task["messages"][0]["content"] == "question 2" and who == "bob":
                ranks = ranks[::-1]
            path = f"assignments/{task['id']}/judgement"
            done = room.ask(who, "POST", path, json={"ranks": ranks, "seconds": 12.5})
            assert done["said"] == {"ranks": ranks, "labels": None, "text": None}
            assert room.ask(who, "POST", path, json={"ranks": ranks}) == done
    assert room.ask("bob", "GET", f"queues/{queue}")["progress"]["done"] == 3
    report = room.ask("owner", "GET", f"queues/{queue}/report")
    assert report["agreement"]["items"] == 3
    assert report["agreement"]["observed"] == pytest.approx(2 / 3)
    assert report["seconds"] == 12.5
    assert [(line["name"], line["judged"]) for line in report["labellers"]] in (
        [("ada", 3), ("bob", 3)],
        [("bob", 3), ("ada", 3)],
    )
    assert {line["verdict"] for line in report["labellers"]} <= {None, "ok"}  # of three pairs nobody is accused
    assert report["pairwise"][0]["same"] == pytest.approx(2 / 3)
    disputed = room.ask("owner", "GET", f"queues/{queue}/adjudication")
    (dispute,) = disputed["data"]
    assert disputed["total"] == 1
    assert dispute["messages"][0]["content"] == "question 2"
    assert {one["labeller"]: one["ranks"] for one in dispute["judgements"]} == {"ada": [1, 2], "bob": [2, 1]}
    assert [answer["model"] for answer in dispute["answers"]] == ["secret-model-0", "secret-model-1"]
    room.ask("owner", "POST", f"tasks/{dispute['id']}/decision", json={"ranks": [2, 1]})
    assert room.ask("owner", "GET", f"queues/{queue}/adjudication")["data"] == []
    lines = [json.loads(line) for line in room.ask("owner", "GET", f"queues/{queue}/export").splitlines()]
    assert [line["ranks"] for line in lines] == [[1, 2], [1, 2], [2, 1]]
    assert lines[2]["weight"] == 1.0
    assert 0 < lines[0]["weight"] < 1
    assert "ada" not in json.dumps(lines)
    room.ask("owner", "GET", f"queues/{queue}/export?format=chat", 400)


def test_only_owners_and_admins_manage_and_strangers_see_nothing(room: Room) -> None:
    queue = room.queue()
    room.fill(queue, 1)
    for path in (f"queues/{queue}/report", f"queues/{queue}/adjudication", f"queues/{queue}/export"):
        room.ask("ada", "GET", path, 403)  # her key has the scope, but she does not own the project
        room.ask("bob", "GET", path, 403)
    room.ask("ada", "POST", "queues", 404, json={"name": "mine", "kind": "rank"})
    room.ask("bob", "POST", "queues", 403, json={"name": "mine", "kind": "rank"})
    room.ask("ada", "PATCH", f"queues/{queue}", 403, json={"closed": True})
    assert [one["id"] for one in room.ask("admin", "GET", "queues")["data"]] == [queue]
    room.ask("owner", "POST", f"queues/{queue}/tasks", 403, json={"from_chats": 3})  # chats are not the project's
    room.ask("owner", "PATCH", f"queues/{queue}", json={"closed": True, "name": "Over"})
    assert "Over" in room.ask("ada", "POST", f"queues/{queue}/next", 409)["error"]["message"]
    room.ask("owner", "DELETE", f"queues/{queue}", 204)
    room.ask("owner", "GET", f"queues/{queue}", 404)


def test_one_s_own_last_word_is_taken_up_again_and_nobody_else_s(room: Room) -> None:
    queue = room.queue(labellers=2)
    room.fill(queue, 2, answers=3)
    assert room.ask("ada", "GET", f"queues/{queue}/last") is None
    task = room.ask("ada", "POST", f"queues/{queue}/next")
    drafted = room.ask("ada", "PUT", f"assignments/{task['id']}/draft", json={"ranks": [1, None, None]})
    assert drafted["draft"] == {"ranks": [1, None, None]}
    assert room.ask("ada", "POST", f"queues/{queue}/next")["draft"] == drafted["draft"]
    path = f"assignments/{task['id']}"
    for method, end, body in (("GET", "", None), ("POST", "/judgement", {"ranks": [1, 2, 3]}), ("POST", "/skip", {})):
        room.ask("bob", method, path + end, 404, json=body)
    room.ask("ada", "POST", f"{path}/judgement", 400, json={"ranks": [1, 2]})
    room.ask("ada", "POST", f"{path}/judgement", json={"ranks": [3, 1, 1]})
    last = room.ask("ada", "GET", f"queues/{queue}/last")
    assert (last["id"], last["said"]["ranks"], last["answers"]) == (task["id"], [3, 1, 1], task["answers"])
    second = room.ask("ada", "POST", f"queues/{queue}/next")
    room.ask("ada", "POST", f"assignments/{second['id']}/skip", 204, json={"reason": "unclear"})
    assert room.ask("ada", "GET", f"queues/{queue}/last")["id"] == second["id"]
    reported = room.ask("bob", "POST", f"queues/{queue}/next")
    room.ask("bob", "POST", f"assignments/{reported['id']}/report", 204, json={"reason": "private", "comment": "!"})
    (complaint,) = room.ask("owner", "GET", f"queues/{queue}/reported")["data"]
    assert [(one["reason"], one["comment"]) for one in complaint["reports"]] == [("private", "!")]
    room.ask("owner", "POST", f"tasks/{complaint['id']}/state", json={"state": "withdrawn"})
    assert room.ask("owner", "GET", f"queues/{queue}/reported")["data"] == []


def test_a_file_is_imported_whole_or_not_at_all(room: Room) -> None:
    queue = room.queue()
    good = {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"}
    body = {"name": "pairs.jsonl", "content": json.dumps(good) + '\n{"chosen": 1}\n', "format": "hh-rlhf"}
    error = room.ask("owner", "POST", f"queues/{queue}/import", 400, json=body)["error"]
    assert error["message"].startswith("pairs.jsonl, line 2: field 'chosen' ") or "line 2" in error["message"]
    assert error["param"] == "content"
    assert room.ask("owner", "GET", f"queues/{queue}")["progress"]["tasks"] == 0
    done = room.ask("owner", "POST", f"queues/{queue}/import", json={"content": json.dumps(good), "ranks": False})
    assert done == {"format": "hh-rlhf", "added": 1, "already": 0, "judgements": 0, "passed_over": {}}


def test_a_model_s_answers_are_sampled_to_be_ranked(room: Room) -> None:
    queue = room.queue()
    ask = {"model": MODEL, "prompts": [[{"role": "user", "content": "hello"}]], "answers": 3}
    # The fake model says the same each time: there is nothing to rank.
    assert room.ask("admin", "POST", f"queues/{queue}/sample", json=ask) == {"added": 0, "already": 0, "alike": 1}
    rate = room.queue("rate")
    done = room.ask("admin", "POST", f"queues/{rate}/sample", json=ask)
    assert done == {"added": 1, "already": 0, "alike": 0}
    task = room.ask("ada", "POST", f"queues/{rate}/next")
    assert task["answers"] == ["ppo heard: hello"]
    assert [one["name"] for one in task["labels"]][:2] == ["spam", "fails the task"]
    with room.database.read() as session:
        rows = session.scalars(select(UsageRow).where(UsageRow.endpoint == "labelling")).all()
        assert [(row.model, row.status, row.output_tokens) for row in rows] == [
            (MODEL, "completed", 9),
            (MODEL, "completed", 3),
        ]
    room.ask("admin", "POST", f"queues/{queue}/sample", 404, json=ask | {"model": "none"})
    room.ask("admin", "POST", f"queues/{queue}/sample", 400, json=ask | {"prompts": []})
    room.ask("admin", "POST", f"queues/{room.queue('reply')}/sample", 400, json=ask)


def test_chats_of_those_who_agreed_become_tasks_that_they_do_not_label(room: Room) -> None:
    headers = {"authorization": f"Bearer {room.keys['admin']}"}
    queue = str(room.ask("admin", "POST", "queues", 201, json={"name": "q", "kind": "reply"})["id"])
    room.ask("admin", "POST", f"queues/{queue}/tasks", 400, json={"from_chats": 5})
    for question, improve in (("before", True), ("what is a wheel?", True)):
        made = room.client.post("/api/conversations", json={"model": MODEL}, headers=headers).json()["id"]
        room.client.post(f"/api/conversations/{made}/messages", json={"content": question}, headers=headers)
        room.client.put("/api/consent", json={"improve": improve}, headers=headers)
    assert room.ask("admin", "POST", f"queues/{queue}/tasks", json={"from_chats": 5})["added"] == 1
    progress = room.ask("admin", "GET", f"queues/{queue}")["progress"]
    assert (progress["tasks"], progress["waiting"]) == (1, 0)  # it is the admin's own question


def test_what_is_written_in_one_queue_is_judged_in_the_next(room: Room) -> None:
    prompts, replies, rank = room.queue("prompt"), room.queue("reply", labellers=2), room.queue("rank")
    topic = {"messages": [{"role": "user", "content": "something about rivers"}]}
    room.ask("owner", "POST", f"queues/{prompts}/tasks", json={"tasks": [topic]})

    def write(who: str, queue: str, text: str) -> None:
        task = room.ask(who, "POST", f"queues/{queue}/next")
        room.ask(who, "POST", f"assignments/{task['id']}/judgement", json={"text": text})

    write("ada", prompts, "Where does the Rhine rise?")
    room.ask("owner", "POST", f"queues/{replies}/tasks", json={"from_queue": prompts})
    assert room.ask("ada", "POST", f"queues/{replies}/next") is None  # she has written the prompt
    write("bob", replies, "In Switzerland.")
    write("owner", replies, "In the Alps.")
    room.ask("owner", "POST", f"queues/{rank}/tasks", json={"from_queue": replies})
    for who in ("ada", "bob", "owner"):  # each has written a part of it
        assert room.ask(who, "POST", f"queues/{rank}/next") is None
    assert len(room.ask("admin", "POST", f"queues/{rank}/next")["answers"]) == 2
    room.ask("owner", "POST", f"queues/{prompts}/tasks", 400, json={"from_queue": rank})
    lines = [json.loads(line) for line in room.ask("owner", "GET", f"queues/{replies}/export").splitlines()]
    assert {line["messages"][1]["content"] for line in lines} == {"In Switzerland.", "In the Alps."}
