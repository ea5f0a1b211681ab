"""Passwords, sessions and what is tried in vain, on both databases."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from argon2 import PasswordHasher
from sqlalchemy import select
from sqlalchemy.orm import Session

from chatwheel.errors import InputError
from chatwheel.store import accounts, attempts, passwords, sign_in
from chatwheel.store.accounts import ADMIN, SCOPES, ConflictError, ForbiddenError
from chatwheel.store.database import Database
from chatwheel.store.limits import LimitError
from chatwheel.store.passwords import Hasher
from chatwheel.store.tables import AttemptRow, SessionRow

PASSWORD = "correct horse battery"
HASHER = Hasher(64)
DAY = 86400.0


@pytest.fixture
def ada(session: Session) -> str:
    """The first admin, with a password."""
    local = accounts.local_principal(session)
    passwords.put(session, local.user_id, HASHER.digest(PASSWORD))
    return local.user_id


# -- passwords


def test_a_password_is_kept_as_a_line_of_argon2s_own() -> None:
    digest = Hasher(64 * 1024).digest(PASSWORD)
    assert digest.startswith("$argon2id$v=19$m=65536,t=3,p=4$")  # RFC 9106, section 4, the second choice
    assert PASSWORD not in digest
    assert HASHER.digest(PASSWORD) != HASHER.digest(PASSWORD)  # salted
    assert Hasher(64).is_right(PASSWORD, digest)  # whatever it was made with
    assert Hasher(64).is_outdated(digest)
    assert not Hasher(64 * 1024).is_outdated(digest)


def test_only_the_same_characters_are_right_from_whatever_keyboard() -> None:
    digest = HASHER.digest("pass\u00e9 \u5bc6\u7801 12")
    assert HASHER.is_right("passe\u0301 \u5bc6\u7801 \uff11\uff12", digest)  # decomposed, and full-width digits
    for wrong in ("", "Pass\u00e9 \u5bc6\u7801 12", "pass\u00e9 \u5bc6\u7801 123", " pass\u00e9 \u5bc6\u7801 12"):
        assert not HASHER.is_right(wrong, digest)
    assert not HASHER.is_right(PASSWORD, "no digest at all")


def test_of_nobody_no_password_is_right_and_one_is_looked_at_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    verify = PasswordHasher.verify

    def noted(hasher: PasswordHasher, digest: str, password: str) -> bool:
        looked.append(digest)
        return verify(hasher, digest, password)

    monkeypatch.setattr(PasswordHasher, "verify", noted)
    assert not HASHER.is_right(PASSWORD, None)
    assert not HASHER.is_right(PASSWORD, HASHER.digest("another one"))
    parameters = [digest.rpartition("$")[0].rpartition("$")[0] for digest in looked]
    assert parameters == ["$argon2id$v=19$m=64,t=3,p=4"] * 2


@pytest.mark.parametrize(
    ("password", "code"),
    [
        ("", "password_short"),
        ("seven77", "password_short"),
        ("x" * 1025, "password_long"),
        ("\u5bc6" * 342, "password_long"),  # 1,026 bytes
        ("Ada Lovelace", "password_is_name"),
        ("ada lovelace ", "password_is_name"),
    ],
)
def test_what_is_no_password(password: str, code: str) -> None:
    with pytest.raises(InputError) as caught:
        passwords.check(password, "Ada Lovelace")
    assert caught.value.code == code
    assert caught.value.param == "password"
    assert not password or password not in caught.value.message


def test_what_is_just_a_password() -> None:
    for password in ("eight888", "x" * 1024, "\u5bc6" * 341, "        "):
        passwords.check(password, "Ada")


def test_the_first_password_is_an_admins(session: Session) -> None:
    bob = accounts.create_user(session, "Bob").id
    assert not accounts.is_guarded(session)
    with pytest.raises(ConflictError, match="first password is an admin's"):
        passwords.put(session, bob, "digest")
    passwords.put(session, accounts.local_principal(session).user_id, "digest")
    assert accounts.is_guarded(session)
    passwords.put(session, bob, "digest")
    found, row = passwords.find(session, "  Bob ")
    assert found is not None
    assert (found.id, row and row.digest) == (bob, "digest")
    assert passwords.find(session, "bob") == (None, None)
    accounts.change_user(session, bob, disabled=True)
    assert passwords.find(session, "Bob") == (None, None)


def test_a_temporary_password_ends(session: Session, ada: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name = accounts.get_user(session, ada).name
    passwords.put(session, ada, "digest", temporary_until=1000.0)
    session.flush()
    monkeypatch.setattr("time.time", lambda: 999.0)
    assert passwords.find(session, name)[1] is not None
    made = sign_in.begin(session, ada)
    found = sign_in.authenticate(session, made.token)
    assert found is not None
    assert found.must_change
    monkeypatch.setattr("time.time", lambda: 1001.0)
    assert passwords.find(session, name) == (None, None)
    passwords.put(session, ada, "another")
    assert passwords.find(session, name)[1] is not None
    made = sign_in.begin(session, ada)
    found = sign_in.authenticate(session, made.token)
    assert found is not None
    assert not found.must_change


# -- sessions


def test_a_session_is_who_signed_in_and_its_token_is_not_kept(session: Session, ada: str) -> None:
    made = sign_in.begin(session, ada, address="10.0.0.1", user_agent="Firefox " * 100)
    assert len(made.token) >= 43  # 256 bits
    kept = [str(value) for value in vars(session.get_one(SessionRow, made.row.id)).values()]
    assert not any(made.token in value for value in kept)
    assert len(made.row.user_agent or "") == 300
    found = sign_in.authenticate(session, made.token)
    assert found is not None
    assert (found.user_id, found.key_id, found.session_id, found.entry) == (ada, None, made.row.id, made.row.id)
    assert {scope for scope in SCOPES if found.may(scope)} == set(SCOPES)
    for wrong in ("", made.token[:-1], made.token + "x", made.row.digest, made.row.id, "\ud800"):
        assert sign_in.authenticate(session, wrong) is None
    another = sign_in.begin(session, ada)
    assert another.token != made.token
    assert sign_in.csrf_token(another.token) != sign_in.csrf_token(made.token)
    assert sign_in.csrf_token(made.token) not in (made.token, made.row.digest)


def test_a_member_may_what_their_role_says(session: Session, ada: str) -> None:
    bob, project = accounts.create_user(session, "Bob").id, accounts.local_principal(session).project_id
    passwords.put(session, bob, "digest")
    with pytest.raises(ForbiddenError, match="in no such project"):
        sign_in.begin(session, bob)
    accounts.set_member(session, project, bob)
    own = accounts.create_project(session, "Poetry", bob).id
    for where, manages in ((project, False), (own, True)):
        found = sign_in.authenticate(session, sign_in.begin(session, bob, project_id=where).token)
        assert found is not None
        assert found.project_id == where
        assert found.manages(where) is manages
        assert not any(found.may(scope) for scope in (ADMIN, "runs"))
        assert found.may("project") is manages
        assert found.may("conversations")
    stranger = accounts.create_project(session, "Hers", ada).id
    with pytest.raises(ForbiddenError):
        sign_in.begin(session, bob, project_id=stranger)


def test_a_session_lasts_thirty_days_and_seven_unseen(session: Session, ada: str) -> None:
    now = 1_000_000.0
    made = sign_in.begin(session, ada, now=now)
    assert sign_in.authenticate(session, made.token, now + 7 * DAY - 1) is not None
    assert sign_in.authenticate(session, made.token, now + 7 * DAY + 1) is None
    assert list(sign_in.list_sessions(session, ada, now + 7 * DAY + 1)) == []
    for day in range(6, 30, 6):
        sign_in.mark_seen(session, made.row.id, now + day * DAY)
    assert sign_in.authenticate(session, made.token, now + 30 * DAY - 1) is not None
    assert sign_in.opening(session, [made.row.id], now + 30 * DAY - 1) == {made.row.id}
    sign_in.mark_seen(session, made.row.id, now + 30 * DAY)
    assert sign_in.authenticate(session, made.token, now + 30 * DAY + 1) is None
    assert sign_in.opening(session, [made.row.id], now + 30 * DAY + 1) == frozenset()
    sign_in.tidy(session, now + 30 * DAY + 1)
    assert session.scalars(select(SessionRow)).all() == []


def _demote(session: Session, user: str) -> None:
    accounts.change_user(session, user, role="member")


def _disable(session: Session, user: str) -> None:
    accounts.change_user(session, user, disabled=True)


def _remove(session: Session, user: str) -> None:
    accounts.remove_member(session, sign_in.list_sessions(session, user)[0].project_id, user)


def _archive(session: Session, user: str) -> None:
    accounts.change_project(session, sign_in.list_sessions(session, user)[0].project_id, archived=True)


def _new_password(session: Session, user: str) -> None:
    passwords.put(session, user, "another")


def _end(session: Session, user: str) -> None:
    sign_in.end(session, sign_in.list_sessions(session, user)[0].id)


def _everywhere(session: Session, user: str) -> None:
    assert sign_in.end_all(session, user) == 1


ENDS: list[Callable[[Session, str], None]] = [_demote, _disable, _remove, _archive, _new_password, _end, _everywhere]


@pytest.mark.parametrize("end", ENDS)
def test_every_way_in_which_a_session_ends(session: Session, ada: str, end: Callable[[Session, str], None]) -> None:
    eve = accounts.create_user(session, "Eve", ADMIN).id
    accounts.create_project(session, "Hers", eve)
    passwords.put(session, eve, "digest")
    hers, other = sign_in.begin(session, eve), sign_in.begin(session, ada)
    both = [hers.row.id, other.row.id]
    assert sign_in.opening(session, both) == set(both)
    end(session, eve)
    assert sign_in.authenticate(session, hers.token) is None
    assert sign_in.authenticate(session, other.token) is not None  # somebody else's goes on
    assert sign_in.opening(session, both) == {other.row.id}


@pytest.mark.usefixtures("ada")
def test_a_session_does_not_come_back_with_who_was_out(session: Session) -> None:
    eve = accounts.create_user(session, "Eve", ADMIN).id
    project = accounts.create_project(session, "Hers", eve).id
    passwords.put(session, eve, "digest")
    for out, back in (
        (lambda: _disable(session, eve), lambda: accounts.change_user(session, eve, disabled=False)),
        (lambda: _remove(session, eve), lambda: accounts.set_member(session, project, eve, "owner")),
        (lambda: _demote(session, eve), lambda: accounts.change_user(session, eve, role=ADMIN)),
    ):
        made = sign_in.begin(session, eve)
        out()
        back()
        assert sign_in.authenticate(session, made.token) is None
    made = sign_in.begin(session, eve)
    accounts.change_user(session, eve, role=ADMIN, disabled=False)  # what she was
    assert sign_in.authenticate(session, made.token) is not None


def test_a_user_has_so_many_sessions(session: Session, ada: str) -> None:
    made = [sign_in.begin(session, ada, now=1000.0 + number) for number in range(sign_in.MOST + 2)]
    open_ = [sign_in.authenticate(session, one.token, 2000.0) is not None for one in made]
    assert open_ == [False] * 2 + [True] * sign_in.MOST


def test_keys_and_sessions_are_asked_about_together(session: Session, ada: str) -> None:
    local = accounts.local_principal(session)
    key = accounts.create_key(session, project_id=local.project_id, user_id=ada, name="k").row.id
    made = sign_in.begin(session, ada).row.id
    assert sign_in.opening(session, [key, made, "key-none", "sess-none"]) == {key, made}
    accounts.revoke_key(session, key)
    assert sign_in.opening(session, [key, made]) == {made}
    assert sign_in.opening(session, []) == frozenset()


# -- attempts


def _wait(session: Session, counted: dict[str, int], now: float) -> float:
    """How long one has to wait; 0 where the attempt was admitted."""
    try:
        attempts.admit(session, counted, now)
    except LimitError as error:
        return {"too_many_attempts": error.retry_after or -1}[error.code or ""]
    return 0.0


def test_waits_grow_to_a_quarter_of_an_hour_and_no_further(session: Session) -> None:
    counted, now = attempts.subjects("Ada", "10.0.0.1", None), 1000.0
    for _ in range(5):
        assert _wait(session, counted, now) == 0
        now += 1
    waits = []
    for _ in range(8):
        wait = _wait(session, counted, now)
        assert _wait(session, counted, now) == wait  # to try meanwhile makes it no longer
        waits.append(wait + 1)
        now += wait
        assert _wait(session, counted, now) == 0
        now += 1
    assert waits == [30, 60, 120, 240, 480, 900, 900, 900]
    now += 899
    attempts.admit(session, counted, now)
    attempts.forgive(session, counted)
    assert [_wait(session, counted, now) for _ in range(5)] == [0] * 5


def test_five_in_more_than_a_quarter_of_an_hour_are_none(session: Session) -> None:
    counted = attempts.subjects("Ada", None, None)
    for number in range(20):
        assert _wait(session, counted, 1000.0 + 226 * number) == 0, number  # four in 904 seconds
    for _ in range(5):
        attempts.forgive(session, counted)
    for number in range(5):
        assert _wait(session, counted, 10_000.0 + 200 * number) == 0
    assert _wait(session, counted, 10_801.0) > 0


def test_an_address_has_twenty_whatever_the_names(session: Session) -> None:
    for number in range(20):
        assert _wait(session, attempts.subjects(f"name {number}", "2001:db8::1", None), 1000.0) == 0
    assert _wait(session, attempts.subjects("another", "2001:db8::ffff:2", None), 1000.0) == 30  # the same /64
    assert _wait(session, attempts.subjects("another", "2001:db8:0:1::1", None), 1000.0) == 0
    counted = attempts.subjects("another", "10.0.0.1", None)
    for _ in range(
        30
    ):  # a right one takes itself off alone: 20 wrong ones of an address are 20, however many are right
        assert _wait(session, counted, 1000.0) == 0
        attempts.forgive(session, counted)


def test_others_guesses_do_not_keep_out_who_was_there_before(session: Session) -> None:
    guessed = attempts.subjects("Ada", "10.6.6.6", "10.0.0.1")
    for _ in range(5):
        assert _wait(session, guessed, 1000.0) == 0
    assert _wait(session, guessed, 1000.0) > 0
    assert _wait(session, attempts.subjects("Ada", "10.7.7.7", "10.0.0.1"), 1000.0) > 0  # from anywhere else
    assert _wait(session, attempts.subjects("Ada", "10.0.0.1", "10.0.0.1"), 1000.0) == 0


def test_no_name_is_kept_and_all_is_forgotten_after_a_day(session: Session) -> None:
    counted = attempts.subjects("my password by mistake", "10.0.0.1", None)
    attempts.admit(session, counted, 1000.0)
    session.flush()
    rows = session.scalars(select(AttemptRow)).all()
    assert len(rows) == 2
    assert not any("mistake" in row.subject or "10.0" in row.subject for row in rows)
    attempts.tidy(session, 1000.0 + DAY - 1)
    assert len(session.scalars(select(AttemptRow)).all()) == 2
    attempts.tidy(session, 1000.0 + DAY + 1)
    assert session.scalars(select(AttemptRow)).all() == []


def test_many_at_once_are_not_more_than_many_in_turn(database: Database) -> None:
    counted = attempts.subjects("Ada", "10.0.0.1", None)
    admitted: list[bool] = []

    def attempt() -> None:
        try:
            database.transact(lambda session: attempts.admit(session, counted, 1000.0))
        except LimitError:
            admitted.append(False)
        else:
            admitted.append(True)

    threads = [threading.Thread(target=attempt) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(admitted) == [False] * 7 + [True] * 5


def test_a_new_password_ends_the_wait(session: Session, ada: str) -> None:
    name = accounts.get_user(session, ada).name
    counted: dict[str, Any] = attempts.subjects(name, None, None)
    for _ in range(5):
        attempts.admit(session, counted, 1000.0)
    assert _wait(session, counted, 1000.0) > 0
    attempts.forget(session, name)
    assert _wait(session, counted, 1000.0) == 0
