"""`chatwheel feedback`: a labelling queue is made, filled and written by commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from chatwheel.cli.feedback import app
from chatwheel.errors import InputError
from chatwheel.store.accounts import NotFoundError

CHOSEN = [
    {"chosen": f"\n\nHuman: {n}?\n\nAssistant: yes", "rejected": f"\n\nHuman: {n}?\n\nAssistant: no"} for n in range(3)
]


@pytest.fixture(autouse=True)
def no_database_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CHATWHEEL_DATABASE_URL", raising=False)


def run(home: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments, "--home", str(home)])


def test_a_queue_is_made_filled_and_written(tmp_path: Path) -> None:
    guidelines = tmp_path / "guidelines.md"
    guidelines.write_text("Be fair.")
    made = run(tmp_path, "queue", "Round 1", "--guidelines", str(guidelines), "--labellers", "2", "--json")
    queue = json.loads(made.stdout)["id"]
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n".join(map(json.dumps, CHOSEN)))
    done = json.loads(run(tmp_path, "import", str(file), "--to", "Round 1", "--json").stdout)
    assert (done["format"], done["added"], done["judgements"]) == ("hh-rlhf", 3, 3)
    again = run(tmp_path, "import", str(file), "--to", queue)
    assert "3 were there already" in again.stderr
    assert json.loads(run(tmp_path, "queues", "--json").stdout) == [
        {"id": queue, "name": "Round 1", "kind": "rank", "tasks": 3, "done": 0}
    ]
    out = tmp_path / "out.jsonl"
    written = run(tmp_path, "export", "--queue", queue, "--format", "openai", "-o", str(out), "--json")
    assert json.loads(written.stdout)["written"] == {str(out): 3}
    assert json.loads(out.read_text().splitlines()[0])["preferred_output"] == [{"role": "assistant", "content": "yes"}]
    assert out.stat().st_mode & 0o777 == 0o600


def test_what_is_wrong_is_said_and_nothing_is_written(tmp_path: Path) -> None:
    run(tmp_path, "queue", "twice")
    run(tmp_path, "queue", "twice")
    file, out = tmp_path / "pairs.jsonl", tmp_path / "out.jsonl"
    file.write_text(json.dumps(CHOSEN[0]))
    wrong = [
        (("import", str(file), "--to", "twice"), NotFoundError, "the name of several"),
        (("import", str(file), "--to", "none"), NotFoundError, "`chatwheel feedback queues` lists them"),
        (("export", "-o", str(out)), InputError, "say what to write"),
        (("export", "ratings", "--queue", "x", "-o", str(out)), InputError, "leave the kind"),
        (("queue", "x", "--guidelines", str(tmp_path / "none.md")), InputError, "cannot be read"),
        (("export", "--queue", "twice", "-o", str(out)), NotFoundError, "several"),
    ]
    for arguments, kind, why in wrong:
        found = run(tmp_path, *arguments)
        assert isinstance(found.exception, kind), (arguments, found.output)
        assert why in str(found.exception)
    assert not out.exists()
