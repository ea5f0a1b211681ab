"""axe-core over every page: on a desktop and a phone, light and dark, English and Chinese. Nothing serious is left."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect
from sqlalchemy import select

from chatwheel.store import accounts, deployments
from chatwheel.store.database import Database
from chatwheel.store.tables import LabellingJudgementRow, LabellingTaskRow
from tests.end_to_end.conftest import DESKTOP, PHONE
from tests.end_to_end.test_labelling_page import new_queue
from tests.end_to_end.test_tuning_page import JOB, Played, examples
from tests.end_to_end.test_wheel_page import run_wheel
from tests.server.live import make_app, run_server
from tests.server.real import MODEL, run_real
from tests.server.test_arena import fought, simulated
from tests.server.test_runs import finish, write_metrics, write_rollouts, write_run
from tests.wheel_home import AGAINST, AGREEING, OPEN, PASSING, forecast_kept, given, two_turns

AXE = Path(__file__).parents[2] / "web" / "node_modules" / "axe-core" / "axe.min.js"
GRAVE = ("serious", "critical")
LOOK = """
async () => {
  await Promise.all(document.getAnimations().map((one) => one.finished.catch(() => null)))
  const found = await axe.run(document, {resultTypes: ['violations']})
  return found.violations.map(({id, impact, nodes}) => ({
    id, impact, nodes: nodes.map(({target, failureSummary}) => [target.join(' '), failureSummary].join(': ')),
  }))
}
"""


@dataclass(frozen=True)
class House:
    """The address of a server whose answers are Markdown, and of one whose models are real; the latter's key.
    wheel: of one whose wheel has turned."""

    fake: str
    real: str
    key: str
    queues: dict[str, str]
    wheel: str

    def prepare(self, context: BrowserContext) -> None:
        """axe is brought in by the browser itself: the page's policy lets nobody else in. And the key."""
        context.add_init_script(path=AXE)
        enter = f"sessionStorage.setItem('chatwheel.key', {json.dumps(self.key)})"
        context.add_init_script(f"if (location.origin === {json.dumps(self.real)}) {enter}")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Each page has something to show: answers, a run, keys, people, prices, usage, files."""
    home = tmp_path_factory.mktemp("real")
    app, labelled, _ = make_app(tmp_path_factory.mktemp("fake"))
    wheel_home = tmp_path_factory.mktemp("wheel")
    with run_server(app) as fake, run_real(home) as real, run_wheel(wheel_home) as (server, place):
        run = write_run(home, ppo={"rollouts": 12})
        write_metrics(run, "pretrain", 60)
        finish(run, "pretrain", "sft")
        write_rollouts(run)
        upload = {"file": ("examples.jsonl", examples(home / "examples.jsonl", 12).read_bytes())}
        real.http.post("/v1/files", files=upload, data={"purpose": "fine-tune"}).raise_for_status()
        price = {"model": "tiny/*", "input": 1000, "output": 5000, "training": 0}
        real.http.post("/v1/organization/prices", json=price).raise_for_status()
        body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
        real.http.post("/v1/chat/completions", json=body).raise_for_status()
        database = Database.open(f"sqlite:///{home / 'chatwheel.db'}")
        with database.write() as session:
            accounts.create_user(session, "Ada", "member")
            who, scopes = accounts.local_principal(session), list(accounts.SCOPES)
            made = accounts.create_key(
                session, project_id=who.project_id, user_id=who.user_id, name="administration", scopes=scopes
            )
        database.close()
        kinds = {"rank": 3, "rate": 1, "reply": 0}
        queues = {kind: new_queue(fake, kind, answers=count) for kind, count in kinds.items()}
        disputed(labelled, queues["rank"])
        with labelled.read() as session:
            user = accounts.local_principal(session).user_id
        fought(labelled, user, simulated(60))
        two_turns(place)
        given(place, 40)
        forecast_kept(place)
        place.decided("wheel-2", OPEN, witnesses=AGREEING)
        with server.database.write() as session:
            deployments.promote(session, "wheel-2/ppo", share=0.05)
        place.begin("wheel-3", days=0.02)
        place.decided("wheel-3", PASSING, witnesses=AGAINST)
        place.begin("wheel-4", days=0.01)
        place.works("wheel-4", "ppo")
        place.lets_go("wheel-4", "the disk is full; make room, then resume")
        yield House(fake, real.url, made.secret, queues, server.url)


def disputed(database: Database, queue: str) -> None:
    """On a queue's last task three do not agree at all."""
    with database.write() as session:
        tasks = session.scalars(select(LabellingTaskRow).where(LabellingTaskRow.queue_id == queue))
        task = max(tasks, key=lambda one: one.place).id
        for who, ranks in (("one", [1, 2, 3]), ("other", [3, 2, 1]), ("third", [2, 3, 1])):
            session.add(LabellingJudgementRow(task_id=task, labeller=who, action="imported", ranks=ranks))


def grave(page: Page, where: str) -> list[str]:
    """What is wrong there, in axe's words."""
    found: list[dict[str, Any]] = page.evaluate(LOOK)
    return [f"{where}: {one['id']} ({one['impact']}) {one['nodes'][:3]}" for one in found if one["impact"] in GRAVE]


def empty(page: Page, house: House) -> None:
    page.goto(house.fake)
    expect(page.locator("#message")).to_be_visible()


def a_chat(page: Page, house: House) -> None:
    page.goto(house.fake)
    page.locator("#message").fill("Show me some code")
    page.keyboard.press("Enter")
    expect(page.locator("article[aria-busy]").last).to_have_attribute("aria-busy", "false")
    page.locator("article[aria-busy]").last.hover()


def reasons(page: Page, house: House) -> None:
    a_chat(page, house)
    page.locator(".actions [aria-pressed]").last.click()
    page.locator(".chips button").nth(1).click()
    expect(page.locator("article form")).to_be_visible()


def menu(page: Page, house: House) -> None:
    a_chat(page, house)
    page.locator(".actions [aria-expanded]").click()
    expect(page.locator(".actions .menu")).to_be_visible()


def compared(page: Page, house: House) -> None:
    menu(page, house)
    page.locator(".menu button").nth(0).click()
    expect(page.locator("section .choices button").first).to_be_enabled()


def told(page: Page, house: House) -> None:
    compared(page, house)
    page.locator("section .choices button").first.click()
    expect(page.locator(".told")).to_be_visible()


def improving(page: Page, house: House) -> None:
    menu(page, house)
    page.locator(".menu button").nth(1).click()
    expect(page.locator("article form textarea")).to_be_focused()


def improved(page: Page, house: House) -> None:
    improving(page, house)
    page.locator("article form textarea").fill("Better: `print()`")
    page.locator("article form .button.primary").click()
    expect(page.locator(".own")).to_be_visible()


def reporting(page: Page, house: House) -> None:
    menu(page, house)
    page.locator(".menu button").nth(2).click()
    page.get_by_role("dialog").locator("input[type=radio]").first.check()


def reports(page: Page, house: House) -> None:
    reporting(page, house)
    page.get_by_role("dialog").locator(".button.primary").click()
    expect(page.locator(".reported")).to_be_visible()
    page.goto(f"{house.fake}/#/console/reports")
    expect(page.locator("li.card .answer").first).to_be_visible()


def shortcuts(page: Page, house: House) -> None:
    a_chat(page, house)
    page.keyboard.press("Escape")
    page.locator("article").first.click()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()


def deleted(page: Page, house: House) -> None:
    a_chat(page, house)
    if page.locator("header button").first.is_visible() and not page.locator("aside").is_visible():
        page.locator("header button").first.click()
    page.locator("aside .more").first.click()
    page.locator("aside .delete").click()
    expect(page.locator(".undo")).to_be_visible()


def prompts(page: Page, house: House) -> None:
    empty(page, house)
    page.locator("#message").fill("/")
    expect(page.get_by_role("option").first).to_be_visible()


def filling_in(page: Page, house: House) -> None:
    prompts(page, house)
    page.get_by_role("option").first.click()
    expect(page.get_by_role("dialog").locator("textarea")).to_be_visible()


def library(page: Page, house: House) -> None:
    httpx.post(f"{house.fake}/api/personas", json={"name": "Pirate", "system_prompt": "Arr.", "temperature": 0.5})
    page.goto(f"{house.fake}/#/library")
    expect(page.locator(".acts .primary").first).to_be_visible()


def a_persona(page: Page, house: House) -> None:
    library(page, house)
    page.locator(".acts .primary").first.click()
    expect(page.locator("header .persona")).to_be_visible()


def new_persona(page: Page, house: House) -> None:
    library(page, house)
    page.locator("section .card-head .button").first.click()
    expect(page.get_by_role("dialog")).to_be_visible()


def runs(page: Page, house: House) -> None:
    page.goto(f"{house.real}/#/runs")
    expect(page.locator("a[href='#/runs/try']")).to_be_visible()


def a_run(page: Page, house: House) -> None:
    page.goto(f"{house.real}/#/runs/try")
    expect(page.get_by_role("slider").first).to_be_visible()


def brief(route: Route) -> None:
    """The same answer each time, and soon over."""
    route.continue_(post_data=json.dumps(route.request.post_data_json | {"max_completion_tokens": 30, "seed": 1}))


def tokens(page: Page, house: House) -> None:
    page.route("**/v1/chat/completions", brief)
    page.goto(f"{house.real}/#/playground?model={MODEL}")
    page.locator(".turns li:last-child textarea").fill("What is the capital of France?")
    page.locator(".button.primary").click()
    expect(page.locator(".token").nth(3)).to_be_visible(timeout=30_000)
    expect(page.locator(".button.primary:has(svg)")).to_be_visible(timeout=30_000)
    page.locator(".token").nth(2).hover()


def console(part: str, shown: str) -> Callable[[Page, House], None]:
    """A part of the console, with something on it."""

    def open_it(page: Page, house: House) -> None:
        page.goto(f"{house.real}/#/console/{part}")
        expect(page.locator(shown).first).to_be_visible()

    return open_it


def dialog(page: Page, house: House) -> None:
    console("keys", ".page-inner .button.primary")(page, house)
    page.locator(".page-inner .button.primary").click()
    expect(page.get_by_role("dialog")).to_be_visible()


def a_grader(page: Page, house: House) -> None:
    console("tuning/new", "#base")(page, house)
    page.locator("input[value=reinforcement]").check()
    expect(page.locator("#grader-problem .good")).to_be_visible()
    page.locator("#training").select_option(index=1)
    page.locator("details.card summary").click()


def labelling(kind: str, shown: str, part: str = "") -> Callable[[Page, House], None]:
    """A queue's task, or its report with something to decide; or all queues."""

    def open_it(page: Page, house: House) -> None:
        path = "/".join(one for one in (house.queues.get(kind), part) if one)
        page.goto(f"{house.fake}/#/label/{path}".rstrip("/"))
        expect(page.locator(shown).first).to_be_visible()

    return open_it


def ranked(page: Page, house: House) -> None:
    labelling("rank", "ol article")(page, house)
    page.keyboard.press("ArrowDown")
    for key in "113":
        page.keyboard.press(key)


def deciding(page: Page, house: House) -> None:
    labelling("rank", "table", "report")(page, house)
    page.get_by_role("button", name=re.compile("^(Decide|裁决)$")).first.click()
    expect(page.locator("ol article").first).to_be_visible()


def labelling_shortcuts(page: Page, house: House) -> None:
    labelling("rank", "ol article")(page, house)
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()


def fighting(page: Page, house: House) -> None:
    empty(page, house)  # from where the arena is opened anew
    page.goto(f"{house.fake}/#/arena")
    page.locator(".empty li button").first.click()
    expect(page.locator("section .choices button").first).to_be_enabled()


def named(page: Page, house: House) -> None:
    fighting(page, house)
    page.keyboard.press("1")
    expect(page.locator(".told .button")).to_be_focused()


def leaderboard(page: Page, house: House) -> None:
    page.goto(f"{house.fake}/#/arena/leaderboard")
    expect(page.locator("ol .name").first).to_be_visible()


def wheel(page: Page, house: House) -> None:
    page.goto(f"{house.wheel}/#/wheel")
    page.locator("[aria-labelledby=lineage-title] details").evaluate("(one) => { one.open = true }")
    expect(page.locator("[aria-labelledby=lineage-title] li a").first).to_be_visible()


def turning(page: Page, house: House) -> None:
    wheel(page, house)
    page.locator("h2[role=status]").locator("..").locator("..").get_by_role("button").click()
    page.get_by_role("dialog").locator("summary").click()


def gate(page: Page, house: House, turn: str = "wheel-2") -> None:
    page.goto(f"{house.wheel}/#/wheel/{turn}")
    page.locator("[aria-labelledby=gate-title] summary").click()
    expect(page.locator("[aria-labelledby=gate-title] table")).to_be_visible()
    expect(page.locator("[aria-labelledby=gate-title] .judge li")).to_have_count(2)


def contradicted(page: Page, house: House) -> None:
    gate(page, house, "wheel-3")
    expect(page.locator("[aria-labelledby=gate-title] .judge .chip.bad")).to_be_visible()


PAGES: dict[str, Callable[[Page, House], None]] = {
    "empty chat": empty,
    "chat": a_chat,
    "reasons": reasons,
    "an answer's menu": menu,
    "comparison": compared,
    "compared": told,
    "improving": improving,
    "improved": improved,
    "report": reporting,
    "reports": reports,
    "shortcuts": shortcuts,
    "deleted": deleted,
    "prompts": prompts,
    "filling in": filling_in,
    "library": library,
    "a persona": a_persona,
    "new persona": new_persona,
    "queues": labelling("", ".card"),
    "ranking": ranked,
    "rating": labelling("rate", "fieldset"),
    "writing": labelling("reply", "textarea"),
    "labelling's shortcuts": labelling_shortcuts,
    "deciding": deciding,
    "battle": fighting,
    "battle named": named,
    "leaderboard": leaderboard,
    "runs": runs,
    "run": a_run,
    "wheel": wheel,
    "turning": turning,
    "gate": gate,
    "gate contradicted": contradicted,
    "playground": tokens,
    "keys": console("keys", ".page-inner .button.primary"),
    "new key": dialog,
    "people": console("people", "table"),
    "usage": console("usage", "[role=slider]"),
    "limits": console("limits", "table"),
    "audit": console("audit", "table"),
    "health": console("health", "table"),
    "retention": console("retention", "form"),
    "files": console("files", ".card"),
    "jobs": console("tuning", ".card"),
    "new job": a_grader,
    "job": console(f"tuning/{JOB}", "[role=slider]"),
}


@pytest.mark.parametrize(
    ("language", "phone"),
    [
        ("en-US", False),
        ("zh-CN", True),
        pytest.param("en-US", True, marks=pytest.mark.slow),
        pytest.param("zh-CN", False, marks=pytest.mark.slow),
    ],
    ids=["en-US-desktop", "zh-CN-phone", "en-US-phone", "zh-CN-desktop"],
)
def test_axe_finds_nothing_serious(browser: Browser, house: House, language: str, phone: bool) -> None:
    assert AXE.is_file(), "web's packages are not installed: run `npm ci` in web/"
    context = browser.new_context(
        viewport=PHONE if phone else DESKTOP,  # type: ignore[arg-type]
        locale=language,
        reduced_motion="reduce",
        has_touch=phone,
        is_mobile=phone,
    )
    house.prepare(context)
    page = context.new_page()
    page.set_default_timeout(30_000)
    Played(status="succeeded", steps=60).on(page)
    wrong = []
    for name, show in PAGES.items():
        show(page, house)
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            wrong += grave(page, f"{name}, {scheme}")
    context.close()
    assert not wrong, "\n".join(wrong)


def test_axe_would_see_it(browser: Browser, house: House) -> None:
    """It sees both schemes, and does find what is put there to be found."""
    context = browser.new_context(reduced_motion="reduce")
    house.prepare(context)
    page = context.new_page()
    page.goto(house.fake)
    expect(page.locator("#message")).to_be_visible()
    backgrounds = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        backgrounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert backgrounds[0] != backgrounds[1]
    page.evaluate("""() => {
      const made = document.createElement('p')
      made.textContent = 'Hardly to be read'
      made.style = 'position: fixed; top: 40%; left: 40%; z-index: 9; color: #333; background: #444'
      const button = document.createElement('button')
      document.querySelector('#app').append(made, button)
    }""")
    found = "\n".join(grave(page, "spoilt"))
    assert "color-contrast" in found
    assert "button-name" in found
    context.close()
