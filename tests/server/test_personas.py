"""Personas, the custom instruction and prompts: kept, limited, one's own, and what a conversation makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from chatwheel.store import accounts
from chatwheel.store import personas as store
from chatwheel.store.accounts import SCOPES
from tests.server.conftest import MODEL, Site
from tests.server.live import make_app

Json = dict[str, Any]
PIRATE: Json = {"name": "Pirate", "system_prompt": "Talk like a pirate.", "temperature": 0.5, "max_tokens": 7}
KINDS: dict[str, tuple[Json, Json]] = {
    "personas": (PIRATE, {"name": "海盗", "system_prompt": "像海盗一样说话。"}),
    "prompts": ({"title": "Sum up", "content": "Sum up {{text}}."}, {"title": "总结", "content": "总结 {{text}}。"}),
}


def listed(site: Site, kind: str) -> list[Json]:
    return list(site.client.get(f"/api/{kind}").json()["data"])


def begin(site: Site, persona: str | None = None) -> str:
    reply = site.client.post("/api/conversations", json={"model": MODEL, "persona": persona})
    assert reply.status_code == 201, reply.text
    return str(reply.json()["id"])


def seen(site: Site) -> tuple[list[tuple[str, str]], float, int | None]:
    """What the model saw last, and how it sampled."""
    assistant = next(one for one in site.models.loaded if one.prompts)
    params = assistant.params[-1]
    turns = [(turn.role, turn.content) for turn in assistant.prompts[-1]]
    return turns, params.temperature, params.max_tokens


@pytest.mark.parametrize("kind", KINDS)
def test_made_changed_and_taken_away(site: Site, kind: str) -> None:
    first, other = KINDS[kind]
    assert listed(site, kind) == []
    made = site.client.post(f"/api/{kind}", json=first)
    assert made.status_code == 201
    assert made.json().items() >= first.items()
    path = f"/api/{kind}/{made.json()['id']}"
    site.client.post(f"/api/{kind}", json=other)
    assert [row.items() >= given.items() for row, given in zip(listed(site, kind), (first, other), strict=True)]
    changed = site.client.put(path, json=other).json()
    assert changed.items() >= other.items()
    assert changed["id"] == made.json()["id"]
    if kind == "personas":  # it is replaced: what is not said is as usual again
        assert changed["temperature"] is None
    assert listed(site, kind)[0] == changed
    assert site.client.delete(path).status_code == 204
    assert len(listed(site, kind)) == 1
    for reply in (site.client.delete(path), site.client.put(path, json=first)):
        assert reply.status_code == 404
        assert "may have been deleted" in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("personas", {"name": ""}),
        ("personas", {"name": " \n"}),
        ("personas", {"name": "x" * 101}),
        ("personas", {"system_prompt": "x" * 20_001}),
        ("personas", {"temperature": 2.1}),
        ("personas", {"max_tokens": 0}),
        ("personas", {"user_id": "somebody"}),
        ("prompts", {"title": "  "}),
        ("prompts", {"title": "x" * 101}),
        ("prompts", {"content": ""}),
        ("prompts", {"content": "x" * 20_001}),
    ],
)
def test_what_is_too_much_or_nothing_is_refused(site: Site, kind: str, change: Json) -> None:
    first, _ = KINDS[kind]
    made = site.client.post(f"/api/{kind}", json=first).json()
    for reply in (
        site.client.post(f"/api/{kind}", json=first | change),
        site.client.put(f"/api/{kind}/{made['id']}", json=first | change),
    ):
        assert reply.status_code in (400, 422), reply.text
        assert next(iter(change)) in reply.json()["error"]["message"]
    assert listed(site, kind) == [made]


@pytest.mark.parametrize("kind", KINDS)
def test_only_so_many(site: Site, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MOST", 2)
    first, _ = KINDS[kind]
    for _ in range(2):
        assert site.client.post(f"/api/{kind}", json=first).status_code == 201
    reply = site.client.post(f"/api/{kind}", json=first)
    assert reply.status_code == 400
    assert "delete a" in reply.json()["error"]["message"]
    assert len(listed(site, kind)) == 2


def test_the_instruction(site: Site) -> None:
    def instruction() -> object:
        return site.client.get("/api/instruction").json()["content"]

    assert instruction() == ""
    site.client.put("/api/instruction", json={"content": "  Be brief.\n"})
    assert instruction() == "Be brief."
    assert site.client.put("/api/instruction", json={"content": "x" * 5001}).status_code in (400, 422)
    assert instruction() == "Be brief."
    site.client.put("/api/instruction", json={"content": "NUL \x00"})
    assert instruction() == "NUL \ufffd"
    site.client.put("/api/instruction", json={"content": ""})
    assert instruction() == ""


def test_a_conversation_keeps_what_it_began_with(site: Site) -> None:
    plain = begin(site)
    persona = site.client.post("/api/personas", json=PIRATE).json()["id"]
    site.client.put("/api/instruction", json={"content": "My name is Ada."})
    conversation, told = begin(site, persona), begin(site)
    brief = site.client.get(f"/api/conversations/{conversation}").json()["brief"]
    assert brief == {"persona": "Pirate", "system_prompt": "Talk like a pirate.\n\nMy name is Ada."}
    site.ask(conversation, "hello")
    assert seen(site) == ([("system", brief["system_prompt"]), ("user", "hello")], 0.5, 7)
    # Neither a change nor a deletion reaches it; what a request names goes before.
    site.client.put(f"/api/personas/{persona}", json=PIRATE | {"system_prompt": "Talk like a poet."})
    site.client.delete(f"/api/personas/{persona}")
    site.client.put("/api/instruction", json={"content": ""})
    answer = site.messages(conversation)[-1]["id"]
    for again in ("regenerate", "alternative"):
        site.client.post(f"/api/messages/{answer}/{again}", json={"temperature": 1.5, "max_tokens": 3})
        assert seen(site) == ([("system", brief["system_prompt"]), ("user", "hello")], 1.5, 3)
    site.ask(told, "hello")
    assert seen(site)[0] == [("system", "My name is Ada."), ("user", "hello")]
    site.ask(plain, "hello")  # it was there before there was an instruction
    turns, temperature, _ = seen(site)
    assert (turns, temperature) == ([("user", "hello")], 0.0)


def test_the_system_turn_stays_when_a_conversation_gets_too_long(site: Site) -> None:
    persona = site.client.post("/api/personas", json=PIRATE).json()["id"]
    conversation = begin(site, persona)
    events: list[tuple[str, Json]] = []
    for _ in range(4):  # of a context of 200 tokens
        events = site.ask(conversation, "word " * 60)
    assert "note" in dict(events)
    turns, _, _ = seen(site)
    assert turns[0] == ("system", "Talk like a pirate.")
    assert len(turns) < 8


def test_export_and_import_keep_it(site: Site) -> None:
    persona = site.client.post("/api/personas", json=PIRATE).json()["id"]
    conversation = begin(site, persona)
    site.ask(conversation, "hello")
    saved = site.client.get(f"/api/conversations/{conversation}/export").json()
    assert {name: saved[name] for name in PIRATE if name != "name"} | {"name": saved["persona"]} == PIRATE
    [made] = site.client.post("/api/conversations/import", json=saved).json()["data"]
    whole = site.client.get(f"/api/conversations/{made['id']}").json()
    assert whole["brief"] == {"persona": "Pirate", "system_prompt": "Talk like a pirate."}
    site.ask(made["id"], "and now")
    turns, temperature, longest = seen(site)
    assert (turns[0], temperature, longest) == (("system", "Talk like a pirate."), 0.5, 7)
    old = {name: value for name, value in saved.items() if name not in ("persona", "system_prompt", "temperature")}
    [made] = site.client.post("/api/conversations/import", json=old).json()["data"]
    assert site.client.get(f"/api/conversations/{made['id']}").json()["brief"] is None
    reply = site.client.post("/api/conversations/import", json=saved | {"temperature": 9.0})
    assert (reply.status_code, "temperature" in reply.text) == (400, True)


def test_somebody_elses_are_not_there(tmp_path: Path) -> None:
    app, database, _ = make_app(tmp_path)
    with database.write() as session:
        local = accounts.local_principal(session)
        bob = accounts.create_user(session, "Bob")
        project = accounts.create_project(session, "Poetry", bob.id)
        own = accounts.create_key(
            session, project_id=local.project_id, user_id=local.user_id, name="a", scopes=SCOPES
        ).secret
        his = accounts.create_key(
            session, project_id=project.id, user_id=bob.id, name="b", scopes=("conversations",)
        ).secret
    with TestClient(app, base_url="http://localhost") as client:
        mine, bobs = ({"authorization": f"Bearer {key}"} for key in (own, his))
        persona = client.post("/api/personas", json=PIRATE, headers=mine).json()["id"]
        client.put("/api/instruction", json={"content": "mine"}, headers=mine)
        reply = client.post("/api/conversations", json={"model": MODEL, "persona": persona}, headers=bobs)
        assert reply.status_code == 404
        assert client.get("/api/conversations", headers=bobs).json()["data"] == []
        made = client.post("/api/conversations", json={"model": MODEL}, headers=bobs).json()["id"]
        assert client.get(f"/api/conversations/{made}", headers=bobs).json()["brief"] is None
        # A user who goes takes all of it along.
        client.post("/api/prompts", json=KINDS["prompts"][0], headers=bobs)
        client.put("/api/instruction", json={"content": "his"}, headers=bobs)
        with database.write() as session:
            session.execute(text("DELETE FROM users WHERE id = :id"), {"id": bob.id})
            assert session.scalar(text("SELECT count(*) FROM prompts")) == 0
            assert session.scalars(text("SELECT content FROM instructions")).all() == ["mine"]
