"""What the page does with conversations beside chatting, in a real browser."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from chatwheel.store import conversations as store
from chatwheel.store.accounts import local_principal
from tests.end_to_end.conftest import OpenAddress
from tests.end_to_end.test_page import last_answer, shot
from tests.server.live import LiveServer

Open = Callable[..., Page]

XSS = (
    "<img src=x onerror=\"document.title='xss'\">",
    "<script>document.title='xss'</script>",
    "<svg/onload=document.title='xss'>",
    "[x](javascript:document.title='xss')",
    '"><iframe srcdoc="<script>parent.document.title=\'xss\'</script>">',
    "<math><mi//xlink:href=\"data:x,<script>document.title='xss'</script>\">",
    "<style>@import 'https://example.com/x.css'</style>",
    "![x](https://example.com/x.png)",
)


@pytest.fixture
def open_page(open_address: OpenAddress, live_server: LiveServer) -> Open:
    """Opens the page, ready to be written to."""

    def open_it(locale: str = "en-US", *, dark: bool = False, phone: bool = False) -> Page:
        page = open_address(live_server.url, locale, dark=dark, phone=phone)
        expect(page.locator("#message")).to_be_visible()
        return page

    return open_it


def fill(server: LiveServer, *texts: str) -> tuple[str, list[str]]:
    """A conversation of these turns; its id and the messages'."""
    with server.database.write() as session:
        me = local_principal(session).user_id
        chat = store.create_conversation(session, me, "quickstart/ppo")
        ids: list[str] = []
        for place, said in enumerate(texts):
            if place % 2 == 0:
                ids.append(store.add_user_message(session, chat, said, ids[-1] if ids else None).id)
                continue
            question = session.get_one(store.MessageRow, ids[-1])
            ids.append(store.add_answer(session, question, "quickstart/ppo").id)
            store.save_answer(session, ids[-1], said, "complete")
        return chat.id, ids


def assert_harmless(page: Page) -> None:
    """No text became more than text."""
    assert "xss" not in page.title().split("·")[0].strip()[:3]
    for selector in (
        "iframe",
        "img",
        "script:not([src])",
        "[onerror]",
        "[onload]",
        "a[href^='javascript']",
        "main style",
    ):
        assert page.locator(selector).count() == 0, selector


def test_search_opens_the_branch_and_the_message(open_page: Open, live_server: LiveServer) -> None:
    chat, ids = fill(
        live_server,
        *[
            text
            for n in range(20)
            for text in (f"question {n}", f"answer {n}, the needle" if n == 7 else f"answer {n}")
        ],
    )
    with live_server.database.write() as session:  # another branch from the fourth question on, which is shown
        conversation = session.get_one(store.ConversationRow, chat)
        other = store.add_user_message(session, conversation, "another way", ids[7])
        store.save_answer(session, store.add_answer(session, other, "quickstart/ppo").id, "elsewhere", "complete")
    page = open_page()
    expect(page.locator("aside").get_by_role("link", name="question 0")).to_be_visible()
    page.keyboard.press("Control+K")
    field = page.get_by_role("combobox", name="Search chats")
    expect(field).to_be_focused()
    field.fill("needle")
    option = page.get_by_role("option")
    expect(option).to_have_count(1)
    expect(option.locator("mark")).to_have_text("needle")
    shot(page, "search")
    page.keyboard.press("Enter")
    found = page.get_by_role("article").filter(has_text="the needle")
    expect(found).to_be_in_viewport()
    expect(found).to_be_focused()
    shot(page, "search-found")
    # what is on the screen already, on another branch
    page.get_by_role("button", name="Search").click()
    field.fill("else")
    page.get_by_role("option").click()
    expect(page.get_by_role("article").filter(has_text="elsewhere")).to_be_focused()
    expect(page.get_by_text("the needle")).to_have_count(0)
    page.keyboard.press("Control+K")
    field.fill("nowhere to be found")
    expect(page.get_by_role("status").filter(has_text="Nothing was found")).to_be_visible()
    page.keyboard.press("Escape")
    expect(field).to_have_count(0)


def test_search_in_chinese_on_a_dark_phone(open_page: Open, live_server: LiveServer) -> None:
    fill(live_server, "什么是机器学习？", "机器学习是人工智能的一个分支。", "还有呢？", "深度学习用很多层。")
    page = open_page("zh-CN", dark=True, phone=True)
    page.get_by_role("button", name="打开侧栏").click()
    page.get_by_role("button", name="搜索").click()
    page.get_by_role("combobox").fill("学习")
    expect(page.get_by_role("option")).to_have_count(4)
    shot(page, "search-phone")
    page.get_by_role("option").filter(has_text="很多层").click()
    expect(page.get_by_role("article").filter(has_text="很多层")).to_be_in_viewport()
    expect(page.get_by_role("option")).to_have_count(0)


def test_hostile_texts_stay_texts_in_titles_messages_and_snippets(open_page: Open, live_server: LiveServer) -> None:
    for hostile in XSS:
        fill(live_server, f"needle {hostile}", f"{hostile} needle\n\n```html\n{hostile}\n```\n\n- {hostile}")
    page = open_page()
    expect(page.locator("aside").get_by_role("link", name="needle").first).to_be_visible()
    page.keyboard.press("Control+K")
    page.get_by_role("combobox").fill("needle")
    expect(page.get_by_role("option")).to_have_count(3 * len(XSS))
    assert_harmless(page)
    for place in range(len(XSS)):
        page.get_by_role("combobox").fill("needle")
        page.get_by_role("option").filter(has_text="Answer").nth(place).click()
        expect(page.get_by_role("option")).to_have_count(0)
        expect(last_answer(page)).to_contain_text("needle")
        assert_harmless(page)
        page.keyboard.press("Control+K")


def test_export_and_import_again(open_page: Open, live_server: LiveServer, tmp_path: Path) -> None:
    fill(live_server, "a/question", "an **answer**")
    page = open_page()
    page.get_by_role("link", name="a/question").click()
    expect(last_answer(page)).to_contain_text("an answer")
    files = {}
    for name in ("Export as Markdown", "Export as JSON"):
        page.get_by_role("button", name="More actions").click()
        shot(page, "export")
        with page.expect_download() as download:
            page.get_by_role("button", name=name).click()
        files[name] = tmp_path / download.value.suggested_filename
        download.value.save_as(files[name])
    assert files["Export as Markdown"].name == "a question.md"
    assert "an **answer**" in files["Export as Markdown"].read_text()
    hostile = json.loads(files["Export as JSON"].read_text())
    one = hostile | {"title": f"imported {XSS[0]}"}
    one["messages"] = [m | {"content": f"{XSS[n]} {XSS[-1]}"} for n, m in enumerate(hostile["messages"])]
    file = tmp_path / "hostile.json"
    file.write_text(json.dumps([one, one | {"title": "another"}]))
    page.get_by_role("button", name="Import chats").click()
    dialog = page.get_by_role("dialog", name="Import chats")
    dialog.locator("input").set_input_files(file)
    expect(dialog.get_by_role("status")).to_have_text("2 imported.")
    shot(page, "import")
    dialog.locator("input").set_input_files(files["Export as Markdown"])
    expect(dialog.get_by_role("alert")).to_have_text("This file is no JSON.")
    dialog.get_by_role("button", name="Close").click()
    page.get_by_role("link", name="imported <img").click()
    expect(last_answer(page)).to_be_visible()
    expect(page).to_have_title(re.compile("^imported <img"))
    assert_harmless(page)
