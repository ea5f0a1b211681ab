"""Prompts to fill in, personas and the instruction, in a real browser."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.end_to_end.conftest import OpenAddress
from tests.end_to_end.labels import unlabelled
from tests.end_to_end.test_page import ask, last_answer, saved, shot, wait_until_done
from tests.server.live import LiveServer

Open = Callable[..., Page]
XSS = "<img src=x onerror=alert(1)>"


@pytest.fixture
def open_page(open_address: OpenAddress, live_server: LiveServer) -> Open:
    """Opens the chat, or another page by its path."""

    def open_it(locale: str = "en-US", *, path: str = "", dark: bool = False, phone: bool = False) -> Page:
        page = open_address(live_server.url + path, locale, dark=dark, phone=phone)
        expect(page.locator("h1, #message").first).to_be_visible()
        return page

    return open_it


def seen(server: LiveServer) -> list[tuple[str, str]]:
    """What the model was last asked."""
    assistant = next(one for one in server.models.loaded if one.prompts)
    return [(turn.role, turn.content) for turn in assistant.prompts[-1]]


def test_a_prompt_is_found_filled_in_and_sent_by_keys_alone(open_page: Open, live_server: LiveServer) -> None:
    page = open_page()
    expect(page.locator("#message")).to_be_focused()
    page.keyboard.type("/")
    menu = page.get_by_role("listbox", name="Prompts and personas")
    expect(menu.get_by_role("option").first).to_have_attribute("aria-selected", "true")
    shot(page, "prompts")
    assert unlabelled(page) == []
    page.keyboard.press("ArrowUp")  # from the first to the last
    expect(menu.get_by_role("option").last).to_have_attribute("aria-selected", "true")
    active = page.locator("#message").get_attribute("aria-activedescendant")
    assert menu.get_by_role("option").last.get_attribute("id") == active
    page.keyboard.type("rewr")
    expect(menu.get_by_role("option")).to_have_count(1)
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Rewrite in a style")
    expect(dialog.get_by_label("style")).to_be_focused()
    expect(dialog.get_by_label("style")).to_have_value("plain, short sentences")
    page.keyboard.press("Control+A")
    page.keyboard.type("a sea shanty")
    page.keyboard.press("Tab")
    page.keyboard.type("Line one\nwith {{braces}} and $& signs")
    shot(page, "prompts-fill")
    assert unlabelled(page) == []
    page.keyboard.press("Control+Enter")
    expect(dialog).to_have_count(0)
    message = page.locator("#message")
    expect(message).to_be_focused()
    text = (
        "Rewrite this text in this style: a sea shanty. Keep its meaning, its names and its numbers.\n\n"
        "Line one\nwith {{braces}} and $& signs"
    )
    expect(message).to_have_value(text)
    page.keyboard.press("Enter")
    wait_until_done(page)
    assert saved(live_server)[0].content == text


def test_a_slash_is_also_a_slash(open_page: Open, live_server: LiveServer) -> None:
    page = open_page()
    message, menu = page.locator("#message"), page.get_by_role("listbox")
    page.keyboard.type("/etc/passwd?")
    expect(menu).to_have_count(0)
    page.keyboard.press("Enter")
    wait_until_done(page)
    assert saved(live_server)[0].content == "/etc/passwd?"
    page.keyboard.type("/ti")
    expect(menu).to_be_visible()
    page.keyboard.press("Escape")
    expect(menu).to_have_count(0)
    page.keyboard.type("t")  # it stays closed
    expect(message).to_have_value("/tit")
    expect(menu).to_have_count(0)
    message.fill("")
    page.keyboard.type("/")
    expect(menu).to_be_visible()
    page.locator("h1, article").first.click()
    expect(menu).to_have_count(0)
    message.fill("and/or /title")
    expect(menu).to_have_count(0)
    # The button's menu goes away with the next word, and what was written is the text that the prompt is about.
    page.get_by_role("button", name="Prompts and personas").click()
    expect(menu).to_be_visible()
    page.get_by_role("option", name="Summarise").click()
    dialog = page.get_by_role("dialog", name="Summarise")
    expect(dialog.get_by_label("text")).to_have_value("and/or /title")
    page.keyboard.press("Escape")
    expect(message).to_have_value("and/or /title")
    expect(message).to_be_focused()


def test_prompts_of_ones_own(open_page: Open) -> None:
    page = open_page(path="/#/library")
    expect(page.get_by_text("No prompts of your own yet.")).to_be_visible()
    page.get_by_role("button", name="New prompt").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("button", name="Save")).to_be_disabled()
    page.keyboard.type(f"Greet {XSS}")
    dialog.get_by_label("Prompt", exact=True).fill("Say hello to {{who: Ada}} in {{language}}.")
    expect(dialog.locator(".chip")).to_have_text(["who", "language"])
    shot(page, "library-prompt")
    dialog.get_by_role("button", name="Save").click()
    card = page.get_by_role("listitem").filter(has_text="Greet")
    expect(card.get_by_role("heading")).to_have_text(f"Greet {XSS}")
    card.get_by_role("button", name="Edit").click()
    dialog.get_by_label("Title").fill("Greet somebody")
    dialog.get_by_label("Title").press("Enter")
    expect(card.get_by_role("heading")).to_have_text("Greet somebody")
    page.get_by_role("listitem").filter(has_text="Translate").get_by_role("button", name="Change a copy").click()
    dialog.get_by_label("Title").fill("Into Latin")
    dialog.get_by_role("button", name="Save").click()
    expect(page.get_by_role("heading", name="Into Latin")).to_be_visible()
    card.get_by_role("button", name="Use").click()
    expect(dialog.get_by_label("who")).to_have_value("Ada")
    dialog.get_by_label("language").fill("Latin")
    dialog.get_by_label("language").press("Enter")
    expect(page.locator("#message")).to_have_value("Say hello to Ada in Latin.")
    page.locator("#message").fill("/")
    assert page.get_by_role("option").first.inner_text().startswith("Greet somebody")
    page.get_by_role("option").last.click()
    expect(page.get_by_role("heading", name="Custom instruction")).to_be_visible()
    card.get_by_role("button", name="Delete").click()
    shot(page, "library-delete")
    dialog.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("heading", name="Greet somebody")).to_have_count(0)
    page.reload()
    expect(page.get_by_role("heading", name="Into Latin")).to_be_visible()
    assert unlabelled(page) == []


def test_a_persona_and_the_instruction_are_told_to_the_model(open_page: Open, live_server: LiveServer) -> None:
    page = open_page(path="/#/library")
    instruction = page.get_by_role("textbox", name="Custom instruction")
    instruction.fill("My name is Ada.")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("status").filter(has_text="Saved.")).to_be_visible()
    page.get_by_role("button", name="New persona").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name").fill("Pirate")
    dialog.get_by_label("System prompt").fill("Talk like a pirate.")
    dialog.get_by_label("Model").select_option("quickstart/sft")
    dialog.get_by_label("Temperature").fill("3")
    shot(page, "library-persona")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog).to_be_visible()  # the browser says what is wrong with 3
    dialog.get_by_label("Temperature").fill("0.5")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog).to_have_count(0)
    shot(page, "library")
    page.get_by_role("listitem").filter(has_text="Pirate").get_by_role("button", name="Chat").click()
    expect(page.get_by_role("heading", name="Pirate")).to_be_visible()
    expect(page.get_by_role("button", name="Model: Chatwheel SFT")).to_be_visible()
    shot(page, "persona")
    ask(page, "hello")
    wait_until_done(page)
    assert seen(live_server) == [("system", "Talk like a pirate.\n\nMy name is Ada."), ("user", "hello")]
    assert saved(live_server)[-1].sampling is not None
    assert saved(live_server)[-1].sampling["temperature"] == 0.5  # type: ignore[index]
    page.reload()
    expect(page.locator("header .persona")).to_contain_text("Pirate")
    expect(page.get_by_role("button", name="Without this persona")).to_have_count(0)
    shot(page, "persona-chat")
    # From the menu, and taken off again.
    page.get_by_role("button", name="New chat").click()
    expect(page.locator("header .persona")).to_have_count(0)
    page.keyboard.type("/pir")
    page.keyboard.press("Enter")
    expect(page.locator("header .persona")).to_contain_text("Pirate")
    page.get_by_role("button", name="Without this persona").click()
    page.locator("#message").fill("again")
    page.keyboard.press("Enter")
    expect(last_answer(page)).to_contain_text("heard: again")
    wait_until_done(page)
    assert seen(live_server)[0] == ("system", "My name is Ada.")
    page.goto(f"{live_server.url}/#/library")
    expect(instruction).to_have_value("My name is Ada.")


def test_a_persona_that_is_gone_is_said_and_nothing_is_lost(browser: Browser, live_server: LiveServer) -> None:
    persona = httpx.post(f"{live_server.url}/api/personas", json={"name": "Pirate"}).json()["id"]
    page = browser.new_page(locale="en-US")  # its console may say that something was not found
    page.goto(live_server.url)
    page.locator("#message").fill("/pir")
    page.keyboard.press("Enter")  # before it is known
    expect(page.locator("header .persona")).to_contain_text("Pirate")
    httpx.delete(f"{live_server.url}/api/personas/{persona}")
    ask(page, "hello")
    expect(page.get_by_role("alert").filter(has_text="not found")).to_be_visible()
    expect(page.locator("#message")).to_have_value("hello")
    page.get_by_role("button", name="Without this persona").click()
    page.get_by_role("button", name="Send").click()
    wait_until_done(page)
    assert saved(live_server)[0].content == "hello"
    page.close()


@pytest.mark.parametrize("dark", [False, True])
def test_on_a_phone_in_chinese(open_page: Open, live_server: LiveServer, dark: bool) -> None:
    httpx.post(f"{live_server.url}/api/personas", json={"name": "老师", "system_prompt": "你是一位耐心的老师。"})
    page = open_page("zh-CN", phone=True, dark=dark)
    page.get_by_role("button", name="提示词和角色").tap()
    expect(page.get_by_role("option", name="老师")).to_be_visible()
    shot(page, f"prompts-phone-{'dark' if dark else 'light'}")
    page.get_by_role("option", name="总结").tap()
    dialog = page.get_by_role("dialog", name="总结")
    dialog.get_by_label("文字").fill("很长的文字")
    shot(page, f"prompts-fill-phone-{'dark' if dark else 'light'}")
    dialog.get_by_role("button", name="放入消息").tap()
    expect(page.locator("#message")).to_have_value("用三句话总结下面的文字，只说文中说到的内容。\n\n很长的文字")
    page.locator("#message").fill("/sum")  # by its English key too
    expect(page.get_by_role("option")).to_have_count(1)
    page.locator("#message").fill("")
    page.goto(f"{live_server.url}/#/library")
    expect(page.get_by_role("heading", name="老师")).to_be_visible()
    shot(page, f"library-phone-{'dark' if dark else 'light'}")
    assert unlabelled(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
