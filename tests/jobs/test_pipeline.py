"""The whole wheel, small: every model opens in transformers, nothing is done twice, and a killed run ends the same."""

from __future__ import annotations

import json
import random
import re
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, GenerationConfig

import chatwheel as package
from chatwheel.data.records import Message, Ranking, read_jsonl, read_records
from chatwheel.data.world import Item
from chatwheel.engine.requests import SamplingParams
from chatwheel.errors import InputError
from chatwheel.jobs.pipeline import STAGES, forget, run_recipe
from chatwheel.jobs.recipe import Recipe
from chatwheel.jobs.run import Run
from chatwheel.model.checkpoint import load_model
from chatwheel.model.transformer import CausalLM, ScalarModel
from chatwheel.settings import Settings
from chatwheel.store.registry import Registry
from chatwheel.training.loop import read_metrics
from chatwheel.training.reward import last_values
from tests.conftest import Recorder, TinyRun
from tests.jobs.tiny_recipe import MODELS, TRAINED, chatwheel, finish, run, write_recipe

NAMES = [stage.name for stage in STAGES]


def test_all_stages_run_in_order_and_all_models_appear(tiny_run: TinyRun) -> None:
    assert tiny_run.recorder.begun == NAMES
    assert not any(tiny_run.recorder.skipped.values())
    entries = {e.name: e.kind for e in Registry(tiny_run.home / "models").list()}
    assert entries == {f"tiny/{name}": "reward" if name == "reward" else "causal" for name in MODELS}
    assert list(tiny_run.recorder.answered) == [name for name in MODELS if name != "reward"]
    assert all(len(pairs) == 5 for pairs in tiny_run.recorder.answered.values())


def test_each_stage_has_its_curve_and_no_optimizer_state_is_left(tiny_run: TinyRun) -> None:
    steps = {name: [row["step"] for row in read_metrics(tiny_run.run.stage(name))] for name in TRAINED}
    assert steps["pretrain"] == list(range(12))
    assert steps["ppo"] == list(range(4 * tiny_run.run.recipe.ppo.updates_per_rollout))
    assert all(steps[name] == list(range(len(steps[name]))) and steps[name] for name in TRAINED)
    assert not list(tiny_run.run.directory.rglob("state*"))
    assert not list(tiny_run.run.directory.rglob("reference"))


def test_the_report_is_there_and_the_comparison_is_a_share(tiny_run: TinyRun) -> None:
    report = (tiny_run.run.directory / "report.html").read_text(encoding="utf-8")
    assert "tiny" in report
    assert "</html>" in report
    assert "DPO" in report
    for name in ("ppo", "dpo", "kto"):
        for how in ("greedy", "sampled"):
            assert 0 <= tiny_run.results["comparison"][f"{name}_over_sft_{how}"] <= 1


def test_rankings_are_over_the_sft_model_s_own_answers_and_none_is_held_out_twice(tiny_run: TinyRun) -> None:
    train, held_out = (
        [r.messages for r in read_records(tiny_run.run.data(name), Ranking)]
        for name in ("rankings", "rankings.held_out")
    )
    assert len(train) + len(held_out) == 40
    assert not any(messages in train for messages in held_out)


def test_the_written_answer_is_ranked_behind_the_sampled_ones(tiny_run: TinyRun) -> None:
    items = [Item.model_validate(value) for value in read_jsonl(tiny_run.run.data("ranked_items"))]
    written = {item.id: item.answer for item in items}
    rankings = list(read_records(tiny_run.run.data("rankings"), Ranking))
    for ranking in rankings:
        assert len(ranking.answers) == len(ranking.ranks) == 4
        assert ranking.answers[-1] == written[ranking.model_dump()["item"]]
    assert any(ranking.ranks[-1] == 1 for ranking in rankings)


@pytest.mark.parametrize("name", ["base", "sft", "ppo", "dpo"])
def test_transformers_opens_each_model_and_says_the_same(name: str, tiny_run: TinyRun) -> None:
    directory = tiny_run.model(name)
    theirs = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(directory)
    messages = [{"role": "user", "content": "What is the capital of France? 法国的首都是哪里?"}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    ours, our_tokenizer = load_model(directory, CausalLM)
    assert ids["input_ids"][0].tolist() == our_tokenizer.encode_prompt(messages)
    with torch.no_grad():
        torch.testing.assert_close(ours(ids["input_ids"]), theirs(**ids).logits, atol=1e-4, rtol=0)
    # The ends come from the saved generation_config.json.
    saved = theirs.generation_config
    assert saved.eos_token_id == [our_tokenizer.end_id, our_tokenizer.end_of_text_id]
    greedy = GenerationConfig(
        do_sample=False, max_new_tokens=30, eos_token_id=saved.eos_token_id, pad_token_id=saved.pad_token_id
    )
    expected = theirs.generate(**ids, generation_config=greedy)[0, ids["input_ids"].shape[1] :]
    assistant = package.load(directory)
    answer = assistant.chat(
        [Message.model_validate(m) for m in messages], SamplingParams(temperature=0.0, max_tokens=30)
    )
    assistant.close()
    assert answer == tokenizer.decode(expected, skip_special_tokens=True)


def test_transformers_opens_the_reward_model_and_scores_the_same(tiny_run: TinyRun) -> None:
    directory = tiny_run.model("reward")
    theirs = AutoModelForSequenceClassification.from_pretrained(directory, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(directory)
    ours, our_tokenizer = load_model(directory, ScalarModel)
    prompt: list[dict[str, object]] = [{"role": "user", "content": "Say something."}]
    answers = ["Something.", "好。", "A much longer answer than the others, so that there is padding."]
    turns = ([*prompt, {"role": "assistant", "content": answer}] for answer in answers)
    sequences = [our_tokenizer.encode_conversation(messages)[0] for messages in turns]
    padded = tokenizer.pad({"input_ids": sequences}, padding=True, padding_side="right", return_tensors="pt")
    with torch.no_grad():
        expected = theirs(**padded).logits[:, 0]
        found = last_values(ours, sequences, 256, torch.float32)
    assert expected.std() > 0
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def copy_of(tiny_run: TinyRun, place: Path) -> Path:
    shutil.copytree(tiny_run.home, place / "home")
    return place / "home"


def test_a_second_run_does_nothing(tiny_run: TinyRun, tmp_path: Path) -> None:
    home = copy_of(tiny_run, tmp_path)
    before = {p: p.stat().st_mtime_ns for p in home.rglob("*") if p.is_file() and p.name != "report.html"}
    recorder = Recorder()
    results = run_recipe(Run.open(Recipe.load(tiny_run.recipe), Settings.load(home)), recorder)
    assert recorder.skipped == dict.fromkeys(NAMES, True)
    assert recorder.steps == []
    assert json.dumps(results) == json.dumps(tiny_run.results)
    assert {p: p.stat().st_mtime_ns for p in home.rglob("*") if p.is_file() and p.name != "report.html"} == before


def test_one_verb_runs_its_stages_and_says_what_is_missing(tmp_path: Path) -> None:
    run = Run.open(Recipe.load(write_recipe(tmp_path)), Settings.load(tmp_path))
    for verb, missing in (("sft", "tiny/base"), ("reward", "tiny/sft"), ("ppo", "tiny/sft"), ("dpo", "tiny/sft")):
        with pytest.raises(InputError, match=f"needs the model {missing}"):
            run_recipe(run, Recorder(), only=verb)
    recorder = Recorder()
    run_recipe(run, recorder, only="pretrain")
    assert recorder.begun == ["data", "tokenizer", "pretrain"]
    assert run.model("base").is_dir()
    assert not run.model("sft").exists()


def test_a_reward_model_that_is_being_made_again_is_not_there(tiny_run: TinyRun, tmp_path: Path) -> None:
    home = copy_of(tiny_run, tmp_path)
    run = Run.open(Recipe.load(tiny_run.recipe), Settings.load(home))
    forget(run, "reward")
    assert not run.model("reward").exists()
    shutil.copytree(tiny_run.model("reward"), run.model("reward"))  # as a kill may leave it
    forget(run, "ppo")
    with pytest.raises(InputError, match="ppo needs the model tiny/reward"):
        run_recipe(run, Recorder(), only="ppo")


def test_a_run_without_held_out_rankings_still_ends(tiny_run: TinyRun, tmp_path: Path) -> None:
    home = copy_of(tiny_run, tmp_path)
    run = Run.open(Recipe.load(tiny_run.recipe), Settings.load(home))
    run.restart({"reward": "reward"})
    run.data("rankings.held_out").write_text("")
    results = run_recipe(run, Recorder(), only="reward")
    assert results["stage:reward"]["pair_accuracy"] is None
    assert "sampled_pair_accuracy" not in results["stage:reward"]
    assert run.model("reward").is_dir()


def test_the_reward_model_is_measured_without_the_written_answer_too(tiny_run: TinyRun) -> None:
    measured = tiny_run.results["stage:reward"]
    rankings = list(read_records(tiny_run.run.data("rankings.held_out"), Ranking))
    answers = tiny_run.run.recipe.ranking.answers
    sampled = [[p for p in r.pairs() if max(p) < answers] for r in rankings]
    assert all(len(r.answers) == answers + 1 for r in rankings)
    assert measured["pairs"] == sum(len(r.pairs()) for r in rankings)
    assert measured["sampled_pairs"] == sum(map(len, sampled)) < measured["pairs"]
    assert 0 <= measured["sampled_pair_accuracy"] <= 1


# -- kills

SAVE_EACH_STEP = """
import time
from chatwheel.training.loop import Loop
Loop.__init__.__kwdefaults__["save_seconds"] = -1.0  # as a run of hours would have saved by now
step = Loop._step
def slow_step(*arguments):
    time.sleep(0.03)  # gives the test the time to aim
    return step(*arguments)
Loop._step = slow_step
"""


def weights(home: Path) -> dict[str, bytes]:
    return {name: (home / "models" / "tiny" / name / "model.safetensors").read_bytes() for name in MODELS}


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def kill_in(stage: str, after: int, command: list[Any], home: Path, run: str = "tiny") -> None:
    """Starts the command and kills it without warning once a stage has logged so many steps."""
    process = chatwheel(*command, home=home, before=SAVE_EACH_STEP)
    metrics = home / "runs" / run / stage / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while lines(metrics) < after and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.kill()
    result = finish(process)
    assert result.returncode == -signal.SIGKILL, result.stderr
    assert not (home / "models" / run / stage).exists()
    assert not (home / "runs" / run / "results" / f"stage.{stage}.json").exists()


def test_a_killed_ppo_ends_with_the_same_weights(tiny_run: TinyRun, tmp_path: Path) -> None:
    home = copy_of(tiny_run, tmp_path)
    Run.open(Recipe.load(tiny_run.recipe), Settings.load(home)).restart({"ppo": "ppo"})
    command = ["train", "ppo", "--recipe", tiny_run.recipe]
    kill_in("ppo", 6, command, home)  # in the middle of a rollout
    saved = home / "runs" / "tiny" / "ppo" / "state" / "state.json"
    assert json.loads(saved.read_text())["step"] == 4
    result = run(command, home)
    assert result.returncode == 0, result.stderr
    assert weights(home) == weights(tiny_run.home)
    steps = [row["step"] for row in read_metrics(home / "runs" / "tiny" / "ppo")]
    assert steps == [row["step"] for row in read_metrics(tiny_run.run.stage("ppo"))]


@pytest.mark.parametrize("stage", ["dpo", pytest.param("kto", marks=pytest.mark.slow)])
def test_killed_while_it_learns_from_preferences_it_ends_with_the_same_weights(
    stage: str, tiny_run: TinyRun, tmp_path: Path
) -> None:
    home = copy_of(tiny_run, tmp_path)
    Run.open(Recipe.load(tiny_run.recipe), Settings.load(home)).restart({stage: stage})
    command = ["train", stage, "--recipe", tiny_run.recipe]
    kill_in(stage, 3, command, home)
    assert (home / "runs" / "tiny" / stage / "reference" / "state.json").is_file()
    result = run(command, home)
    assert result.returncode == 0, result.stderr
    assert weights(home) == weights(tiny_run.home)
    losses = [[row["loss"] for row in read_metrics(d / "runs" / "tiny" / stage)] for d in (home, tiny_run.home)]
    assert losses[0] == losses[1]


def test_what_several_verbs_read_is_made_once(tiny_run: TinyRun, tmp_path: Path) -> None:
    home = copy_of(tiny_run, tmp_path)
    run = Run.open(Recipe.load(tiny_run.recipe), Settings.load(home))
    before = run.data("rankings").stat().st_mtime_ns
    recorder = Recorder()
    run_recipe(run, recorder, only="dpo", restart=True)
    assert recorder.skipped == {"ranking": True, "dpo": False}
    assert run.data("rankings").stat().st_mtime_ns == before
    measured = run.read_json("results/stage.dpo.json")
    rankings = list(read_records(run.data("rankings.held_out"), Ranking))
    assert measured["pairs"] == sum(len(r.pairs()) for r in rankings)
    assert 0 <= measured["pair_accuracy"] <= 1


@pytest.mark.slow
def test_a_run_killed_in_every_stage_ends_with_the_same_weights(tiny_run: TinyRun, tmp_path: Path) -> None:
    home = tmp_path / "home"
    command = ["run", "--recipe", tiny_run.recipe]
    # Pretraining twice: once in the primer's steps, which are the first three.
    for stage, after in (
        ("pretrain", 2),
        ("pretrain", 5),
        ("sft", 3),
        ("reward", 2),
        ("ppo", 7),
        ("dpo", 2),
        ("kto", 2),
    ):
        kill_in(stage, after, command, home)
    result = run(command, home)
    assert result.returncode == 0, result.stderr
    assert weights(home) == weights(tiny_run.home)


@pytest.mark.slow
def test_a_run_killed_at_random_moments_ends_with_the_same_weights(tiny_run: TinyRun, tmp_path: Path) -> None:
    home, dice = tmp_path / "home", random.Random(20)
    command = ["run", "--recipe", tiny_run.recipe]
    for _ in range(6):
        process = chatwheel(*command, home=home, before=SAVE_EACH_STEP)
        time.sleep(dice.uniform(2.0, 8.0))
        process.kill()
        finish(process)
    result = run(command, home)
    assert result.returncode == 0, result.stderr
    assert weights(home) == weights(tiny_run.home)


def test_ctrl_c_is_one_line_and_the_same_command_goes_on(tiny_run: TinyRun, tmp_path: Path) -> None:
    home = copy_of(tiny_run, tmp_path)
    Run.open(Recipe.load(tiny_run.recipe), Settings.load(home)).restart({"sft": "sft"})
    # Whoever ends it by Ctrl+C has only the few steps that are left: slower ones, for a machine with other work.
    slowly = SAVE_EACH_STEP.replace("0.03", "0.3")
    process = chatwheel("train", "sft", "--recipe", tiny_run.recipe, home=home, before=slowly)
    deadline = time.monotonic() + 60
    while lines(home / "runs" / "tiny" / "sft" / "metrics.jsonl") < 2 and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    result = finish(process)
    assert result.returncode == 130
    last = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", result.stderr).strip().splitlines()[-1]
    assert last == "stopped; the same command goes on from here"
    assert "Traceback" not in result.stderr
    assert run(["train", "sft", "--recipe", tiny_run.recipe], home).returncode == 0
    assert weights(home)["sft"] == weights(tiny_run.home)["sft"]
