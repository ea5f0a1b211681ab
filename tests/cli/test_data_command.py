"""`chatwheel data` as a user meets it: files, --json, and one line for every fault."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from chatwheel.cli.data import app
from chatwheel.data.records import Conversation, Ranking, Rating, read_records
from chatwheel.data.sources import inspect
from chatwheel.errors import InputError, StorageError
from chatwheel.feedback.ratings import rate
from chatwheel.settings import Settings
from chatwheel.store import conversations as store
from chatwheel.store.accounts import local_principal
from chatwheel.store.database import Database


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "questions.csv"
    path.write_text("q,a\n" + "".join(f"Question {i}?,Answer {i}.\n" for i in range(100)) + "Question 1?,Answer 1.\n")
    return path


def test_import_splits_counts_and_prints_one_object(questions: Path, tmp_path: Path) -> None:
    train, held_out = tmp_path / "train.jsonl", tmp_path / "held_out.jsonl"
    fields = ["--field", "question=q", "--field", "answer=a"]
    split = ["--held-out", "0.2", "--held-out-output", held_out]
    result = run("import", questions, "--kind", "conversations", *fields, "--output", train, *split, "--json")
    summary = json.loads(result.stdout)
    parts = [list(read_records(path, Conversation)) for path in (train, held_out)]
    assert summary["records"] == sum(map(len, parts)) == 100
    assert summary["written"] == {str(train): len(parts[0]), str(held_out): len(parts[1])}
    assert summary["dropped"] == {"duplicate": 1}
    assert summary["languages"] == {"en": 100}
    assert 5 < len(parts[1]) < 40


HALF = """
import itertools, sys
from pathlib import Path
import chatwheel.data.sources as sources
from chatwheel.cli.data import app
from chatwheel.data.records import Document

def load(*arguments, **options):
    for i in itertools.count():
        if i == 2000:
            print("halfway", flush=True)
            sys.stdin.read()
        yield Document(text=f"document {i} " + "x" * 500)

sources.load = load
app()
"""


def test_two_files_appear_together_or_not_at_all(tmp_path: Path) -> None:
    paths = tmp_path / "train.jsonl", tmp_path / "held_out.jsonl"
    (tmp_path / "in.txt").write_text("text")
    options = ["--kind", "documents", "-o", paths[0], "--held-out", "0.4", "--held-out-output", paths[1]]
    process = subprocess.Popen(
        [sys.executable, "-c", HALF, "import", *map(str, [tmp_path / "in.txt", *options])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"halfway\n"
    # Both are written as records come: none waits in memory for the other file.
    waiting = [sum(path.stat().st_size for path in tmp_path.glob(f".{p.name}*")) for p in paths]
    process.kill()
    process.communicate()
    assert min(waiting) > 300_000
    assert not any(path.exists() for path in paths)
    (tmp_path / "directory").mkdir()
    with pytest.raises(StorageError, match="it is a directory"):
        run("import", tmp_path / "in.txt", *options[:-1], tmp_path / "directory")
    assert not paths[0].exists()


def test_import_of_several_sources_prints_a_table_on_standard_error(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Some English text.")
    (tmp_path / "b.txt").write_text("一些中文。", encoding="utf-8")
    output = tmp_path / "out.jsonl"
    result = run("import", tmp_path / "a.txt", tmp_path / "b.txt", "--kind", "documents", "-o", output)
    assert result.stdout == ""
    assert "en 1, zh 1" in result.stderr
    assert [json.loads(line)["source"] for line in output.read_text(encoding="utf-8").splitlines()] == ["a", "b"]


def test_nothing_is_written_when_a_source_is_wrong(questions: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    output.write_text("before")
    with pytest.raises(InputError, match="unknown shape"):
        run("import", questions, "--kind", "conversations", "-o", output)
    torn = tmp_path / "torn.jsonl"
    torn.write_text('{"text": "good"}\n{"text": ')
    with pytest.raises(InputError, match="line 2"):
        run("import", torn, "--kind", "documents", "-o", output)
    with pytest.raises(InputError, match="all records were dropped"):
        run("import", questions, "--kind", "documents", "--field", "text=q", "-o", output, "--min-characters", 999)
    assert output.read_text() == "before"
    assert {path.name for path in tmp_path.iterdir()} == {"questions.csv", "out.jsonl", "torn.jsonl"}


def test_options_that_contradict_each_other(questions: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    with pytest.raises(InputError, match="belong together"):
        run("import", questions, "--kind", "documents", "-o", output, "--held-out", "0.1")
    with pytest.raises(InputError, match="the same file"):
        run("import", questions, "--kind", "documents", "-o", output, "--held-out", "0.1", "--held-out-output", output)
    with pytest.raises(InputError, match="OURS=THEIRS"):
        run("import", questions, "--kind", "documents", "-o", output, "--field", "text")


def test_inspect_tells_the_format_and_shows_samples(tmp_path: Path) -> None:
    path = tmp_path / "hh.jsonl"
    sides = {"chosen": "\n\nHuman: Hi [b]\n\nAssistant: Hello", "rejected": "\n\nHuman: Hi [b]\n\nAssistant: No"}
    path.write_text(json.dumps(sides) + "\n")
    found = json.loads(run("inspect", path, "--json").stdout)
    assert (found["container"], found["format"], found["kind"], found["records"]) == ("jsonl", "hh-rlhf", "rankings", 1)
    assert found["kinds"] == ["rankings", "conversations", "prompts"]
    assert found["samples"][0]["answers"] == ["Hello", "No"]
    assert found["lengths"]["median"] == len("Hi [b]HelloNo")
    shown = run("inspect", path)
    assert shown.stdout == ""
    assert "Hi [b]" in shown.stderr


def test_inspect_knows_prompts_from_demonstrations(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"messages": [{"role": "user", "content": "Hi"}]}\n')
    assert json.loads(run("inspect", path, "--json").stdout)["kind"] == "prompts"


def test_clean(tmp_path: Path) -> None:
    path, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    record = {"messages": [{"role": "user", "content": "Q\r\n"}], "answers": ["a\u200b", "b"], "ranks": [1, 2]}
    path.write_text((json.dumps(record) + "\n") * 2)
    summary = json.loads(run("clean", path, "--output", output, "--json").stdout)
    assert (summary["kind"], summary["records"], summary["dropped"]) == ("rankings", 1, {"duplicate": 1})
    (cleaned,) = read_records(output, Ranking)
    assert (cleaned.messages[0].content, cleaned.answers) == ("Q", ["a", "b"])


def test_help_lists_the_commands() -> None:
    text = run("--help").stdout
    assert all(name in text for name in ("import", "inspect", "clean"))


def test_clean_drops_near_duplicates_and_masks_personal_data(tmp_path: Path) -> None:
    story = " ".join(f"word{i * 7 % 101} then{i % 13}" for i in range(200))
    texts = [story, "Write to a.b@example.org or call +1 415 555 0132.", f"{story} The end.", "Quite another text."]
    file, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    options = ["--near-duplicates", "0.8", "--mask-personal-data"]
    summary = json.loads(run("clean", file, "--output", output, *options, "--json").stdout)
    assert summary["dropped"] == {"near-duplicate": 1}
    assert summary["masked"] == {"email": 1, "phone": 1}
    kept = [json.loads(line)["text"] for line in output.read_text().splitlines()]
    assert kept == [story, "Write to <email> or call <phone>.", "Quite another text."]


def test_clean_keeps_prose_in_chosen_languages(tmp_path: Path) -> None:
    prose = "She walked down to the harbour, where the boats were coming in. Nobody spoke; the wind was too loud."
    texts = {
        "en": prose,
        "fr": "Elle descendit vers le port, où les bateaux rentraient. Personne ne parlait ; le vent était trop fort.",
        "list": "\n".join(f"- {word}" for word in prose.split()),
    }
    file, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts.values()))
    options = ["--quality", "--languages", "en, zh"]
    for command in (
        ["clean", file],
        ["import", file, "--kind", "documents"],
        ["import", file, "--kind", "documents", "--no-clean"],
    ):
        summary = json.loads(run(*command, "--output", output, *options, "--json").stdout)
        assert summary["dropped"] == {"language fr": 1, "bullet lines": 1}
        assert [json.loads(line)["text"] for line in output.read_text().splitlines()] == [prose]
    with pytest.raises(InputError, match="'english' is not known"):
        run("clean", file, "--output", output, "--languages", "english")


def test_exported_thumbs_are_known_as_ratings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CHATWHEEL_DATABASE_URL", raising=False)
    database = Database.open(Settings.load(tmp_path).database_url)
    with database.write() as session:
        owner = local_principal(session).user_id
        for i in range(3):
            conversation = store.create_conversation(session, owner, "m")
            question = store.add_user_message(session, conversation, f"{i}?", None)
            answer = store.add_answer(session, question, "m")
            store.save_answer(session, answer.id, f"It is {i}.", "complete")
            rate(session, owner, answer.id, 1 if i else -1)
    database.close()
    file = tmp_path / "thumbs.jsonl"
    command = [sys.executable, "-m", "chatwheel", "feedback", "export", "ratings", "--everybody", "--json"]
    done = subprocess.run([*command, "--home", tmp_path, "--output", file], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"written": {str(file): 3}, "incomplete": 0}
    found = list(read_records(file, Rating))
    assert next((r.messages[-1].content, r.answer, r.rating) for r in found) == ("0?", "It is 0.", -1)
    assert inspect(file).kind == "ratings"
