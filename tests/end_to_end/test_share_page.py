"""A link by which others read a chat, in a real browser."""

from __future__ import annotations

from playwright.sync_api import Browser, expect

from tests.end_to_end.conftest import OpenAddress
from tests.end_to_end.labels import unlabelled
from tests.end_to_end.test_chat_page import fill
from tests.end_to_end.test_page import shot
from tests.server.live import LiveServer

XSS = "<img src=x onerror=alert(1)>"


def test_made_read_and_revoked(open_address: OpenAddress, browser: Browser, live_server: LiveServer) -> None:
    chat, _ = fill(live_server, f"Who? {XSS}", f"**Bold** {XSS} [x](javascript:alert(1))")
    page = open_address(f"{live_server.url}/#/c/{chat}")
    item = page.locator("aside li").first
    item.hover()
    item.locator(".more").click()
    item.get_by_role("button", name="Share").click()
    dialog = page.get_by_role("dialog", name="Share this chat")
    expect(dialog.get_by_role("button", name="Revoke")).to_have_count(0)  # off until it is made
    dialog.get_by_role("button", name="Make a link").click()
    link = dialog.get_by_role("textbox", name="Link")
    expect(link).to_have_count(1)
    shot(page, "share")
    assert unlabelled(page) == []
    address = link.input_value()
    reader = open_address(address, "zh-CN", phone=True)
    expect(reader.get_by_role("heading", level=1)).to_contain_text("Who?")
    expect(reader.locator("strong")).to_have_text("Bold")
    expect(reader.locator("main img, main a, #message, aside")).to_have_count(0)
    expect(reader.locator("meta[name=robots]")).to_have_attribute("content", "noindex, nofollow")
    shot(reader, "shared-phone")
    assert unlabelled(reader) == []
    dialog.get_by_role("button", name="Revoke").click()
    expect(link).to_have_count(0)
    late = browser.new_page(locale="en-US")  # its console may say that something was not found
    late.goto(address)
    expect(late.get_by_role("alert")).to_contain_text("opens nothing")
    late.close()
