"""The page in a real browser: what a person does with it, and what is in the database afterwards."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from chatwheel.feedback.export import Export
from chatwheel.store.accounts import local_principal
from chatwheel.store.conversations import list_conversations, list_messages
from chatwheel.store.tables import MessageRow
from tests.end_to_end.conftest import OpenAddress
from tests.server.live import LiveServer, make_app, run_server

SHOTS = Path("test-results")
Open = Callable[..., Page]


@pytest.fixture
def open_page(open_address: OpenAddress, live_server: LiveServer) -> Open:
    """Opens the page, ready to be written to."""

    def open_it(locale: str = "en-US", *, dark: bool = False, phone: bool = False) -> Page:
        page = open_address(live_server.url, locale, dark=dark, phone=phone)
        expect(page.locator("#message")).to_be_visible()
        return page

    return open_it


def ask(page: Page, text: str) -> None:
    page.locator("#message").fill(text)
    page.keyboard.press("Enter")


def last_answer(page: Page) -> Locator:
    return page.locator("article[aria-busy]").last


def wait_until_done(page: Page) -> None:
    expect(last_answer(page)).to_have_attribute("aria-busy", "false")


def wait_until_scrolled(page: Page) -> None:
    for _ in range(200):  # `wait_for_function` needs eval, which the page's policy forbids
        if page.evaluate("document.querySelector('.box')?.scrollTop ?? 0") > 100:
            return
        page.wait_for_timeout(100)
    raise AssertionError("it did not scroll")


def shot(page: Page, name: str) -> None:
    SHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}.png")


def saved(server: LiveServer) -> list[MessageRow]:
    """The messages of the newest conversation."""
    with server.database.read() as session:
        newest = list_conversations(session, local_principal(session).user_id)[0]
        return list(list_messages(session, newest.id))


def test_ask_and_see_the_answer(open_page: Open, live_server: LiveServer) -> None:
    page = open_page()
    shot(page, "empty")
    ask(page, "What is the capital of France?")
    expect(last_answer(page).locator("strong")).to_have_text("Paris")
    wait_until_done(page)
    expect(page.locator("aside")).to_contain_text("What is the capital of France?")
    expect(page).to_have_title(re.compile("capital of France"))
    assert [row.status for row in saved(live_server)] == ["complete", "complete"]
    ask(page, "Show me some code")
    wait_until_done(page)
    expect(last_answer(page).locator("pre")).to_contain_text("def greet")
    shot(page, "conversation")
    page.reload()
    expect(last_answer(page).locator("pre")).to_contain_text("def greet")


def test_the_answer_streams_and_stop_keeps_it(open_page: Open, live_server: LiveServer) -> None:
    page = open_page()
    ask(page, "count to 400")
    expect(last_answer(page)).to_contain_text("1 2 3")
    expect(last_answer(page)).to_have_attribute("aria-busy", "true")
    expect(page.locator(".writing")).to_be_visible()
    shot(page, "streaming")
    page.get_by_role("button", name="Stop").click()
    wait_until_done(page)
    expect(last_answer(page)).to_contain_text("Stopped")
    row = saved(live_server)[-1]
    assert row.status == "partial"
    assert row.content.startswith("1 2 3")
    assert "400" not in row.content
    shown = last_answer(page).locator(".prose").inner_text().split()
    assert shown == row.content.split()


def test_escape_stops_too(open_page: Open, live_server: LiveServer) -> None:
    page = open_page()
    ask(page, "count to 400")
    expect(last_answer(page)).to_contain_text("1 2 3")
    page.keyboard.press("Escape")
    wait_until_done(page)
    assert saved(live_server)[-1].status == "partial"


def test_rate_an_answer_with_a_reason(open_page: Open, live_server: LiveServer) -> None:
    page = open_page()
    ask(page, "hello")
    wait_until_done(page)
    page.get_by_role("button", name="Good answer").click()
    expect(page.get_by_role("button", name="Good answer")).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="Bad answer").click()
    page.get_by_placeholder("What was wrong with it?").fill("far too short")
    shot(page, "rating")
    with page.expect_response(lambda response: "far too short" in (response.request.post_data or "")):
        page.locator("article form").get_by_role("button", name="Send").click()
    with live_server.database.read() as session:
        [rated] = Export(session, "salt", everybody=True).ratings()
        assert (rated.rating, rated.comment) == (-1, "far too short")  # type: ignore[attr-defined]
        assert rated.answer == saved(live_server)[-1].content
    page.reload()
    expect(page.get_by_role("button", name="Bad answer")).to_have_attribute("aria-pressed", "true")


def test_switch_the_model(open_page: Open, live_server: LiveServer) -> None:
    page = open_page()
    page.get_by_role("button", name="Model: Chatwheel PPO").click()
    shot(page, "models")
    page.get_by_role("option", name=re.compile("^SFT")).click()
    ask(page, "hello")
    wait_until_done(page)
    assert saved(live_server)[-1].model == "quickstart/sft"
    # by keyboard
    page.get_by_role("button", name="Model: Chatwheel SFT").press("Enter")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Model: Chatwheel Base")).to_be_visible()


def test_regenerate_and_edit_keep_every_version(open_page: Open, live_server: LiveServer) -> None:
    page = open_page()
    ask(page, "first")
    wait_until_done(page)
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_text("2 / 2")).to_be_visible()
    wait_until_done(page)
    page.get_by_role("button", name="Previous version").click()
    expect(page.get_by_text("1 / 2")).to_be_visible()
    page.get_by_role("article", name="You said").hover()
    page.get_by_role("button", name="Edit").click()
    page.get_by_role("textbox", name="Edit").fill("second")
    page.keyboard.press("Enter")
    expect(last_answer(page)).to_contain_text("heard: second")
    wait_until_done(page)
    shot(page, "versions")
    assert [row.content for row in saved(live_server) if row.role == "user"] == ["first", "second"]
    assert len(saved(live_server)) == 5


def test_new_chat_and_back(open_page: Open) -> None:
    page = open_page()
    ask(page, "the first chat")
    wait_until_done(page)
    page.keyboard.press("Control+Shift+O")
    expect(page.locator("h1")).to_be_visible()
    ask(page, "the second chat")
    wait_until_done(page)
    page.get_by_role("link", name="the first chat").click()
    expect(last_answer(page)).to_contain_text("heard: the first chat")
    page.go_back()
    expect(last_answer(page)).to_contain_text("heard: the second chat")


def test_an_answer_goes_on_while_another_chat_is_open(open_page: Open, live_server: LiveServer) -> None:
    page = open_page()
    ask(page, "count to 60")
    expect(last_answer(page)).to_contain_text("1 2")
    page.locator("aside").get_by_role("button", name="New chat").click()
    expect(page.locator("h1")).to_be_visible()
    page.get_by_role("link", name="count to 60").click()
    expect(last_answer(page)).to_contain_text("58 59 60")
    assert len(saved(live_server)) == 2


def test_rename_and_delete(open_page: Open, live_server: LiveServer) -> None:
    page = open_page()
    ask(page, "a chat")
    wait_until_done(page)
    page.get_by_role("button", name="More actions").click()
    page.get_by_role("button", name="Rename").click()
    page.get_by_role("textbox", name="Rename").fill("better name")
    page.keyboard.press("Enter")
    expect(page.get_by_role("link", name="better name")).to_be_visible()
    page.get_by_role("button", name="More actions").click()
    page.get_by_role("button", name="Delete").click()
    expect(page.locator("h1")).to_be_visible()
    expect(page.get_by_role("link", name="better name")).to_have_count(0)
    with live_server.database.read() as session:
        assert list_conversations(session, local_principal(session).user_id) == []


def test_chinese(open_page: Open) -> None:
    page = open_page(locale="zh-CN")
    expect(page.locator("h1")).to_have_text("今天聊点什么？")
    expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
    page.get_by_role("button", name="把“苹果”翻译成英文").click()
    expect(last_answer(page)).to_contain_text("apple")
    wait_until_done(page)
    shot(page, "chinese")
    page.get_by_role("button", name="English").click()
    expect(page.get_by_role("button", name="Good answer")).to_be_visible()
    page.reload()
    expect(page.get_by_role("button", name="Good answer")).to_be_visible()


def test_enter_while_composing_chinese_does_not_send(open_page: Open) -> None:
    page = open_page(locale="zh-CN")
    page.locator("#message").fill("ni hao")
    composing = "bubbles: true, cancelable: true, key: 'Enter', isComposing: true"
    page.locator("#message").evaluate(f"area => area.dispatchEvent(new KeyboardEvent('keydown', {{ {composing} }}))")
    page.keyboard.press("Shift+Enter")
    expect(page.locator("article")).to_have_count(0)
    expect(page.locator("#message")).to_have_value("ni hao\n")
    page.keyboard.press("Enter")
    expect(last_answer(page)).to_contain_text("heard: ni hao")


def test_dark_mode(open_page: Open) -> None:
    page = open_page()
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    page.get_by_role("button", name="Dark").click()
    assert page.evaluate(background) != light
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    ask(page, "Show me some code")
    wait_until_done(page)
    shot(page, "dark")
    system = open_page(dark=True)
    assert system.evaluate(background) == page.evaluate(background)


def test_on_a_phone(open_page: Open) -> None:
    page = open_page(phone=True)
    shot(page, "phone-empty")
    page.get_by_role("button", name="What is the capital of France?").tap()
    wait_until_done(page)
    shot(page, "phone")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page scrolls sideways"
    expect(page.get_by_role("link", name="capital of France")).not_to_be_visible()
    page.get_by_role("button", name="Open sidebar").tap()
    expect(page.get_by_role("link", name="capital of France")).to_be_visible()
    page.wait_for_timeout(300)
    shot(page, "phone-sidebar")
    page.locator("aside").get_by_role("button", name="New chat").tap()
    expect(page.locator("h1")).to_be_visible()
    expect(page.locator("aside")).not_to_be_visible()


def test_what_a_model_writes_is_never_run(open_page: Open) -> None:
    page = open_page()
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    ask(page, "<img src=x onerror=alert(1)>")
    wait_until_done(page)
    assert page.locator("article img").count() == 0
    assert page.locator("article a[href^='javascript']").count() == 0
    assert dialogs == []
    assert not any("evil.example" in url for url in asked)


def test_a_server_with_a_key_asks_for_it(browser: Browser, tmp_path: Path) -> None:
    app, _, _ = make_app(tmp_path, api_key="open-sesame")
    report = tmp_path / "runs" / "quickstart" / "report.html"
    report.parent.mkdir(parents=True)
    report.write_text("<h1>The report</h1><script>document.querySelector('h1').append(' ran')</script>")
    with run_server(app) as url:
        page = browser.new_page()
        page.goto(url)
        page.get_by_label("API key").fill("wrong")
        page.get_by_role("button", name="Enter").click()
        expect(page.get_by_text("That key is not right.")).to_be_visible()
        shot(page, "key")
        page.get_by_label("API key").fill("open-sesame")
        page.get_by_role("button", name="Enter").click()
        expect(page.get_by_role("dialog")).to_have_count(0)
        ask(page, "hello")
        expect(last_answer(page)).to_contain_text("heard: hello")
        wait_until_done(page)
        with page.expect_popup() as opened:
            page.get_by_role("button", name="How it was trained").click()
        opened.value.wait_for_load_state()
        expect(opened.value.locator("h1")).to_have_text("The report")  # and its script has not run
        page.context.close()


def test_a_failure_is_told_kindly_and_can_be_tried_again(open_page: Open) -> None:
    page = open_page()
    ask(page, "fail")
    expect(last_answer(page).get_by_role("alert")).to_contain_text("Something went wrong")
    shot(page, "failure")
    last_answer(page).get_by_role("button", name="Retry").click()
    expect(page.get_by_text("2 / 2")).to_be_visible()


def test_it_follows_the_answer_only_at_the_bottom(open_page: Open) -> None:
    page = open_page(phone=True)
    page.set_viewport_size({"width": 320, "height": 420})
    ask(page, "count to 2000")
    box = page.locator(".box")
    wait_until_scrolled(page)
    box.evaluate("box => box.scrollTo(0, 0)")
    page.wait_for_timeout(600)
    assert box.evaluate("box => box.scrollTop") == 0
    page.get_by_role("button", name="Scroll to the newest").click()
    wait_until_scrolled(page)
    page.get_by_role("button", name="Stop").click()
    wait_until_done(page)
