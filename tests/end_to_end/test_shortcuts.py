"""Keys that do something anywhere, and a deletion that can be taken back, in a real browser."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Browser, Page, expect

from chatwheel.store.accounts import local_principal
from chatwheel.store.conversations import list_conversations, purge
from tests.end_to_end.conftest import OpenAddress
from tests.end_to_end.test_chat_page import fill
from tests.end_to_end.test_page import ask, last_answer, saved, shot, wait_until_done
from tests.server.live import LiveServer

Open = Callable[..., Page]
ANSWER = "First:\n\n```python\none = 1\n```\n\nand then\n\n```js\nlet two = 2\n```"


@pytest.fixture
def open_page(open_address: OpenAddress, live_server: LiveServer) -> Open:
    """Opens the page, which may read the clipboard."""

    def open_it(locale: str = "en-US", *, path: str = "", dark: bool = False, phone: bool = False) -> Page:
        page = open_address(live_server.url + path, locale, dark=dark, phone=phone)
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        expect(page.locator("#message")).to_be_visible()
        return page

    return open_it


def pasted(page: Page) -> str:
    return str(page.evaluate("navigator.clipboard.readText()"))


def leave_fields(page: Page) -> None:
    page.evaluate("document.activeElement.blur()")


def titles(server: LiveServer) -> list[str]:
    with server.database.read() as session:
        return [row.title for row in list_conversations(session, local_principal(session).user_id)]


def test_every_key_does_what_the_overview_says(open_page: Open, live_server: LiveServer) -> None:
    chat, _ = fill(live_server, "code?", ANSWER)
    page = open_page(path=f"/#/c/{chat}")
    expect(last_answer(page)).to_contain_text("and then")
    leave_fields(page)
    page.keyboard.press("?")
    overview = page.get_by_role("dialog", name="Keyboard shortcuts")
    for does in ("New chat", "Search chats", "Copy the last answer", "Copy the last code", "Answer again", "sidebar"):
        expect(overview).to_contain_text(does)
    shot(page, "shortcuts")
    page.keyboard.press("Control+Shift+O")  # not behind a dialog
    expect(overview).to_be_visible()
    page.keyboard.press("Escape")
    expect(overview).to_have_count(0)
    # Even while one writes, as none of them is text.
    page.locator("#message").focus()
    page.keyboard.press("Control+Shift+C")
    expect(page.locator(".toast")).to_contain_text("Copied")
    assert pasted(page) == ANSWER
    page.keyboard.press("Control+Shift+;")
    page.wait_for_timeout(200)
    assert pasted(page) == "let two = 2\n"
    page.keyboard.press("Control+Shift+S")
    expect(page.locator("aside")).not_to_be_visible()
    page.keyboard.press("Control+Shift+S")
    expect(page.locator("aside")).to_be_visible()
    page.keyboard.press("Control+Shift+E")
    expect(page.get_by_text("2 / 2")).to_be_visible()
    wait_until_done(page)
    leave_fields(page)
    page.keyboard.press("/")
    expect(page.locator("#message")).to_be_focused()
    expect(page.locator("#message")).to_have_value("")
    page.keyboard.press("Control+K")
    expect(page.get_by_role("combobox", name="Search chats")).to_be_focused()
    page.keyboard.press("Escape")
    page.keyboard.press("Control+Shift+O")
    expect(page.locator("h1")).to_be_visible()


def test_characters_in_a_field_are_characters(open_page: Open, live_server: LiveServer) -> None:
    fill(live_server, "a chat", "an answer")
    page = open_page()
    page.locator("#message").focus()
    page.keyboard.type("why? and/or")
    expect(page.locator("#message")).to_have_value("why? and/or")
    page.keyboard.press("Control+K")
    expect(page.get_by_role("combobox")).to_be_focused()
    page.keyboard.type("a?/")
    expect(page.get_by_role("combobox")).to_have_value("a?/")
    expect(page.get_by_role("dialog")).to_have_count(1)
    page.keyboard.press("Escape")
    # An input method composes, AltGr writes: nothing of it is a command.
    for options in ("isComposing: true", "modifierAltGraph: true, ctrlKey: true", "altKey: true"):
        event = f"new KeyboardEvent('keydown', {{key: '?', code: 'KeyK', bubbles: true, {options}}})"
        page.evaluate(f"document.body.dispatchEvent({event})")
    expect(page.get_by_role("dialog")).to_have_count(0)
    # Switched off, a character by itself does nothing anywhere.
    page.get_by_role("button", name="Keyboard shortcuts").click()
    page.get_by_role("checkbox").uncheck()
    page.keyboard.press("Escape")
    page.reload()
    expect(page.locator("#message")).to_be_visible()
    leave_fields(page)
    page.keyboard.press("?")
    page.keyboard.press("Control+K")
    expect(page.get_by_role("combobox")).to_be_visible()
    expect(page.get_by_role("dialog")).to_have_count(1)


def test_on_a_mac_it_is_command(browser: Browser, live_server: LiveServer) -> None:
    context = browser.new_context(locale="zh-CN")
    context.add_init_script("Object.defineProperty(navigator, 'platform', {get: () => 'MacIntel'})")
    page = context.new_page()
    page.goto(live_server.url)
    expect(page.locator("#message")).to_be_visible()
    page.keyboard.press("Control+K")  # which deletes to the end of the line there
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.keyboard.press("Meta+K")
    expect(page.get_by_role("combobox")).to_be_visible()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="键盘快捷键").click()
    expect(page.get_by_role("dialog", name="键盘快捷键")).to_contain_text("⌘⇧O")
    shot(page, "shortcuts-mac")
    context.close()


def test_escape_closes_the_overview_and_the_answer_goes_on(open_page: Open) -> None:
    page = open_page()
    ask(page, "count to 400")
    expect(last_answer(page)).to_contain_text("1 2 3")
    page.get_by_role("button", name="Keyboard shortcuts").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(last_answer(page)).to_have_attribute("aria-busy", "true")
    page.keyboard.press("Escape")
    wait_until_done(page)


def delete(page: Page, title: str, label: str = "Delete") -> None:
    item = page.locator("aside li").filter(has_text=title)
    item.hover()
    item.locator(".more").click()
    item.get_by_role("button", name=label, exact=True).click()


def test_a_deletion_is_taken_back(open_page: Open, live_server: LiveServer) -> None:
    fill(live_server, "another chat", "answer")
    page = open_page()
    ask(page, "the chat to delete")
    wait_until_done(page)
    messages = len(saved(live_server))
    delete(page, "the chat to delete")
    expect(page.locator("h1")).to_be_visible()
    expect(page.get_by_role("link", name="the chat to delete")).to_have_count(0)
    assert titles(live_server) == ["another chat"]
    page.keyboard.press("Control+K")
    page.get_by_role("combobox").fill("delete")
    expect(page.get_by_role("status").filter(has_text="Nothing was found")).to_be_visible()
    page.keyboard.press("Escape")
    shot(page, "deleted")
    page.get_by_role("button", name="Undo").click()
    expect(last_answer(page)).to_contain_text("heard: the chat to delete")
    expect(page.get_by_role("link", name="the chat to delete")).to_be_visible()
    assert len(saved(live_server)) == messages
    # Another one than the open one: what is on the screen stays.
    delete(page, "another chat")
    expect(last_answer(page)).to_contain_text("heard: the chat to delete")
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_role("link", name="another chat")).to_be_visible()
    expect(last_answer(page)).to_contain_text("heard: the chat to delete")


def test_whoever_closes_the_tab_has_deleted(open_page: Open, live_server: LiveServer) -> None:
    fill(live_server, "a chat", "answer")
    page = open_page("zh-CN", phone=True, dark=True)
    page.get_by_role("button", name="打开侧栏").tap()
    with page.expect_response(lambda reply: reply.request.method == "DELETE"):
        delete(page, "a chat", "删除")
    expect(page.get_by_role("button", name="撤销")).to_be_visible()
    shot(page, "deleted-phone")
    page.close()
    assert titles(live_server) == []


def test_too_late_is_said(browser: Browser, live_server: LiveServer) -> None:
    fill(live_server, "a chat", "answer")
    page = browser.new_page(locale="en-US")  # its console may say that something was not found
    page.goto(live_server.url)
    delete(page, "a chat")
    expect(page.get_by_role("button", name="Undo")).to_be_visible()
    with live_server.database.write() as session:
        purge(session, 1e12)
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_role("alert").filter(has_text="for good")).to_be_visible()
    page.close()
