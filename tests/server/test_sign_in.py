"""Signing in: sessions, what browsers of other sites may not, wrong passwords, and how a session ends."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from argon2 import PasswordHasher
from fastapi.testclient import TestClient

from chatwheel.cli.serve import check_door
from chatwheel.errors import InputError
from chatwheel.server.identity import Identity
from chatwheel.settings import Settings
from chatwheel.store import accounts, attempts, passwords, sign_in
from chatwheel.store.accounts import ADMIN, SCOPES
from chatwheel.store.database import Database
from chatwheel.store.passwords import Hasher
from chatwheel.store.tables import AttemptRow, PasswordRow, SessionRow
from tests.server.conftest import MODEL
from tests.server.live import PASSWORD_KIB, make_app, run_server
from tests.server.test_key_ends import ABOUT_A_SECOND, CHAT, STREAMS, Reader, Two, disable, remove, two, wait_for

Json = dict[str, Any]
PASSWORD, ANOTHER = "correct horse battery", "staple of another kind"
COOKIE, SECURE_COOKIE = "chatwheel_session", "__Host-chatwheel_session"
__all__ = ["two"]


@dataclass(frozen=True)
class House:
    """An installation whose admin has a password, and its database."""

    client: TestClient
    database: Database
    admin: str
    """The name of its first user, an admin."""

    def browser(self, base_url: str = "http://localhost") -> TestClient:
        """One that nobody has signed in with."""
        return TestClient(self.client.app, base_url=base_url)

    def sign_in(self, name: str, password: str = PASSWORD, **options: Any) -> TestClient:
        """A browser, signed in, which sends what the page does."""
        browser = self.browser(**options)
        reply = enter(browser, name, password)
        assert reply.status_code == 201, reply.text
        browser.headers["x-csrf-token"] = reply.json()["csrf_token"]
        return browser

    def user(self, name: str, role: str = "member") -> str:
        """Somebody with a password and a project of their own; their id."""
        with self.database.write() as session:
            row = accounts.create_user(session, name, role)
            accounts.create_project(session, f"{name}'s", row.id)
            passwords.put(session, row.id, HASHER.digest(PASSWORD))
            return row.id

    def audit(self) -> list[tuple[str, str]]:
        """What was done, and by whom, the first one first."""
        with self.database.read() as session:
            rows = accounts.list_audit(session)
            return [(row.action, row.target) for row in reversed(rows)]


HASHER = Hasher(PASSWORD_KIB)


def enter(browser: TestClient, name: str, password: str = PASSWORD, **options: Any) -> httpx.Response:
    return browser.post("/v1/session", json={"name": name, "password": password}, **options)


def code(reply: httpx.Response) -> tuple[int, str]:
    return reply.status_code, reply.json()["error"]["code"]


@pytest.fixture
def house(tmp_path: Path, database_url: str) -> Iterator[House]:
    app, database, _ = make_app(tmp_path, database_url=database_url)
    with database.write() as session:
        local = accounts.local_principal(session)
        passwords.put(session, local.user_id, HASHER.digest(PASSWORD))
    with TestClient(app, base_url="http://localhost") as client:
        yield House(client, database, "admin")


@pytest.fixture
def unguarded(tmp_path: Path) -> Iterator[House]:
    """One where nobody is asked yet."""
    app, database, _ = make_app(tmp_path)
    with TestClient(app, base_url="http://localhost") as client:
        yield House(client, database, "admin")


# -- in and out


def test_who_signs_in_is_in_and_who_signs_out_is_out(house: House) -> None:
    browser = house.browser()
    nobody = browser.get("/v1/session").json()
    assert (nobody["by"], nobody["user"], nobody["csrf_token"], nobody["passwords"]) == (None, None, None, True)
    assert code(browser.get("/v1/me")) == (401, "invalid_api_key")
    reply = enter(browser, "admin")
    made = reply.json()
    assert (reply.status_code, made["by"], made["user"]["name"]) == (201, "password", "admin")
    assert browser.get("/v1/session").json() == made
    me = browser.get("/v1/me").json()
    assert (me["user"]["name"], me["api_key_id"], me["scopes"]) == ("admin", None, list(SCOPES))
    assert browser.get("/v1/models").status_code == 200
    token = browser.cookies[COOKIE]
    reply = browser.delete("/v1/session", headers={"x-csrf-token": made["csrf_token"]})
    assert reply.status_code == 204
    assert COOKIE not in browser.cookies
    assert browser.get("/v1/session").json()["by"] is None
    # the token is worth nothing, whoever has kept it
    assert code(house.browser().get("/v1/me", headers={"cookie": f"{COOKIE}={token}"})) == (401, "signed_out")
    assert [action for action, _ in house.audit()] == ["session.created", "session.deleted"]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_cookie_is_no_scripts_and_no_other_sites(house: House, scheme: str) -> None:
    reply = enter(house.browser(f"{scheme}://localhost"), "admin")
    [cookie] = reply.headers.get_list("set-cookie")
    name, *attributes = cookie.split("; ")
    assert name.startswith(f"{SECURE_COOKIE if scheme == 'https' else COOKIE}=")
    expected = {"httponly", "samesite=lax", "path=/", "max-age=2592000"} | (
        {"secure"} & {"secure" * (scheme == "https")}
    )
    assert {attribute.lower() for attribute in attributes} == expected
    assert name.partition("=")[2] not in reply.text


def test_over_https_the_cookie_of_plain_http_is_none(house: House) -> None:
    """Whoever sits between may set that one."""
    browser = house.sign_in("admin")
    cookie = f"{COOKIE}={browser.cookies[COOKIE]}"
    assert house.browser().get("/v1/me", headers={"cookie": cookie}).status_code == 200
    assert house.browser("https://localhost").get("/v1/me", headers={"cookie": cookie}).status_code == 401


@pytest.mark.parametrize("trusted", ["127.0.0.1", "10.9.9.9"])
def test_a_proxy_that_is_trusted_says_what_the_browser_sees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trusted: str
) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", trusted)
    app, database, _ = make_app(tmp_path)
    with database.write() as session:
        passwords.put(session, accounts.local_principal(session).user_id, HASHER.digest(PASSWORD))
    headers = {"x-forwarded-proto": "https", "x-forwarded-for": "10.1.2.3"}
    body = {"name": "admin", "password": PASSWORD}
    with run_server(app) as url:
        reply = httpx.post(f"{url}/v1/session", json=body, headers=headers)
        [cookie] = reply.headers.get_list("set-cookie")
        token = cookie.partition("=")[2].partition(";")[0]
        inside = {"cookie": f"{SECURE_COOKIE if trusted == '127.0.0.1' else COOKIE}={token}"} | headers
        [line] = httpx.get(f"{url}/v1/sessions", headers=inside).json()["data"]
    secure = trusted == "127.0.0.1"
    assert ("Secure" in cookie, line["ip_address"]) == (secure, "10.1.2.3" if secure else "127.0.0.1")


def test_a_session_is_a_new_one_whatever_the_browser_had(house: House) -> None:
    """Session fixation: a token that somebody has put into a browser is not the one that it signs in with."""
    planted = "planted-by-somebody-else"
    browser = house.browser()
    browser.cookies.set(COOKIE, planted, domain="localhost.local", path="/")
    reply = enter(browser, "admin", headers={"cookie": f"{COOKIE}={planted}"})
    assert reply.cookies[COOKIE] != planted
    assert code(house.browser().get("/v1/me", headers={"cookie": f"{COOKIE}={planted}"})) == (401, "signed_out")
    # and who signs in again leaves nothing open
    first = reply.cookies[COOKIE]
    again = enter(house.browser(), "admin", headers={"cookie": f"{COOKIE}={first}"})
    assert again.cookies[COOKIE] != first
    assert house.browser().get("/v1/me", headers={"cookie": f"{COOKIE}={first}"}).status_code == 401
    with house.database.read() as session:
        assert len(sign_in.list_sessions(session, accounts.get_user(session, "admin").id)) == 1


def test_a_key_in_the_header_wins_over_the_cookie(house: House) -> None:
    house.user("Bob")
    with house.database.write() as session:
        bob = accounts.get_user(session, "Bob")
        project = accounts.list_projects(session, bob.id)[0].id
        key = accounts.create_key(session, project_id=project, user_id=bob.id, name="k").secret
    browser = house.sign_in("admin")
    del browser.headers["x-csrf-token"]
    headers = {"authorization": f"Bearer {key}"}
    assert browser.get("/v1/me", headers=headers).json()["user"]["name"] == "Bob"
    assert browser.get("/v1/session", headers=headers).json()["by"] == "key"
    made = browser.post("/api/conversations", json={"model": MODEL}, headers=headers)  # and needs no token
    assert made.status_code == 201, made.text
    assert code(browser.get("/v1/me", headers={"authorization": "Bearer wrong"})) == (401, "invalid_api_key")


def test_a_key_has_no_business_with_its_owners_sessions(house: House) -> None:
    with house.database.write() as session:
        local = accounts.local_principal(session)
        key = accounts.create_key(
            session, project_id=local.project_id, user_id=local.user_id, name="k", scopes=SCOPES
        ).secret
    headers = {"authorization": f"Bearer {key}"}
    client = house.browser()
    for method, path in (("GET", "/v1/sessions"), ("DELETE", "/v1/sessions"), ("DELETE", "/v1/session")):
        assert code(client.request(method, path, headers=headers)) == (403, "insufficient_permissions")
    body = {"current": PASSWORD, "password": ANOTHER}
    assert code(client.put("/v1/password", json=body, headers=headers)) == (403, "insufficient_permissions")
    assert enter(client, "admin").status_code == 201


def test_the_sessions_that_one_has(house: House) -> None:
    house.user("Bob")
    house.sign_in("Bob")
    phone, laptop = house.browser(), house.sign_in("admin")
    enter(phone, "admin", headers={"user-agent": "Phone 1.0"})
    lines = laptop.get("/v1/sessions").json()["data"]
    assert [(line["user_agent"], line["current"]) for line in lines] == [("Phone 1.0", False), ("testclient", True)]
    assert all(abs(line["created_at"] - time.time()) < 60 for line in lines)
    assert "token" not in str(lines)
    assert laptop.delete("/v1/sessions").status_code == 204
    assert phone.get("/v1/me").status_code == laptop.get("/v1/me").status_code == 401
    assert house.audit()[-1][0] == "session.all_deleted"


def test_when_it_was_seen_is_written_every_five_minutes_at_most(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    browser, now = house.sign_in("admin"), time.time()
    marked: list[float] = []
    mark = sign_in.mark_seen

    def noted(session: Any, session_id: str, at: float) -> None:
        marked.append(at - now)
        mark(session, session_id, at)

    monkeypatch.setattr(sign_in, "mark_seen", noted)
    for later in (10, 290, 310, 320, 600, 620, 8 * 86400):
        monkeypatch.setattr(time, "time", lambda later=later: now + later)
        status = browser.get("/v1/me").status_code
        assert status == (401 if later == 8 * 86400 else 200)
    assert marked == [310, 620]


# -- other sites


def test_a_change_needs_the_sessions_own_token(house: House) -> None:
    house.user("Bob")
    bobs = house.sign_in("Bob").headers["x-csrf-token"]
    browser = house.sign_in("admin")
    own = browser.headers.pop("x-csrf-token")
    for path, method in (("/api/conversations", "POST"), ("/v1/session", "DELETE"), ("/v1/password", "PUT")):
        for headers in ({}, {"x-csrf-token": ""}, {"x-csrf-token": "wrong"}, {"x-csrf-token": bobs}, {"x-csrf": own}):
            reply = browser.request(method, path, json={"model": MODEL}, headers=headers)
            assert code(reply) == (403, "csrf_token_invalid"), (path, headers)
    for headers in ({"x-csrf-token": own + "x"}, {"x-csrf-token": browser.cookies[COOKIE]}):
        reply = browser.post("/api/conversations", json={"model": MODEL}, headers=headers)
        assert code(reply) == (403, "csrf_token_invalid")
    raw = browser.post("/api/conversations", json={"model": MODEL}, headers=[(b"x-csrf-token", b"\xff")])
    assert code(raw) == (403, "csrf_token_invalid")
    reply = browser.post("/api/conversations", json={"model": MODEL}, headers={"x-csrf-token": own})
    assert reply.status_code == 201


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "http://localhost:9999"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {"origin": "http://localhost", "sec-fetch-site": "cross-site"},
    ],
)
def test_another_site_changes_nothing_even_with_the_token(house: House, headers: dict[str, str]) -> None:
    browser = house.sign_in("admin")
    reply = browser.post("/api/conversations", json={"model": MODEL}, headers=headers)
    assert code(reply) == (403, "origin_not_allowed")
    assert code(enter(house.browser(), "admin", headers=headers)) == (403, "origin_not_allowed")  # nor signs one in
    own = {"origin": "http://localhost", "sec-fetch-site": "same-origin"}
    assert browser.post("/api/conversations", json={"model": MODEL}, headers=own).status_code == 201


def test_another_sites_form_signs_nobody_in(house: House) -> None:
    """A form sends no JSON; and a browser says where it comes from."""
    browser = house.browser()
    body = b'{"name": "admin", "password": "correct horse battery", "x": "="}'
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=b"):
        reply = browser.post("/v1/session", content=body, headers={"content-type": kind})
        assert reply.status_code == 400, reply.text
        assert "set-cookie" not in reply.headers
    with house.sign_in("admin") as signed_in:
        del signed_in.headers["x-csrf-token"]
        reply = signed_in.post("/v1/files", files={"file": ("a.txt", b"x")}, data={"purpose": "user_data"})
        assert code(reply) == (403, "csrf_token_invalid")


def test_what_only_reads_needs_no_token_and_changes_nothing(house: House) -> None:
    browser = house.sign_in("admin")
    del browser.headers["x-csrf-token"]
    before = house.audit()
    schema = browser.get("/openapi.json").json()
    for path, methods in schema["paths"].items():
        if "get" in methods and "{" not in path:
            assert browser.get(path).status_code != 403, path
    assert house.audit() == before
    assert browser.get("/api/conversations").json()["data"] == []


# -- passwords


def test_the_first_password_closes_the_door_and_the_page_stays_in(unguarded: House) -> None:
    browser = unguarded.browser()
    found = browser.get("/v1/session").json()
    assert (found["by"], found["user"]["name"], found["has_password"], found["passwords"]) == (
        "local",
        "admin",
        False,
        False,
    )
    member = browser.post("/v1/organization/users", json={"name": "Bob"}).json()["id"]
    reply = browser.post(f"/v1/organization/users/{member}/password")
    assert code(reply) == (409, "admin_password_first")
    assert code(browser.put("/v1/password", json={"password": "short"})) == (400, "password_short")
    reply = browser.put("/v1/password", json={"password": PASSWORD})
    assert reply.status_code == 200, reply.text
    assert reply.json()["by"] == "password"
    browser.headers["x-csrf-token"] = reply.json()["csrf_token"]
    assert browser.post(f"/v1/organization/users/{member}/password").status_code == 201
    other = unguarded.browser()
    assert other.get("/v1/me").status_code == 401
    assert other.put("/v1/password", json={"password": ANOTHER}).status_code == 401
    assert enter(other, "admin").status_code == 201


def test_with_a_password_the_server_may_be_reached_by_others(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, database_url=f"sqlite:///{tmp_path / 'chatwheel.db'}")
    with pytest.raises(InputError, match=r"chatwheel users password NAME"):
        check_door(settings, "0.0.0.0")
    check_door(settings, "127.0.0.1")
    database = Database.open(settings.database_url)
    with database.write() as session:
        local = accounts.local_principal(session)
        passwords.put(session, local.user_id, HASHER.digest(PASSWORD))
    check_door(settings, "0.0.0.0")
    assert Identity(database, None, loopback=True).find(None) is None
    database.close()


def test_another_password_takes_the_one_until_now_and_ends_all_other_sessions(house: House) -> None:
    browser, phone = house.sign_in("admin"), house.sign_in("admin")
    token = browser.cookies[COOKIE]
    for body, expected in (
        ({"password": ANOTHER}, (400, "current_missing")),
        ({"current": "not it at all", "password": ANOTHER}, (400, "wrong_password")),
        ({"current": PASSWORD, "password": "short"}, (400, "password_short")),
        ({"current": PASSWORD, "password": PASSWORD}, (400, "password_same")),
    ):
        assert code(browser.put("/v1/password", json=body)) == expected
    assert phone.get("/v1/me").status_code == 200
    reply = browser.put("/v1/password", json={"current": PASSWORD, "password": ANOTHER})
    assert reply.status_code == 200, reply.text
    assert browser.get("/v1/me").status_code == 200
    assert browser.cookies[COOKIE] != token
    assert code(phone.get("/v1/me")) == (401, "signed_out")
    assert house.browser().get("/v1/me", headers={"cookie": f"{COOKIE}={token}"}).status_code == 401
    assert code(enter(phone, "admin", PASSWORD)) == (401, "wrong_password")
    assert enter(phone, "admin", ANOTHER).status_code == 201
    assert [action for action, _ in house.audit()].count("password.changed") == 1


def test_a_temporary_password_opens_its_own_change_alone(house: House) -> None:
    admin = house.sign_in("admin")
    bob = house.user("Bob")
    old = house.sign_in("Bob")
    given = admin.post(f"/v1/organization/users/{bob}/password").json()
    assert old.get("/v1/me").status_code == 401
    assert code(old.post(f"/v1/organization/users/{bob}/password"))[0] == 401
    assert code(enter(house.browser(), "Bob")) == (401, "wrong_password")
    browser = house.sign_in("Bob", given["value"])
    assert browser.get("/v1/session").json()["must_change"] is True
    for path in ("/v1/me", "/v1/models", "/v1/sessions", "/api/conversations"):
        assert code(browser.get(path)) == (403, "password_change_required")
    body = {"current": given["value"], "password": ANOTHER}
    changed = browser.put("/v1/password", json=body).json()
    assert changed["must_change"] is False
    assert browser.get("/v1/me").json()["user"]["name"] == "Bob"
    browser.headers["x-csrf-token"] = changed["csrf_token"]
    assert code(browser.post(f"/v1/organization/users/{bob}/password")) == (403, "insufficient_permissions")
    assert ("password.reset", bob) in house.audit()


def test_a_password_is_kept_anew_when_the_parameters_change(house: House) -> None:
    with house.database.write() as session:
        row = session.get_one(PasswordRow, accounts.get_user(session, "admin").id)
        row.digest = Hasher(PASSWORD_KIB * 2).digest(PASSWORD)
    house.sign_in("admin")
    with house.database.read() as session:
        row = session.get_one(PasswordRow, accounts.get_user(session, "admin").id)
        assert row.digest.startswith(f"$argon2id$v=19$m={PASSWORD_KIB},t=3,p=4$")
    house.sign_in("admin")


# -- wrong ones


def test_unknown_names_are_answered_as_known_ones_are(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    verify = PasswordHasher.verify

    def noted(hasher: PasswordHasher, digest: str, password: str) -> bool:
        looked.append(digest[: digest.index("p=4$")])
        return verify(hasher, digest, password)

    monkeypatch.setattr(PasswordHasher, "verify", noted)
    bob = house.user("Bob")
    with house.database.write() as session:
        accounts.create_user(session, "Without")
        accounts.change_user(session, bob, disabled=True)
    replies = []
    for name in ("admin", "nobody", "Without", "Bob", "\u5bc6\u7801"):
        reply = enter(house.browser(), name, PASSWORD if name == "Bob" else "wrong password")
        replies.append((reply.status_code, reply.text, sorted(reply.headers)))
    assert replies == [replies[0]] * 5
    assert replies[0][0] == 401
    assert len(looked) == 5
    assert len(set(looked)) == 1


def test_wrong_passwords_make_one_wait_known_or_not(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    for name in ("admin", "nobody"):
        for _ in range(5):
            assert code(enter(house.browser(), name, "wrong password")) == (401, "wrong_password")
        reply = enter(house.browser(), name, PASSWORD)
        assert code(reply) == (429, "too_many_attempts")
        assert 0 < int(reply.headers["retry-after"]) <= 30
    monkeypatch.setattr(time, "time", lambda: now + 60)
    assert enter(house.browser(), "admin").status_code == 201  # the right one, after the wait
    for _ in range(5):
        assert code(enter(house.browser(), "admin", "wrong password")) == (401, "wrong_password")
    actions = [action for action, _ in house.audit()]
    assert actions.count("session.failed") == 15
    assert {target for action, target in house.audit() if action == "session.failed"} == {
        "unknown",
        _id(house, "admin"),
    }


def _id(house: House, name: str) -> str:
    with house.database.read() as session:
        return accounts.get_user(session, name).id


def test_two_servers_count_together(two: Two) -> None:
    """The eleventh word is said by neither: 5 are wrong, whoever is asked."""
    codes = []
    for number in range(6):
        body = {"name": "Ada", "password": "wrong password"}
        codes.append(code(httpx.post(f"{two.urls[number % 2]}/v1/session", json=body))[0])
    assert codes == [401] * 5 + [429]
    assert code(httpx.post(f"{two.urls[1]}/v1/session", json={"name": "Ada", "password": "x"}))[0] == 429


def test_who_guesses_the_current_password_in_an_open_session_waits_too(house: House) -> None:
    browser = house.sign_in("admin")
    body = {"current": "not it at all", "password": ANOTHER}
    for _ in range(5):
        assert code(browser.put("/v1/password", json=body)) == (400, "wrong_password")
    body["current"] = PASSWORD
    assert code(browser.put("/v1/password", json=body)) == (429, "too_many_attempts")
    assert browser.get("/v1/me").status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": "admin"},
        {"name": "admin", "password": 12345678},
        {"name": "admin", "password": ["hunter2hunter2"]},
        {"name": "x" * 201, "password": PASSWORD},
        {"name": "admin", "password": PASSWORD, "more": 1},
        {"name": "admin", "password": "hunter2hunter2", "project_id": 1},
    ],
)
def test_bad_input_is_told_and_no_password_said_again(house: House, body: Json) -> None:
    reply = house.browser().post("/v1/session", json=body)
    assert reply.status_code == 400
    assert reply.json()["error"]["message"]
    for secret in ("12345678", "hunter2", PASSWORD):
        assert secret not in reply.text


def test_no_secret_is_written_down(house: House, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    browser = house.sign_in("admin")
    bob = house.user("Bob")
    given = browser.post(f"/v1/organization/users/{bob}/password").json()["value"]
    enter(house.browser(), "hunter2hunter2", "hunter3hunter3")
    browser.put("/v1/password", json={"current": "hunter4hunter4", "password": "hunter5hunter5"})
    browser.put("/v1/password", json={"current": PASSWORD, "password": ANOTHER})
    secrets = ["hunter", PASSWORD, ANOTHER, given, browser.cookies[COOKIE], browser.headers["x-csrf-token"]]
    with house.database.read() as session:
        kept = [
            str({name: value for name, value in vars(row).items() if not name.startswith("_")})
            for table in (PasswordRow, SessionRow, AttemptRow)
            for row in session.query(table)
        ]
        kept += [str((row.action, row.target, row.details)) for row in accounts.list_audit(session)]
    assert len(kept) > 8
    logged = [record.getMessage() for record in caplog.records if not record.name.startswith(("httpx", "asyncio"))]
    for secret in secrets:
        assert not [line for line in kept + logged if secret in line], secret


# -- ends


def demote(two: Two) -> None:
    with two.database.write() as session:
        accounts.create_user(session, "Another", ADMIN)
        accounts.change_user(session, two.user_id, role="member")


def sign_out(two: Two) -> None:
    with two.database.write() as session:
        for row in sign_in.list_sessions(session, two.user_id):
            sign_in.end(session, row.id)


def new_password(two: Two) -> None:
    with two.database.write() as session:
        passwords.put(session, two.user_id, HASHER.digest(ANOTHER))


class Visitor(Reader):
    """A request by a cookie."""

    def headers(self) -> dict[str, str]:
        token, csrf = self.key.split()
        return {"cookie": f"{COOKIE}={token}", "x-csrf-token": csrf}


@pytest.mark.parametrize("end", [sign_out, demote, disable, remove, new_password])
def test_what_is_under_way_ends_with_its_session_on_every_server(two: Two, end: Callable[[Two], None]) -> None:
    with two.database.write() as session:
        passwords.put(session, two.user_id, HASHER.digest(PASSWORD))
    reply = httpx.post(f"{two.urls[0]}/v1/session", json={"name": "Ada", "password": PASSWORD})
    pair = f"{reply.cookies[COOKIE]} {reply.json()['csrf_token']}"
    method, path, body = STREAMS["chat"]
    visitors = [Visitor(url, pair, method, path, body) for url in two.urls]  # the other server knows it too
    whole = Visitor(two.urls[1], pair, "POST", path, CHAT)
    for visitor in visitors:
        wait_for(lambda visitor=visitor: sum(line.startswith("data: ") for line in visitor.lines) >= 5)
    end(two)
    ended = time.monotonic()
    for url in two.urls:
        headers = visitors[0].headers()
        assert code(httpx.get(f"{url}/v1/me", headers=headers)) == (401, "signed_out")
    for visitor in [*visitors, whole]:
        visitor.thread.join(10)
        assert 0 < visitor.ended - ended < ABOUT_A_SECOND
        assert visitor.data()[-1]["error"]["code"] == "signed_out"
        assert "data: [DONE]" not in visitor.lines
    assert whole.status == 401


def test_attempts_and_sessions_that_are_over_are_tidied(house: House) -> None:
    house.sign_in("admin")
    enter(house.browser(), "nobody", "wrong password")
    later = time.time() + 40 * 86400
    with house.database.write() as session:
        sign_in.tidy(session, later)
        attempts.tidy(session, later)
        assert not session.query(SessionRow).all()
        assert not session.query(AttemptRow).all()
