"""Texts that go along with a question, in a real browser."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Browser, FilePayload, Page, expect

from tests.end_to_end.conftest import OpenAddress
from tests.end_to_end.labels import unlabelled
from tests.end_to_end.test_page import ask, saved, shot, wait_until_done
from tests.server.live import LiveServer

Open = Callable[..., Page]
HTML = "<script>alert(1)</script><img src=x onerror=alert(2)>"


def a_file(name: str, content: str | bytes) -> FilePayload:
    data = content.encode() if isinstance(content, str) else content
    return {"name": name, "mimeType": "application/octet-stream", "buffer": data}


@pytest.fixture
def open_page(open_address: OpenAddress, live_server: LiveServer) -> Open:
    """Opens the page, ready to be written to."""

    def open_it(locale: str = "en-US", *, dark: bool = False, phone: bool = False) -> Page:
        page = open_address(live_server.url, locale, dark=dark, phone=phone)
        expect(page.locator("#message")).to_be_visible()
        return page

    return open_it


def choose(page: Page, *files: FilePayload, name: str = "Attach text files") -> None:
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name=name).click()
    chooser.value.set_files(list(files))


def test_files_are_chosen_removed_sent_and_looked_at(open_page: Open, live_server: LiveServer) -> None:
    page = open_page()
    chinese = "姓名,年龄\n张三,30\n"
    choose(
        page, a_file("<b>page</b>.html", HTML), a_file("表格.csv", chinese.encode("gb18030")), a_file("x.py", "x = 1")
    )
    chips = page.locator("form").get_by_role("listitem")
    expect(chips).to_have_count(3)
    page.get_by_role("button", name="Remove x.py").click()
    expect(chips).to_have_count(2)
    expect(page.locator("#message")).to_be_focused()
    shot(page, "attached-draft")
    assert unlabelled(page) == []
    ask(page, "What is in them?")
    wait_until_done(page)
    expect(chips).to_have_count(0)
    question = page.locator("article").first
    expect(question.get_by_role("listitem")).to_have_count(2)
    assert saved(live_server)[0].attachments == [
        {"name": "<b>page</b>.html", "content": HTML},
        {"name": "表格.csv", "content": chinese},
    ]
    page.reload()
    expect(question).to_contain_text("<b>page</b>.html")
    question.get_by_role("button", name="page").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.locator("pre")).to_have_text(HTML)
    expect(dialog.locator("pre *")).to_have_count(0)
    shot(page, "attached-text")
    assert unlabelled(page) == []
    page.keyboard.press("Escape")
    shot(page, "attached")
    # A question that is asked anew keeps them.
    question.hover()
    question.get_by_role("button", name="Edit").click()
    page.get_by_role("textbox", name="Edit").fill("And again?")
    page.keyboard.press("Enter")
    wait_until_done(page)
    assert [len(row.attachments or []) for row in saved(live_server) if row.role == "user"] == [2, 2]


def test_what_is_no_text_or_too_much_is_said(browser: Browser, live_server: LiveServer) -> None:
    page = browser.new_page(locale="en-US")  # its console says that a request was refused
    page.goto(live_server.url)
    expect(page.locator("#message")).to_be_visible()
    choose(page, a_file("a.png", b"\x89PNG\r\n\x1a\n\x00\x00"), a_file("empty.txt", " \n"), a_file("ok.txt", "fine"))
    alert = page.get_by_role("alert").filter(has_text="a.png is not a text file")
    expect(alert).to_contain_text("empty.txt is empty")
    expect(page.locator("form").get_by_role("listitem")).to_have_count(1)
    choose(page, *[a_file(f"{place}.txt", "x") for place in range(10)])
    expect(page.get_by_role("alert").filter(has_text="At most 10 files")).to_be_visible()
    for _ in range(9):
        page.locator("form .remove").last.click()
    choose(page, a_file("long.txt", "word " * 160))  # of a context of 200
    ask(page, "What is it?")
    expect(page.get_by_role("alert").filter(has_text="this model reads at most 150")).to_be_visible()
    expect(page.locator("#message")).to_have_value("What is it?")  # nothing is lost
    expect(page.locator("form").get_by_role("listitem")).to_have_count(2)
    shot(page, "attached-too-long")
    page.get_by_role("button", name="Remove long.txt").click()
    page.get_by_role("button", name="Send").click()
    wait_until_done(page)
    assert saved(live_server)[0].attachments == [{"name": "ok.txt", "content": "fine"}]
    page.close()


def test_dropped_and_pasted(open_page: Open) -> None:
    page = open_page()
    fire = """(kind) => {
      const data = new DataTransfer()
      data.items.add(new File(['dropped text'], `${kind}.txt`, {type: 'text/plain'}))
      const Kind = kind === 'paste' ? ClipboardEvent : DragEvent
      const name = kind === 'paste' ? 'clipboardData' : 'dataTransfer'
      const event = new Kind(kind, {bubbles: true, cancelable: true, [name]: data})
      document.querySelector('#message').dispatchEvent(event)
      return event.defaultPrevented
    }"""
    for kind in ("drop", "paste"):
        assert page.evaluate(fire, kind)
        expect(page.get_by_role("button", name=f"Remove {kind}.txt")).to_be_visible()


@pytest.mark.parametrize("dark", [False, True])
def test_on_a_phone_in_chinese(open_page: Open, dark: bool) -> None:
    page = open_page("zh-CN", phone=True, dark=dark)
    choose(
        page,
        a_file("一个名字很长很长很长很长很长很长的文件.md", "# 你好\n"),
        a_file("b.json", "{}"),
        name="附加文本文件",
    )
    shot(page, f"attached-phone-draft-{'dark' if dark else 'light'}")
    ask(page, "里面写了什么？")
    wait_until_done(page)
    page.locator("article").first.get_by_role("button", name="b.json").tap()
    expect(page.get_by_role("dialog").locator("pre")).to_have_text("{}")
    page.get_by_role("button", name="关闭").tap()
    shot(page, f"attached-phone-{'dark' if dark else 'light'}")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert unlabelled(page) == []
