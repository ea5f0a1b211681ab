"""The wheel in a browser: a turn from the first click to the last rollback.

`PlayedWheel` plays the server's part of the wheel, so that each state can be looked at. Who answers (/v1/deployments),
the runs and their curves, what the gate says and what ratings say are real.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, Depends
from filelock import FileLock
from playwright.sync_api import Locator, Page, expect

from chatwheel.feedback.sequential import FallingRatings
from chatwheel.feedback.significance import Interval
from chatwheel.jobs.wheel.gate import Check, CheckName, decide
from chatwheel.jobs.wheel.material import Material
from chatwheel.server.identity import needs
from chatwheel.store import accounts, deployments
from chatwheel.store.database import Database
from chatwheel.store.runs import Runs
from chatwheel.store.tables import DeploymentRow
from tests.end_to_end.conftest import OpenAddress
from tests.end_to_end.labels import unlabelled
from tests.end_to_end.test_page import shot
from tests.end_to_end.test_training_page import fits
from tests.server.live import LiveServer, make_app, run_server
from tests.server.test_runs import finish, write_metrics, write_run

Json = dict[str, Any]
DAY = 86400.0
STEPS = ["Data", "SFT", "Ranking", "Reward model", "PPO", "Judge", "Gate"]
MATERIAL = Material(
    demonstrations=146, corrections=38, rankings=512, judging=171, praised=97, prompts=604, people=23,
    languages={"en": 401, "zh": 282},
)  # fmt: skip
NOTHING = Material(
    demonstrations=0, corrections=0, rankings=0, judging=0, praised=0, prompts=0, people=0, languages={}
)  # fmt: skip
TOO_LITTLE = {
    "ready": False,
    "words": "too little to learn from",
    "items": [
        {"name": name, "ok": False, "value": 0, "least": least, "words": f"no {name} yet; {least} are needed"}
        for name, least in (("rankings", 200), ("demonstrations", 50))
    ],
}
JUDGE = {"rankings": 171, "pairs": 384, "accuracy": 0.742, "interval": [0.69, 0.79]}
ARRIVED = {
    "ratings": (1284, 312), "comparisons": (203, 41), "corrections": (96, 38),
    "rankings": (683, 171), "reports": (12, 0), "people": (41, 9),
}  # fmt: skip


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


def check(name: CheckName, rate: float, interval: Interval, **details: Any) -> Check:
    return Check(name, rate, interval, 240, f"{name}: {rate:.0%}", details)


PASSING = (
    check("preferred", 0.623, (0.56, 0.68), prompts=120),
    check("praised", 0.531, (0.45, 0.61), prompts=97),
    check("examination", 0.512, (0.487, 0.537), candidate=0.873, current=0.861),
    check("safety", 0.5, (0.49, 0.51), candidate=0.996, current=0.996),
)
FAILING = (
    check("preferred", 0.414, (0.35, 0.478), prompts=120),
    check("praised", 0.37, (0.29, 0.45), prompts=97),
    *PASSING[2:],
)


@dataclass
class PlayedWheel:
    """What a server with the wheel answers; the tests turn it on."""

    home: Path
    database: Database
    turns: list[Json] = field(default_factory=list)
    forecast: Json = field(default_factory=lambda: {"state": "none", "words": "no forecast yet"})
    begun: list[Json] = field(default_factory=list)
    promoted: list[Json] = field(default_factory=list)
    running: FileLock | None = None
    empty: bool = False

    def __post_init__(self) -> None:
        """Two turns have been: of the first the model answers now, the second was no better."""
        now = time.time()
        with self.database.write() as session:
            for model, days, outcome in (("quickstart/ppo", 40, "replaced"), ("wheel-1/ppo", 12, None)):
                ended = now - 12 * DAY if outcome else None
                session.add(
                    DeploymentRow(model=model, share=1.0, started_at=now - days * DAY, ended_at=ended, outcome=outcome)
                )
        self.begin("wheel-1", now - 13 * DAY, state="done", current="quickstart/ppo")
        self.decided(PASSING)
        self.begin("wheel-2", now - 3 * DAY, state="done")
        self.decided([replace(PASSING[0], rate=0.53, interval=(0.47, 0.59)), *PASSING[1:]])

    def begin(self, name: str, begun: float, *, state: str = "waiting", current: str = "wheel-1/ppo") -> Json:
        run = write_run(self.home, name, pretrain=None, reward={}, ppo={})
        finish(run, *(["data", "sft", "ranking", "reward", "ppo"] if state == "done" else ["data"]))
        stages = Runs(self.home / "runs").open(name).stages()
        turn = {
            "name": name, "state": state, "doing": None, "stages": stages, "current": current,
            "candidate": f"{name}/ppo", "material": asdict(MATERIAL), "verdict": None, "error": None,
            "begun_at": begun, "ended_at": begun + 5400 if state == "done" else None, "begun_by": None,
        }  # fmt: skip
        self.turns.insert(0, turn)
        return turn

    def at(self, stage: str, steps: int = 40) -> None:
        """The turn works on that stage now."""
        self.turns[0] |= {"state": "running", "doing": stage}
        run = self.home / "runs" / self.turns[0]["name"]
        if stage in ("sft", "reward", "ppo"):
            order = ["sft", "ranking", "reward", "ppo"]
            finish(run, *order[: order.index(stage)])
            write_metrics(run, stage, steps)
        self.lock(run)

    def lock(self, run: Path | None) -> None:
        if self.running is not None:
            self.running.release()
        self.running = FileLock(run / ".lock") if run else None
        if self.running is not None:
            self.running.acquire()

    def broke(self, state: str, error: str | None = None) -> None:
        self.lock(None)
        self.turns[0] |= {"state": state, "error": error}

    def decided(self, checks: Any) -> None:
        """The newest turn is done, and the gate says what follows from the checks."""
        self.lock(None)
        turn = self.turns[0]
        verdict = decide(turn["candidate"], turn["current"], list(checks), JUDGE).to_json()
        turn |= {"state": "done", "doing": None, "verdict": verdict, "ended_at": turn["ended_at"] or time.time()}

    def shown(self, turn: Json) -> Json:
        with self.database.read() as session:
            rows = [row for row in deployments.history(session) if row.model == turn["candidate"]]
            keys = ("share", "started_at", "ended_at", "outcome")
            return turn | {"deployments": [{key: getattr(row, key) for key in keys} for row in rows]}

    def clear(self) -> None:
        """As if nothing had been yet."""
        self.turns, self.empty = [], True
        with self.database.write() as session:
            for row in deployments.history(session):
                session.delete(row)

    def find(self, name: str) -> Json:
        return next(turn for turn in self.turns if turn["name"] == name)

    def view(self) -> Json:
        with self.database.read() as session:
            now = deployments.deployed(session)
            answering = [
                {"model": row.model, "share": row.share, "started_at": row.started_at} if row else None
                for row in (now.current, now.candidate)
            ]
        last = self.turns[0] if self.turns else None
        return {
            "current": answering[0],
            "candidate": answering[1],
            "rollback": {"words": thumbs(34, 24, 512, 353)} if answering[1] else None,
            "since": {"turn": last and last["name"], "at": last and last["begun_at"]},
            "arrived": {
                kind: {"total": 0, "new": 0} if self.empty else {"total": total, "new": new}
                for kind, (total, new) in ARRIVED.items()
            },
            "days": days(0 if self.empty else 1),
            "material": asdict(NOTHING if self.empty else MATERIAL),
            "readiness": TOO_LITTLE if self.empty else readiness(self.forecast["state"] == "done"),
            "forecast": self.forecast,
            "turns": [self.shown(turn) for turn in self.turns],
        }

    def lineage(self) -> Json:
        """people -> data -> run -> model, and from the model on to the next run."""
        if self.empty:
            return {"nodes": [], "edges": []}
        at = time.time() - 60 * DAY
        with self.database.read() as session:
            now = deployments.deployed(session)
            shares = {row.model: row.share for row in (now.current, now.candidate) if row}
        nodes = [
            {"id": "d0", "kind": "data", "label": "The made-up world", "words": "120,000 documents", "at": at},
            {"id": "r0", "kind": "run", "label": "quickstart", "words": "pretraining to PPO", "at": at, "run": "try"},
            {"id": "m0", "kind": "model", "label": "quickstart/ppo", "words": "3.1 M parameters", "at": at},
        ]
        edges = [("d0", "r0"), ("r0", "m0")]
        models = {"quickstart/ppo": "m0"}
        for number, turn in enumerate(reversed(self.turns), 1):
            if turn["state"] != "done":
                continue
            at, name, verdict = turn["begun_at"], turn["name"], turn["verdict"]["verdict"]
            run, model = f"r{number}", f"m{number}"
            models[turn["candidate"]] = model
            nodes += [
                {"id": f"p{number}", "kind": "people", "label": f"{14 + 9 * number} people", "words": "", "at": at},
                {"id": f"a{number}", "kind": "data", "label": "rankings", "words": "512 rankings", "at": at},
                {"id": f"b{number}", "kind": "data", "label": "demonstrations", "words": "38 corrections", "at": at},
                {"id": run, "kind": "run", "label": name, "words": "SFT, reward model, PPO", "at": at, "run": name},
                {"id": model, "kind": "model", "label": turn["candidate"], "words": "3.1 M parameters", "at": at}
                | {
                    "model": turn["candidate"],
                    "run": name,
                    "verdict": verdict,
                    "deployed": shares.get(turn["candidate"]),
                },
            ]
            edges += [(f"p{number}", f"a{number}"), (f"p{number}", f"b{number}"), (f"a{number}", run)]
            edges += [(f"b{number}", run), (models[turn["current"]], run), (run, model)]
        return {"nodes": nodes, "edges": [{"from": one, "to": other} for one, other in edges]}

    def router(self) -> APIRouter:
        """The routes of the contract."""
        routes = APIRouter(prefix="/v1/wheel", dependencies=[Depends(needs(accounts.ADMIN))])
        routes.add_api_route("", self.view)
        routes.add_api_route("/lineage", self.lineage)
        routes.add_api_route("/forecast", lambda: self.forecast)

        @routes.post("/forecast", status_code=202)
        def make_forecast() -> Json:
            self.forecast = {"state": "running", "words": "being made"}
            return self.forecast

        @routes.post("/turns", status_code=201)
        def begin_turn(body: Json) -> Json:
            self.begun.append(body)
            name = body.get("name") or f"wheel-{len(self.turns) + 1}"
            return self.shown(self.begin(name, time.time()))

        @routes.get("/turns/{name}")
        def one(name: str) -> Json:
            return self.shown(self.find(name)) | {"recipe": {"name": name, "ppo": {"rollouts": 16}}}

        @routes.post("/turns/{name}/{action}")
        def act(name: str, action: str, body: Json | None = None) -> Json:
            turn = self.find(name)
            if action == "promote":
                assert body is not None
                self.promoted.append(body)
                with self.database.write() as session:
                    return {"id": deployments.promote(session, turn["candidate"], share=body["share"]).id}
            if action == "stop":
                self.broke("stopped")
            else:
                turn |= {"state": "waiting", "error": None}
            return self.shown(turn)

        return routes


def thumbs(new: int, good: int, old: int, liked: int) -> str:
    """What `watching` says of so many thumbs of both, spread evenly."""
    test = FallingRatings()
    for place in range(max(new, old)):
        if place < old:
            test.add("old", float((place + 1) * liked // old - place * liked // old))
        if place < new:
            test.add("new", float((place + 1) * good // new - place * good // new))
    return test.words()


def days(busy: int = 1) -> list[Json]:
    first = datetime.now(UTC).date() - timedelta(days=29)
    return [
        {
            "day": (first + timedelta(days=i)).isoformat(),
            "ratings": busy * (20 + (i * 37) % 41 if i % 7 < 5 else 6),
            "comparisons": busy * ((i * 5) % 11),
            "corrections": busy * ((i * 3) % 6),
            "rankings": busy * (18 if i % 4 else 54),
        }
        for i in range(30)
    ]


def readiness(forecast: bool) -> Json:
    items = [
        ("rankings", True, 512, 200, "512 rankings to learn from; 200 are enough to begin"),
        ("demonstrations", True, 146, 50, "146 demonstrations; 50 are enough to begin"),
        ("agreement", True, 0.61, 0.4, "labellers agree: alpha 0.61; at least 0.40"),
        ("coverage", False, 0.34, 0.5, "34 % of what people ask about has rankings; 50 % would do"),
        ("forecast", True if forecast else None, 0.05 if forecast else None, None, "no forecast was made yet"),
    ]
    if forecast:
        items[-1] = (*items[-1][:4], "twice the rankings would lower the error by less than a twentieth")
    return {
        "ready": True,
        "words": "enough for a turn",
        "items": [dict(zip(("name", "ok", "value", "least", "words"), item, strict=True)) for item in items],
    }


def forecast_made() -> Json:
    def error(n: float) -> float:
        return 0.2 + 0.9 * n**-0.5

    points = [
        {"rankings": n, "error": error(n), "interval": [error(n) - 0.02, error(n) + 0.025]} for n in (64, 128, 256, 512)
    ]
    return {
        "state": "done", "words": "twice the rankings would lower the error from 24 % to about 23 % (21 to 25 %)",
        "model": "wheel-1/ppo", "rankings": 512, "made_at": time.time() - 600, "fresh": True, "points": points,
        "curve": [{"rankings": n, "error": error(n)} for n in range(64, 1025, 32)],
        "doubled": {"rankings": 1024, "error": error(1024), "interval": [0.21, 0.25]}, "error": None,
    }  # fmt: skip


@contextmanager
def run_wheel(home: Path) -> Iterator[tuple[LiveServer, PlayedWheel]]:
    """A server that plays the wheel. The real routes, where there are some, are asked first."""
    app, database, models = make_app(home)
    played = PlayedWheel(home, database)
    write_run(home, "try", ppo={})
    app.include_router(played.router())
    with run_server(app) as url:
        yield LiveServer(url, database, models), played
    played.lock(None)


@pytest.fixture
def wheel(tmp_path: Path) -> Iterator[tuple[LiveServer, PlayedWheel]]:
    with run_wheel(tmp_path) as both:
        yield both


@pytest.fixture
def live_server(wheel: tuple[LiveServer, PlayedWheel]) -> LiveServer:
    """In the place of the other pages' server."""
    return wheel[0]


@pytest.fixture
def played(wheel: tuple[LiveServer, PlayedWheel]) -> PlayedWheel:
    return wheel[1]


def sentence(page: Page, words: str) -> None:
    expect(page.get_by_role("status").filter(has_text=words)).to_be_visible()


def in_dialog(page: Page, button: str) -> None:
    page.get_by_role("dialog").get_by_role("button", name=button).click()


def card(page: Page, name: str) -> Locator:
    return page.get_by_role("region", name=name, exact=True)


def test_a_turn_is_turned_and_watched(live_server: LiveServer, open_address: OpenAddress, played: PlayedWheel) -> None:
    page = open_address(live_server.url)
    links = page.get_by_role("complementary").get_by_role("link")
    page.get_by_role("link", name="Wheel").click()
    assert [link.strip() for link in links.all_inner_texts()][:3] == ["Training", "Wheel", "Playground"]
    expect(page).to_have_title("Wheel · Chatwheel")
    sentence(page, "There is enough for a turn of the wheel.")
    expect(page.get_by_text("562 new ratings, choices, corrections and rankings since wheel-2.")).to_be_visible()
    assert card(page, "What came in").locator("dd").all_inner_texts()[:4] == ["1,284", "312 new", "203", "41 new"]
    expect(page.get_by_role("slider", name="The last 30 days")).to_have_attribute("aria-valuemax", "29")
    enough = card(page, "Is it enough?")
    for title in ("Rankings: Enough", "Coverage: Not enough", "Forecast: Not known"):
        expect(enough.get_by_role("listitem").filter(has_text=title)).to_be_visible()
    assert unlabelled(page) == []

    enough.get_by_role("button", name="Make the forecast").click()
    expect(enough.get_by_text("The forecast is being made")).to_be_visible()
    played.forecast = forecast_made()
    expect(enough.get_by_text("twice the rankings would lower the error from 24 %")).to_be_visible()
    expect(enough.get_by_role("img", name=re.compile("^Share of pairs in the wrong order"))).to_be_visible()
    expect(enough.get_by_role("listitem").filter(has_text="Forecast: Enough")).to_be_visible()

    page.get_by_role("button", name="Turn the wheel").click()
    dialog = page.get_by_role("dialog")
    for words in ("begins from wheel-1/ppo", "146 demonstrations and 512 rankings of 23 people", "keeps answering"):
        expect(dialog.get_by_text(words)).to_be_visible()
    expect(dialog.get_by_text("There may be too little of: Coverage.")).to_be_visible()
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
    assert played.begun == [{"changes": {"ppo": {"rollouts": 8}}}]
    expect(page.get_by_role("button", name="Turn the wheel")).to_have_count(0)

    played.at("ppo")
    sentence(page, "wheel-3 is under way: PPO.")
    steps = page.get_by_role("list", name="Steps").get_by_role("listitem")
    assert [text.split("\n")[0] for text in steps.all_inner_texts()] == STEPS
    expect(page.locator("[aria-current=step]")).to_contain_text("PPO")
    expect(page.locator("[aria-current=step]")).to_contain_text("40 %")
    assert page.get_by_role("link", name="Live curves").get_attribute("href") == "#/runs/wheel-3"
    shot(page, "wheel-under-way")
    page.get_by_role("button", name="Stop").click()
    in_dialog(page, "Stop")
    sentence(page, "wheel-3 was stopped.")
    expect(page.get_by_role("button", name="Turn the wheel")).to_be_visible()
    played.turns[0]["error"] = "the disk is full: 3 GB are free; make room, then resume"
    page.get_by_role("button", name="Resume").click()
    sentence(page, "wheel-3 waits")
    played.broke("failed", "the disk is full: 3 GB are free; make room, then resume")
    expect(page.get_by_role("alert").filter(has_text="the disk is full")).to_be_visible()
    assert unlabelled(page) == []


def answering(server: LiveServer) -> list[tuple[str, float]]:
    """(model, share) of those that answer now, the newest first."""
    rows = httpx.get(f"{server.url}/v1/deployments").json()["data"]
    return [(row["model"], row["share"]) for row in rows if row["ended_at"] is None]


def test_a_better_candidate_is_promoted_step_by_step_and_rolled_back(
    live_server: LiveServer, open_address: OpenAddress, played: PlayedWheel
) -> None:
    played.begin("wheel-3", time.time() - 7000)
    played.at("gate")
    page = open_address(f"{live_server.url}/#/wheel")
    sentence(page, "wheel-3 is under way: Gate.")
    played.decided(PASSING)
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
    expect(
        gate.get_by_text("The judge puts 74 % of 384 held-out pairs in the right order (69 % to 79 %).")
    ).to_be_visible()
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
    expect(who.get_by_text("Not shown to be worse: 71 % of 34 thumbs are up, 69 % of 512")).to_be_visible()
    expect(who.get_by_role("listitem").filter(has_text="wheel-1/ppo")).to_contain_text("95 % of chats")
    assert unlabelled(page) == []

    who.get_by_role("button", name="Let it answer all chats").click()
    in_dialog(page, "Promote")
    expect(gate.get_by_text("It answers all chats.")).to_be_visible()
    assert answering(live_server) == [("wheel-3/ppo", 1.0)]
    assert played.promoted == [{"share": 0.05, "anyway": False}, {"share": 1, "anyway": False}]

    who.get_by_role("button", name="Roll back").click()
    expect(page.get_by_role("dialog")).to_contain_text(
        "wheel-3/ppo answers nobody any more; wheel-1/ppo answers all chats again"
    )
    in_dialog(page, "Roll back")
    expect(gate.get_by_text("It answers nobody any more.")).to_be_visible()
    assert answering(live_server) == [("wheel-1/ppo", 1.0)]
    expect(card(page, "All turns").get_by_role("listitem").filter(has_text="wheel-3")).to_contain_text("rolled back")


def test_a_candidate_that_did_not_pass_is_asked_about_twice(
    live_server: LiveServer, open_address: OpenAddress, played: PlayedWheel
) -> None:
    played.begin("wheel-3", time.time() - 7000)
    played.decided(FAILING)
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
    assert played.promoted == []
    gate.get_by_role("button", name="Promote to 5 % of chats").click()
    in_dialog(page, "Go on")
    in_dialog(page, "Promote anyway")
    sentence(page, "wheel-3/ppo answers 5 % of chats.")
    assert played.promoted == [{"share": 0.05, "anyway": True}]


def test_earlier_turns_and_the_lineage(live_server: LiveServer, open_address: OpenAddress, played: PlayedWheel) -> None:
    played.forecast = forecast_made()
    page = open_address(f"{live_server.url}/#/wheel")
    lineage = card(page, "Where the models are from").first
    picture = lineage.get_by_role("group", name=re.compile("^Models, the runs that made them"))
    expect(picture.get_by_role("link")).to_have_count(5)  # three runs, and two models that say which run made them
    assert picture.locator("a[href='#/runs/wheel-2']").count() == 2
    assert picture.locator("rect").evaluate_all("(boxes) => boxes.every((box) => box.getBBox().width > 100)")
    assert picture.evaluate(OVERLAPS) is False, "two boxes lie over each other"
    x = {name.split(" (")[0]: place for name, place in picture.evaluate(PLACES).items()}
    assert x["People: 32 people"] < x["Data: rankings"] < x["Run: wheel-2"] < x["Model: wheel-2/ppo"]
    lineage.get_by_text("As text").click()
    told = lineage.get_by_role("listitem").filter(has_text="wheel-1 from")
    expect(told).to_contain_text("wheel-1 from")
    for source in ("rankings", "demonstrations", "quickstart/ppo"):
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
    assert fits(phone), "the page scrolls sideways"
    assert unlabelled(phone) == []
    expect(
        card(phone, "尚未证明更好").get_by_text("评判者有 53 %（47 % 至 59 %）更喜欢 wheel-2/ppo 的回答")
    ).to_be_visible()
    expect(phone.get_by_text("排序翻倍后，错误率预计从 24 % 降到约 23 %（21 % 至 25 %）。")).to_be_visible()
    box = card(phone, "模型的来历").last
    assert box.evaluate("(box) => box.scrollWidth > box.clientWidth && box.scrollLeft > 0"), "it is not at the newest"
    shot(phone, "wheel-phone-chinese")


def test_a_new_home_and_those_who_are_no_admins(
    live_server: LiveServer, open_address: OpenAddress, played: PlayedWheel
) -> None:
    played.clear()
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
