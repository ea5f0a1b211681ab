"""The arena over HTTP: blind until somebody has chosen, once; ratings of everybody's battles; nothing is learnt without
consent."""

from __future__ import annotations

import json
import threading
from collections import Counter
from typing import Any

import httpx
import numpy as np
import pytest
from sqlalchemy import select

from chatwheel.feedback import battles, consent
from chatwheel.feedback.battles import Asked, Fighter
from chatwheel.feedback.export import Export
from chatwheel.store import accounts
from chatwheel.store.database import Database
from chatwheel.store.tables import BattleChoice, BattleRow, TunedModelRow, UserRow, new_id
from tests.server.conftest import Site, read_events
from tests.server.live import LiveServer

NAMES = ("quickstart/base", "quickstart/sft", "quickstart/ppo")
SAME = "What is the capital of France?"
"""All models answer it alike."""
Json = dict[str, Any]


def fight(site: Site, prompt: str = SAME, **fields: Any) -> tuple[str, str]:
    """A battle's id, and all that was streamed."""
    reply = site.client.post("/v1/arena/battles", json={"prompt": prompt} | fields)
    assert reply.status_code == 200, reply.text
    events = read_events(reply.text)
    assert events[-1][0] == "done", events[-1]
    return str(events[-1][1]["id"]), reply.text


def choose(site: Site, battle: str, choice: str = "left", **options: Any) -> Any:
    return site.client.put(f"/v1/arena/battles/{battle}/choice", json={"choice": choice}, **options)


def answers(streamed: str) -> Json:
    """As they were put together by who read them."""
    found = {"left": "", "right": ""}
    for name, data in read_events(streamed):
        if name == "delta":
            found = {side: found[side] + data[side] for side in found}
    return found


def rows(database: Database) -> list[BattleRow]:
    with database.read() as session:
        return list(session.scalars(select(BattleRow).order_by(BattleRow.created_at)))


def told(text: str) -> list[str]:
    """What in a text tells a model."""
    words = ("quickstart", "/base", "sft", "ppo", "fp_", "fingerprint")
    return [word for word in words if word in text]


def test_nothing_tells_the_models_before_the_choice(site: Site) -> None:
    for _ in range(6):
        reply = site.client.post("/v1/arena/battles", json={"prompt": SAME})
        battle = read_events(reply.text)[-1][1]["id"]
        path = f"/v1/arena/battles/{battle}"
        seen = [reply, site.client.get(path), site.client.get("/v1/arena/battles")]
        assert told("".join(f"{one.text}{dict(one.headers)}" for one in seen)) == []
        assert seen[1].json()["models"] is None
        assert site.client.put(path + "/choice", json={"choice": "both"}).status_code == 400
        assert {name for name, _ in read_events(reply.text)} == {"start", "delta", "done"}
        chosen = choose(site, battle).json()
        assert chosen["models"]["left"] != chosen["models"]["right"]
        assert set(chosen["models"].values()) <= set(NAMES)
        assert site.client.get(path).json() == chosen
        site.client.delete(path)


def test_what_is_kept_is_what_was_shown(site: Site) -> None:
    battle, streamed = fight(site, "tell me of whales and other animals of the sea, please")
    (row,) = rows(site.database)
    assert answers(streamed) == {"left": row.left_answer, "right": row.right_answer}
    for side in ("left", "right"):
        model = getattr(row, f"{side}_model")
        assert getattr(row, f"{side}_answer").startswith(f"{model.split('/')[1]} heard: tell me")
        assert getattr(row, f"{side}_fingerprint").startswith("fp_")
    assert row.left_fingerprint != row.right_fingerprint
    assert row.sampling == {"temperature": 0.0, "top_p": 1.0, "max_tokens": 1024, "seed": None}
    assert (row.id, row.language, row.topic, row.choice) == (battle, "en", "question", None)
    assert row.created_at <= row.answered_at
    usage = site.client.get("/v1/organization/usage/completions?start_time=0&group_by=model").json()
    results = [one for bucket in usage["data"] for one in bucket["results"]]
    assert {one["model"] for one in results} == {row.left_model, row.right_model}
    assert sum(one["num_model_requests"] for one in results) == 2
    fight(site, "把“苹果”翻译成英文")
    fight(site, "bonjour", language="fr")
    assert [(one.language, one.topic) for one in rows(site.database)[1:]] == [("zh", "translation"), ("fr", "other")]


def test_a_battle_is_decided_once_and_by_who_asked_for_it(site: Site) -> None:
    battle, _ = fight(site)
    with site.database.write() as session:
        other = accounts.create_user(session, "Other")
        project = accounts.create_project(session, "Theirs", other.id)
        key = accounts.create_key(session, project_id=project.id, user_id=other.id, name="k").secret
    stranger = {"authorization": f"Bearer {key}"}
    assert choose(site, battle, headers=stranger).status_code == 404
    codes: list[int] = []

    def at_once(choice: str) -> None:
        mine = {"authorization": f"Bearer {own}"}
        codes.append(choose(site, battle, choice, headers=mine).status_code)

    with site.database.write() as session:
        local = accounts.local_principal(session)
        own = accounts.create_key(session, project_id=local.project_id, user_id=local.user_id, name="mine").secret
    threads = [threading.Thread(target=at_once, args=(choice,)) for choice in ("left", "right", "tie", "both_bad")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(codes) == [200, 409, 409, 409]
    (row,) = rows(site.database)
    assert row.choice is not None
    assert row.chosen_at is not None


@pytest.mark.parametrize(
    ("prompt", "code", "word"),
    [("fail", None, "error"), ("overload", "overloaded", "busy"), ("word " * 300, "context_length_exceeded", "long")],
)
def test_what_goes_wrong_names_no_model_and_leaves_nothing(site: Site, prompt: str, code: str, word: str) -> None:
    reply = site.client.post("/v1/arena/battles", json={"prompt": prompt})
    name, data = read_events(reply.text)[-1]
    assert (name, data["error"]["code"]) == ("error", code)
    assert word in data["error"]["message"]
    assert told(reply.text) == []
    assert "200" not in data["error"]["message"]  # tokens, of a model's context
    assert rows(site.database) == []


def test_bad_requests_are_refused_before_anybody_answers(site: Site) -> None:
    wrong = ({"prompt": ""}, {"prompt": " \n"}, {"prompt": "hi", "language": "English"}, {"prompt": "hi", "model": "m"})
    for body in (*wrong, {}):
        assert site.client.post("/v1/arena/battles", json=body).status_code == 400
    half = site.client.post(
        "/v1/arena/battles", content=b'{"prompt": "\\ud800"}', headers={"content-type": "application/json"}
    )
    assert half.status_code == 400
    assert site.client.get("/v1/arena/leaderboard?topic=nonsense").status_code == 400
    with site.database.write() as session:
        local = accounts.local_principal(session)
        one = accounts.create_key(
            session, project_id=local.project_id, user_id=local.user_id, name="k", models=[NAMES[0]]
        ).secret
        limited = accounts.create_key(
            session, project_id=local.project_id, user_id=local.user_id, name="l", limits={"requests_per_minute": 1}
        ).secret
    headers = {"authorization": f"Bearer {one}"}
    refused = site.client.post("/v1/arena/battles", json={"prompt": "hi"}, headers=headers)
    assert refused.json()["error"]["code"] == "too_few_models"
    headers = {"authorization": f"Bearer {limited}"}  # enough for one of the two
    assert site.client.post("/v1/arena/battles", json={"prompt": "hi"}, headers=headers).status_code == 429
    assert rows(site.database) == []
    assert site.models.loaded == []


def test_who_leaves_ends_both_answers_and_nothing_is_kept(live_server: LiveServer) -> None:
    body = {"prompt": "count to 500"}
    with httpx.stream("POST", f"{live_server.url}/v1/arena/battles", json=body, timeout=20) as reply:
        for line in reply.iter_lines():
            if line.startswith("event: delta"):
                break
    for _ in range(200):
        if sum(one.num_cancelled for one in live_server.models.loaded) == 2:
            break
        threading.Event().wait(0.02)
    assert sum(one.num_cancelled for one in live_server.models.loaded) == 2
    assert rows(live_server.database) == []


@pytest.fixture
def somebody(site: Site) -> str:
    """A user's id."""
    with site.database.write() as session:
        return accounts.create_user(session, "Somebody").id


def fought(database: Database, user: str, outcomes: list[tuple[str, str, BattleChoice]], prompt: str = "q") -> None:
    """Battles with these models and choices, over prompts of their own."""
    with database.write() as session:
        for number, (left, right, choice) in enumerate(outcomes):
            made = new_id("battle")
            fighters = [Fighter(name, "fp_1", f"{name} says {number}") for name in (left, right)]
            battles.keep(session, user, made, Asked.of(f"{prompt} {number}"), *fighters, {"temperature": 0.0})
            battles.choose(session, user, made, choice)


def simulated(count: int) -> list[tuple[str, str, BattleChoice]]:
    rng = np.random.default_rng(3)
    strength = dict(zip(NAMES, (-1.5, 0.0, 1.5), strict=True))
    found: list[tuple[str, str, BattleChoice]] = []
    for _ in range(count):
        left, right = map(str, rng.choice(NAMES, 2, replace=False))
        better = rng.random() < 1 / (1 + np.exp(strength[right] - strength[left]))
        found.append((left, right, "tie" if rng.random() < 0.1 else "left" if better else "right"))
    return found


def test_the_leaderboard_knows_the_order_of_simulated_battles(site: Site, somebody: str) -> None:
    fought(site.database, somebody, simulated(250))
    fought(site.database, somebody, [(NAMES[0], NAMES[2], "left")] * 3, "翻译")
    board = site.client.get("/v1/arena/leaderboard").json()
    assert [one["model"] for one in board["models"]] == [NAMES[2], NAMES[1], NAMES[0]]
    assert [one["rank"] for one in board["models"]] == [[1, 1], [2, 2], [3, 3]]
    for one in board["models"]:
        assert one["interval"][0] < one["rating"] < one["interval"][1]
        assert not one["too_few"]
    assert sum(one["rating"] for one in board["models"]) == pytest.approx(3000)
    assert board["battles"] == sum(pair["battles"] for pair in board["pairs"]) == 253
    assert all(pair["battles"] == sum(pair["wins"]) + pair["ties"] for pair in board["pairs"])
    assert board["left_first"]["interval"][0] < 0 < board["left_first"]["interval"][1]
    assert board["languages"] == {"en": 250, "zh": 3}
    assert board["topics"] == {"other": 250, "translation": 3}
    english = site.client.get("/v1/arena/leaderboard?language=en&topic=other").json()
    assert english["battles"] == 250
    chinese = site.client.get("/v1/arena/leaderboard?language=zh").json()
    assert chinese["battles"] == 3
    assert [(one["rating"], one["rank"], one["too_few"]) for one in chinese["models"]] == [(None, None, True)] * 3


def test_open_pairs_are_drawn_more_often(site: Site, somebody: str) -> None:
    """Of base and the others enough is known; sft and ppo have never met."""
    known: list[tuple[str, str, BattleChoice]] = []
    for other in NAMES[1:]:
        known += [(NAMES[0], other, "right"), (other, NAMES[0], "left")] * 60
    fought(site.database, somebody, known)
    pairs = Counter()
    for _ in range(12):
        battle, _ = fight(site)
        pairs[frozenset(choose(site, battle, "tie").json()["models"].values())] += 1
        site.client.delete(f"/v1/arena/battles/{battle}")
    assert pairs[frozenset(NAMES[1:])] >= 10  # expected: all but one in several hundred


def test_tuned_models_are_on_their_own_project_s_leaderboard_alone(site: Site, somebody: str) -> None:
    mine, gone = "ft:quickstart-sft:mine:abc12345", "old/model"
    with site.database.write() as session:
        theirs = accounts.create_project(session, "Theirs", somebody)
        session.add(TunedModelRow(name=mine, project_id=theirs.id, base=NAMES[1], directory="ftjob-1"))
        key = accounts.create_key(session, project_id=theirs.id, user_id=somebody, name="k").secret
    fought(site.database, somebody, [(mine, NAMES[1], "left")] * 2 + [(gone, NAMES[1], "left")])
    with site.database.write() as session:
        local = accounts.local_principal(session)
        other = accounts.create_key(session, project_id=local.project_id, user_id=local.user_id, name="o").secret
    board, others = (
        site.client.get("/v1/arena/leaderboard", headers={"authorization": f"Bearer {secret}"}).json()
        for secret in (key, other)
    )
    assert (board["battles"], others["battles"]) == (3, 1)
    assert mine in json.dumps(board)
    assert mine not in json.dumps(others)
    assert gone in json.dumps(others)


def rankings(site: Site, **options: bool) -> list[Any]:
    with site.database.read() as session:
        return list(Export(session, "salt", **options).rankings())


def test_only_battles_of_those_who_agreed_become_rankings(site: Site, somebody: str) -> None:
    outcomes: list[tuple[str, str, BattleChoice]] = [
        (NAMES[0], NAMES[1], choice) for choice in ("left", "right", "tie", "both_bad")
    ]
    fought(site.database, somebody, outcomes, "before")
    assert rankings(site) == []
    with site.database.write() as session:
        consent.set_consent(session, somebody, True)
    assert rankings(site) == []  # nor what was asked before
    fought(site.database, somebody, outcomes, "after")
    found = rankings(site)
    assert [record.ranks for record in found] == [[1, 2], [2, 1], [1, 1]]
    assert [record.messages[0].content for record in found] == ["after 0", "after 1", "after 2"]
    assert found[0].models == [NAMES[0], NAMES[1]]
    assert found[0].answers == ["quickstart/base says 0", "quickstart/sft says 0"]
    assert somebody not in found[0].model_dump_json()
    assert len(rankings(site, everybody=True)) == 6
    with site.database.write() as session:
        consent.set_consent(session, somebody, False)
    assert rankings(site) == rankings(site, everybody=True) == []


def test_a_deleted_account_or_battle_is_nowhere_any_more(site: Site, somebody: str) -> None:
    fought(site.database, somebody, [(NAMES[0], NAMES[1], "left")] * 3)
    battle, _ = fight(site)
    choose(site, battle)
    assert site.client.get("/v1/arena/leaderboard").json()["battles"] == 4
    assert site.client.delete(f"/v1/arena/battles/{battle}").status_code == 204
    assert site.client.get(f"/v1/arena/battles/{battle}").status_code == 404
    assert site.client.get("/v1/arena/leaderboard").json()["battles"] == 3
    with site.database.write() as session:
        session.delete(session.get_one(UserRow, somebody))
    assert rows(site.database) == []
    assert site.client.get("/v1/arena/leaderboard").json()["battles"] == 0
    assert rankings(site, everybody=True) == []
