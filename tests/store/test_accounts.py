"""Users, projects and keys, on both databases."""

from __future__ import annotations

import time

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from chatwheel.errors import InputError
from chatwheel.store import accounts
from chatwheel.store.accounts import ADMIN, SCOPES, USUAL, ConflictError, ForbiddenError, NotFoundError
from chatwheel.store.tables import ApiKeyRow, AuditRow


def test_a_new_installation_has_an_admin_with_a_project_and_no_keys(session: Session) -> None:
    local = accounts.local_principal(session)
    assert local.is_admin
    assert local.owns_project
    assert local.scopes == set(SCOPES)
    assert not accounts.has_keys(session)
    assert [user.name for user in accounts.list_users(session)] == ["admin"]
    assert [project.name for project in accounts.list_projects(session)] == ["Default"]


def test_a_key_is_who_made_it_and_is_not_kept(session: Session) -> None:
    local = accounts.local_principal(session)
    new = accounts.create_key(session, project_id=local.project_id, user_id=local.user_id, name="laptop")
    assert len(new.secret) > 40
    kept = [str(value) for value in vars(session.get_one(ApiKeyRow, new.row.id)).values()]
    assert not any(new.secret in value for value in kept)
    found = accounts.authenticate(session, new.secret)
    assert found is not None
    assert (found.user_id, found.project_id, found.key_id) == (local.user_id, local.project_id, new.row.id)
    assert found.scopes == set(USUAL)
    assert not found.may(ADMIN)
    assert found.may("chat")
    assert new.secret not in repr(new.row)
    for wrong in ("", new.secret[:-1], new.secret + "x", new.row.digest, new.row.id, "cw-" + "\ud800"):
        assert accounts.authenticate(session, wrong) is None


def test_what_ends_a_key_ends_it_at_once(session: Session) -> None:
    member = accounts.create_user(session, "Ada")
    project = accounts.create_project(session, "Physics", member.id)

    def new(**options: float) -> str:
        made = accounts.create_key(session, project_id=project.id, user_id=member.id, name="k", **options)
        return made.secret

    secret = new()
    row = accounts.list_keys(session, project.id)[0]
    accounts.revoke_key(session, row.id)
    assert accounts.authenticate(session, secret) is None

    secret = new(expires_at=time.time() + 10)
    assert accounts.authenticate(session, secret) is not None
    assert accounts.authenticate(session, secret, now=time.time() + 11) is None

    secret = new()
    accounts.change_user(session, member.id, disabled=True)
    assert accounts.authenticate(session, secret) is None
    accounts.change_user(session, member.id, disabled=False)
    assert accounts.authenticate(session, secret) is not None

    project.archived_at = time.time()
    session.flush()
    assert accounts.authenticate(session, secret) is None
    project.archived_at = None
    session.flush()

    accounts.remove_member(session, project.id, member.id)
    assert accounts.authenticate(session, secret) is None


def test_a_key_that_is_rotated_keeps_its_rights(session: Session) -> None:
    local = accounts.local_principal(session)
    old = accounts.create_key(
        session,
        project_id=local.project_id,
        user_id=local.user_id,
        name="app",
        scopes=["chat", "models"],
        models=["quickstart/ppo"],
        limits={"requests_per_minute": 5},
    )
    new = accounts.rotate_key(session, old.row.id)
    assert accounts.authenticate(session, old.secret) is None
    found = accounts.authenticate(session, new.secret)
    assert found is not None
    assert found.scopes == {"chat", "models"}
    assert found.may_ask("quickstart/ppo")
    assert not found.may_ask("quickstart/sft")
    assert found.allowances[0].requests_per_minute == 5

    newer = accounts.rotate_key(session, new.row.id, keep_seconds=60)
    assert accounts.authenticate(session, new.secret) is not None
    assert accounts.authenticate(session, new.secret, now=time.time() + 61) is None
    assert accounts.authenticate(session, newer.secret) is not None


def test_admin_is_for_admins(session: Session) -> None:
    member = accounts.create_user(session, "Ada")
    project = accounts.create_project(session, "Physics", member.id)
    with pytest.raises(ForbiddenError):
        accounts.create_key(session, project_id=project.id, user_id=member.id, name="k", scopes=[ADMIN])
    accounts.change_user(session, member.id, role="admin")
    made = accounts.create_key(session, project_id=project.id, user_id=member.id, name="k", scopes=[ADMIN])
    found = accounts.authenticate(session, made.secret)
    assert found is not None
    assert found.may(ADMIN)
    accounts.change_user(session, member.id, role="member")  # the key loses it with its owner
    found = accounts.authenticate(session, made.secret)
    assert found is not None
    assert not found.may(ADMIN)


def test_the_last_admin_stays(session: Session) -> None:
    local = accounts.local_principal(session)
    with pytest.raises(ConflictError, match="only admin"):
        accounts.change_user(session, local.user_id, role="member")


def test_an_admin_stays_in_a_project(session: Session) -> None:
    """Whoever needs no key is the first admin, in a project of theirs."""
    local = accounts.local_principal(session)
    with pytest.raises(ConflictError, match="only admin in a project"), session.begin_nested():
        accounts.remove_member(session, local.project_id, local.user_id)
    ada = accounts.create_user(session, "Ada", "admin")
    with pytest.raises(ConflictError, match="only admin in a project"), session.begin_nested():
        accounts.change_user(session, local.user_id, disabled=True)
    accounts.set_member(session, local.project_id, ada.id)
    accounts.remove_member(session, local.project_id, local.user_id)
    assert accounts.local_principal(session).user_id == ada.id


@pytest.mark.parametrize("scopes", [[], ["everything"], ["chat", "CHAT"]])
def test_scopes_that_are_none(session: Session, scopes: list[str]) -> None:
    local = accounts.local_principal(session)
    with pytest.raises(InputError, match="scopes"):
        accounts.create_key(session, project_id=local.project_id, user_id=local.user_id, name="k", scopes=scopes)


def test_names_are_checked(session: Session) -> None:
    with pytest.raises(InputError, match="name"):
        accounts.create_user(session, "  \n ")
    accounts.create_user(session, "  Ada   Lovelace ")
    with pytest.raises(ConflictError):
        accounts.create_user(session, "Ada Lovelace")
    with pytest.raises(NotFoundError):
        accounts.get_user(session, "Bob")


def test_a_user_sees_their_own_projects(session: Session) -> None:
    ada, bob = accounts.create_user(session, "Ada"), accounts.create_user(session, "Bob")
    project = accounts.create_project(session, "Physics", ada.id)
    assert accounts.list_projects(session, bob.id) == []
    with pytest.raises(NotFoundError):
        accounts.get_project(session, project.id, bob.id)
    accounts.set_member(session, project.id, bob.id)
    assert accounts.get_project(session, "Physics", bob.id).id == project.id
    assert [user.name for _, user in accounts.members_of(session, project.id)] == ["Ada", "Bob"]


def test_the_record_says_who_did_what(session: Session) -> None:
    local = accounts.local_principal(session)
    accounts.record(session, local, "api_key.created", "key-1", address="127.0.0.1", name="laptop")
    accounts.record(session, None, "project.created", "proj-1")
    session.flush()
    rows = session.scalars(select(AuditRow).order_by(AuditRow.id)).all()
    assert [(row.action, row.target, row.user_id) for row in rows] == [
        ("api_key.created", "key-1", local.user_id),
        ("project.created", "proj-1", None),
    ]
    assert rows[0].details == {"name": "laptop"}
    assert [row.id for row in accounts.list_audit(session, before=rows[1].id)] == [rows[0].id]
