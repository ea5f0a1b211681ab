"""The wheel by the API: what came in, turns, promotion through the gate, a forecast in the background, lineage."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from chatwheel.data.world import prompts
from chatwheel.feedback import consent
from chatwheel.jobs.wheel import gathering
from chatwheel.jobs.wheel.state import MOST_ATTEMPTS, TURN
from chatwheel.store import accounts
from chatwheel.store.tables import AuditRow
from tests.server.conftest import Site
from tests.server.live import make_app
from tests.wheel_home import (
    AGAINST,
    AGREEING,
    FAILING,
    FIRST,
    PASSING,
    SECOND,
    WheelHome,
    chat,
    forecast_kept,
    given,
    thumbs,
    two_turns,
)

Json = dict[str, Any]


@pytest.fixture
def place(site: Site) -> Iterator[WheelHome]:
    """A home without a turn; who is asked is the admin."""
    found = WheelHome(site.models.root.parent, site.database)
    yield found
    found.close()


def get(site: Site, path: str = "", status: int = 200) -> Any:
    response = site.client.get(f"/v1/wheel{path}")
    assert response.status_code == status, response.text
    return response.json()


def post(site: Site, path: str, body: Json | None = None, status: int = 200) -> Any:
    response = site.client.post(f"/v1/wheel{path}", json=body)
    assert response.status_code == status, response.text
    return response.json()


def said(reply: Json) -> str:
    assert "\n" not in reply["error"]["message"]
    return str(reply["error"]["message"])


def audited(site: Site) -> list[tuple[str, str, Json]]:
    """The oldest first."""
    with site.database.read() as session:
        rows = session.scalars(select(AuditRow).order_by(AuditRow.id)).all()
        return [(row.action, row.target, row.details) for row in rows]


def test_a_new_home_and_one_whose_wheel_has_turned(site: Site, place: WheelHome) -> None:
    empty = get(site)
    assert (empty["current"], empty["candidate"], empty["rollback"], empty["turns"]) == (None, None, None, [])
    assert (empty["since"], empty["readiness"]["ready"]) == ({"turn": None, "at": None}, False)
    assert get(site, "/lineage") == {"nodes": [], "edges": []}
    assert get(site, "/turns")["data"] == []

    two_turns(place)
    given(place, 40)
    found = get(site)
    assert found["current"]["model"] == SECOND
    assert found["since"]["turn"] == "wheel-2"
    assert found["arrived"] == {
        "ratings": {"total": 60, "new": 30},
        "comparisons": {"total": 12, "new": 6},
        "corrections": {"total": 24, "new": 12},
        "rankings": {"total": 80, "new": 40},
        "reports": {"total": 2, "new": 1},
        "people": found["arrived"]["people"],
    }
    assert found["arrived"]["people"]["total"] == 12
    material = found["material"]
    assert (material["corrections"], material["praised"]) == (24, 40)
    assert 36 < material["rankings"] + material["judging"] <= 36 + 40  # of the room some are too close to call
    items = {one["name"]: one for one in found["readiness"]["items"]}
    assert (items["rankings"]["ok"], items["demonstrations"]["ok"], items["forecast"]["ok"]) == (False, True, None)
    low, high = items["agreement"]["details"]["interval"]
    assert low < items["agreement"]["value"] < high
    assert items["coverage"]["details"] == {"questions": 98}
    assert [(one["name"], one["state"]) for one in found["turns"]] == [("wheel-2", "done"), ("wheel-1", "done")]
    first = found["turns"][1]
    assert [(one["share"], one["outcome"]) for one in first["deployments"]] == [(1.0, None)]
    assert first["stages"][-2:] == ["judge", "gate"]
    assert [one["name"] for one in first["verdict"]["judge"]["witnesses"]] == ["corrections", "thumbs"]
    assert found["turns"][0]["verdict"]["needed"] == 480  # an interval twice as wide as the lead is far from a half


def test_what_is_given_or_taken_back_is_seen_at_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    gather = gathering.gather
    monkeypatch.setattr("chatwheel.server.wheel.gather", lambda session: read.append(1) or gather(session))
    items = prompts(5, 9, ("en",))
    with site.database.write() as session:
        user = accounts.local_principal(session).user_id
        consent.set_consent(session, user, True)
        chat(session, user, next(items), "so", days=-0.01, value=1)
    counts = [get(site)["arrived"]["ratings"]["total"], get(site)["arrived"]["ratings"]["total"]]
    assert (counts, read) == ([1, 1], [1])  # nothing was new: it is not read again
    with site.database.write() as session:
        chat(session, user, next(items), "so", days=-0.02, correction="thus")
    found = get(site)
    assert (found["arrived"]["corrections"]["total"], found["material"]["corrections"], len(read)) == (1, 1, 2)
    with site.database.write() as session:
        consent.set_consent(session, user, False)
    found = get(site)
    assert (found["arrived"]["ratings"]["total"], found["material"]["corrections"], len(read)) == (0, 0, 3)


def test_a_turn_is_begun_stopped_and_resumed(site: Site, place: WheelHome) -> None:
    assert "no model is deployed" in said(post(site, "/turns", {}, 400))
    place.model("old/ppo", "old", FIRST)
    assert "needs at least 16" in said(post(site, "/turns", {"model": "old/ppo", "name": "mine"}, 400))
    assert not (place.home / "runs" / "mine").exists()
    given(place, 10)
    place.answered(("old/ppo", 1))
    assert "rolluots" in said(post(site, "/turns", {"changes": {"ppo": {"rolluots": 3}}}, 400))
    begun = post(site, "/turns", {"changes": {"ppo": {"rollouts": 3}}}, 201)
    assert (begun["name"], begun["state"], begun["current"]) == ("wheel-1", "waiting", "old/ppo")
    with site.database.read() as session:
        name = accounts.get_user(session, accounts.local_principal(session).user_id).name
    assert begun["begun_by"] == name
    assert get(site, "/turns/wheel-1")["recipe"]["ppo"]["rollouts"] == 3
    assert (place.home / "runs" / "wheel-1" / "material" / "rankings.jsonl").stat().st_mode & 0o077 == 0
    assert "choose another name" in said(post(site, "/turns", {"name": "wheel-1"}, 400))

    place.works("wheel-1", "sft")
    running = get(site, "/turns/wheel-1")
    assert (running["state"], running["doing"], running["stopping"]) == ("running", "sft", False)
    stopped = post(site, "/turns/wheel-1/stop")
    assert (stopped["state"], stopped["stopping"]) == ("running", True)  # until whoever works on it sees that
    place.lets_go("wheel-1")
    assert get(site, "/turns/wheel-1")["state"] == "stopped"
    assert post(site, "/turns/wheel-1/resume")["state"] == "waiting"
    place.turn("wheel-1").note(error="the disk is full", attempts=1)
    failed = get(site, "/turns/wheel-1")
    assert (failed["state"], failed["error"]) == ("failed", "the disk is full")
    assert post(site, "/turns/wheel-1/resume")["error"] is None
    place.turn("wheel-1").note(attempts=MOST_ATTEMPTS)
    assert "3 times" in get(site, "/turns/wheel-1")["error"]

    for path in ("/turns/other", "/turns/..%2Fmodels"):
        get(site, path, 404)
    assert "there is no such turn" in said(get(site, "/turns/other", 404))
    post(site, "/turns/other/stop", status=404)
    done = [(action, target) for action, target, _ in audited(site) if action.startswith("wheel.")]
    assert done == [
        ("wheel.turn.begun", "wheel-1"),
        ("wheel.turn.stopped", "wheel-1"),
        ("wheel.turn.resumed", "wheel-1"),
        ("wheel.turn.resumed", "wheel-1"),
    ]


def test_promotion_goes_through_the_gate(site: Site, place: WheelHome) -> None:
    two_turns(place)
    place.begin("wheel-3")
    assert "not come to its gate" in said(post(site, "/turns/wheel-3/promote", {"anyway": True}, 409))
    place.decided("wheel-3", FAILING)
    refused = said(post(site, "/turns/wheel-3/promote", {"share": 0.05}, 409))
    assert refused.startswith("wheel-3 did not pass its gate: worse: preferred: 41%; praised: 37%; say `anyway`")
    post(site, "/turns/wheel-3/promote", {"share": 0.0}, 400)
    made = post(site, "/turns/wheel-3/promote", {"share": 0.05, "anyway": True}, 201)
    assert (made["model"], made["share"]) == ("wheel-3/ppo", 0.05)
    assert (made["note"]["turn"], made["note"]["verdict"]) == ("wheel-3", "worse")
    thumbs(place, "wheel-3/ppo", 3, 9)
    thumbs(place, SECOND, 15, 5)
    found = get(site)
    assert (found["candidate"]["model"], found["candidate"]["share"]) == ("wheel-3/ppo", 0.05)
    ratings = found["rollback"]
    assert ratings["new"] == {"model": "wheel-3/ppo", "up": 0.25, "count": 12}
    assert ratings["old"] == {"model": SECOND, "up": 0.75, "count": 20}
    assert ratings["words"].startswith(f"{'worse' if ratings['worse'] else 'not shown to be worse'}: 0.25 (12) after")
    assert 0 < ratings["p"] <= 1

    place.begin("wheel-4", days=-0.01)
    place.decided("wheel-4", PASSING, witnesses=AGAINST)
    verdict = get(site, "/turns/wheel-4")["verdict"]
    assert (verdict["verdict"], verdict["reason"], verdict["passed"]) == ("no_judge", "witnesses", False)
    assert "opposite of what people said" in said(post(site, "/turns/wheel-4/promote", {}, 409))
    place.begin("wheel-5", days=-0.02)
    place.decided("wheel-5", PASSING, witnesses=AGREEING)
    assert post(site, "/turns/wheel-5/promote", {}, 201)["share"] == 1.0
    assert said(post(site, "/turns/wheel-5/promote", {}, 409)).endswith("answers everybody already")
    assert [details for action, _, details in audited(site) if action == "model.promoted"] == [
        {"share": 0.05, "turn": "wheel-3", "anyway": True},
        {"share": 1.0, "turn": "wheel-5", "anyway": False},
    ]
    assert "is done" in said(post(site, "/turns/wheel-5/stop", status=400))
    assert "is done" in said(post(site, "/turns/wheel-5/resume", status=400))


def test_a_forecast_in_the_background_and_one_that_is_kept(site: Site, place: WheelHome) -> None:
    """What is asked for with too few rankings ends with a line; tests/jobs/wheel/test_readiness.py makes one."""
    assert get(site, "/forecast")["state"] == "none"
    place.model(SECOND, "wheel-1", FIRST)
    place.answered((SECOND, 1))
    begun = post(site, "/forecast", status=202)
    assert begun["state"] == "running"
    assert post(site, "/forecast", status=202)["state"] == "running"  # one at a time
    deadline = time.monotonic() + 240
    while (found := get(site, "/forecast"))["state"] == "running":
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert (found["state"], found["points"]) == ("failed", [])
    assert found["error"] == (
        "0 rankings to learn from and 0 to test with are too few for a forecast; it needs at least 16 and 10"
    )

    kept = forecast_kept(place)
    site.client.app.state.services.forecasting.error = None  # type: ignore[attr-defined]
    found = get(site, "/forecast")
    assert (found["state"], found["fresh"], found["model"], found["rankings"]) == ("done", True, SECOND, 640)
    assert [(one["rankings"], one["error"]) for one in found["points"]] == [
        (80, 0.28), (160, 0.265), (320, 0.255), (640, 0.25),
    ]  # fmt: skip
    assert all(one["low"] <= one["error"] <= one["high"] for one in found["curve"])
    assert found["curve"][-1]["rankings"] == pytest.approx(1280)
    assert (found["doubled"]["before"], found["doubled"]["error"]) == pytest.approx((kept.error, kept.forecast))
    item = next(one for one in get(site)["readiness"]["items"] if one["name"] == "forecast")
    assert (item["details"]["rankings"], item["details"]["old"]) == (640, False)
    assert item["value"] == pytest.approx(max(0.0, kept.error - kept.forecast), abs=1e-4)
    assert item["ok"] is (item["value"] <= item["least"])
    given(place, 0)
    assert get(site, "/forecast")["fresh"] is False


def test_the_lineage_in_kinds_and_numbers(site: Site, place: WheelHome) -> None:
    two_turns(place)
    found = get(site, "/lineage")
    nodes = {one["id"]: one for one in found["nodes"]}
    assert set(nodes) == {
        f"model:{FIRST}", f"model:{SECOND}", "model:wheel-2/ppo",
        *(f"{kind}:wheel-{number}" for kind in ("people", "data", "run") for number in (1, 2)),
    }  # fmt: skip
    assert (nodes[f"model:{SECOND}"]["deployed"], nodes[f"model:{FIRST}"]["deployed"]) == (1.0, None)
    assert nodes["run:wheel-1"]["verdict"] == "better"
    data = nodes["data:wheel-1"]
    assert (data["source"], data["rankings"], data["demonstrations"]) == ("people", 512, 146)
    assert (nodes["people:wheel-1"]["people"], nodes["people:wheel-1"]["prompts"]) == (23, 604)
    edges = {(one["from"], one["to"]) for one in found["edges"]}
    assert edges == {
        ("people:wheel-1", "data:wheel-1"), ("data:wheel-1", "run:wheel-1"), (f"model:{FIRST}", "run:wheel-1"),
        ("run:wheel-1", f"model:{SECOND}"),
        ("people:wheel-2", "data:wheel-2"), ("data:wheel-2", "run:wheel-2"), (f"model:{SECOND}", "run:wheel-2"),
        ("run:wheel-2", "model:wheel-2/ppo"),
    }  # fmt: skip


def test_it_is_for_admins_alone(tmp_path: Path) -> None:
    app, database, _ = make_app(tmp_path)
    with database.write() as session:
        who = accounts.local_principal(session)
        made = accounts.create_key(
            session, project_id=who.project_id, user_id=who.user_id, name="chat", scopes=list(accounts.USUAL)
        )
    with TestClient(app, base_url="http://localhost:8000") as client:
        client.headers["authorization"] = f"Bearer {made.secret}"
        for method, path in (
            ("GET", ""),
            ("GET", "/lineage"),
            ("POST", "/forecast"),
            ("POST", "/turns/wheel-1/promote"),
        ):
            assert client.request(method, f"/v1/wheel{path}", json={}).status_code == 403


def test_a_damaged_turn_says_which_file(site: Site, place: WheelHome) -> None:
    turn = place.begin("wheel-1")
    (turn.directory / TURN).write_text(json.dumps({"current": SECOND})[:-4])
    assert f"{turn.directory / TURN}: damaged" in said(get(site, "/turns/wheel-1", 400))
