"""The console against the real routes of keys, projects, prices and usage. Fine-tuning: test_tuning_page.py."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from chatwheel.store import accounts
from tests.end_to_end.conftest import OpenAddress
from tests.end_to_end.labels import unlabelled
from tests.end_to_end.test_page import shot
from tests.end_to_end.test_training_page import fits
from tests.server.live import LiveServer, make_app, run_server

Json = dict[str, Any]
MODELS = ("quickstart/ppo", "quickstart/sft", "quickstart/base")


def section(page: Page, name: str) -> None:
    page.get_by_role("navigation", name=re.compile("Parts of|各部分")).get_by_role("link", name=name).click()


def card(page: Page, name: str) -> Any:
    return page.get_by_role("listitem").filter(has=page.get_by_role("heading", name=name))


def in_dialog(page: Page, button: str) -> None:
    page.get_by_role("dialog").get_by_role("button", name=button).click()


def new_key(page: Page, name: str, **choices: str) -> str:
    """Makes a key in the dialog; its value."""
    page.get_by_role("button", name="New key").click()
    page.get_by_label("What is it for?").fill(name)
    for label in choices.values():
        page.get_by_label(label).check()
    in_dialog(page, "Create")
    expect(page.get_by_role("heading", name="Your new key")).to_be_visible()
    return page.get_by_label("The key").input_value()


def me(url: str, key: str | None = None) -> httpx.Response:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return httpx.get(f"{url}/v1/me", headers=headers)


def test_the_first_key_closes_the_door_and_the_page_goes_in_with_it(
    live_server: LiveServer, open_address: OpenAddress
) -> None:
    page = open_address(live_server.url)
    page.get_by_role("link", name="Console").click()
    expect(page).to_have_title("Console · Chatwheel")
    expect(page.get_by_text("The first key closes that door")).to_be_visible()
    expect(page.get_by_text("There is no key in this project yet.")).to_be_visible()
    expect(page.get_by_text(f"{live_server.url}/v1", exact=True)).to_be_visible()
    assert unlabelled(page) == []
    page.get_by_role("button", name="New key").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    expect(page.get_by_label("Everything that you may")).to_be_checked()
    page.get_by_label("Use the API").check()
    expect(page.get_by_text("you could not come back")).to_be_visible()
    assert unlabelled(page) == []
    shot(page, "console-new-key")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)

    value = new_key(page, "administration")
    assert me(live_server.url).status_code == 401
    assert "admin" in me(live_server.url, value).json()["scopes"]
    shot(page, "console-secret")
    in_dialog(page, "Use it here")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(card(page, "administration")).to_contain_text("this page")
    expect(page.get_by_text("closes that door")).to_have_count(0)
    assert value not in page.content(), "it is shown once"
    page.reload()
    expect(card(page, "administration")).to_be_visible()

    # another tab has no key, is asked for it, and goes on where it was
    other = page.context.browser.new_page()  # type: ignore[union-attr]
    other.goto(f"{live_server.url}/#/console/keys")
    other.get_by_label("API key").fill(value)
    other.get_by_role("button", name="Enter").click()
    expect(card(other, "administration")).to_be_visible()
    other.close()


@pytest.fixture
def admin(live_server: LiveServer) -> str:
    """An administrator's key to the live server."""
    return make_key(live_server, accounts.SCOPES)


def make_key(server: LiveServer, scopes: Any, **more: Any) -> str:
    with server.database.write() as session:
        who = accounts.local_principal(session)
        made = accounts.create_key(
            session, project_id=who.project_id, user_id=who.user_id, name="made before", scopes=list(scopes), **more
        )
        return made.secret


@pytest.fixture
def enter(open_address: OpenAddress, live_server: LiveServer) -> Any:
    """Opens the page with a key."""

    def open_it(key: str, at: str = "/#/console", locale: str = "en-US", **how: bool) -> Page:
        page = open_address("about:blank", locale, **how)
        page.add_init_script(f"sessionStorage.setItem('chatwheel.key', {json.dumps(key)})")
        page.goto(live_server.url + at)
        return page

    return open_it


def test_keys_are_made_for_something_replaced_and_revoked(live_server: LiveServer, admin: str, enter: Any) -> None:
    page = enter(admin, "/#/console/keys")
    page.get_by_role("button", name="New key").click()
    page.get_by_label("What is it for?").fill("The shop")
    page.get_by_label("Only this").check()
    unwanted = (
        "Completions",
        "Files",
        "Fine-tuning",
        "Conversations",
        "Labelling",
        "Embeddings",
        "Moderations",
        "Scores",
    )
    for scope in unwanted:
        page.get_by_role("dialog").get_by_label(scope, exact=True).uncheck()
    page.get_by_label("Only these").check()
    page.get_by_label("quickstart/ppo").check()
    page.get_by_label("Ends").select_option("30")
    page.get_by_text("Limits of this key").click()
    page.get_by_label("Requests a minute").fill("3")
    page.get_by_label("Dollars a month").fill("1.5")
    in_dialog(page, "Create")
    value = page.get_by_label("The key").input_value()
    in_dialog(page, "Done")
    told = me(live_server.url, value).json()
    assert told["scopes"] == ["chat", "models", "usage"]
    assert told["models"] == ["quickstart/ppo"]
    shop = card(page, "The shop")
    for fact in ("Chats", "quickstart/ppo", "Requests a minute", "3", "$1.50", "Ends", "Last used"):
        expect(shop).to_contain_text(fact)
    shot(page, "console-keys")

    shop.get_by_role("button", name="Replace").click()
    in_dialog(page, "Replace")
    newer = page.get_by_label("The key").input_value()
    in_dialog(page, "Done")
    assert me(live_server.url, value).status_code == 401
    assert me(live_server.url, newer).json()["models"] == ["quickstart/ppo"]

    card(page, "The shop").get_by_role("button", name="Revoke").click()
    in_dialog(page, "Revoke")
    expect(card(page, "The shop")).to_have_count(0)
    assert me(live_server.url, newer).status_code == 401
    page.get_by_label("Show those that ended").check()
    expect(card(page, "The shop").first).to_contain_text("revoked")
    assert unlabelled(page) == []

    # the page's own key is replaced: it takes the new one
    card(page, "made before").get_by_role("button", name="Replace").click()
    in_dialog(page, "Replace")
    assert me(live_server.url, admin).status_code == 401
    in_dialog(page, "Use it here")
    expect(card(page, "made before").filter(has_text="this page")).to_have_count(1)
    section(page, "Audit log")
    for action in ("api_key.created", "api_key.rotated", "api_key.revoked"):
        expect(page.get_by_role("cell", name=action).first).to_be_visible()
    assert unlabelled(page) == []
    shot(page, "console-audit")


def test_what_a_key_may_not_do_is_not_shown(live_server: LiveServer, admin: str, enter: Any) -> None:
    assert admin
    page = enter(make_key(live_server, ["chat", "models", "usage"]), "/")
    expect(page.get_by_role("heading", name="Playground")).to_be_visible()
    expect(page.get_by_role("button", name="New chat")).to_have_count(0)
    expect(page.get_by_role("link", name="Training")).to_have_count(0)
    expect(page.get_by_role("button", name="Text", exact=True)).to_have_count(0)
    page.get_by_role("link", name="Console").click()
    parts = page.get_by_role("navigation", name="Parts of the console").get_by_role("link")
    expect(parts).to_have_text(["Usage", "Limits and prices"])
    section(page, "Limits and prices")
    expect(page.get_by_text("Requests a minute")).to_be_visible()
    expect(page.get_by_role("button", name=re.compile("^(Change|Set a price)"))).to_have_count(0)
    page = enter(make_key(live_server, ["embeddings"]), "/")
    expect(page.get_by_text("With this key there is nothing to manage here.")).to_be_visible()


def test_projects_their_members_and_users(live_server: LiveServer, admin: str, enter: Any) -> None:
    page = enter(admin, "/#/console/people")
    page.get_by_role("button", name="New user").click()
    page.get_by_label("Name", exact=True).fill("Ada")
    in_dialog(page, "Create")
    row = page.get_by_role("row", name=re.compile("Ada"))
    expect(row).to_be_visible()
    page.get_by_role("button", name="New project").click()
    page.get_by_label("Name", exact=True).fill("Support")
    in_dialog(page, "Create")
    support = card(page, "Support")
    support.get_by_text("Members").click()
    support.get_by_label("Add a member").select_option("Ada")
    support.get_by_role("button", name="Add", exact=True).click()
    role = support.get_by_label("Role of Ada")
    expect(role).to_have_value("member")
    with page.expect_response(re.compile("/users$")):
        role.select_option("owner")
    assert unlabelled(page) == []
    shot(page, "console-people")
    client = httpx.Client(base_url=live_server.url, headers={"authorization": f"Bearer {admin}"})
    projects = {one["name"]: one for one in client.get("/v1/organization/projects").json()["data"]}
    members = client.get(f"/v1/organization/projects/{projects['Support']['id']}/users").json()["data"]
    assert {one["name"]: one["role"] for one in members}["Ada"] == "owner"

    row.get_by_role("button", name="Lock out").click()
    expect(row).to_contain_text("locked out")
    row.get_by_role("button", name="Let in again").click()
    expect(row).not_to_contain_text("locked out")
    support.get_by_role("button", name="Archive").click()
    in_dialog(page, "Archive")
    expect(support).to_contain_text("archived")
    client.close()


def test_what_is_refused_is_told_and_undone(live_server: LiveServer, browser: Any) -> None:
    with live_server.database.write() as session:
        accounts.create_user(session, "Ada", "member")
    page = browser.new_page()
    refusal = {"error": {"message": "The last one stays.", "code": None}}
    page.route("**/v1/organization/users/*", lambda route: route.fulfill(status=409, json=refusal))
    page.goto(f"{live_server.url}/#/console/people")
    page.get_by_label("Role of Ada").select_option("admin")
    expect(page.get_by_role("alert").filter(has_text="The last one stays.")).to_be_visible()
    expect(page.get_by_label("Role of Ada")).to_have_value("member")
    # In a dialog it is told there, and what was written stays.
    page.route("**/v1/organization/projects", lambda route: route.fulfill(status=409, json=refusal))
    page.get_by_role("button", name="New project").click()
    page.get_by_label("Name", exact=True).fill("Support")
    in_dialog(page, "Create")
    expect(page.get_by_role("dialog").get_by_role("alert")).to_have_text("The last one stays.")
    expect(page.get_by_label("Name", exact=True)).to_have_value("Support")
    page.close()


def test_prices_make_costs_and_usage_is_drawn_and_downloaded(
    live_server: LiveServer, admin: str, enter: Any, tmp_path: Path
) -> None:
    page = enter(admin, "/#/console/usage")
    expect(page.get_by_text("Nothing was used in this time.")).to_be_visible()
    section(page, "Limits and prices")
    page.get_by_role("button", name="Set a price").click()
    page.get_by_role("dialog").get_by_label("Model").fill("quickstart/*")
    page.get_by_role("dialog").get_by_label("Read").fill("1000")
    page.get_by_role("dialog").get_by_label("Written").fill("5000")
    in_dialog(page, "Change")
    expect(page.get_by_role("row").filter(has_text="quickstart/*")).to_contain_text("$1,000.00")
    page.get_by_role("button", name="Change: Default").click()
    page.get_by_label("Tokens a minute").fill("100000")
    in_dialog(page, "Change")
    expect(page.get_by_role("listitem").filter(has_text="Tokens a minute")).to_contain_text("100,000")
    assert unlabelled(page) == []
    shot(page, "console-limits")

    with httpx.Client(base_url=live_server.url, headers={"authorization": f"Bearer {admin}"}) as client:
        for model in MODELS:
            body = {"model": model, "messages": [{"role": "user", "content": "one two three four"}]}
            for _ in range(MODELS.index(model) + 1):
                assert client.post("/v1/chat/completions", json=body).status_code == 200
        told = client.get("/v1/organization/usage/completions", params={"group_by": "model"}).json()
    results = {one["model"]: one for bucket in told["data"] for one in bucket["results"]}
    assert set(results) == set(MODELS)

    section(page, "Usage")
    for model, requests in zip(MODELS, (1, 2, 3), strict=True):
        row = page.get_by_role("row").filter(has_text=model)
        assert row.get_by_role("cell").nth(1).inner_text() == str(requests) == str(results[model]["num_model_requests"])
        assert row.get_by_role("cell").nth(2).inner_text() == str(results[model]["input_tokens"])
        assert row.get_by_role("cell").nth(5).inner_text() == f"${results[model]['amount']['value']:.2f}"
    chart = page.get_by_role("slider", name="Requests by day")
    expect(chart).to_have_attribute("aria-valuetext", re.compile(": 6$"))
    chart.focus()
    page.keyboard.press("ArrowLeft")
    expect(chart).to_have_attribute("aria-valuetext", re.compile(": 0$"))
    page.keyboard.press("Escape")
    expect(chart.locator("rect")).to_have_count(3)
    assert unlabelled(page) == []
    shot(page, "console-usage")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download as CSV").click()
    path = tmp_path / "usage.csv"
    download.value.save_as(path)
    rows = list(csv.DictReader(path.open()))
    assert [row["model"] for row in rows] == [MODELS[0], *[MODELS[1]] * 2, *[MODELS[2]] * 3]

    # what an answer costs is told in the playground too
    page.get_by_role("link", name="Playground").click()
    page.get_by_label("Probabilities").uncheck()
    page.get_by_role("textbox", name=re.compile(": User$")).fill("one two three four")
    page.get_by_role("button", name="Run").click()
    expect(page.locator("dl")).to_contain_text(re.compile(r"Cost\s*\$0\.0\d"))

    phone = enter(admin, "/#/console/usage", "zh-CN", phone=True)
    expect(phone.get_by_role("slider", name="每日费用")).to_be_visible()
    assert fits(phone), "the page scrolls sideways"
    shot(phone, "console-usage-phone-chinese")
    dark = enter(admin, "/#/console/usage", dark=True)
    expect(dark.get_by_role("slider", name="Cost by day")).to_be_visible()
    shot(dark, "console-usage-dark")
    for name in ("密钥", "项目与用户", "限额与价格", "审计日志", "文件", "微调"):
        section(phone, name)
        phone.wait_for_timeout(300)
        assert fits(phone), f"{name} scrolls sideways"
        assert unlabelled(phone) == []


def test_files_are_uploaded_used_downloaded_and_deleted(
    live_server: LiveServer, open_address: OpenAddress, tmp_path: Path
) -> None:
    page = open_address(f"{live_server.url}/#/console/files")
    expect(page.get_by_text("There is no file in this project yet.")).to_be_visible()
    file = tmp_path / "pirate.jsonl"
    file.write_text(json.dumps({"messages": [{"role": "user", "content": "Ahoy"}]}) + "\n")
    page.get_by_label("Upload examples").set_input_files(file)
    pirate = card(page, "pirate.jsonl")
    expect(pirate).to_contain_text("fine-tuning")
    with page.expect_download() as download:
        pirate.get_by_role("button", name="Download").click()
    assert download.value.suggested_filename == "pirate.jsonl"
    assert download.value.path().read_bytes() == file.read_bytes()
    assert unlabelled(page) == []
    shot(page, "console-files")
    [stored] = httpx.get(f"{live_server.url}/v1/files").json()["data"]
    found = {"ok": True, "kind": "supervised", "examples": 1, "num_bytes": 60, "errors": [], "num_errors": 0}
    found |= {"warnings": [], "tokens": None}  # played: the models are, too
    page.route("**/v1/files/*/check", lambda route: route.fulfill(json=found))
    page.get_by_role("link", name="Fine-tune: pirate.jsonl").click()
    expect(page.get_by_text("All lines are good.")).to_be_visible()
    expect(page.get_by_label("Training examples")).to_have_value(stored["id"])
    page.go_back()
    pirate.get_by_role("button", name="Delete").click()
    in_dialog(page, "Delete")
    expect(page.get_by_text("There is no file in this project yet.")).to_be_visible()
    assert httpx.get(f"{live_server.url}/v1/files").json()["data"] == []


def test_an_owner_hands_out_keys_of_their_project_only(live_server: LiveServer, admin: str, enter: Any) -> None:
    assert admin
    with live_server.database.write() as session:
        who = accounts.local_principal(session)
        ada = accounts.create_user(session, "Ada", "member")
        project = accounts.create_project(session, "Support", who.user_id)
        accounts.set_member(session, project.id, ada.id, "owner")
        scopes = [*accounts.USUAL, "project"]
        made = accounts.create_key(session, project_id=project.id, user_id=ada.id, name="Ada's", scopes=scopes)
    page = enter(made.secret, "/#/console")
    parts = page.get_by_role("navigation", name="Parts of the console").get_by_role("link")
    expect(parts).to_have_text(["Keys", "Projects and users", "Usage", "Limits and prices", "Files", "Fine-tuning"])
    expect(card(page, "Ada's")).to_contain_text("this page")
    value = new_key(page, "for the bot")
    in_dialog(page, "Done")
    assert me(live_server.url, value).json()["project"]["name"] == "Support"
    expect(card(page, "for the bot")).to_be_visible()
    expect(card(page, "made before")).to_have_count(0)


def test_a_page_that_cannot_be_fetched_says_so(live_server: LiveServer, browser: Any) -> None:
    page = browser.new_page()
    page.route("**/assets/Console-*.js", lambda route: route.abort())
    page.goto(f"{live_server.url}/#/console")
    expect(page.get_by_text("could not be fetched")).to_be_visible()
    page.wait_for_load_state("networkidle")
    page.unroute("**/assets/Console-*.js")
    page.get_by_role("button", name="Reload").click()
    expect(page.get_by_text("There is no key in this project yet.")).to_be_visible()
    page.close()


def test_a_server_with_a_key_of_its_own(browser: Any, tmp_path: Path) -> None:
    app, _, _ = make_app(tmp_path, api_key="open-sesame")
    with run_server(app) as url:
        page = browser.new_page()
        page.goto(f"{url}/#/console/keys")
        page.get_by_label("API key").fill("open-sesame")
        page.get_by_role("button", name="Enter").click()
        expect(page.get_by_text("There is no key in this project yet.")).to_be_visible()
        expect(page.get_by_text("closes that door")).to_have_count(0)
        page.close()
