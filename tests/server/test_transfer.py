"""Conversations as files: out, in, and from ChatGPT."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.server.conftest import MODEL, Site

Json = dict[str, Any]


def tree_of(site: Site, conversation: str) -> list[tuple[str, str, str | None, str]]:
    """Role, text, the text before, status: what is left when ids are others."""
    messages = site.client.get(f"/api/conversations/{conversation}").json()["messages"]
    said = {message["id"]: message["content"] for message in messages}
    return [(m["role"], m["content"], said.get(m["parent_id"]), m["status"]) for m in messages]


def import_(site: Site, given: object) -> Any:
    return site.client.post("/api/conversations/import", json=given)


def chatgpt(*nodes: tuple[str, str | None, str | None, Any], **more: Any) -> Json:
    """A conversation as ChatGPT exports it; each node has a name, the one before, a role and parts."""
    mapping: dict[str, Json] = {}
    for number, (name, parent, role, parts) in enumerate(nodes):
        message = role and {
            "id": name,
            "author": {"role": role},
            "create_time": 1_700_000_000 + number,
            "content": {"content_type": "text", "parts": parts},
            "metadata": {"model_slug": "gpt-4"} if role == "assistant" else {},
        }
        mapping[name] = {"id": name, "message": message, "parent": parent, "children": []}
        if parent:
            mapping[parent]["children"].append(name)
    return {"title": "From there", "create_time": 1_700_000_000.5, "update_time": None, "mapping": mapping} | more


def test_what_was_exported_is_imported_with_all_its_branches(site: Site) -> None:
    conversation = site.new_conversation()
    events = site.ask(conversation, "first 你好")
    answer = site.client.get(f"/api/conversations/{conversation}").json()["messages"][1]["id"]
    assert events
    site.client.post(f"/api/messages/{answer}/regenerate", json={})
    site.client.post(f"/api/conversations/{conversation}/messages", json={"content": "second", "parent_id": answer})
    site.client.put(f"/api/messages/{answer}/rating", json={"value": 1, "comment": "fine"})
    reply = site.client.get(f"/api/conversations/{conversation}/export")
    assert reply.headers["content-disposition"] == f'attachment; filename="{conversation}.json"'
    saved = reply.json()
    assert "fine" not in reply.text
    [made] = import_(site, saved).json()["data"]
    assert made["id"] != conversation
    assert {name: made[name] for name in ("title", "model", "updated_at")} == {
        name: saved[name] for name in ("title", "model", "updated_at")
    }
    assert tree_of(site, made["id"]) == tree_of(site, conversation)
    assert len(tree_of(site, made["id"])) == 5
    found = site.client.get("/api/conversations/search", params={"q": "second"}).json()["data"]
    assert {hit["conversation"]["id"] for hit in found} == {conversation, made["id"]}
    assert site.ask(made["id"], "and on")  # it goes on like any other


def test_a_branch_as_markdown(site: Site) -> None:
    conversation = site.new_conversation()
    site.ask(conversation, "one")
    first = site.client.get(f"/api/conversations/{conversation}").json()["messages"]
    other = {"content": "two", "parent_id": None}
    site.client.post(f"/api/conversations/{conversation}/messages", json=other)
    place = f"/api/conversations/{conversation}/export"
    newest = site.client.get(place, params={"format": "markdown"})
    assert newest.headers["content-type"] == "text/markdown; charset=utf-8"
    assert newest.text.startswith(f"# one\n\n## You\n\ntwo\n\n## Answer ({MODEL})\n\n")
    assert "\n\none\n\n" not in newest.text
    asked = site.client.get(place, params={"format": "markdown", "leaf": first[1]["id"]})
    assert "\n\none\n\n" in asked.text
    assert site.client.get(place, params={"format": "markdown", "leaf": "msg-none"}).status_code == 404
    another = site.new_conversation()
    theirs = f"/api/conversations/{another}/export"
    assert site.client.get(theirs, params={"format": "markdown", "leaf": first[1]["id"]}).status_code == 404
    assert site.client.get(place, params={"format": "html"}).status_code == 400


def test_chatgpts_tree_becomes_questions_and_answers(site: Site) -> None:
    given = chatgpt(
        ("root", None, None, None),
        ("sys", "root", "system", ["hidden"]),
        ("q", "sys", "user", ["What is it?", {"asset_pointer": "file-service://x"}]),
        ("a1", "q", "assistant", ["Let me look."]),
        ("tool", "a1", "tool", ["result"]),
        ("a2", "tool", "assistant", ["It is this."]),
        ("b", "q", "assistant", ["It is that."]),
        ("empty", "b", "assistant", [""]),
        ("q2", "empty", "user", ["And now?"]),
        ("q3", "empty", "user", ["Or then?"]),
    )
    reply = import_(site, [given])
    assert reply.status_code == 201, reply.text
    [made] = reply.json()["data"]
    assert (made["title"], made["created_at"]) == ("From there", 1_700_000_000.5)
    assert tree_of(site, made["id"]) == [
        ("user", "What is it?", None, "complete"),
        ("assistant", "Let me look.\n\nIt is this.", "What is it?", "complete"),
        ("assistant", "It is that.", "What is it?", "complete"),
        ("user", "And now?", "It is that.", "complete"),
        ("user", "Or then?", "It is that.", "complete"),
    ]


def test_a_chatgpt_tree_that_bites_its_tail_or_is_very_deep_ends(site: Site) -> None:
    loop = chatgpt(("a", None, "user", ["hello"]), ("b", "a", "assistant", ["hi"]))
    loop["mapping"]["b"]["children"] = ["a", "b", "nowhere", 7]
    assert len(tree_of(site, import_(site, loop).json()["data"][0]["id"])) <= 2
    nodes = [(f"n{i}", f"n{i - 1}" if i else None, ("user", "assistant")[i % 2], [f"turn {i}"]) for i in range(3000)]
    assert len(tree_of(site, import_(site, chatgpt(*nodes)).json()["data"][0]["id"])) == 3000


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"messages": [{"role": "robot"}]}, "messages.0"),
        ({"messages": 7}, "messages"),
        ({"version": 2}, "version"),
        ({"created_at": -1.0}, "created_at"),
        ({"title": "x" * 201}, "title"),
        ({"messages": []}, "no text"),
        ({"format": "other"}, "neither"),
        ({"parent": "2"}, "no message before it"),
        ({"role": "assistant"}, "answers follow questions"),
        ({"twice": True}, "stands twice"),
    ],
)
def test_a_file_that_is_wrong_is_refused_in_one_line_and_nothing_is_kept(site: Site, change: Json, said: str) -> None:
    message: Json = {"id": "1", "parent_id": None, "role": "user", "content": "hello", "created_at": 1.0}
    good: Json = {"format": "chatwheel.conversation", "version": 1, "title": "t", "model": "m", "language": None}
    good |= {"created_at": 1.0, "updated_at": 2.0, "messages": [message]}
    wrong = json.loads(json.dumps(good))
    if "parent" in change:
        wrong["messages"][0]["parent_id"] = change["parent"]
    elif "role" in change:
        wrong["messages"][0]["role"] = change["role"]
    elif "twice" in change:
        wrong["messages"] *= 2
    else:
        wrong |= change
    reply = import_(site, wrong)
    assert reply.status_code == 400, reply.text
    told = reply.json()["error"]["message"]
    assert said in told
    assert "\n" not in told
    assert len(told) < 300
    if said != "no text":
        both = import_(site, [good, wrong])
        assert both.status_code == 400
        assert "conversation 2" in both.json()["error"]["message"]
    assert site.client.get("/api/conversations").json()["data"] == []


@pytest.mark.parametrize("given", [None, 7, "text", [], {}, [[]], {"mapping": {}}, {"mapping": {"a": {"message": 7}}}])
def test_what_is_no_conversation_is_refused(site: Site, given: object) -> None:
    assert import_(site, given).status_code == 400
