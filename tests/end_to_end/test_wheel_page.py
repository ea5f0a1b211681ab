"""The wheel in a browser: a turn from the first click to the last rollback.

The routes are the server's own, over a home as a wheel that has turned twice leaves it (tests/wheel_home.py). Work on a
turn is played: its lock is held, and what is done is noted, as jobs/wheel/turn.py does. A forecast and the beginning of
a turn are real, on a tiny model.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect
from sqlalchemy import select
from sqlalchemy.orm import Session

from chatwheel.store import accounts
from chatwheel.store.tables import AuditRow
from tests.end_to_end.conftest import OpenAddress
from tests.end_to_end.labels import unlabelled
from tests.end_to_end.test_page import shot
from tests.end_to_end.test_training_page import fits
from tests.server.live import LiveServer, make_app, run_server
from tests.wheel_home import (
    AGAINST,
    AGREEING,
    FAILING,
    JUDGE,
    PASSING,
    SECOND,
    WheelHome,
    forecast_kept,
    given,
    thumbs,
    two_turns,
)

Json = dict[str, Any]
RANKINGS = 980
ENOUGH = pytest.mark.parametrize("wheel", [True], indirect=True, ids=["enough"])
STEPS = ["Data", "SFT", "Ranking", "Reward model", "PPO", "Judge", "Gate"]


OVERLAPS = """
(picture) => {
  const boxes = [...picture.querySelectorAll('rect')].map((rect) => rect.getBoundingClientRect())
  const over = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom
  return boxes.some((a, i) => boxes.some((b, j) => i < j && over(a, b)))
}
"""
PLACES = """
(picture) => Object.fromEntries([...picture.querySelectorAll('.node')].map((node) =>
  [node.querySelector('title').textContent, node.querySelector('rect').getBoundingClientRect().x]))
"""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose wheel has turned twice, with enough for a third time."""
    home = tmp_path_factory.mktemp("turned")
    _, database, _ = make_app(home)
    place = WheelHome(home, database)
    given(place, RANKINGS, twice=RANKINGS)
    two_turns(place)
    database.close()
    return home


@contextmanager
def run_wheel(home: Path) -> Iterator[tuple[LiveServer, WheelHome]]:
    """A server over a home."""
    app, database, models = make_app(home)
    place = WheelHome(home, database)
    try:
        with run_server(app) as url:
            yield LiveServer(url, database, models), place
    finally:
        place.close()


@pytest.fixture
def wheel(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[LiveServer, WheelHome]]:
    """Over a home whose wheel has turned twice; with enough for a third time, if ENOUGH is asked for."""
    home, enough = tmp_path / "home", getattr(request, "param", False)
    if enough:
        shutil.copytree(request.getfixturevalue("template"), home)
    with run_wheel(home) as (server, place):
        if not enough:
            two_turns(place)
        yield server, place


@pytest.fixture
def live_server(wheel: tuple[LiveServer, WheelHome]) -> LiveServer:
    """In the place of the other pages' server."""
    return wheel[0]


@pytest.fixture
def place(wheel: tuple[LiveServer, WheelHome]) -> WheelHome:
    return wheel[1]


def sentence(page: Page, words: str) -> None:
    expect(page.get_by_role("status").filter(has_text=words)).to_be_visible()


def in_dialog(page: Page, button: str) -> None:
    page.get_by_role("dialog").get_by_role("button", name=button).click()


def card(page: Page, name: str) -> Locator:
    return page.get_by_role("region", name=name, exact=True)


@ENOUGH
def test_a_turn_is_turned_and_watched(live_server: LiveServer, open_address: OpenAddress, place: WheelHome) -> None:
    page = open_address(live_server.url)
    links = page.get_by_role("complementary").get_by_role("link")
    page.get_by_role("link", name="Wheel").click()
    assert [link.strip() for link in links.all_inner_texts()][1:4] == ["Training", "Wheel", "Playground"]
    expect(page).to_have_title("Wheel · Chatwheel")
    sentence(page, "There is enough for a turn of the wheel.")
    expect(page.get_by_text("1,028 new ratings, choices, corrections and rankings since wheel-2.")).to_be_visible()
    came = card(page, "What came in").locator("dd").all_inner_texts()
    assert came[:8] == ["60", "30 new", "12", "6 new", "24", "12 new", "1,960", "980 new"]
    expect(page.get_by_role("slider", name="The last 30 days")).to_have_attribute("aria-valuemax", "29")
    enough = card(page, "Is it enough?")
    for title in ("Rankings: Enough", "Agreement: Enough", "Coverage: Enough", "Forecast: Not known"):
        expect(enough.get_by_role("listitem").filter(has_text=title)).to_be_visible()
    assert unlabelled(page) == []

    page.get_by_role("button", name="Turn the wheel").click()
    dialog = page.get_by_role("dialog")
    for words in ("begins from wheel-1/ppo", "rankings of 12 people", "keeps answering"):
        expect(dialog.get_by_text(words)).to_be_visible()
    expect(page.get_by_label("Changes to the recipe")).to_be_hidden()
    dialog.get_by_text("Details").click()
    page.get_by_label("Changes to the recipe").fill("ppo: 3")
    expect(dialog.get_by_text("The changes are no JSON object")).to_be_visible()
    expect(dialog.get_by_role("button", name="Begin")).to_be_disabled()
    page.get_by_label("Changes to the recipe").fill('{"ppo": {"rollouts": 8}}')
    assert unlabelled(page) == []
    shot(page, "wheel-dialog")
    in_dialog(page, "Begin")
    sentence(page, "wheel-3 waits until the machine is free.")
    begun = place.turn("wheel-3")
    assert (begun.begun["current"], begun.recipe["ppo"]["rollouts"], begun.state) == (SECOND, 8, "waiting")
    assert begun.begun["material"]["rankings"] >= 600
    with place.database.read() as session:
        name = accounts.get_user(session, accounts.local_principal(session).user_id).name
    expect(page.get_by_text(re.compile(f"by {name}$"))).to_be_visible()
    expect(page.get_by_role("button", name="Turn the wheel")).to_have_count(0)

    place.works("wheel-3", "ppo")
    sentence(page, "wheel-3 is under way: PPO.")
    steps = page.get_by_role("list", name="Steps").get_by_role("listitem")
    assert [text.split("\n")[0] for text in steps.all_inner_texts()] == STEPS
    expect(page.locator("[aria-current=step]")).to_contain_text("PPO")
    expect(page.locator("[aria-current=step]")).to_contain_text("40 %")
    assert page.get_by_role("link", name="Live curves").get_attribute("href") == "#/runs/wheel-3"
    shot(page, "wheel-under-way")
    page.get_by_role("button", name="Stop").click()
    in_dialog(page, "Stop")
    sentence(page, "wheel-3 stops at its next step.")
    expect(page.get_by_role("button", name="Stop")).to_have_count(0)
    place.lets_go("wheel-3")
    sentence(page, "wheel-3 was stopped.")
    expect(page.get_by_role("button", name="Turn the wheel")).to_be_visible()
    page.get_by_role("button", name="Resume").click()
    sentence(page, "wheel-3 waits")
    place.works("wheel-3", "reward")
    place.lets_go("wheel-3", "the disk is full: 3 GB are free; make room, then resume")
    expect(page.get_by_role("alert").filter(has_text="the disk is full")).to_be_visible()
    assert unlabelled(page) == []


def test_a_forecast_is_made(live_server: LiveServer, open_address: OpenAddress, place: WheelHome) -> None:
    """By a process of its own, from the states of a tiny model: mostly PyTorch's start."""
    given(place, 60)
    page = open_address(f"{live_server.url}/#/wheel")
    enough = card(page, "Is it enough?")
    enough.get_by_role("button", name="Make the forecast").click()
    expect(enough.get_by_text("The forecast is being made")).to_be_visible()
    expect(enough.get_by_text(re.compile("^twice the examples would"))).to_be_visible(timeout=240_000)
    expect(enough.get_by_role("img", name=re.compile("^Share of pairs in the wrong order"))).to_be_visible()
    expect(enough.get_by_role("button", name="Make")).to_have_count(0)  # it is fresh
    kept = json.loads((place.home / "wheel" / "forecast.json").read_text())
    assert kept["model"] == SECOND
    expect(enough.get_by_text(f"{kept['forecast']['examples']} rankings ·")).to_be_visible()


def audited(session: Session, action: str) -> list[AuditRow]:
    """The oldest first."""
    return list(session.scalars(select(AuditRow).where(AuditRow.action == action).order_by(AuditRow.id)))


def answering(server: LiveServer) -> list[tuple[str, float]]:
    """(model, share) of those that answer now, the newest first."""
    rows = httpx.get(f"{server.url}/v1/deployments").json()["data"]
    return [(row["model"], row["share"]) for row in rows if row["ended_at"] is None]


def test_a_better_candidate_is_promoted_step_by_step_and_rolled_back(
    live_server: LiveServer, open_address: OpenAddress, place: WheelHome
) -> None:
    place.begin("wheel-3", days=0.08)
    place.works("wheel-3", "gate")
    page = open_address(f"{live_server.url}/#/wheel")
    sentence(page, "wheel-3 is under way: Gate.")
    place.decided("wheel-3", PASSING, witnesses=AGREEING)
    sentence(page, "wheel-3/ppo is better than the model that answers now.")
    gate = card(page, "Better")
    expect(
        gate.get_by_text("Of 120 held-out prompts the judge prefers the answer of wheel-3/ppo in 62 % (56 % to 68 %)")
    ).to_be_visible()
    picture = gate.get_by_role("img", name=re.compile("^How often the candidate wins"))
    expect(picture).to_have_attribute("aria-label", re.compile(r"Prompts once rated up 53\s% \(45\s% to 61\s%\)"))
    gate.get_by_text("As a table").click()
    rows = gate.get_by_role("row")
    assert rows.count() == 5
    cells = [text.replace("\xa0", " ") for text in rows.nth(1).get_by_role("cell").all_inner_texts()]
    assert cells[1:] == ["62 %", "56 % to 68 %", "240", "certainly better"]
    expect(rows.nth(3)).to_contain_text("right answers: 87.3 %, before 86.1 %")
    expect(gate.get_by_text("It puts 74 % of the pairs of 68 held-out rankings in the right order")).to_be_visible()
    heard = gate.get_by_role("list", name="What people said otherwise").get_by_role("listitem")
    assert [text.replace("\xa0", " ") for text in heard.all_inner_texts()] == [
        "In line\nOf 38 answers that people corrected, it puts the correction first in 81 % (66 % to 90 %).",
        "In line\nOf one answer rated up and one rated down, it puts the first one first in 64 % (55 % to 72 %; "
        "61 of the rarer kind).",
    ]
    shot(page, "wheel-gate")

    gate.get_by_role("button", name="Promote to 5 % of chats").click()
    expect(page.get_by_role("dialog")).to_contain_text(
        "One in 20 new chats with chatwheel-latest is answered by it, the others by wheel-1/ppo."
    )
    page.keyboard.press("Escape")
    assert answering(live_server) == [("wheel-1/ppo", 1.0)]
    gate.get_by_role("button", name="Promote to 5 % of chats").click()
    in_dialog(page, "Promote")
    sentence(page, "wheel-3/ppo answers 5 % of chats.")
    assert answering(live_server) == [("wheel-3/ppo", 0.05), ("wheel-1/ppo", 1.0)]
    who = card(page, "Who answers now")
    expect(who.get_by_text("There are not enough ratings to compare yet.")).to_be_visible()
    thumbs(place, "wheel-3/ppo", 12, 5)
    thumbs(place, SECOND, 34, 16)
    page.reload()
    expect(who.get_by_text("Not shown to be worse: 71 % of 17 thumbs are up, 68 % of 50")).to_be_visible()
    expect(who.get_by_role("listitem").filter(has_text="wheel-1/ppo")).to_contain_text("95 % of chats")
    assert unlabelled(page) == []

    who.get_by_role("button", name="Let it answer all chats").click()
    in_dialog(page, "Promote")
    expect(gate.get_by_text("It answers all chats.")).to_be_visible()
    assert answering(live_server) == [("wheel-3/ppo", 1.0)]
    with place.database.read() as session:
        notes = [(one.details["share"], one.details["anyway"]) for one in audited(session, "model.promoted")]
    assert notes == [(0.05, False), (1.0, False)]

    who.get_by_role("button", name="Roll back").click()
    expect(page.get_by_role("dialog")).to_contain_text(
        "wheel-3/ppo answers nobody any more; wheel-1/ppo answers all chats again"
    )
    in_dialog(page, "Roll back")
    expect(gate.get_by_text("It answers nobody any more.")).to_be_visible()
    assert answering(live_server) == [("wheel-1/ppo", 1.0)]
    expect(card(page, "All turns").get_by_role("listitem").filter(has_text="wheel-3")).to_contain_text("rolled back")


def test_a_candidate_that_did_not_pass_is_asked_about_twice(
    live_server: LiveServer, open_address: OpenAddress, place: WheelHome
) -> None:
    place.begin("wheel-3", days=0.08)
    place.decided("wheel-3", FAILING)
    page = open_address(f"{live_server.url}/#/wheel")
    gate = card(page, "Worse")
    expect(
        gate.get_by_text("wheel-3/ppo is certainly worse in: Held-out prompts and Prompts once rated up.")
    ).to_be_visible()
    gate.get_by_role("button", name="Promote to 5 % of chats").click()
    expect(page.get_by_role("heading", name="wheel-3/ppo did not pass the gate")).to_be_visible()
    in_dialog(page, "Go on")
    expect(page.get_by_role("heading", name="Promote it anyway?")).to_be_visible()
    assert unlabelled(page) == []
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert answering(live_server) == [(SECOND, 1.0)]
    gate.get_by_role("button", name="Promote to 5 % of chats").click()
    in_dialog(page, "Go on")
    in_dialog(page, "Promote anyway")
    sentence(page, "wheel-3/ppo answers 5 % of chats.")
    with place.database.read() as session:
        assert [one.details["anyway"] for one in audited(session, "model.promoted")] == [True]

    place.begin("wheel-4", days=0.01)
    place.decided("wheel-4", PASSING, JUDGE, AGAINST)
    page.reload()
    against = card(page, "Nobody can judge yet")
    expect(against.get_by_text("The rankings say the opposite of what people said by corrections.")).to_be_visible()
    said = against.get_by_role("list", name="What people said otherwise").get_by_role("listitem")
    assert [text.split("\n")[0] for text in said.all_inner_texts()] == ["Contradicts it", "In line"]


@ENOUGH
def test_earlier_turns_and_the_lineage(live_server: LiveServer, open_address: OpenAddress, place: WheelHome) -> None:
    forecast = forecast_kept(place)
    page = open_address(f"{live_server.url}/#/wheel")
    lineage = card(page, "Where the models are from").first
    picture = lineage.get_by_role("group", name=re.compile("^Models, the runs that made them"))
    expect(picture.locator("a[href='#/runs/wheel-2']")).to_have_count(1)
    assert picture.locator("rect").evaluate_all("(boxes) => boxes.every((box) => box.getBBox().width > 100)")
    assert picture.evaluate(OVERLAPS) is False, "two boxes lie over each other"
    x = {name.split(" (")[0]: place for name, place in picture.evaluate(PLACES).items()}
    assert x["People: 23 people"] < x["Data: What people said"] < x["Run: wheel-2"] < x["Model: wheel-2/ppo"]
    lineage.get_by_text("As text").click()
    told = lineage.get_by_role("listitem").filter(has_text="wheel-1 from")
    for source in ("What people said", "quickstart/ppo"):
        expect(told).to_contain_text(source)
    assert unlabelled(page) == []
    card(page, "All turns").get_by_role("link", name=re.compile("^wheel-1")).click()
    expect(page.get_by_role("heading", name="wheel-1", level=1)).to_be_visible()
    expect(card(page, "Better").get_by_text("It answers all chats.")).to_be_visible()
    page.get_by_text("Recipe").click()
    expect(page.get_by_text('"rollouts": 16')).to_be_visible()
    page.get_by_role("link", name="The wheel").click()
    page.goto(f"{live_server.url}/#/wheel/other")
    expect(page.get_by_text("There is no such turn here.")).to_be_visible()

    phone = open_address(f"{live_server.url}/#/wheel", "zh-CN", dark=True, phone=True)
    sentence(phone, "已经足够转动一轮飞轮。")
    ready = card(phone, "够了吗？").get_by_role("listitem")
    expect(ready.first).to_contain_text(re.compile(r"\d+ 个可供学习的排序"))
    expect(ready.filter(has_text="一致性")).to_contain_text(re.compile(r"标注者的一致性 alpha 为 0\.\d\d（"))
    expect(phone.locator("svg.picture")).to_contain_text("人们给出的内容")
    expect(phone.locator("svg.picture")).to_contain_text("512 个排序")
    assert fits(phone), "the page scrolls sideways"
    assert unlabelled(phone) == []
    expect(
        card(phone, "尚未证明更好").get_by_text("评判者有 53 %（47 % 至 59 %）更喜欢 wheel-2/ppo 的回答")
    ).to_be_visible()
    doubled = f"{round(100 * forecast.forecast)}"
    expect(phone.get_by_text(re.compile(f"^排序翻倍后，错误率(大致仍为|预计从.*降到约) {doubled}\\s%"))).to_be_visible()
    box = card(phone, "模型的来历").last
    assert box.evaluate("(box) => box.scrollWidth > box.clientWidth && box.scrollLeft > 0"), "it is not at the newest"
    shot(phone, "wheel-phone-chinese")


def test_a_new_home_and_those_who_are_no_admins(open_address: OpenAddress, tmp_path: Path) -> None:
    with run_wheel(tmp_path / "new") as (server, _):
        see_a_new_home(open_address, server)


def see_a_new_home(open_address: OpenAddress, live_server: LiveServer) -> None:
    page = open_address(f"{live_server.url}/#/wheel")
    sentence(page, "There is not enough for a turn of the wheel yet.")
    for words in (
        "Nothing came in yet",
        "No model was promoted yet",
        "There is no model yet that says where it is from",
    ):
        expect(page.get_by_text(words)).to_be_visible()
    expect(page.get_by_role("button", name="Roll back")).to_have_count(0)
    expect(page.get_by_role("slider", name="The last 30 days")).to_have_count(0)
    page.get_by_role("button", name="Turn the wheel").click()
    expect(page.get_by_role("dialog")).to_contain_text("It begins from quickstart/ppo.")
    assert unlabelled(page) == []

    with live_server.database.write() as session:
        ada, who = accounts.create_user(session, "Ada", "member"), accounts.local_principal(session)
        accounts.set_member(session, who.project_id, ada.id, "member")
        made = accounts.create_key(
            session, project_id=who.project_id, user_id=ada.id, name="ada", scopes=list(accounts.USUAL)
        )
    page.evaluate("(key) => sessionStorage.setItem('chatwheel.key', key)", made.secret)
    page.reload()
    expect(page.get_by_text("This page is for those who manage the server.")).to_be_visible()
    expect(page.get_by_role("link", name="Playground")).to_be_visible()
    expect(page.get_by_role("link", name="Wheel", exact=True)).to_have_count(0)
