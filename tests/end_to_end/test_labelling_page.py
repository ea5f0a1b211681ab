"""The labelling room in a browser: answers are ranked by the mouse, by keys and by a finger; nothing is lost."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from chatwheel.store.database import Database
from chatwheel.store.tables import LabellingAnswerRow, LabellingJudgementRow, LabellingTaskRow
from tests.end_to_end.conftest import DESKTOP, OpenAddress
from tests.end_to_end.labels import unlabelled
from tests.server.live import LiveServer

Json = dict[str, Any]
GUIDELINES = "Prefer what is **right** over what is long.\n\n- Wrong: last place\n- Ties are fine"
TEXTS = ["Paris.", "It is **Paris**, on the Seine.", "Lyon, I believe.", "I do not know."]


def post(url: str, path: str, body: Json) -> Any:
    reply = httpx.post(f"{url}/v1/labelling/{path}", json=body)
    assert reply.status_code in (200, 201), reply.text
    return reply.json()


def new_queue(url: str, kind: str = "rank", tasks: int = 2, answers: int = 4, **fields: Any) -> str:
    body = {"name": "Capitals", "kind": kind, "guidelines": GUIDELINES, "labellers": 1} | fields
    queue = str(post(url, "queues", body)["id"])
    made = [
        {
            "messages": [{"role": "user", "content": f"What is the capital of France? ({number})"}],
            "answers": [{"content": f"{text}", "model": "secret"} for text in TEXTS[:answers]],
        }
        for number in range(tasks)
    ]
    post(url, f"queues/{queue}/tasks", {"tasks": made})
    return queue


def judged(database: Database) -> list[Json]:
    """What was handed in: ranks by text, labels, text."""
    with database.read() as session:
        found = []
        for row in session.query(LabellingJudgementRow).order_by(LabellingJudgementRow.id).all():
            answers = (
                session.query(LabellingAnswerRow).filter_by(task_id=row.task_id).order_by(LabellingAnswerRow.place)
            )
            texts = [answer.content for answer in answers]
            task = session.get_one(LabellingTaskRow, row.task_id)
            ranks = dict(zip(texts, row.ranks, strict=True)) if row.ranks else None
            found.append(
                {"ranks": ranks, "labels": row.labels, "text": row.text, "action": row.action, "place": task.place}
                | {"seconds": row.seconds}
            )
        return found


def cards(page: Page) -> list[str]:
    """The answers' texts as they lie."""
    return [text.strip() for text in page.locator("ol article .prose").all_inner_texts()]


def places(page: Page) -> list[str]:
    return page.locator("ol article .rank").all_inner_texts()


def shown(page: Page, number: int) -> None:
    expect(page.get_by_text(f"What is the capital of France? ({number})")).to_be_visible()


def plain(text: str) -> str:
    return text.replace("**", "")


@pytest.fixture
def at_queue(live_server: LiveServer, open_address: OpenAddress) -> Callable[..., Page]:
    """Opens a new queue's task."""

    def open_it(kind: str = "rank", **options: Any) -> Page:
        how = {name: options.pop(name) for name in ("phone", "locale", "dark") if name in options}
        return open_address(f"{live_server.url}/#/label/{new_queue(live_server.url, kind, **options)}", **how)

    return open_it


def test_answers_are_ranked_by_keys_alone(at_queue: Callable[..., Page], live_server: LiveServer) -> None:
    page = at_queue()
    shown(page, 0)
    expect(page.get_by_text("Prefer what is right over")).to_be_visible()
    assert "secret" not in page.content()
    first = cards(page)
    expect(page.get_by_role("button", name="Submit")).to_be_disabled()
    page.keyboard.press("Enter")
    expect(page.get_by_text("Each answer needs its place")).to_be_visible()
    page.keyboard.press("ArrowDown")  # the first one
    page.keyboard.press("2")  # and on to the next without a place
    page.keyboard.press("1")
    page.keyboard.press("3")
    assert places(page)[:3] == ["1", "2", "3"]
    page.keyboard.press("3")  # the same digit is a tie
    expected = [first[1], first[0], first[2], first[3]]
    assert cards(page) == expected
    assert places(page) == ["1", "2", "3", "3"]
    page.keyboard.press("Shift+ArrowUp")  # the last one leaves its tie, then passes the second
    assert places(page) == ["1", "2", "3", "4"]
    page.keyboard.press("Shift+ArrowUp")
    assert cards(page) == [first[1], first[3], first[0], first[2]]
    page.keyboard.press("=")
    assert places(page) == ["1", "1", "3", "4"]
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Shortcuts")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("Enter")
    shown(page, 1)
    (one,) = judged(live_server.database)
    by_text = {plain(text): rank for text, rank in one["ranks"].items()}
    assert by_text == {first[1]: 1, first[3]: 1, first[0]: 3, first[2]: 4}
    assert 0 < one["seconds"] < 60
    page.keyboard.press("u")  # what was handed in comes again, as it was
    shown(page, 0)
    assert places(page) == ["1", "1", "3", "4"]
    page.keyboard.press("j")
    page.keyboard.press("4")
    page.keyboard.press("Enter")
    shown(page, 1)
    page.keyboard.press("s")
    expect(page.get_by_text("That is all for now")).to_be_visible()
    assert [row["action"] for row in judged(live_server.database)] == ["judged", "judged", "skipped"]
    assert unlabelled(page) == []


def drag(page: Page, source: str, target: str, share: float) -> None:
    """From one card's handle to a height of another card; `share` of its height from its top."""
    boxes = {}
    for text in (source, target):
        card = page.locator("ol article").filter(has_text=text)
        boxes[text] = card.bounding_box(), card.locator(".handle").bounding_box()
    _, handle = boxes[source]
    box, _ = boxes[target]
    assert handle is not None
    assert box is not None
    x, y = handle["x"] + handle["width"] / 2, handle["y"] + handle["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    for step in range(1, 9):
        page.mouse.move(x, y + (box["y"] + box["height"] * share - y) * step / 8)
    page.mouse.up()
    page.wait_for_timeout(250)


def test_answers_are_dragged_by_the_mouse(at_queue: Callable[..., Page], live_server: LiveServer) -> None:
    page = at_queue(tasks=1)
    shown(page, 0)
    first = cards(page)
    drag(page, first[3], first[0], -0.05)
    assert cards(page) == [first[3], first[0], first[1], first[2]]
    assert places(page) == ["1", "2", "3", "4"]
    drag(page, first[0], first[2], 1.2)
    assert cards(page) == [first[3], first[1], first[2], first[0]]
    drag(page, first[0], first[1], 0.5)  # on the middle of another one: a tie
    assert places(page) == ["1", "2", "2", "4"]
    page.get_by_role("button", name="Untie these two").click()
    assert places(page) == ["1", "2", "3", "4"]
    page.get_by_role("button", name="Tie these two").last.click()
    assert places(page) == ["1", "2", "3", "3"]
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_text("That is all for now")).to_be_visible()
    (one,) = judged(live_server.database)
    assert sorted(one["ranks"].values()) == [1, 2, 3, 3]
    assert plain(min(one["ranks"], key=one["ranks"].get)) == first[3]


def test_a_finger_drags_on_a_phone(at_queue: Callable[..., Page], live_server: LiveServer) -> None:
    page = at_queue(tasks=1, answers=3, phone=True)
    shown(page, 0)
    expect(page.get_by_text("Prefer what is right over")).to_be_hidden()
    page.locator("summary", has_text="Guidelines").tap()
    expect(page.get_by_text("Prefer what is right over")).to_be_visible()
    page.locator("summary", has_text="Guidelines").tap()
    first = cards(page)
    handle = page.locator("ol article").filter(has_text=first[2]).locator(".handle").bounding_box()
    top = page.locator("ol article").filter(has_text=first[0]).bounding_box()
    assert handle is not None
    assert top is not None
    x, y = handle["x"] + handle["width"] / 2, handle["y"] + 20
    touch = page.context.new_cdp_session(page)
    touch.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]})
    for step in range(1, 11):
        point = {"x": x, "y": y + (top["y"] - 4 - y) * step / 10}
        touch.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [point]})
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    page.wait_for_timeout(600)  # what comes sooner is a double tap
    assert cards(page) == [first[2], first[0], first[1]]
    page.get_by_role("button", name="Submit").tap()
    expect(page.get_by_text("That is all for now")).to_be_visible()
    (one,) = judged(live_server.database)
    assert {plain(text): rank for text, rank in one["ranks"].items()} == {first[2]: 1, first[0]: 2, first[1]: 3}
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_what_is_written_is_kept(at_queue: Callable[..., Page], live_server: LiveServer) -> None:
    page = at_queue("reply", tasks=1, answers=0)
    field = page.get_by_label("Your reply")
    expect(field).to_be_focused()
    page.keyboard.type("Paris, s and r are no keys here?")
    expect(page.get_by_text("Draft kept")).to_be_visible()
    page.reload()
    expect(field).to_have_value("Paris, s and r are no keys here?")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_text("That is all for now")).to_be_visible()
    assert [row["text"] for row in judged(live_server.database)] == ["Paris, s and r are no keys here?"]


def test_labels_are_given_by_keys(at_queue: Callable[..., Page], live_server: LiveServer) -> None:
    page = at_queue("rate", tasks=1, answers=1)
    shown(page, 0)
    page.keyboard.press("ArrowDown")
    for key in "0100542":
        page.keyboard.press(key)
    page.locator("fieldset").last.get_by_text("3", exact=True).click()
    page.keyboard.press("Enter")
    expect(page.get_by_text("That is all for now")).to_be_visible()
    (one,) = judged(live_server.database)
    assert one["labels"] == {
        "spam": False, "fails the task": True, "personal data": False, "hateful": False,
        "quality": 5, "helpfulness": 4, "harmlessness": 3,
    }  # fmt: skip


def test_a_report_takes_the_task_away(at_queue: Callable[..., Page], live_server: LiveServer) -> None:
    page = at_queue(tasks=1)
    shown(page, 0)
    page.keyboard.press("r")
    page.get_by_role("dialog").get_by_label("Spam").check()
    page.get_by_role("dialog").get_by_role("button", name="Report").click()
    expect(page.get_by_text("That is all for now")).to_be_visible()
    queue = page.url.split("/")[-1]
    page.goto(f"{live_server.url}/#/label/{queue}/report")
    page.get_by_role("button", name="Give it out again").click()
    expect(page.get_by_role("button", name="Give it out again")).to_be_hidden()


@pytest.fixture
def refused(browser: Browser, live_server: LiveServer) -> Iterator[Page]:
    """A page on which requests are refused, which the browser counts as errors; there are no others."""
    errors: list[str] = []
    page = browser.new_page(locale="en-US", viewport=DESKTOP)  # type: ignore[arg-type]
    page.on("console", lambda told: errors.append(told.text) if told.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(live_server.url)
    yield page
    page.close()
    assert errors
    assert [error for error in errors if "400 (Bad Request)" not in error and "409 (Conflict)" not in error] == []


def test_a_task_that_is_gone_by_now_is_left(refused: Page, live_server: LiveServer) -> None:
    page = refused
    page.goto(f"{live_server.url}/#/label/{new_queue(live_server.url, tasks=2, answers=2)}")
    shown(page, 0)
    with live_server.database.write() as session:
        session.query(LabellingTaskRow).filter_by(place=0).update({"state": "withdrawn"})
    page.keyboard.press("1")
    page.keyboard.press("2")
    page.keyboard.press("Enter")
    shown(page, 1)
    expect(page.get_by_text("Somebody else has this task meanwhile")).to_be_visible()
    assert judged(live_server.database) == []


def test_a_round_is_made_filled_and_decided_on_the_page(refused: Page, live_server: LiveServer, tmp_path: Path) -> None:
    page = refused
    page.goto(f"{live_server.url}/#/label")
    expect(page.get_by_text("There is nothing to label yet")).to_be_visible()
    page.get_by_role("button", name="New queue").click()
    page.get_by_label("Name").fill("Pairs")
    page.get_by_label("People per task").fill("1")
    page.get_by_role("button", name="Make the queue").click()
    page.get_by_role("button", name="Add tasks Pairs").click()
    turns = "\n\nHuman: {q}\n\nAssistant: {a}"
    lines = [
        json.dumps({"chosen": turns.format(q=q, a="yes"), "rejected": turns.format(q=q, a="no")}) for q in ("1?", "2?")
    ]
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n".join([*lines, '{"chosen": 1}']))
    page.get_by_label("Choose a file").set_input_files(file)
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.get_by_role("dialog").get_by_text("pairs.jsonl, line 3")).to_be_visible()
    file.write_text("\n".join(lines))
    page.get_by_label("Choose a file").set_input_files(file)
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.get_by_text("2 added")).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("link", name="Start labelling Pairs").click()
    for _ in range(2):
        expect(page.locator("ol article .prose").first).to_be_visible()
        before = page.locator(".asked").inner_text()
        page.keyboard.press("ArrowDown")
        for place in (
            ("1", "2") if cards(page)[0] == "yes" else ("2", "1")
        ):  # as the file: against it nothing is decided
            page.keyboard.press(place)
        page.keyboard.press("Enter")
        expect(page.locator(".asked", has_text=before)).to_be_hidden()
    page.goto(f"{page.url}/report")
    expect(page.get_by_role("heading", name="Labellers")).to_be_visible()
    with page.expect_download() as waited:
        page.get_by_role("button", name="Download").click()
    assert waited.value.suggested_filename.endswith("ranked.jsonl")
    assert unlabelled(page) == []


def test_what_is_disputed_is_decided_on_the_report(live_server: LiveServer, open_address: OpenAddress) -> None:
    queue = new_queue(live_server.url, tasks=1, answers=3)
    with live_server.database.write() as session:
        (task,) = session.query(LabellingTaskRow).all()
        for who, ranks in (("one", [1, 2, 3]), ("other", [3, 2, 1])):
            session.add(LabellingJudgementRow(task_id=task.id, labeller=who, action="imported", ranks=ranks))
    page = open_address(f"{live_server.url}/#/label/{queue}/report")
    expect(page.get_by_text("A > B > C")).to_be_visible()
    expect(page.get_by_text("C > B > A")).to_be_visible()
    page.get_by_role("button", name="Decide").click()
    expect(page.get_by_text("one 1, other 3, secret")).to_be_visible()  # who decides is told whose it is
    first = cards(page)
    page.locator("ol article").nth(0).focus()
    for key in "213":
        page.keyboard.press(key)
    page.get_by_role("button", name="Decide").click()
    expect(page.get_by_text("Nothing has to be decided")).to_be_visible()
    decided = judged(live_server.database)[-1]
    assert decided["action"] == "decided"
    assert {plain(text): rank for text, rank in decided["ranks"].items()} == dict(zip(first, [2, 1, 3], strict=True))
