"""Two users: every route with an id, generated from the application's own schema, tried by whom it is none of.

The owner gets it, by a key or signed in; another project's key or user, no key, a revoked key, a session that has ended
and a key of too small a scope get 401, 403 or 404 and never a byte of it. A new route with an id fails here until it is
said how its id is made.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from chatwheel.evaluation.forecast import Forecast, Measured, subset_sizes
from chatwheel.store import accounts, passwords, sign_in
from chatwheel.store.accounts import SCOPES
from chatwheel.store.database import Database
from chatwheel.store.tables import FineTuningJobRow, LabellingJudgementRow, LabellingTaskRow, TunedModelRow
from tests.server.live import make_app

MODEL = "quickstart/ppo"
SECRET = "only-its-owner-reads-this"
"""In everything that Ada owns: whoever else gets it has got too much."""
Json = dict[str, Any]


@dataclass(frozen=True)
class House:
    """Ada's project with something of everything, and keys: hers, a stranger's, and such as open nothing of hers."""

    client: TestClient
    database: Database
    keys: dict[str, str]
    ids: dict[str, str]
    sessions: dict[str, str]
    """Their cookies' tokens."""

    def ask(self, who: str | None, method: str, path: str, **options: Any) -> Any:
        """A request with one of the keys."""
        if who in self.sessions:
            token = self.sessions[who]
            headers = {"cookie": f"chatwheel_session={token}", "x-csrf-token": sign_in.csrf_token(token)}
        else:
            headers = {"authorization": f"Bearer {self.keys[who]}"} if who else {}
        return self.client.request(method, path, headers=headers, **options)

    def made(self, path: str, **options: Any) -> str:
        """The id of something new of Ada's."""
        reply = self.ask("owner", "POST", path, **options)
        assert reply.status_code in (200, 201), reply.text
        return str(reply.json()["id"])


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    app, database, _ = make_app(tmp_path)
    with database.write() as session:
        local = accounts.local_principal(session)
        ada, bob = accounts.create_user(session, f"Ada {SECRET}"), accounts.create_user(session, "Bob")
        eve = accounts.create_user(session, "Eve")
        hers = accounts.create_project(session, f"Physics {SECRET}", ada.id)
        his = accounts.create_project(session, "Poetry", bob.id)
        accounts.set_member(session, hers.id, eve.id)
        most = [scope for scope in SCOPES if scope not in ("admin", "runs")]
        people = {
            "admin": (local.project_id, local.user_id, SCOPES),
            "owner": (hers.id, ada.id, most),
            "stranger": (his.id, bob.id, most),
            "revoked": (hers.id, ada.id, most),
            # A scope that no route with an id is content with.
            "small": (hers.id, ada.id, ("embeddings",)),
        }
        made = {
            name: accounts.create_key(session, project_id=project, user_id=user, name=name, scopes=scopes)
            for name, (project, user, scopes) in people.items()
        }
        accounts.revoke_key(session, made["revoked"].row.id)
        sessions = {}
        for name, user_id, project_id in (
            ("admin signed in", local.user_id, local.project_id),
            ("owner signed in", ada.id, hers.id),
            ("stranger signed in", bob.id, his.id),
            ("signed out", ada.id, hers.id),
        ):
            if passwords.of_user(session, user_id) is None:
                passwords.put(session, user_id, "a digest that no password has")
            new = sign_in.begin(session, user_id, project_id=project_id)
            sessions[name] = new.token
        sign_in.end(session, new.row.id)
        tuned = f"ft:quickstart-sft:chatwheel:{SECRET}:abc12345"
        session.add(TunedModelRow(name=tuned, project_id=hers.id, base="quickstart/sft", directory="ftjob-1"))
    keys = {name: key.secret for name, key in made.items()}
    ids = {"project_id": hers.id, "user_id": eve.id, "model_id": tuned}
    with TestClient(app, base_url="http://localhost") as client:
        yield House(client, database, keys, ids, sessions)


def _conversation(house: House) -> str:
    made = house.made("/api/conversations", json={"model": MODEL})
    house.ask("owner", "POST", f"/api/conversations/{made}/messages", json={"content": SECRET})
    return made


def _answer(house: House) -> str:
    messages = house.ask("owner", "GET", f"/api/conversations/{_conversation(house)}").json()["messages"]
    return str(messages[-1]["id"])


def _comparison(house: House) -> str:
    reply = house.ask("owner", "POST", f"/api/messages/{_answer(house)}/alternative", json={})
    return str(re.findall(r"cmp-[0-9a-f]+", reply.text)[0])


def _file(house: House) -> str:
    form = {"file": (f"{SECRET}.txt", SECRET.encode())}
    return house.made("/v1/files", files=form, data={"purpose": "user_data"})


def _key(house: House) -> str:
    return house.made(f"/v1/organization/projects/{house.ids['project_id']}/api_keys", json={"name": SECRET})


def _member(house: House) -> str:
    with house.database.write() as session:
        accounts.set_member(session, house.ids["project_id"], house.ids["user_id"])
    return house.ids["user_id"]


def _model(house: House) -> str:
    name = house.ids["model_id"]
    with house.database.write() as session:
        if session.get(TunedModelRow, name) is None:
            project = house.ids["project_id"]
            session.add(TunedModelRow(name=name, project_id=project, base="quickstart/sft", directory="ftjob-1"))
    return name


def _job(house: House) -> str:
    """Paused, with a forecast: so that all of its routes have something to say."""
    form = {"file": ("train.jsonl", b"{}\n")}
    training = house.made("/v1/files", files=form, data={"purpose": "fine-tune"})
    body = {"model": MODEL, "training_file": training, "metadata": {"note": SECRET}}
    made = house.made("/v1/fine_tuning/jobs", json=body)
    measured = [Measured.binomial(size, 40 // (place + 1), 100) for place, size in enumerate(subset_sizes(80))]
    with house.database.write() as session:
        row = session.get_one(FineTuningJobRow, made)
        row.status, row.wanted, row.forecast = "paused", "pause", Forecast.fit(measured).to_json()
    return made


def _queue(house: House) -> str:
    """Of rankings, with a task on which three do not agree: so that there is something to decide."""
    made = house.made("/v1/labelling/queues", json={"name": SECRET, "kind": "rank", "labellers": 2})
    answers = [{"content": f"{SECRET} {k}"} for k in range(2)]
    task = {"messages": [{"role": "user", "content": SECRET}], "answers": answers}
    reply = house.ask("owner", "POST", f"/v1/labelling/queues/{made}/tasks", json={"tasks": [task]})
    assert reply.json()["added"] == 1
    with house.database.write() as session:
        (row,) = session.scalars(select(LabellingTaskRow).where(LabellingTaskRow.queue_id == made))
        for who, ranks in (("one", [1, 2]), ("other", [2, 1]), ("third", [1, 2])):
            session.add(LabellingJudgementRow(task_id=row.id, labeller=who, action="imported", ranks=ranks))
    return made


def _labelling_task(house: House) -> str:
    queue = _queue(house)
    return str(house.ask("owner", "GET", f"/v1/labelling/queues/{queue}/adjudication").json()["data"][0]["id"])


def _assignment(house: House) -> str:
    return house.made(f"/v1/labelling/queues/{_queue(house)}/next")


def _persona(house: House) -> str:
    return house.made("/api/personas", json={"name": SECRET, "system_prompt": SECRET})


def _prompt(house: House) -> str:
    return house.made("/api/prompts", json={"title": SECRET, "content": SECRET})


MAKERS: dict[str, Callable[[House], str]] = {
    "conversation_id": _conversation,
    "message_id": _answer,
    "comparison_id": _comparison,
    "persona_id": _persona,
    "prompt_id": _prompt,
    "file_id": _file,
    "key_id": _key,
    "project_id": lambda house: house.ids["project_id"],
    "user_id": _member,
    "model_id": _model,
    "fine_tuning_job_id": _job,
    "queue_id": _queue,
    "task_id": _labelling_task,
    "assignment_id": _assignment,
}
"""How something with such an id is made. Anew for each route: some take it away."""

NOT_OWNED = {
    "/v1/runs/{name}": "the installation's runs, which admins' keys alone see",
    "/v1/wheel/turns/{name}": "turns of the wheel are the installation's, and admins' alone",
    "/v1/organization/users/{user_id}": "users are admins' to see and to change",
    "/v1/organization/prices/{model}": "prices are the installation's, and admins' to set",
    "/api/reports/{message_id}/{reason}": "what people report goes to admins alone",
    "/v1/organization/usage/{kind}": "no id but one of three words",
}
"""Routes whose ids belong to nobody: `test_what_belongs_to_nobody_is_admins`, test_auth.py and test_organization.py."""

ADMINS_ALONE = {
    ("POST", "/v1/organization/projects/{project_id}"),
    ("POST", "/v1/organization/projects/{project_id}/archive"),
}
"""An owner sees the project but does not set its limits."""

SEEN_BY_MEMBERS = {
    ("GET", "/v1/organization/projects/{project_id}"),
    ("GET", "/v1/organization/projects/{project_id}/users"),
}
"""Every key sees the project that it is of, whatever its scopes."""

TASK: Json = {
    "messages": [{"role": "user", "content": f"{SECRET}?"}],
    "answers": [{"content": f"{SECRET}."}, {"content": f"{SECRET}!"}],
}
CHOSEN = {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"}
BODIES: dict[tuple[str, str], Json] = {
    ("PATCH", "/api/conversations/{conversation_id}"): {"title": f"{SECRET} again"},
    ("POST", "/api/conversations/{conversation_id}/messages"): {"content": SECRET},
    ("POST", "/api/messages/{message_id}/regenerate"): {},
    ("POST", "/api/messages/{message_id}/alternative"): {},
    ("PUT", "/api/messages/{message_id}/rating"): {"value": 1, "comment": SECRET},
    ("PUT", "/api/messages/{message_id}/correction"): {"content": f"{SECRET} as it should be"},
    ("POST", "/api/messages/{message_id}/report"): {"reason": "spam", "comment": SECRET},
    ("PUT", "/api/comparisons/{comparison_id}"): {"choice": "tie"},
    ("PUT", "/api/personas/{persona_id}"): {"name": f"{SECRET} again"},
    ("PUT", "/api/prompts/{prompt_id}"): {"title": SECRET, "content": f"{SECRET} again"},
    ("POST", "/v1/files/{file_id}/check"): {},
    ("PATCH", "/v1/labelling/queues/{queue_id}"): {"name": f"{SECRET} again"},
    ("POST", "/v1/labelling/queues/{queue_id}/tasks"): {"tasks": [TASK]},
    ("POST", "/v1/labelling/queues/{queue_id}/import"): {"content": json.dumps(CHOSEN)},
    ("POST", "/v1/labelling/queues/{queue_id}/sample"): {"model": MODEL, "prompts": [TASK["messages"]], "answers": 2},
    ("PUT", "/v1/labelling/assignments/{assignment_id}/draft"): {"ranks": [1]},
    ("POST", "/v1/labelling/assignments/{assignment_id}/judgement"): {"ranks": [1, 2]},
    ("POST", "/v1/labelling/assignments/{assignment_id}/skip"): {},
    ("POST", "/v1/labelling/assignments/{assignment_id}/report"): {"reason": "spam", "comment": SECRET},
    ("POST", "/v1/labelling/tasks/{task_id}/decision"): {"ranks": [1, 2]},
    ("POST", "/v1/labelling/tasks/{task_id}/state"): {"state": "withdrawn"},
    ("POST", "/v1/organization/projects/{project_id}"): {"name": f"{SECRET} again"},
    ("POST", "/v1/organization/projects/{project_id}/users"): {"user_id": "Eve", "role": "member"},
    ("POST", "/v1/organization/projects/{project_id}/api_keys"): {"name": SECRET},
    ("POST", "/v1/organization/projects/{project_id}/api_keys/{key_id}/rotate"): {},
}


def routes_with_ids(client: TestClient, key: str) -> list[tuple[str, str]]:
    """Method and path of each, as the schema has them, without those whose ids belong to nobody."""
    schema = client.get("/openapi.json", headers={"authorization": f"Bearer {key}"}).json()
    found = [(method.upper(), path) for path, methods in schema["paths"].items() for method in methods if "{" in path]
    return [(method, path) for method, path in found if not any(path.startswith(start) for start in NOT_OWNED)]


BY_KEYS = {None: {401}, "revoked": {401}, "stranger": {403, 404}, "small": {403, 404}}
SIGNED_IN = {None: {401}, "signed out": {401}, "stranger signed in": {403, 404}}
"""Those whom nothing is shown, and what they are answered."""


@pytest.mark.parametrize(("outsiders", "how"), [(BY_KEYS, ""), (SIGNED_IN, " signed in")], ids=["keys", "sessions"])
def test_every_route_with_an_id_is_its_owners_alone(
    house: House, outsiders: dict[str | None, set[int]], how: str
) -> None:
    routes = routes_with_ids(house.client, house.keys["admin"])
    assert len(routes) >= 20
    seen: set[str] = set()
    for method, path in routes:
        names = re.findall(r"{([^}]*)}", path)
        unknown = [name for name in names if name not in MAKERS]
        assert not unknown, f"{method} {path}: say in MAKERS how {unknown} is made, or in NOT_OWNED whose it is"
        ids = {name: MAKERS[name](house) for name in names}
        seen |= ids.keys()
        place = path.format(**ids)
        if path.endswith("/restore"):
            assert house.ask("owner", "DELETE", place.removesuffix("/restore")).status_code == 204
        body = BODIES.get((method, path))
        options: Json = {} if body is None else {"json": body}
        for who, allowed in outsiders.items():
            if who == "small" and (method, path) in SEEN_BY_MEMBERS:
                continue
            reply = house.ask(who, method, place, **options)
            assert reply.status_code in allowed, (who, method, path, reply.text)
            told = json.dumps(reply.json()).replace(ids.get("model_id", SECRET), "")  # what was asked for, said again
            assert SECRET not in told, (who, method, path, told)
            assert reply.json()["error"]["message"]
        owner = house.ask(("admin" if (method, path) in ADMINS_ALONE else "owner") + how, method, place, **options)
        assert owner.status_code in (200, 201, 204), (method, path, owner.text)
        if (method, path) in ADMINS_ALONE:
            assert house.ask("owner" + how, method, place, **options).status_code in (401, 403), (method, path)
        if path.endswith("/archive"):
            _open_again(house)
    assert seen == MAKERS.keys(), "a way to make something that no route has"


def _open_again(house: House) -> None:
    """Ada's project answers again."""
    with house.database.write() as session:
        accounts.change_project(session, house.ids["project_id"], archived=False)


def test_what_belongs_to_nobody_is_admins(house: House) -> None:
    run = Path(str(house.client.app.state.services.settings.runs)) / "first"  # type: ignore[attr-defined]
    run.mkdir(parents=True)
    (run / "recipe.json").write_text(json.dumps({"name": "first", "sft": {"secret": SECRET}}))
    (run / "turn.json").write_text(json.dumps({"current": SECRET, "material": {}}))
    paths = [
        "/v1/wheel",
        "/v1/wheel/turns",
        "/v1/wheel/turns/first",
        "/v1/wheel/forecast",
        "/v1/wheel/lineage",
        "/v1/runs/first",
        "/v1/runs/first/stages/sft/metrics",
        "/v1/runs/first/stages/sft/samples",
        "/v1/runs/first/stages/sft/findings",
        "/v1/runs/first/stages/sft/rollouts",
        "/v1/runs/first/events",
        f"/v1/organization/users/{house.ids['user_id']}",
    ]
    for path in paths:
        for who in ("owner", "stranger", "small", "revoked", None, "owner signed in", "signed out"):
            reply = house.ask(who, "GET", path)
            assert reply.status_code in (401, 403), (who, path, reply.text)
            assert SECRET not in reply.text
        if not path.endswith(("rollouts", "events")):
            assert house.ask("admin", "GET", path).status_code == 200, path
            assert house.ask("admin signed in", "GET", path).status_code == 200, path


def test_lists_show_ones_own_alone(house: House) -> None:
    for make in (_conversation, _persona, _prompt, _file, _key, _queue):
        make(house)
    house.ask("owner", "PUT", "/api/instruction", json={"content": SECRET})
    project = f"/v1/organization/projects/{house.ids['project_id']}"
    for path in (
        "/api/conversations",
        "/api/conversations/search?q=only",
        "/api/personas",
        "/api/prompts",
        "/api/instruction",
        "/v1/files",
        "/v1/labelling/queues",
        "/v1/models",
        "/api/models",
        "/v1/organization/projects",
        f"{project}/api_keys",
    ):
        assert SECRET in house.ask("owner", "GET", path).text, path
        assert SECRET in house.ask("owner signed in", "GET", path).text, path
        for who in ("stranger", "revoked", None, "stranger signed in", "signed out"):
            assert SECRET not in house.ask(who, "GET", path).text, (who, path)


def test_another_ones_tuned_model_answers_nobody_else(house: House) -> None:
    """Nor does its name: it is as unknown as one that there is not."""
    body = {"model": house.ids["model_id"], "messages": [{"role": "user", "content": "hello"}]}
    for path, more in (
        ("/v1/chat/completions", {}),
        ("/v1/chat/completions", {"stream": True}),
        ("/api/conversations", None),
        ("/v1/embeddings", None),
        ("/v1/completions", None),
        ("/tokenize", None),
    ):
        asked = body | more if more is not None else {"model": house.ids["model_id"]}
        asked |= {"/v1/embeddings": {"input": "hello"}, "/v1/completions": {"prompt": "hello"}}.get(path, {})
        asked |= {"/tokenize": {"prompt": "hello"}}.get(path, {})
        reply = house.ask("stranger", "POST", path, json=asked)
        assert (reply.status_code, reply.json()["error"]["code"]) == (404, "model_not_found"), (path, reply.text)
        unknown = house.ask("stranger", "POST", path, json=asked | {"model": "ft:none"})
        assert unknown.text.replace("ft:none", house.ids["model_id"]) == reply.text
