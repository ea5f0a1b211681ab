"""Links by which others read a branch: made by its owner alone, showing nothing else, and gone when they should be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from chatwheel.store import accounts
from chatwheel.store.database import Database
from chatwheel.store.tables import UserRow
from tests.server.conftest import MODEL
from tests.server.live import make_app

Json = dict[str, Any]


@dataclass(frozen=True)
class Two:
    """Ada, who shares, Bob, and anybody."""

    client: TestClient
    database: Database
    keys: dict[str, str]
    users: dict[str, str]

    def ask(self, who: str | None, method: str, path: str, **options: Any) -> Any:
        headers = {"authorization": f"Bearer {self.keys[who]}"} if who else {}
        return self.client.request(method, path, headers=headers, **options)

    def shared(self, token: str) -> Any:
        """As anybody reads it."""
        return self.ask(None, "GET", f"/shared/{token}")


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Two]:
    app, database, _ = make_app(tmp_path)
    keys, users = {}, {}
    with database.write() as session:
        for name in ("ada", "bob"):
            user = accounts.create_user(session, f"{name}-secret-name")
            project = accounts.create_project(session, f"{name}-secret-project", user.id)
            users[name] = user.id
            keys[name] = accounts.create_key(
                session, project_id=project.id, user_id=user.id, name=name, scopes=("conversations",)
            ).secret
    with TestClient(app, base_url="http://localhost") as client:
        yield Two(client, database, keys, users)


def talk(two: Two) -> tuple[str, list[Json]]:
    """A conversation of Ada's: a persona, a file, two answers to one question, a rating, and a turn after that."""
    two.ask("ada", "PUT", "/api/instruction", json={"content": "secret-instruction"})
    made = two.ask("ada", "POST", "/api/conversations", json={"model": MODEL}).json()["id"]
    path = f"/api/conversations/{made}"
    file = {"name": "notes.txt", "content": "secret-file"}
    two.ask("ada", "POST", f"{path}/messages", json={"content": "one?", "attachments": [file]})
    first = two.ask("ada", "GET", path).json()["messages"][1]["id"]
    two.ask("ada", "PUT", f"/api/messages/{first}/rating", json={"value": 1, "comment": "secret-comment"})
    two.ask("ada", "POST", f"/api/messages/{first}/regenerate", json={})
    two.ask("ada", "POST", f"{path}/messages", json={"content": "secret-later", "parent_id": first})
    return made, two.ask("ada", "GET", path).json()["messages"]


def share(two: Two, conversation: str, leaf: str | None = None) -> Json:
    reply = two.ask("ada", "POST", f"/api/conversations/{conversation}/shares", json={"leaf": leaf})
    assert reply.status_code == 201, reply.text
    return dict(reply.json())


def test_a_link_shows_the_branch_and_nothing_else(two: Two) -> None:
    conversation, messages = talk(two)
    path = f"/api/conversations/{conversation}/shares"
    assert two.ask("ada", "GET", path).json() == {"data": []}  # off until it is made
    made = share(two, conversation, messages[1]["id"])
    assert len(made["token"]) >= 43  # 256 bits
    reply = two.shared(made["token"])
    assert reply.status_code == 200
    assert reply.headers["x-robots-tag"] == "noindex, nofollow"
    assert reply.headers["cache-control"] == "no-store"
    body = reply.json()
    assert body.keys() == {"title", "messages"}
    assert [(turn["role"], turn["files"]) for turn in body["messages"]] == [("user", ["notes.txt"]), ("assistant", [])]
    assert body["messages"][0]["content"] == "one?"
    answer = reply.text.replace(messages[1]["content"].replace("\n", "\\n"), "")  # the fake model says it again
    for secret in ("secret-name", "secret-project", "secret-comment", "secret-later", "secret-instruction", MODEL):
        assert secret not in answer, secret
    for other in [conversation, *(message["id"] for message in messages), *two.users.values()]:
        assert other not in reply.text
    # Who is signed in as somebody else sees the same, and the branch stays as it was shared.
    assert two.ask("bob", "GET", f"/shared/{made['token']}").json() == body
    two.ask("ada", "POST", f"/api/conversations/{conversation}/messages", json={"content": "secret-later"})
    assert two.shared(made["token"]).json() == body
    assert share(two, conversation, messages[1]["id"]) == made  # the same link for the same branch
    newest = share(two, conversation)
    assert newest["token"] != made["token"]
    assert [one["id"] for one in two.ask("ada", "GET", path).json()["data"]] == [newest["id"], made["id"]]


def test_only_its_owner_makes_lists_and_revokes(two: Two) -> None:
    conversation, _ = talk(two)
    made = share(two, conversation)
    path = f"/api/conversations/{conversation}/shares"
    for who, status in (("bob", 404), (None, 401)):
        assert two.ask(who, "POST", path, json={}).status_code == status
        assert two.ask(who, "DELETE", f"/api/shares/{made['id']}").status_code == status
        listed = two.ask(who, "GET", path)
        assert listed.status_code == status
        assert made["token"] not in listed.text
    # Nor does anybody share another one's messages through a conversation of their own.
    own = two.ask("bob", "POST", "/api/conversations", json={"model": MODEL}).json()["id"]
    stolen = two.ask("bob", "POST", f"/api/conversations/{own}/shares", json={"leaf": made["leaf_id"]})
    assert stolen.status_code == 404
    assert two.ask("bob", "POST", f"/api/conversations/{own}/shares", json={}).status_code == 404  # nothing in it yet
    assert two.shared(made["token"]).status_code == 200
    assert two.ask("ada", "DELETE", f"/api/shares/{made['id']}").status_code == 204
    assert two.shared(made["token"]).status_code == 404
    assert two.ask("ada", "DELETE", f"/api/shares/{made['id']}").status_code == 404
    assert share(two, conversation)["token"] != made["token"]  # a new one, never the old one again


def test_what_was_never_made_opens_nothing(two: Two) -> None:
    conversation, _ = talk(two)
    made = share(two, conversation)
    for token in ("x", made["id"], made["token"][:-1], made["token"] + "x", "%", conversation):
        assert two.shared(token).status_code in (400, 404), token
    for method in ("POST", "PUT", "DELETE"):
        assert two.ask(None, method, f"/shared/{made['token']}").status_code == 401


def test_it_dies_with_the_conversation_and_the_account(two: Two) -> None:
    conversation, _ = talk(two)
    token = share(two, conversation)["token"]
    two.ask("ada", "DELETE", f"/api/conversations/{conversation}")
    assert two.shared(token).status_code == 404  # at once, though it may still be taken back
    two.ask("ada", "POST", f"/api/conversations/{conversation}/restore")
    assert two.shared(token).status_code == 200
    with two.database.write() as session:
        session.get_one(UserRow, two.users["ada"]).disabled_at = 1.0
    assert two.shared(token).status_code == 404
    with two.database.write() as session:
        session.delete(session.get_one(UserRow, two.users["ada"]))
    assert two.shared(token).status_code == 404
