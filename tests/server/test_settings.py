"""GET, PUT /v1/organization/settings, `chatwheel settings`, and the server that does what they say."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from chatwheel.cli.settings import app as command
from chatwheel.errors import InputError
from chatwheel.store import conversations
from chatwheel.store.accounts import local_principal
from chatwheel.store.retention import DAY
from chatwheel.store.tables import ConversationRow
from tests.server.conftest import Site

PATH = "/v1/organization/settings"


def old_chat(site: Site, days: float) -> str:
    with site.database.write() as session:
        row = conversations.create_conversation(session, local_principal(session).user_id, "m", "old")
        row.updated_at = time.time() - days * DAY
        return row.id


def is_there(site: Site, chat: str) -> bool:
    with site.database.read() as session:
        return session.get(ConversationRow, chat) is not None


def test_a_rule_is_counted_saved_recorded_and_kept_to(site: Site) -> None:
    old, new = old_chat(site, 91), old_chat(site, 89)
    nothing = {"chat_days": None, "audit_days": None}
    assert site.client.get(PATH).json()["retention"] == nothing
    seen = site.client.get(f"{PATH}/due", params={"chat_days": 90}).json()
    assert seen["due"] == {"chats": 1, "audit": 0}
    assert site.client.get(PATH).json()["retention"] == nothing
    rule = {"chat_days": 90, "audit_days": None}
    saved = site.client.put(PATH, json={"retention": rule}).json()
    assert (saved["retention"], saved["due"]) == (rule, {"chats": 1, "audit": 0})
    line = site.client.get("/v1/organization/audit_logs").json()["data"][0]
    assert (line["type"], line["details"]) == ("settings.updated", rule)

    async def tidied() -> None:
        """The server's own task does it when its hour comes."""
        task = asyncio.create_task(site.client.app.state.services._tidy())  # type: ignore[attr-defined]
        for _ in range(100):
            if not is_there(site, old):
                break
            await asyncio.sleep(0.05)
        task.cancel()

    asyncio.run(tidied())
    assert not is_there(site, old)
    assert is_there(site, new)
    assert site.client.get(PATH).json()["due"] == {"chats": 0, "audit": 0}


@pytest.mark.parametrize(
    "rule",
    [
        {"chat_days": 0, "audit_days": None},
        {"chat_days": None, "audit_days": 29},
        {"chat_days": 1.5, "audit_days": None},
        {"chat_days": 30},  # the other one would be forgotten
        {"chat_days": None, "audit_days": None, "usage_days": 3},
    ],
)
def test_what_is_no_rule_is_refused(site: Site, rule: dict[str, object]) -> None:
    assert site.client.put(PATH, json={"retention": rule}).status_code == 400
    assert site.client.get(PATH).json()["retention"] == {"chat_days": None, "audit_days": None}


def test_the_command_line_counts_and_asks(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CHATWHEEL_DATABASE_URL", raising=False)
    old_chat(site, 91)

    def typed(*words: str, answer: str = "") -> str:
        done = CliRunner().invoke(command, [*words, "--home", str(tmp_path)], input=answer, catch_exceptions=True)
        if isinstance(done.exception, InputError):
            raise done.exception
        return done.output

    said = typed("set", "--chat-days", "90", answer="n\n")
    assert "would delete now: 1 chats" in said
    assert "saved" not in said
    assert "never: 0 now" in typed("show")
    assert "saved: chats are deleted after 90 days" in typed("set", "--chat-days", "90", answer="y\n")
    assert "after 90 days: 1 now" in typed("show")
    assert "after 40 days" in typed("set", "--audit-days", "40", "--yes")
    assert '"chat_days": 90, "audit_days": 40' in typed("show", "--json")
    typed("set", "--chat-days", "off")
    assert '"chat_days": null, "audit_days": 40' in typed("show", "--json")
    with pytest.raises(InputError, match="'soon' is no number of days"):
        typed("set", "--chat-days", "soon")
