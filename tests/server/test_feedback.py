"""What people say of answers on the page, and who may learn from it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from chatwheel.feedback.export import Export
from chatwheel.store import accounts
from chatwheel.store.tables import MessageRow
from tests.server.conftest import MODEL, Site, read_events

OTHER = "quickstart/sft"


def answered(site: Site, question: str = "hello there") -> tuple[str, str]:
    """A conversation and its answer."""
    conversation = site.new_conversation()
    return conversation, site.ask(conversation, question)[-1][1]["id"]


def agree(site: Site, improve: bool = True) -> None:
    assert site.client.put("/api/consent", json={"improve": improve}).json() == {"improve": improve}


def exported(site: Site, kind: str, **options: bool) -> list[Any]:
    with site.database.read() as session:
        return list(getattr(Export(session, "salt", **options), kind)())


def test_a_thumb_has_reasons(site: Site) -> None:
    conversation, answer = answered(site)
    path = f"/api/messages/{answer}/rating"
    body = {"value": -1, "comment": "no\u0000", "reasons": ["made_up", "wrong", "wrong"]}
    expected = {"value": -1, "comment": "no\ufffd", "reasons": ["made_up", "wrong"]}
    assert site.client.put(path, json=body).json() == expected
    assert site.messages(conversation)[-1]["rating"] == expected
    wrong = site.client.put(path, json={"value": 1, "reasons": ["made_up"]})
    assert wrong.status_code == 400
    assert "right, helpful" in wrong.json()["error"]["message"]
    assert site.client.put(path, json={"value": 1, "reasons": ["nonsense"]}).status_code == 400
    assert site.messages(conversation)[-1]["rating"] == expected
    assert site.client.put(path, json={"value": 0}).json() is None


def test_two_answers_are_compared_blind(site: Site) -> None:
    conversation, answer = answered(site)
    reply = site.client.post(f"/api/messages/{answer}/alternative", json={"model": OTHER, "seed": 7})
    events = read_events(reply.text)
    start, other = events[0][1], events[-1][1]["id"]
    comparison = start["comparison"]
    assert {comparison["first_id"], comparison["second_id"]} == {answer, other}
    assert comparison["choice"] is None
    assert start["message"]["model"] is None
    assert OTHER not in reply.text
    path = f"/api/comparisons/{comparison['id']}"
    assert site.client.put(path, json={"choice": "both"}).status_code == 400
    shown = site.client.get(f"/api/conversations/{conversation}").json()
    assert OTHER not in json.dumps(shown)  # who wrote it is told when somebody has chosen
    assert {m["model"] for m in shown["messages"] if m["role"] == "assistant"} == {None}
    chosen = site.client.put(path, json={"choice": "second"}).json()
    assert chosen["choice"] == "second"
    assert chosen["models"] == [OTHER, "quickstart/ppo"][:: 1 if comparison["first_id"] == other else -1]
    shown = site.client.get(f"/api/conversations/{conversation}").json()
    assert shown["comparisons"] == [comparison | {"choice": "second"}]
    assert {m["model"] for m in shown["messages"] if m["role"] == "assistant"} == {OTHER, "quickstart/ppo"}
    with site.database.read() as session:
        row = session.get_one(MessageRow, other)
        assert row.sampling == {"temperature": 1.0, "top_p": 1.0, "max_tokens": 1024, "seed": 7}
        assert row.fingerprint is not None
    assert site.client.put("/api/comparisons/cmp-none", json={"choice": "tie"}).status_code == 404


def test_which_one_comes_first_is_drawn(site: Site) -> None:
    _, answer = answered(site)
    firsts = set()
    for _ in range(40):  # all the same once in 2^39
        events = read_events(site.client.post(f"/api/messages/{answer}/alternative", json={}).text)
        firsts.add(events[0][1]["comparison"]["first_id"] == answer)
    assert firsts == {True, False}


def test_only_answers_to_the_same_question_are_compared(site: Site) -> None:
    conversation, answer = answered(site)
    question = site.messages(conversation)[0]["id"]
    for message in (question, "msg-none"):
        assert site.client.post(f"/api/messages/{message}/alternative", json={}).status_code in (400, 404)
    assert len(site.messages(conversation)) == 2
    assert site.messages(conversation)[-1]["id"] == answer


def test_an_answer_is_corrected(site: Site) -> None:
    conversation, answer = answered(site)
    path = f"/api/messages/{answer}/correction"
    said = site.messages(conversation)[-1]["content"]
    for same in (said, f" {said}\n", "  "):
        assert site.client.put(path, json={"content": same}).status_code == 400
    assert site.client.put(path, json={"content": " What it should have been. "}).status_code == 200
    assert site.client.put(path, json={"content": "Better still."}).json()["content"] == "Better still."
    message = site.messages(conversation)[-1]
    assert (message["content"], message["correction"]) == (said, "Better still.")
    assert site.client.delete(path).status_code == 204
    assert site.messages(conversation)[-1]["correction"] is None


def test_reports_go_to_admins(site: Site) -> None:
    _, answer = answered(site, "<img src=x onerror=alert(1)>")
    path = f"/api/messages/{answer}/report"
    assert site.client.post(path, json={"reason": "ugly"}).status_code == 400
    for comment in ("first", "second"):
        assert site.client.post(path, json={"reason": "harmful", "comment": comment}).status_code == 204
    found = site.client.get("/api/reports").json()["data"]
    assert [(one["message_id"], one["reason"], one["comment"]) for one in found] == [(answer, "harmful", "second")]
    assert "onerror" in found[0]["answer"]  # as it was said: the page shows it as text
    assert site.client.post(f"/api/reports/{answer}/harmful/handled").status_code == 204
    assert site.client.get("/api/reports").json()["data"] == []
    assert len(site.client.get("/api/reports?handled=true").json()["data"]) == 1
    assert site.client.post(f"/api/reports/{answer}/spam/handled").status_code == 404
    with site.database.write() as session:
        local = accounts.local_principal(session)
        key = accounts.create_key(session, project_id=local.project_id, user_id=local.user_id, name="k").secret
    headers = {"authorization": f"Bearer {key}"}
    assert site.client.get("/api/reports", headers=headers).status_code == 403


def test_nobody_s_chats_are_learnt_from_unless_they_agree(site: Site) -> None:
    assert site.client.get("/api/consent").json() == {"improve": False}
    conversation, before = answered(site)
    site.client.put(f"/api/messages/{before}/rating", json={"value": 1})
    agree(site)
    _, answer = answered(site, "What is 1 + 1?")
    site.client.put(f"/api/messages/{answer}/rating", json={"value": -1, "reasons": ["wrong"]})
    site.client.put(f"/api/messages/{answer}/correction", json={"content": "2"})
    events = read_events(site.client.post(f"/api/messages/{answer}/alternative", json={"model": OTHER}).text)
    comparison = events[0][1]["comparison"]
    site.client.put(f"/api/comparisons/{comparison['id']}", json={"choice": "first"})

    (rating,) = exported(site, "ratings")  # not the one from before
    assert (rating.rating, rating.reasons, rating.model) == (-1, ["wrong"], "quickstart/ppo")
    assert answer not in rating.model_dump_json()  # an id would tell two exports' people
    assert [m.content for m in rating.messages] == ["What is 1 + 1?"]
    choice, correction = exported(site, "rankings")
    assert choice.ranks == [1, 2]
    assert choice.models == ["quickstart/ppo", OTHER][:: 1 if comparison["first_id"] == answer else -1]
    assert correction.answers[0] == "2"
    assert choice.labeller == correction.labeller == rating.labeller
    (demonstration,) = exported(site, "demonstrations")
    assert [m.content for m in demonstration.messages] == ["What is 1 + 1?", "2"]
    assert len(exported(site, "ratings", everybody=True)) == 2

    agree(site, False)  # nothing of theirs any more, not even as one of everybody
    for kind in ("ratings", "rankings", "demonstrations"):
        assert exported(site, kind) == exported(site, kind, everybody=True) == []
    agree(site)  # what was said before is not agreed to again
    assert exported(site, "ratings") == []
    site.client.put(f"/api/messages/{answer}/rating", json={"value": -1})
    assert exported(site, "ratings") == []  # nor is a conversation from before
    site.client.delete(f"/api/conversations/{conversation}")
    assert len(exported(site, "ratings", everybody=True)) == 1
    audit = site.client.get("/v1/organization/audit_logs").json()["data"]
    assert [one["type"] for one in audit if one["type"].startswith("consent")][::-1] == [
        "consent.given",
        "consent.refused",
        "consent.given",
    ]


def test_a_conversation_that_began_before_they_agreed_stays_theirs(site: Site) -> None:
    conversation, _ = answered(site, "my PIN is 1234")
    agree(site)
    answer = site.ask(conversation, "and what is 1 + 1?")[-1][1]["id"]
    site.client.put(f"/api/messages/{answer}/rating", json={"value": 1})
    assert exported(site, "ratings") == []
    assert len(exported(site, "ratings", everybody=True)) == 1


def test_what_broke_off_is_not_ranked_and_what_failed_is_not_in_the_prompt(site: Site) -> None:
    agree(site)
    conversation, _ = answered(site)
    failed = site.ask(conversation, "fail")[-1][1]
    assert failed["status"] == "error"
    events = read_events(site.client.post(f"/api/messages/{failed['id']}/alternative", json={}).text)
    site.client.put(f"/api/comparisons/{events[0][1]['comparison']['id']}", json={"choice": "first"})
    site.client.put(f"/api/messages/{failed['id']}/rating", json={"value": -1})
    with site.database.read() as session:
        export = Export(session, "salt")
        assert list(export.rankings()) == list(export.ratings()) == []
        assert export.incomplete == 2


def test_the_better_answer_is_gone_on_with(site: Site) -> None:
    conversation, answer = answered(site)
    events = read_events(site.client.post(f"/api/messages/{answer}/alternative", json={"model": OTHER}).text)
    comparison, other = events[0][1]["comparison"], events[-1][1]["id"]

    def follows(expected: str) -> None:
        asked = site.ask(conversation, "and then?")[0][1]
        assert asked["user_message"]["parent_id"] == expected
        assert asked["conversation"]["model"] == "quickstart/ppo"

    follows(answer)  # nobody has said that the other one is better
    place = "second" if comparison["second_id"] == other else "first"
    site.client.put(f"/api/comparisons/{comparison['id']}", json={"choice": place})
    newest = site.messages(conversation)[-1]["id"]
    follows(newest)


@pytest.mark.parametrize(("choice", "expected"), [("tie", [1, 1]), ("both_bad", None)])
def test_ties_are_told_and_two_bad_ones_are_not(site: Site, choice: str, expected: list[int] | None) -> None:
    agree(site)
    _, answer = answered(site)
    events = read_events(site.client.post(f"/api/messages/{answer}/alternative", json={}).text)
    site.client.put(f"/api/comparisons/{events[0][1]['comparison']['id']}", json={"choice": choice})
    assert [record.ranks for record in exported(site, "rankings")] == ([expected] if expected else [])


def test_what_belongs_to_a_deleted_conversation_is_gone(site: Site) -> None:
    agree(site)
    conversation, answer = answered(site)
    site.client.put(f"/api/messages/{answer}/rating", json={"value": 1})
    site.client.put(f"/api/messages/{answer}/correction", json={"content": "Mine."})
    site.client.post(f"/api/messages/{answer}/report", json={"reason": "spam"})
    events = read_events(site.client.post(f"/api/messages/{answer}/alternative", json={}).text)
    choice = f"/api/comparisons/{events[0][1]['comparison']['id']}"
    site.client.put(choice, json={"choice": "first"})
    kinds = {"ratings": 1, "rankings": 2, "demonstrations": 1}
    assert {kind: len(exported(site, kind, everybody=True)) for kind in kinds} == kinds
    site.client.delete(f"/api/conversations/{conversation}")
    for kind in kinds:
        assert exported(site, kind, everybody=True) == []
    assert site.client.get("/api/reports").json()["data"] == []
    assert site.client.put(choice, json={"choice": "tie"}).status_code == 404
    assert site.client.get(f"/api/conversations/{conversation}/export").status_code == 404
    assert site.client.post(f"/api/conversations/{conversation}/restore").status_code == 200
    assert {kind: len(exported(site, kind, everybody=True)) for kind in kinds} == kinds


def test_what_was_deleted_goes_though_nobody_asks(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setattr("chatwheel.server.services.PURGE_SECONDS", 0.05)
    monkeypatch.setattr("chatwheel.store.conversations.UNDO_SECONDS", 0.2)
    site: Site = request.getfixturevalue("site")
    conversation, _ = answered(site)
    site.client.delete(f"/api/conversations/{conversation}")
    until = time.monotonic() + 20
    while time.monotonic() < until:
        with site.database.read() as session:
            if not session.scalar(text("SELECT count(*) FROM messages")):
                return
        time.sleep(0.05)
    raise AssertionError("it is still there")


def test_what_is_learnt_has_the_system_turn_that_the_model_saw(site: Site) -> None:
    persona = site.client.post("/api/personas", json={"name": "Pirate", "system_prompt": "Arr."}).json()["id"]
    conversation = site.client.post("/api/conversations", json={"model": MODEL, "persona": persona}).json()["id"]
    answer = site.ask(conversation, "hello")[-1][1]["id"]
    site.client.put(f"/api/messages/{answer}/rating", json={"value": 1})
    site.client.put(f"/api/messages/{answer}/correction", json={"content": "Ahoy."})
    for kind, number in (("ratings", 1), ("rankings", 1), ("demonstrations", 1)):
        records = exported(site, kind, everybody=True)
        assert len(records) == number
        assert [(turn.role, turn.content) for turn in records[0].messages[:2]] == [
            ("system", "Arr."),
            ("user", "hello"),
        ]


def test_the_command_writes_what_was_said(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from chatwheel.cli.feedback import KindOption, export
    from chatwheel.errors import InputError

    home = tmp_path
    _, answer = answered(site)
    site.client.put(f"/api/messages/{answer}/rating", json={"value": 1})
    out = tmp_path / "thumbs.jsonl"
    with pytest.raises(InputError, match="there are no ratings yet of people who have agreed to it"):
        export(out, KindOption.ratings, everybody=False, home=home)
    assert not out.exists()
    export(out, KindOption.ratings, everybody=True, home=home, as_json=True)
    assert json.loads(capsys.readouterr().out) == {"written": {str(out): 1}, "incomplete": 0}
    assert out.stat().st_mode & 0o777 == 0o600
    record = json.loads(out.read_text())
    assert record["rating"] == 1
    assert record["labeller"].startswith("person-")
