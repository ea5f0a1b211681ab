"""`chatwheel keys`, `users`, `projects`, `prices` and `db`, as one types them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from chatwheel.cli import db, keys, prices, projects, users
from chatwheel.errors import ChatwheelError, InputError
from chatwheel.settings import Settings
from chatwheel.store import accounts, passwords
from chatwheel.store.database import Database

APPS = {"keys": keys.app, "users": users.app, "projects": projects.app, "prices": prices.app, "db": db.app}
Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.delenv("CHATWHEEL_DATABASE_URL", raising=False)

    def run(verb: str, *arguments: str, home: Path = tmp_path) -> str:
        result = CliRunner().invoke(APPS[verb], [*arguments, "--home", str(home)])
        if isinstance(result.exception, ChatwheelError):
            raise result.exception
        assert result.exit_code == 0, result.output
        return str(result.stdout)

    return run


def found(run: Run, verb: str) -> list[dict[str, Any]]:
    return list(json.loads(run(verb, "list", "--json"))[verb])


def principal(home: Path, secret: str) -> accounts.Principal | None:
    database = Database.open(Settings.load(home).database_url)
    try:
        with database.read() as session:
            return accounts.authenticate(session, secret)
    finally:
        database.close()


def test_a_key_is_made_rotated_and_revoked(run: Run, tmp_path: Path) -> None:
    secret = run("keys", "create", "laptop").strip()
    who = principal(tmp_path, secret)
    assert who is not None
    assert who.scopes == set(accounts.USUAL)
    (key,) = found(run, "keys")
    assert (key["name"], key["user"], key["project"], key["state"]) == ("laptop", "admin", "Default", "active")
    assert secret not in run("keys", "list")
    new = run("keys", "rotate", key["hint"]).strip()
    assert principal(tmp_path, secret) is None
    assert principal(tmp_path, new) is not None
    run("keys", "revoke", found(run, "keys")[0]["id"])
    assert principal(tmp_path, new) is None
    assert {key["state"] for key in found(run, "keys")} == {"revoked"}


def test_a_key_with_rights_limits_and_an_end(run: Run, tmp_path: Path) -> None:
    run("users", "add", "Ada")
    run("projects", "create", "Physics", "--owner", "Ada")
    options = ["--project", "Physics", "--user", "Ada", "--scope", "chat", "--model", "quickstart/ppo"]
    limits = ["--expires-in-days", "1", "--requests-per-minute", "5", "--monthly-budget", "2.5"]
    made = json.loads(run("keys", "create", "app", *options, *limits, "--json"))
    who = principal(tmp_path, made["value"])
    assert who is not None
    assert who.scopes == {"chat"}
    assert who.models == ("quickstart/ppo",)
    assert who.allowances[0].requests_per_minute == 5
    assert who.allowances[0].budget == 2_500_000_000
    with pytest.raises(InputError, match="scopes: 'everything'"):
        run("keys", "create", "app", "--scope", "everything")
    with pytest.raises(accounts.NotFoundError, match="Bob"):
        run("keys", "create", "app", "--user", "Bob")


def test_users_come_and_go(run: Run) -> None:
    run("users", "add", "Ada", "--project", "Default")
    run("users", "change", "Ada", "--role", "admin")
    run("users", "change", "admin", "--disable")
    assert [(user["name"], user["role"], user["disabled"]) for user in found(run, "users")] == [
        ("admin", "admin", True),
        ("Ada", "admin", False),
    ]
    with pytest.raises(accounts.ConflictError, match="only admin"):
        run("users", "change", "Ada", "--disable")
    with pytest.raises(InputError, match="nothing to change"):
        run("users", "change", "Ada")


def test_projects_have_limits(run: Run) -> None:
    run("projects", "limit", "Default", "--requests-per-minute", "60", "--monthly-budget", "10")
    (project,) = found(run, "projects")
    assert (project["requests_per_minute"], project["monthly_budget"], project["spent_this_month"]) == (60, 10.0, 0.0)
    run("projects", "limit", "Default", "--requests-per-minute", "0", "--monthly-budget", "-1")
    (project,) = found(run, "projects")
    assert (project["requests_per_minute"], project["monthly_budget"]) == (None, None)
    assert "file_bytes 5,000" in run("projects", "limit", "Default", "--file-bytes", "5000")
    (project,) = found(run, "projects")
    assert (project["file_bytes"], project["bytes_of_files"]) == (5000, 0)
    assert "file_bytes the default" in run("projects", "limit", "Default", "--file-bytes", "-1")
    assert found(run, "projects")[0]["file_bytes"] is None


def test_prices_are_in_dollars_for_a_million(run: Run) -> None:
    assert "free" in run("prices", "list")
    run("prices", "set", "quickstart/*", "--input", "0.15", "--output", "0.6", "--training", "3")
    assert found(run, "prices") == [
        {"model": "quickstart/*", "input": 0.15, "cached_input": 0.15, "output": 0.6, "training": 3.0}
    ]


def test_a_backup_moves_to_another_home(run: Run, tmp_path: Path) -> None:
    secret = run("keys", "create", "laptop").strip()
    assert "already" in run("db", "upgrade")
    run("db", "backup", str(tmp_path / "backup.zip"))
    other = tmp_path / "other"
    assert "are back" in run("db", "restore", str(tmp_path / "backup.zip"), home=other)
    assert principal(other, secret) is not None


def test_a_password_from_the_input_opens_the_page(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHATWHEEL_PASSWORD_KIB", "12288")
    run("users", "add", "Ada")

    def give(user: str, typed: str) -> Any:
        arguments = ["password", user, "--stdin", "--home", str(tmp_path)]
        return CliRunner().invoke(users.app, arguments, input=typed)

    assert "first password is an admin's" in str(give("Ada", "correct horse\n").exception)
    assert "at least 8" in str(give("admin", "short\n").exception)
    assert "'Bob' not found" in str(give("Bob", "correct horse\n").exception)
    first = give("admin", "correct horse \r\nmore")
    assert (first.exit_code, first.stdout) == (0, "admin can sign in\n")
    assert "first password" in first.stderr
    second = give("Ada", "another horse")
    assert (second.exit_code, second.stderr) == (0, "")
    database = Database.open(Settings.load(tmp_path).database_url)
    with database.read() as session:
        _, row = passwords.find(session, "admin")
        assert row is not None
        assert row.digest.startswith("$argon2id$v=19$m=12288,")
        assert passwords.Hasher(64).is_right("correct horse ", row.digest)
        assert [line.action for line in accounts.list_audit(session)][:2] == ["password.set"] * 2
    database.close()
    monkeypatch.setenv("CHATWHEEL_PASSWORD_KIB", "1024")
    with pytest.raises(InputError, match="CHATWHEEL_PASSWORD_KIB: '1024'"):
        Settings.load(tmp_path)


def test_a_password_is_typed_twice(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    typed = iter(["correct horse", "correct hose", "correct horse", "correct horse"])
    monkeypatch.setattr("getpass.getpass", lambda _prompt: next(typed))
    with pytest.raises(InputError, match="not the same"):
        run("users", "password", "admin")
    assert run("users", "password", "admin") == "admin can sign in\n"
