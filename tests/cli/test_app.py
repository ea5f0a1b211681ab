"""The command: quick to say what it can, and one line for what the user can mend."""

from __future__ import annotations

import json
import shutil
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import TinyRun
from tests.jobs.tiny_recipe import MODELS, RECIPE, finish, run
from tests.jobs.tiny_recipe import chatwheel as start

import chatwheel
from chatwheel.cli import app
from chatwheel.jobs.recipe import WorldData

HEAVY = ("torch", "transformers", "fastapi", "uvicorn", "sqlalchemy", "numpy", "tokenizers", "pydantic")


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


Command = Callable[..., Outcome]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command in this process, as its entry point runs it."""

    def call(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["chatwheel", *map(str, arguments)])
        try:
            app.main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return call


def one_line(outcome: Outcome) -> str:
    """The line that a fault is: alone on standard error, and nothing on standard output."""
    assert outcome.code == 2, outcome
    assert outcome.out == ""
    (line,) = outcome.err.splitlines()
    assert line.startswith("chatwheel: ")
    assert "Traceback" not in line
    return line


# -- help


def test_help_lists_the_verbs_and_imports_nothing_heavy() -> None:
    watch = f"""
import atexit, sys
atexit.register(lambda: print("IMPORTED", [m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr))
"""
    result = finish(start("--help", before=watch))
    assert result.returncode == 0
    for verb, text in app.VERBS.items():
        assert verb in result.stdout
        assert text.split(":")[0].rstrip(".") in result.stdout
    assert result.stderr.strip() == "IMPORTED []"


@pytest.mark.parametrize("verb", app.VERBS)
def test_each_verb_explains_itself(verb: str, command: Command) -> None:
    outcome = command(verb, "--help")
    assert outcome.code == 0
    assert verb in outcome.out
    assert "--help" in outcome.out or "-h" in outcome.out


def test_without_a_verb_there_is_help(command: Command) -> None:
    outcome = command()
    assert "quickstart" in outcome.out + outcome.err
    assert outcome.code in (0, 2)


def test_the_version(command: Command) -> None:
    outcome = command("--version")
    assert outcome == Outcome(0, f"{chatwheel.__version__}\n", "")


def test_an_unknown_verb_and_an_unknown_option_are_no_tracebacks(command: Command) -> None:
    for arguments in (["dance"], ["generate", "--modle", "x", "Hi"], ["train", "everything"]):
        outcome = command(*arguments)
        assert outcome.code == 2
        assert "Traceback" not in outcome.err


# -- faults


@pytest.fixture
def damaged(tiny_run: TinyRun, tmp_path: Path) -> Callable[[str, Callable[[bytes], bytes | None]], Path]:
    """A copy of a model with one file changed, or taken away."""

    def damage(name: str, change: Callable[[bytes], bytes | None]) -> Path:
        directory = tmp_path / "damaged"
        shutil.copytree(tiny_run.model("ppo"), directory)
        content = change((directory / name).read_bytes())
        if content is None:
            (directory / name).unlink()
        else:
            (directory / name).write_bytes(content)
        return directory

    return damage


def test_an_unknown_model(command: Command, tiny_run: TinyRun) -> None:
    line = one_line(command("generate", "--home", tiny_run.home, "--model", "tiny/pop", "Hi"))
    assert "'tiny/pop' not found" in line
    assert "tiny/ppo" in line  # what there is


def test_an_unknown_model_where_there_is_none(command: Command, tmp_path: Path) -> None:
    for verb in ("generate", "evaluate"):
        arguments = ["--home", tmp_path, "--model", "nobody", *(["Hi"] if verb == "generate" else [])]
        assert "chatwheel quickstart" in one_line(command(verb, *arguments))


def test_a_directory_without_weights(command: Command, damaged: Callable[..., Path]) -> None:
    directory = damaged("model.safetensors", lambda _: None)
    assert "no weights" in one_line(command("generate", "--model", directory, "Hi"))


def test_a_directory_that_is_no_model(command: Command, tmp_path: Path) -> None:
    assert "not a model directory" in one_line(command("generate", "--model", tmp_path, "Hi"))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("model.safetensors", lambda b: b[: len(b) // 2]),
        ("model.safetensors", lambda _: b""),
        ("config.json", lambda b: b[:-5]),
        ("config.json", lambda _: b"[]"),
        ("tokenizer.json", lambda b: b[: len(b) // 2]),
        ("tokenizer_config.json", lambda _: b"{"),
        ("generation_config.json", lambda _: b"{"),
        ("tokenizer_config.json", lambda _: b'{"chat_template": "{% if %}"}'),
    ],
)
def test_a_damaged_model(
    name: str, change: Callable[[bytes], bytes], command: Command, damaged: Callable[..., Path]
) -> None:
    line = one_line(command("generate", "--model", damaged(name, change), "Hi"))
    assert "damaged" in line or "expected a JSON object" in line


def test_a_reward_model_cannot_answer(command: Command, tiny_run: TinyRun) -> None:
    line = one_line(command("generate", "--home", tiny_run.home, "--model", "tiny/reward", "Hi"))
    assert "a reward model scores texts, and nothing else does" in line


def test_a_prompt_that_is_too_long(command: Command, tiny_run: TinyRun) -> None:
    line = one_line(command("generate", "--home", tiny_run.home, "--model", "tiny/ppo", "word " * 2000))
    assert "context is 512 tokens" in line


def test_a_prompt_that_is_not_unicode(command: Command, tiny_run: TinyRun) -> None:
    line = one_line(command("generate", "--home", tiny_run.home, "--model", "tiny/ppo", "half a pair \udcff"))
    assert "not valid Unicode" in line


def test_a_misspelt_recipe_key(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(RECIPE.replace("learning_rate", "learning_rat").replace("sft: {epochs", "sft: {epoch"))
    line = one_line(command("run", "--home", tmp_path, "--recipe", path))
    assert "unknown key 'sft.epoch'; did you mean 'epochs'?" in line
    assert list(tmp_path.iterdir()) == [path]  # and nothing was begun


def test_an_absent_recipe(command: Command, tmp_path: Path) -> None:
    for arguments in (["run"], ["train", "sft"]):
        line = one_line(command(*arguments, "--home", tmp_path, "--recipe", tmp_path / "none.yaml"))
        assert "no such recipe" in line


def test_a_recipe_that_is_a_directory(command: Command, tmp_path: Path) -> None:
    assert str(tmp_path) in one_line(command("run", "--home", tmp_path, "--recipe", tmp_path))


def test_another_recipe_than_the_run_was_begun_with(command: Command, tiny_run: TinyRun) -> None:
    line = one_line(command("run", "--home", tiny_run.home, "--recipe", tiny_run.recipe, "seed=9"))
    assert "seed: 3 there, 9 now" in line


def test_an_unknown_suite(command: Command, tiny_run: TinyRun) -> None:
    line = one_line(command("evaluate", "--home", tiny_run.home, "--model", "tiny/ppo", "--suite", "wrld"))
    assert "suite 'wrld' is not known; choose one of world, behaviours" in line


@pytest.mark.parametrize("option", [("--language", "zh"), ("--count", 5), ("--temperature", 0), ("--seed", 0)])
def test_what_does_not_apply_to_rankings_is_refused(option: tuple[str, Any], command: Command, tmp_path: Path) -> None:
    """Not even where it says what is so anyway."""
    line = one_line(command("evaluate", "--home", tmp_path, "--model", "some", "--suite", "rankings", *option))
    assert f"{option[0]} is for examinations" in line


def test_a_taken_port(command: Command, tiny_run: TinyRun) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for verb in ("serve", "quickstart"):
            line = one_line(command(verb, "--home", tiny_run.home, "--port", port))
            assert f"port {port} on 127.0.0.1 is in use" in line


def test_impossible_minutes(command: Command, tmp_path: Path) -> None:
    line = one_line(command("quickstart", "--home", tmp_path, "--no-serve", "--minutes", "-1"))
    assert "positive number of minutes" in line


def test_a_home_that_cannot_be_written(command: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(RECIPE)
    assert "file" in one_line(command("run", "--home", tmp_path / "file", "--recipe", recipe))


def test_a_fault_in_its_own_process_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    result = run(["generate", "--model", "nobody", "Hi"], home=tmp_path)
    assert one_line(Outcome(result.returncode, result.stdout, result.stderr))


# -- JSON


def test_models_list_and_show(command: Command, tiny_run: TinyRun) -> None:
    listed = json.loads(command("models", "list", "--home", tiny_run.home, "--json").out)
    assert [m["name"] for m in listed["models"]] == [f"tiny/{name}" for name in sorted(MODELS)]
    assert {m["name"]: m["stage"] for m in listed["models"]}["tiny/base"] == "pretrain"
    shown = json.loads(command("models", "show", "tiny/ppo", "--home", tiny_run.home, "--json").out)
    assert set(shown["parents"]) == {"tiny/sft", "tiny/reward"}
    assert "tiny/reward" in command("models", "list", "--home", tiny_run.home).out


def test_a_finished_run_prints_its_results_as_one_object(command: Command, tiny_run: TinyRun, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(tiny_run.home, home)
    outcome = command("run", "--home", home, "--recipe", tiny_run.recipe, "--json")
    assert outcome.code == 0
    assert len(outcome.out.splitlines()) == 1
    results = json.loads(outcome.out)
    assert results["stage:reward"]["pairs"] > 0
    assert results["ppo"]["n"] == results["sft"]["n"] > 0


def test_evaluate_prints_one_object(command: Command, tiny_run: TinyRun) -> None:
    model = ["--home", tiny_run.home, "--model", "tiny/ppo", "--count", 24]
    outcome = command("evaluate", *model, "--json")
    assert outcome.code == 0
    assert len(outcome.out.splitlines()) == 1
    result = json.loads(outcome.out)
    assert (result["suite"], result["model"], result["n"]) == ("world", "tiny/ppo", 24)
    assert set(result["languages"]) == {"en", "zh"}
    assert len(result["behaviours"]) >= 8
    for share in (result["accuracy"], *result["behaviours"].values(), *result["languages"].values()):
        assert 0 <= share <= 1
    assert "tiny/ppo on world" in command("evaluate", *model).out


def test_evaluate_gives_the_reports_marks(command: Command, tiny_run: TinyRun) -> None:
    outcome = command("evaluate", "--home", tiny_run.home, "--model", "tiny/ppo", "--json")
    marks = json.loads(outcome.out)
    reported = tiny_run.results["ppo"]
    for key in ("n", "accuracy", "quality", "behaviours", "languages"):
        assert marks[key] == reported[key]


def test_evaluate_draws_answers_by_seed(command: Command, tiny_run: TinyRun) -> None:
    def drawn(*options: object) -> str:
        return command("evaluate", "--home", tiny_run.home, "-m", "tiny/ppo", "-n", 24, "--json", *options).out

    assert json.loads(drawn("-t", 1, "--seed", 3))["temperature"] == 1
    assert drawn("-t", 1, "--seed", 3) == drawn("-t", 1, "--seed", 3)
    first, other = (json.loads(drawn("-t", 1, "--seed", seed)) for seed in (0, 3))
    assert (first.pop("seed"), other.pop("seed")) == (0, 3)
    assert first != other


@pytest.mark.parametrize(
    ("lineage", "options", "languages", "n"),
    [
        ({"recipe": {"data": {"languages": ["en"], "examination": 24}}}, [], {"en"}, 24),
        ({"recipe": {"data": {"languages": ["en"], "examination": 24}}}, ["--language", "zh", "-n", 12], {"zh"}, 12),
        ({"recipe": {"data": {"languages": ["en"], "examination": 24}}}, ["--language", "both"], {"en", "zh"}, 24),
        ({"recipe": {"data": {"kind": "files"}}}, ["-n", 24], {"en", "zh"}, 24),
        ({"recipe": "mine"}, ["-n", 24], {"en", "zh"}, 24),
        ({"recipe": {"data": {"languages": ["fr"]}}}, [], {"en", "zh"}, WorldData.model_fields["examination"].default),
    ],
)
def test_evaluate_asks_in_the_models_languages(
    command: Command,
    damaged: Callable[..., Path],
    lineage: dict[str, object],
    options: list[object],
    languages: set[str],
    n: int,
) -> None:
    directory = damaged("chatwheel.json", lambda _: json.dumps(lineage).encode())
    marks = json.loads(command("evaluate", "--model", directory, *options, "--json").out)
    assert (set(marks["languages"]), marks["n"]) == (languages, n)


def test_tokenizer_encode(command: Command, tiny_run: TinyRun) -> None:
    result = json.loads(
        command("tokenizer", "encode", "Hello there", "--home", tiny_run.home, "-m", "tiny/sft", "--json").out
    )
    assert "".join(result["tokens"]) == "Hello there"
    assert result["num_tokens"] == len(result["ids"])
