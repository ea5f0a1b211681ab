"""The page's own resources: conversations, answers, ratings."""

from __future__ import annotations

import threading
import time
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from chatwheel.feedback.export import Export
from chatwheel.store import accounts
from chatwheel.store.conversations import list_messages
from chatwheel.store.tables import MessageRow, UsageRow
from tests.server.conftest import MODEL, Site, read_events
from tests.server.live import LiveServer


def test_a_conversation_is_made_listed_renamed_and_deleted(site: Site) -> None:
    conversation = site.new_conversation()
    site.ask(conversation, "hello")
    [listed] = site.client.get("/api/conversations").json()["data"]
    assert (listed["id"], listed["title"], listed["model"]) == (conversation, "hello", MODEL)
    renamed = site.client.patch(f"/api/conversations/{conversation}", json={"title": "你好"})
    assert renamed.json()["title"] == "你好"
    assert site.client.delete(f"/api/conversations/{conversation}").status_code == 204
    assert site.client.get(f"/api/conversations/{conversation}").status_code == 404
    assert site.client.get("/api/conversations").json()["data"] == []


def test_the_events_of_an_answer(site: Site) -> None:
    conversation = site.new_conversation()
    events = site.ask(conversation, "hello")
    assert [name for name, _ in events] == ["start", "delta", "delta", "delta", "done"]
    start, done = events[0][1], events[-1][1]
    assert start["user_message"]["content"] == "hello"
    assert done == {"id": start["message"]["id"], "status": "complete"}
    question, answer = site.messages(conversation)
    assert question["id"] == start["user_message"]["id"]
    assert (answer["id"], answer["parent_id"]) == (done["id"], question["id"])
    assert (answer["content"], answer["status"], answer["model"]) == ("ppo heard: hello", "complete", MODEL)
    assert answer["content"] == "".join(data["text"] for name, data in events if name == "delta")


def test_a_turn_goes_on_after_the_newest_and_the_model_sees_it_all(site: Site) -> None:
    conversation = site.new_conversation()
    site.ask(conversation, "one")
    site.ask(conversation, "two", model="quickstart/sft")
    turns = [(turn.role, turn.content) for turn in site.models.loaded[-1].prompts[-1]]
    assert turns == [("user", "one"), ("assistant", "ppo heard: one"), ("user", "two")]
    assert site.client.get(f"/api/conversations/{conversation}").json()["model"] == "quickstart/sft"


def test_answering_is_greedy_unless_asked_otherwise(site: Site) -> None:
    conversation = site.new_conversation()
    site.ask(conversation, "one")
    site.ask(conversation, "two", temperature=0.7, max_tokens=2, seed=3)
    first, second = site.models.loaded[0].params
    assert first.temperature == 0
    assert (second.temperature, second.max_tokens, second.seed) == (0.7, 2, 3)


def test_the_users_message_is_saved_before_generating(site: Site) -> None:
    conversation = site.new_conversation()
    seen: list[list[MessageRow]] = []
    load = site.models.load

    class Spy:
        def __init__(self, inner: Any) -> None:
            self.inner = inner

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

        def count_tokens(self, messages: Any) -> int:
            with site.database.read() as session:
                seen.append(list(list_messages(session, conversation)))
            return int(self.inner.count_tokens(messages))

    site.models.load = load  # type: ignore[method-assign]
    pool = site.client.app.state.services.models  # type: ignore[attr-defined]
    pool._load = lambda directory: Spy(load(directory))
    site.ask(conversation, "remember me")
    assert [(row.role, row.content, row.status) for row in seen[0]] == [
        ("user", "remember me", "complete"),
        ("assistant", "", "partial"),
    ]


def test_regenerating_makes_a_sibling(site: Site) -> None:
    conversation = site.new_conversation()
    answer = site.ask(conversation, "one")[-1][1]["id"]
    response = site.client.post(
        f"/api/messages/{answer}/regenerate", json={"temperature": 0.8, "model": "quickstart/sft"}
    )
    events = read_events(response.text)
    assert "user_message" not in events[0][1]
    question, first, second = site.messages(conversation)
    assert first["parent_id"] == second["parent_id"] == question["id"]
    assert [first["content"], second["content"]] == ["ppo heard: one", "sft heard: one"]


def test_editing_begins_a_branch_that_does_not_see_the_other(site: Site) -> None:
    conversation = site.new_conversation()
    site.ask(conversation, "one")
    site.ask(conversation, "two")
    site.ask(conversation, "uno", parent_id=None)
    assert [turn.content for turn in site.models.loaded[0].prompts[-1]] == ["uno"]


def test_a_failed_answer_keeps_its_text_and_says_error(site: Site) -> None:
    conversation = site.new_conversation()
    events = site.ask(conversation, "fail")
    assert [name for name, _ in events] == ["start", "delta", "delta", "error", "done"]
    assert events[-1][1]["status"] == "error"
    assert "secret" not in str(events)
    assert site.messages(conversation)[1]["content"] == "ppo heard:"
    assert site.messages(conversation)[1]["status"] == "error"


def test_an_answer_that_never_came_is_not_in_the_next_prompt(site: Site) -> None:
    conversation = site.new_conversation()
    site.ask(conversation, "overload")
    site.ask(conversation, "two")
    assert [turn.content for turn in site.models.loaded[0].prompts[-1]] == ["two"]


def test_the_oldest_turns_make_room(site: Site) -> None:
    conversation = site.new_conversation()
    for number in range(4):
        site.ask(conversation, f"{number} " + "word " * 30)
    events = site.ask(conversation, "last")
    assert [data for name, data in events if name == "note"] == [{"left_out": 4}]
    prompt = site.models.loaded[0].prompts[-1]
    assert prompt[0].role == "user"
    assert prompt[0].content.startswith("2 ")
    assert prompt[-1].content == "last"


def test_a_message_that_alone_is_too_long_is_an_error(site: Site) -> None:
    conversation = site.new_conversation()
    events = site.ask(conversation, "word " * 300)
    assert dict(events)["error"]["error"]["code"] == "context_length_exceeded"


def test_ratings(site: Site) -> None:
    conversation = site.new_conversation()
    answer = site.ask(conversation, "one")[-1][1]["id"]
    path = f"/api/messages/{answer}/rating"
    assert site.client.put(path, json={"value": 1}).json() == {"value": 1, "comment": None, "reasons": []}
    assert site.client.put(path, json={"value": -1, "comment": "wrong"}).status_code == 200
    assert site.messages(conversation)[1]["rating"] == {"value": -1, "comment": "wrong", "reasons": []}
    with site.database.read() as session:
        [read] = Export(session, "salt", everybody=True).ratings()
        assert (read.rating, [(m.role, m.content) for m in read.messages]) == (-1, [("user", "one")])
    assert site.client.put(path, json={"value": 0}).json() is None
    assert site.messages(conversation)[1]["rating"] is None


@pytest.mark.parametrize("body", [{"value": 2}, {"value": "1"}, {}, {"value": 1, "comment": "x" * 3000}, {"stars": 5}])
def test_a_bad_rating_is_400(site: Site, body: dict[str, Any]) -> None:
    answer = site.ask(site.new_conversation(), "one")[-1][1]["id"]
    assert site.client.put(f"/api/messages/{answer}/rating", json=body).status_code == 400


def test_what_is_not_there_is_404(site: Site) -> None:
    client = site.client
    assert client.get("/api/conversations/conv-none").status_code == 404
    assert client.post("/api/conversations/conv-none/messages", json={"content": "x"}).status_code == 404
    assert client.put("/api/messages/msg-none/rating", json={"value": 1}).status_code == 404
    assert client.post("/api/messages/msg-none/regenerate", json={}).status_code == 404
    assert client.post("/api/messages/msg-none/stop").status_code == 404
    assert client.post("/api/conversations", json={"model": "none"}).status_code == 404
    assert client.delete("/api/conversations/conv-none").json()["error"]["type"] == "invalid_request_error"


def wait_for_answer(server: LiveServer, conversation: str) -> MessageRow:
    """The answer's row once nobody is writing it any more."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if server.models.loaded and server.models.loaded[0].num_cancelled:
            with server.database.read() as session:
                row = list_messages(session, conversation)[-1]
                if row.content:
                    return row
        time.sleep(0.02)
    raise AssertionError("the answer was neither cancelled nor saved")


def start_counting(client: httpx.Client, conversation: str) -> Any:
    body = {"content": "count to 100"}
    return client.stream("POST", f"/api/conversations/{conversation}/messages", json=body)


def read_until(response: httpx.Response, text: str) -> str:
    seen = ""
    for piece in response.iter_text():
        seen += piece
        if text in seen:
            return seen
    raise AssertionError(f"{text!r} never came: {seen}")


def test_partial_text_is_kept_when_the_client_goes_away(live_server: LiveServer) -> None:
    with httpx.Client(base_url=live_server.url, timeout=20) as client:
        conversation = client.post("/api/conversations", json={"model": MODEL}).json()["id"]
        with start_counting(client, conversation) as response:
            read_until(response, '"5 "')
        row = wait_for_answer(live_server, conversation)
        assert row.status == "partial"
        assert row.content.startswith("1 2 3 4 5")
        assert "100" not in row.content
        assert client.get(f"/api/conversations/{conversation}").json()["messages"][0]["content"] == "count to 100"


def test_an_answer_whose_client_leaves_while_its_question_is_saved_is_nobody_s(
    live_server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The save goes on in its thread; who says that nobody writes the answer comes after it."""
    saving, left = threading.Event(), threading.Event()
    transact = live_server.database.transact

    def slow(work: Any) -> Any:
        if getattr(work, "__qualname__", "").startswith("_answer."):
            saving.set()
            assert left.wait(20)
            time.sleep(0.5)  # the server has to see that the client has gone
        return transact(work)

    monkeypatch.setattr(live_server.database, "transact", slow)
    with httpx.Client(base_url=live_server.url, timeout=20) as client:
        conversation = client.post("/api/conversations", json={"model": MODEL}).json()["id"]
        path = f"/api/conversations/{conversation}/messages"
        with pytest.raises(httpx.ReadTimeout):
            client.post(path, json={"content": "hello"}, timeout=0.5)
        assert saving.is_set()
        left.set()
        deadline = time.monotonic() + 10
        rows: list[MessageRow] = []
        while not (rows and rows[-1].writer is None) and time.monotonic() < deadline:
            with live_server.database.read() as session:
                rows = list(list_messages(session, conversation))
            time.sleep(0.02)
    assert [(row.role, row.status, row.writer) for row in rows] == [
        ("user", "complete", None),
        ("assistant", "partial", None),
    ]


def test_stop_keeps_the_text_and_ends_the_stream(live_server: LiveServer) -> None:
    with httpx.Client(base_url=live_server.url, timeout=20) as client:
        conversation = client.post("/api/conversations", json={"model": MODEL}).json()["id"]
        with start_counting(client, conversation) as response:
            pieces = response.iter_text()
            seen = ""
            while '"5 "' not in seen:
                seen += next(pieces)
            message = dict(read_events(seen.rsplit("\n\n", 1)[0]))["start"]["message"]["id"]
            stopped = client.post(f"/api/messages/{message}/stop").json()
            seen += "".join(pieces)
        assert stopped["status"] == "partial"
        assert stopped["content"].startswith("1 2 3 4 5")
        events = read_events(seen)
        assert events[-1] == ("done", {"id": message, "status": "partial"})
        text = "".join(data["text"] for name, data in events if name == "delta")
        assert text == stopped["content"]


def test_a_client_that_leaves_frees_the_engine(live_server: LiveServer) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "count to 100"}]}
    with httpx.Client(base_url=live_server.url) as client:
        with client.stream("POST", "/v1/chat/completions", json=body | {"stream": True}) as response:
            read_until(response, '"5 "')
        with pytest.raises(httpx.ReadTimeout):
            client.post("/v1/chat/completions", json=body, timeout=0.5)
        deadline = time.monotonic() + 5
        while live_server.models.loaded[0].num_cancelled < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
    assert live_server.models.loaded[0].num_cancelled == 2


def test_answers_in_progress_are_saved_at_shutdown(tmp_path: Any) -> None:
    from tests.server.live import make_app, run_server

    app, database, _ = make_app(tmp_path)
    with httpx.Client(timeout=20) as client:
        with run_server(app) as url:
            client.base_url = httpx.URL(url)
            conversation = client.post("/api/conversations", json={"model": MODEL}).json()["id"]
            stream = start_counting(client, conversation)
            read_until(stream.__enter__(), '"3 "')
        with database.read() as session:
            row = list_messages(session, conversation)[-1]
    assert row.status == "partial"
    assert row.content.startswith("1 2 3")


def test_a_wrong_parent_costs_no_request(site: Site) -> None:
    conversation, other = site.new_conversation(), site.new_conversation()
    question = site.ask(conversation, "first")[0][1]["user_message"]["id"]
    elsewhere = site.ask(other, "first")[-1][1]["id"]
    with site.database.read() as session:
        before = session.scalar(select(func.count()).select_from(UsageRow))
    for parent in ("msg-none", question, elsewhere):
        reply = site.client.post(
            f"/api/conversations/{conversation}/messages", json={"content": "second", "parent_id": parent}
        )
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, "parent_id")
    with site.database.read() as session:
        assert session.scalar(select(func.count()).select_from(UsageRow)) == before
    assert len(site.messages(conversation)) == 2


@pytest.mark.parametrize("limits", [{"requests_per_minute": 1}, {"budget": 0}])
def test_whom_a_limit_refuses_finds_nothing_saved(site: Site, limits: dict[str, int]) -> None:
    """A question that was saved all the same would be there twice when it is asked again."""
    with site.database.write() as session:
        local = accounts.local_principal(session)
    conversation = site.new_conversation()
    site.ask(conversation, "first")
    before = site.client.get(f"/api/conversations/{conversation}").json()
    answer = before["messages"][-1]["id"]
    with site.database.write() as session:
        accounts.change_project(session, local.project_id, limits=limits)
    if "requests_per_minute" in limits:  # the bucket is made full, and this takes what is in it
        assert site.chat().status_code == 200
    code = "rate_limit_exceeded" if "requests_per_minute" in limits else "insufficient_quota"
    asked = {
        f"/api/conversations/{conversation}/messages": {"content": "second"},
        f"/api/messages/{answer}/regenerate": {},
    }
    for path, body in asked.items():
        for _ in range(2):
            reply = site.client.post(path, json=body)
            assert reply.status_code == 429
            assert reply.json()["error"]["code"] == code
            assert ("retry-after" in reply.headers) == (code == "rate_limit_exceeded")
    assert site.client.get(f"/api/conversations/{conversation}").json() == before
    with site.database.write() as session:
        accounts.change_project(session, local.project_id, limits=dict.fromkeys(limits))
    assert site.ask(conversation, "second")[-1][1]["status"] == "complete"
    assert [message["content"] for message in site.messages(conversation)] == [
        "first",
        "ppo heard: first",
        "second",
        "ppo heard: second",
    ]


def test_search_finds_titles_and_messages_of_ones_own(site: Site) -> None:
    conversation = site.new_conversation()
    site.ask(conversation, "where is the needle? 机器学习")
    answer, title = (site.client.get("/api/conversations/search", params={"q": q}).json() for q in ("heard", "学习"))
    [hit] = answer["data"]
    assert (hit["conversation"]["id"], hit["role"]) == (conversation, "assistant")
    assert hit["snippet"][1] == "heard"
    assert [hit["role"] for hit in title["data"]] == ["assistant", "user", None]
    assert [hit["message_id"] is None for hit in title["data"]] == [False, False, True]
    few = site.client.get("/api/conversations/search", params={"q": "needle", "limit": 1}).json()["data"]
    assert [hit["role"] for hit in few] == ["assistant"]
    assert site.client.get("/api/conversations/search", params={"q": "?!"}).json() == {"data": []}
    for wrong in ({}, {"q": "x" * 1001}, {"q": "x", "limit": 0}):
        assert site.client.get("/api/conversations/search", params=wrong).status_code == 400
    site.client.delete(f"/api/conversations/{conversation}")
    assert site.client.get("/api/conversations/search", params={"q": "needle"}).json() == {"data": []}
