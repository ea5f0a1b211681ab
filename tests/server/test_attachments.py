"""Texts beside a question: kept with it, read by the model, limited by its context, taken along by files."""

from __future__ import annotations

from typing import Any

import pytest

from chatwheel.feedback.export import Export
from tests.server.conftest import Site

Json = dict[str, Any]
NOTES: Json = {"name": "notes.txt", "content": "The code is 4711.\n"}
PAGE: Json = {"name": "页面.html", "content": "<script>alert(1)</script>"}


def attach(site: Site, conversation: str, *files: Json, content: str = "What is it?") -> Any:
    path = f"/api/conversations/{conversation}/messages"
    return site.client.post(path, json={"content": content, "attachments": list(files)})


def asked(site: Site) -> list[str]:
    assistant = next(one for one in site.models.loaded if one.prompts)
    return [turn.content for turn in assistant.prompts[-1] if turn.role == "user"]


def test_the_model_reads_them_and_they_stay(site: Site) -> None:
    conversation = site.new_conversation()
    attach(site, conversation, NOTES, PAGE)
    whole = (
        "[File: notes.txt]\nThe code is 4711.\n[End of file]\n\n"
        "[File: 页面.html]\n<script>alert(1)</script>\n[End of file]\n\nWhat is it?"
    )
    assert asked(site) == [whole]
    reply = site.client.get(f"/api/conversations/{conversation}")
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["x-content-type-options"] == "nosniff"
    question, answer = reply.json()["messages"]
    assert (question["content"], question["attachments"]) == ("What is it?", [NOTES, PAGE])
    assert answer["attachments"] is None
    assert reply.json()["title"] == "What is it?"
    site.ask(conversation, "And then?")
    assert asked(site) == [whole, "And then?"]
    site.client.post(f"/api/messages/{answer['id']}/regenerate", json={})
    assert asked(site) == [whole]
    # What is learnt from it is what the model saw.
    site.client.put(f"/api/messages/{answer['id']}/rating", json={"value": 1})
    with site.database.read() as session:
        [record] = Export(session, "salt", everybody=True).ratings()
    assert record.messages[0].content == whole


def test_what_the_model_has_no_room_for_is_refused_and_nothing_is_saved(site: Site) -> None:
    conversation = site.new_conversation()  # with a context of 200 tokens, of which an answer gets 50
    reply = attach(site, conversation, NOTES | {"content": "word " * 160})
    assert reply.status_code == 400, reply.text
    error = reply.json()["error"]
    assert (error["code"], error["param"]) == ("context_length_exceeded", "attachments")
    assert "at most 150" in error["message"]
    assert site.messages(conversation) == []
    assert attach(site, conversation, NOTES | {"content": "word " * 100}).status_code == 200
    assert len(site.messages(conversation)) == 2


@pytest.mark.parametrize(
    "file",
    [
        {"name": "", "content": "x"},
        {"name": " ", "content": "x"},
        {"name": "two\nlines]", "content": "x"},
        {"name": "x" * 201, "content": "x"},
        {"name": "empty.txt", "content": ""},
        {"name": "large.txt", "content": "x" * 1_000_001},
        {"name": "x.txt", "content": "x", "type": "text/html"},
        {"name": "x.txt"},
    ],
)
def test_what_is_no_file_is_refused(site: Site, file: Json) -> None:
    conversation = site.new_conversation()
    reply = attach(site, conversation, file)
    assert reply.status_code == 400, reply.text
    assert "attachments" in reply.json()["error"]["message"]
    assert site.messages(conversation) == []


def test_not_too_many_and_no_nul(site: Site) -> None:
    conversation = site.new_conversation()
    assert attach(site, conversation, *[NOTES] * 11).status_code == 400
    attach(site, conversation, NOTES | {"content": "a\x00b"})
    assert site.messages(conversation)[0]["attachments"] == [NOTES | {"content": "a\ufffdb"}]


def test_files_take_them_along(site: Site) -> None:
    conversation = site.new_conversation()
    attach(site, conversation, NOTES, {"name": "code.md", "content": "````\nx\n````"})
    place = f"/api/conversations/{conversation}/export"
    markdown = site.client.get(place, params={"format": "markdown"}).text
    assert (
        "What is it?\n\nnotes.txt:\n\n```\nThe code is 4711.\n```\n\ncode.md:\n\n`````\n````\nx\n````\n`````\n"
        in markdown
    )
    saved = site.client.get(place).json()
    [made] = site.client.post("/api/conversations/import", json=saved).json()["data"]
    assert site.messages(made["id"])[0]["attachments"] == site.messages(conversation)[0]["attachments"]
    saved["messages"][0]["attachments"][0]["name"] = "\n"
    assert site.client.post("/api/conversations/import", json=saved).status_code == 400
