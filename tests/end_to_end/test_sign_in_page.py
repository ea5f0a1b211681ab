"""Signing in on the page: the form, the account's menu, passwords and sessions; by axe too."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect

from chatwheel.store import accounts, attempts, passwords
from chatwheel.store.passwords import Hasher
from tests.end_to_end.conftest import DESKTOP, PATIENCE, PHONE
from tests.end_to_end.labels import unlabelled
from tests.end_to_end.test_accessibility import AXE, grave
from tests.end_to_end.test_page import shot
from tests.server.live import PASSWORD_KIB, LiveServer

PASSWORD, ANOTHER = "correct horse battery", "staple of another kind"
REFUSED = re.compile(r"Failed to load resource: .* status of (400|401|403|409|429) ")
"""What the browser itself says of an answer that the page knows what to do with."""
Open = Callable[..., Page]


@pytest.fixture
def opened(browser: Browser, live_server: LiveServer) -> Iterator[Open]:
    """A page in a browser of its own; at the end there was no other error than what was refused."""
    errors: list[str] = []
    contexts = []

    def note(message: ConsoleMessage) -> None:
        if message.type == "error" and not REFUSED.match(message.text):
            errors.append(message.text)

    def open_it(at: str = "/", locale: str = "en-US", *, phone: bool = False, dark: bool = False) -> Page:
        options: dict[str, Any] = {"viewport": PHONE if phone else DESKTOP, "is_mobile": phone, "has_touch": phone}
        scheme: Any = "dark" if dark else "light"
        context = browser.new_context(locale=locale, color_scheme=scheme, **options)
        context.add_init_script(path=AXE)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("console", note)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(live_server.url + at)
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert errors == []


@pytest.fixture
def guarded(live_server: LiveServer) -> LiveServer:
    """Its admin has a password."""
    give(live_server, "admin")
    return live_server


def give(server: LiveServer, name: str, password: str = PASSWORD) -> None:
    with server.database.write() as session:
        passwords.put(session, accounts.get_user(session, name).id, Hasher(PASSWORD_KIB).digest(password))


def fill(page: Page, name: str, password: str) -> None:
    page.get_by_label(re.compile("^(Name|用户名)$")).fill(name)
    page.get_by_label(re.compile("^(Password|密码)$")).fill(password)


def sign_in(page: Page, name: str = "admin", password: str = PASSWORD) -> None:
    fill(page, name, password)
    page.keyboard.press("Enter")


def come_in(page: Page, name: str = "admin", password: str = PASSWORD) -> None:
    sign_in(page, name, password)
    expect(page.get_by_role("dialog")).to_have_count(0)


def ask(page: Page, text: str) -> None:
    page.get_by_role("textbox", name="Message").fill(text)
    page.keyboard.press("Enter")


def account(page: Page, item: str | None = None) -> None:
    """Opens the account's menu, and presses something in it."""
    page.get_by_role("button", name=re.compile("^(Account|账户)")).click()
    if item:
        page.get_by_role("button", name=item, exact=True).click()


@pytest.mark.usefixtures("guarded")
def test_sign_in_and_out(opened: Open) -> None:
    page = opened("/#/console/people")
    dialog = page.get_by_role("dialog", name="Sign in")
    expect(dialog).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog).to_be_visible()
    assert unlabelled(page) == []
    shot(page, "sign-in")
    name, password = page.get_by_label("Name", exact=True), page.get_by_label("Password", exact=True)
    expect(name).to_be_focused()
    # what password managers look for
    assert [name.get_attribute(one) for one in ("autocomplete", "name", "type")] == ["username", "username", None]
    assert [password.get_attribute(one) for one in ("autocomplete", "type")] == ["current-password", "password"]

    expect(page.get_by_role("button", name="Sign in")).to_be_disabled()
    sign_in(page, password="not it at all")
    expect(page.get_by_text("The name or the password is wrong.")).to_be_visible()
    page.get_by_role("button", name="Show password").click()
    expect(password).to_have_attribute("type", "text")
    expect(password).to_have_value("not it at all")
    sign_in(page)
    expect(dialog).to_have_count(0)
    expect(page.get_by_role("heading", name="Users")).to_be_visible()  # where one wanted to go
    kept = page.evaluate("JSON.stringify({...localStorage}) + JSON.stringify({...sessionStorage}) + document.cookie")
    assert "session" not in kept
    assert "token" not in kept
    page.reload()
    expect(page.get_by_role("heading", name="Users")).to_be_visible()

    account(page, "Sign out")
    expect(dialog).to_be_visible()
    assert page.context.cookies() == []
    page.reload()
    expect(dialog).to_be_visible()


@pytest.mark.usefixtures("guarded")
def test_who_signs_in_asks_and_is_answered(opened: Open) -> None:
    page = opened()
    come_in(page)
    ask(page, "hello there")
    expect(page.locator("article").last).to_contain_text("hello")
    expect(page.get_by_role("button", name="Stop")).to_have_count(0)
    # in another tab somebody signs in anew: this one goes on with the new session's token
    other = page.context.new_page()
    other.goto(page.url)
    account(other, "Change password")
    other.get_by_label("Current password").fill(PASSWORD)
    other.get_by_label("New password").fill(ANOTHER)
    other.get_by_role("dialog").get_by_role("button", name="Change", exact=True).click()
    expect(other.get_by_role("dialog")).to_have_count(0)
    page.get_by_role("textbox", name="Message").fill("and again")
    with page.expect_response(lambda reply: reply.status == 403) as refused:
        page.keyboard.press("Enter")
    assert refused.value.json()["error"]["code"] == "csrf_token_invalid"
    expect(page.locator("article")).to_have_count(4)


def test_one_waits_after_wrong_passwords(guarded: LiveServer, opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "FIRST_SECONDS", 3.0)
    page = opened()
    for _ in range(5):
        sign_in(page, password="not it at all")
        expect(page.get_by_text("The name or the password is wrong.")).to_be_visible()
        page.get_by_role("button", name="Sign in").wait_for()
    sign_in(page)
    expect(page.get_by_text("Too many wrong passwords")).to_be_visible()
    expect(page.get_by_role("button", name=re.compile(r"Sign in \(wait \d s\)"))).to_be_disabled()
    expect(page.get_by_role("button", name="Sign in", exact=True)).to_be_enabled(timeout=10_000)
    page.get_by_role("button", name="Sign in", exact=True).click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    with guarded.database.read() as session:
        actions = [row.action for row in accounts.list_audit(session)]
    assert actions[:6] == ["session.created", *["session.failed"] * 5]


@pytest.mark.usefixtures("guarded")
def test_another_password_and_where_one_is_signed_in(opened: Open) -> None:
    page, phone = opened(), opened(phone=True)
    sign_in(page)
    sign_in(phone)
    expect(phone.get_by_role("dialog")).to_have_count(0)
    account(page, "Where I am signed in")
    lines = page.get_by_role("dialog").get_by_role("listitem")
    expect(lines).to_have_count(2)
    expect(lines.filter(has_text="here")).to_have_count(1)
    assert unlabelled(page) == []
    shot(page, "sessions")
    page.get_by_role("button", name="Close", exact=True).click()

    account(page, "Change password")
    dialog = page.get_by_role("dialog")
    current, new = dialog.get_by_label("Current password"), dialog.get_by_label("New password")
    assert current.get_attribute("autocomplete") == "current-password"
    assert new.get_attribute("autocomplete") == "new-password"
    current.fill("not it at all")
    new.fill(ANOTHER)
    page.keyboard.press("Enter")
    expect(dialog.get_by_text("That is not your current password.")).to_be_visible()
    current.fill(PASSWORD)
    new.fill("short")
    page.keyboard.press("Enter")
    expect(dialog.get_by_text("A password has at least 8 characters.")).to_be_visible()
    shot(page, "change-password")
    new.fill(ANOTHER)
    page.keyboard.press("Enter")
    expect(dialog).to_have_count(0)
    page.reload()
    expect(page.get_by_role("button", name=re.compile("^Account"))).to_be_visible()
    phone.reload()
    expect(phone.get_by_role("dialog", name="Sign in")).to_be_visible()
    sign_in(phone, password=ANOTHER)
    expect(phone.get_by_role("dialog")).to_have_count(0)

    account(page, "Where I am signed in")
    page.get_by_role("button", name="Sign out everywhere").click()
    expect(page.get_by_role("dialog", name="Sign in")).to_be_visible()
    phone.reload()
    expect(phone.get_by_role("dialog", name="Sign in")).to_be_visible()


def test_the_first_password_and_a_temporary_one(live_server: LiveServer, opened: Open) -> None:
    with live_server.database.write() as session:
        ada = accounts.create_user(session, "ada@example.com")
        accounts.create_project(session, "Ada's", ada.id)
    page = opened("/#/console/people")
    give_one = page.get_by_role("button", name=re.compile("Temporary password ?: ada@example.com"))
    give_one.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Temporary password").click()
    expect(dialog.get_by_text("set your own first")).to_be_visible()
    page.keyboard.press("Escape")
    account(page, "Set a password")
    expect(page.get_by_text("From then on this page asks for your name (admin)")).to_be_visible()
    page.get_by_label("New password").fill(PASSWORD)
    page.get_by_role("dialog").get_by_role("button", name="Set", exact=True).click()
    expect(dialog).to_have_count(0)
    give_one.click()  # one stays in
    dialog.get_by_role("button", name="Temporary password").click()
    expect(page.get_by_text("It is shown this once.")).to_be_visible()
    value = page.get_by_label("The password", exact=True).input_value()
    assert unlabelled(page) == []
    shot(page, "temporary-password")
    dialog.get_by_role("button", name="Done").click()
    assert value not in page.content()

    hers = opened()
    sign_in(hers, "ada@example.com", value)
    expect(hers.get_by_text("Your password is a temporary one.")).to_be_visible()
    expect(hers.get_by_label("Current password")).to_have_count(0)  # it was typed a moment ago
    hers.reload()
    hers.get_by_label("Current password").fill(value)
    hers.get_by_label("New password").fill(ANOTHER)
    hers.keyboard.press("Enter")
    expect(hers.get_by_role("button", name="Account: ada@example.com")).to_be_visible()
    expect(hers.get_by_role("dialog")).to_have_count(0)
    ask(hers, "hello there")
    expect(hers.locator("article").last).to_contain_text("hello")


def test_another_user_in_the_same_browser_sees_nothing_of_the_one_before(guarded: LiveServer, opened: Open) -> None:
    with guarded.database.write() as session:
        ada = accounts.create_user(session, "Ada")
        accounts.create_project(session, "Ada's", ada.id)
    give(guarded, "Ada")
    page = opened()
    come_in(page)
    ask(page, "a secret of the admin's")
    expect(page.locator("article").last).to_contain_text("secret")
    expect(page.get_by_role("button", name="Stop")).to_have_count(0)
    with guarded.database.write() as session:  # signed out elsewhere, while the page is open
        passwords.put(session, accounts.get_user(session, "admin").id, "none")
    ask(page, "more")
    expect(page.get_by_role("dialog", name="Sign in")).to_be_visible()
    sign_in(page, "Ada")
    expect(page.get_by_role("button", name="Account: Ada")).to_be_visible()
    expect(page.get_by_text("a secret of the admin's")).to_have_count(0)


def test_a_key_is_the_other_way(guarded: LiveServer, opened: Open) -> None:
    with guarded.database.write() as session:
        local = accounts.local_principal(session)
        key = accounts.create_key(session, project_id=local.project_id, user_id=local.user_id, name="k").secret
    page = opened()
    page.get_by_role("button", name="Use an API key instead").click()
    page.get_by_label("API key").fill("wrong")
    page.get_by_role("button", name="Enter").click()
    expect(page.get_by_text("That key is not right.")).to_be_visible()
    page.get_by_role("button", name="Use a name and a password instead").click()
    expect(page.get_by_label("Name", exact=True)).to_be_visible()
    page.get_by_role("button", name="Use an API key instead").click()
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Enter").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    account(page, "Sign out")
    expect(page.get_by_role("dialog", name="Sign in")).to_be_visible()


@pytest.mark.parametrize(
    ("locale", "phone", "dark"), [("en-US", False, True), ("zh-CN", True, False)], ids=["en-desktop", "zh-phone"]
)
@pytest.mark.usefixtures("guarded")
def test_axe_finds_nothing_serious(opened: Open, locale: str, phone: bool, dark: bool) -> None:
    page = opened("/", locale, phone=phone, dark=dark)
    zh = locale == "zh-CN"
    expect(page.get_by_role("dialog", name="登录" if zh else "Sign in")).to_be_visible()
    found = grave(page, "sign in")
    sign_in(page, password="not it at all")
    expect(page.get_by_text("用户名或密码不正确。" if zh else "is wrong")).to_be_visible()
    found += grave(page, "wrong")
    shot(page, f"sign-in-{locale}")
    page.get_by_role("button", name="改用" if zh else "Use an API key").click()
    found += grave(page, "key")
    page.get_by_role("button", name="改用" if zh else "Use a name").click()
    sign_in(page)
    expect(page.get_by_role("dialog")).to_have_count(0)
    for item, title in (
        (("修改密码", "修改密码"), ("已登录的地方", "已登录的地方"))
        if zh
        else (
            ("Change password", "Change your password"),
            ("Where I am signed in", "Where you are signed in"),
        )
    ):
        if phone:
            page.get_by_role("button", name="打开侧栏" if zh else "Open sidebar").click()
        account(page)
        found += grave(page, "menu")
        page.get_by_role("button", name=item, exact=True).click()
        expect(page.get_by_role("dialog", name=title)).to_be_visible()
        if "登录" in item or "signed" in item:
            expect(page.get_by_role("dialog").get_by_role("listitem")).to_have_count(1)
        found += grave(page, item)
        shot(page, f"{title}-{locale}".replace(" ", "-"))
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)
        if phone:
            page.keyboard.press("Escape")
    assert found == []
