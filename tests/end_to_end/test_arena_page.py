"""The arena in a browser: asked, chosen by keys or a finger, then named; and the leaderboard, in both languages."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import select

from chatwheel.store import accounts
from chatwheel.store.database import Database
from chatwheel.store.tables import BattleRow
from tests.end_to_end.conftest import OpenAddress
from tests.end_to_end.labels import unlabelled
from tests.server.live import LiveServer
from tests.server.test_arena import NAMES, fought, simulated

QUESTION = "What is the capital of France?"


def only(database: Database) -> BattleRow:
    with database.read() as session:
        (row,) = session.scalars(select(BattleRow))
        return row


def ask(page: Page, question: str = QUESTION) -> None:
    page.get_by_role("textbox").fill(question)
    page.keyboard.press("Enter")


def test_a_battle_by_keys_alone(live_server: LiveServer, open_address: OpenAddress) -> None:
    page = open_address(f"{live_server.url}/#/arena")
    expect(page.get_by_role("textbox", name="Ask two models")).to_be_focused()
    ask(page)
    choices = page.locator("main").get_by_role("group").get_by_role("button")
    expect(choices).to_have_count(4)
    page.keyboard.press("1")  # too early: neither answer is whole
    expect(choices.first).to_be_enabled()
    expect(page.locator("article").first).to_contain_text("It lies on the river Seine.")
    assert only(live_server.database).choice is None
    assert "quickstart" not in page.locator("main").inner_html()
    assert unlabelled(page) == []
    page.keyboard.press("2")
    row = only(live_server.database)
    expect(page.get_by_role("status").filter(has_text="You found answer 2 better.")).to_contain_text(
        f"Answer 1 was by {row.left_model}, answer 2 by {row.right_model}."
    )
    expect(page.locator("article.better h3")).to_have_text(f"Answer 2: {row.right_model}")
    assert only(live_server.database).choice == "right"
    expect(page.get_by_role("button", name="Next")).to_be_focused()
    page.keyboard.press("Enter")
    box = page.get_by_role("textbox", name="Ask two models")
    expect(box).to_be_focused()
    expect(box).to_have_value("")
    page.keyboard.type("1")  # in the box it is a letter
    expect(box).to_have_value("1")


@pytest.mark.parametrize(("key", "choice"), [("0", "tie"), ("b", "both_bad")])
def test_neither_is_better(live_server: LiveServer, open_address: OpenAddress, key: str, choice: str) -> None:
    page = open_address(f"{live_server.url}/#/arena")
    page.get_by_role("button", name=QUESTION).click()
    expect(page.locator("main").get_by_role("group").get_by_role("button").first).to_be_enabled()
    page.keyboard.press(key)
    expect(page.get_by_role("button", name="Next")).to_be_visible()
    assert only(live_server.database).choice == choice
    expect(page.locator("article.better")).to_have_count(0)


def test_what_is_stopped_or_fails_gives_the_question_back(live_server: LiveServer, open_address: OpenAddress) -> None:
    page = open_address(f"{live_server.url}/#/arena")
    box = page.get_by_role("textbox", name="Ask two models")
    ask(page, "count to 400")
    expect(page.locator("article").first).to_contain_text("12")
    page.get_by_role("button", name="Stop").click()
    expect(box).to_have_value("count to 400")
    ask(page, "overload")
    expect(page.get_by_role("alert").filter(has_text="One of the two models is busy")).to_be_visible()
    expect(box).to_have_value("overload")
    with live_server.database.read() as session:
        assert session.scalars(select(BattleRow)).all() == []


def test_in_chinese_on_a_phone_in_the_dark(live_server: LiveServer, open_address: OpenAddress) -> None:
    page = open_address(f"{live_server.url}/#/arena", "zh-CN", dark=True, phone=True)
    expect(page.get_by_role("heading", name="哪个模型答得更好？")).to_be_visible()
    ask(page, "把“苹果”翻译成英文")
    page.get_by_role("button", name="1 更好").click()
    expect(page.get_by_text("你认为回答 1 更好。")).to_be_visible()
    boxes: list[Any] = [article.bounding_box() for article in page.locator("article").all()]
    assert boxes[1]["y"] > boxes[0]["y"] + boxes[0]["height"]  # below each other
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.get_by_role("link", name="排行榜").click()
    expect(page.get_by_text("对战太少，还不能评分")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert unlabelled(page) == []


def test_the_leaderboard_shows_order_places_and_parts(live_server: LiveServer, open_address: OpenAddress) -> None:
    with live_server.database.read() as session:
        user = accounts.local_principal(session).user_id
    fought(live_server.database, user, simulated(150))
    fought(live_server.database, user, [(NAMES[0], NAMES[1], "left")], "翻译")
    page = open_address(f"{live_server.url}/#/arena/leaderboard")
    expect(page.locator("ol .name")).to_have_text([NAMES[2], NAMES[1], NAMES[0]])
    expect(page.locator("ol .rank")).to_contain_text(["1", "2", "3"])
    interval = page.locator("tbody tr").first.locator("td").nth(3).inner_text()
    assert (page.get_by_role("img").first.get_attribute("aria-label") or "").endswith(interval.split(" – ")[1])
    assert unlabelled(page) == []
    page.get_by_role("combobox", name="Language").select_option("zh")
    expect(page.get_by_text("Too few battles", exact=True)).to_have_count(3)
    expect(page.get_by_role("heading", name="Who beats whom")).to_be_visible()
    page.get_by_role("combobox", name="Language").select_option("")
    page.get_by_role("combobox", name="Topic").select_option("translation")
    expect(page.get_by_text("Battles: 1", exact=True)).to_be_visible()
