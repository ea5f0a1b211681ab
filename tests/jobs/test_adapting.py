"""SFT that begins with a model which is there already, whole or as an adapter: by the command, resumed, and opened."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from chatwheel.data.records import read_jsonl
from chatwheel.data.world import demonstrations
from chatwheel.errors import ChatwheelError
from chatwheel.jobs.pipeline import run_recipe
from chatwheel.jobs.recipe import Recipe
from chatwheel.jobs.run import Run
from chatwheel.model.checkpoint import load_model, save_model
from chatwheel.model.layout import is_adapter
from chatwheel.model.transformer import CausalLM, ScalarModel
from chatwheel.settings import Settings
from chatwheel.store.loading import open_model
from chatwheel.store.registry import Registry
from chatwheel.training.loop import read_metrics
from tests.jobs.test_pipeline import Recorder, kill_in
from tests.jobs.tiny_recipe import chatwheel, finish, write_recipe
from tests.tiny import causal, tokenizer, tokens

ROOT = Path(__file__).parents[2]
SMALL = [
    *("sft.epochs=1", "sft.row_length=256", "sft.rows_per_step=4", "sft.precision=float32"),
    *("sft.lora.rank=4", "sft.optimizer.learning_rate=0.01"),
]
WHOLE = ["name=whole", "sft.lora=null", "sft.optimizer.learning_rate=0.02"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen3 directory and a file of conversations."""
    directory = tmp_path_factory.mktemp("adapting")
    save_model(directory / "qwen", causal(), tokenizer(), {})
    lines = [record.model_dump_json() for record in demonstrations(1, 90, ("en",))]
    (directory / "conversations.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return directory


def overrides(place: Path, *more: str) -> list[str]:
    return [f"model={place / 'qwen'}", f"data={place / 'conversations.jsonl'}", *SMALL, *more]


def trained(place: Path, home: Path, *more: str) -> Run:
    run = Run.open(Recipe.load(ROOT / "recipes/qwen-lora.yaml", overrides(place, *more)), Settings.load(home))
    run_recipe(run, Recorder(), only="sft")
    return run


def test_an_adapter_is_trained_and_peft_opens_it(place: Path, tmp_path: Path) -> None:
    run = trained(place, tmp_path)
    losses = [row["loss"] for row in read_metrics(run.stage("sft"))]
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])
    files = {p.name for p in run.model("sft").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json"} <= files
    assert "model.safetensors" not in files
    values = json.loads((run.model("sft") / "adapter_config.json").read_text())
    assert values["base_model_name_or_path"] == str(place / "qwen")
    opened, _ = open_model(run.model("sft"), CausalLM)
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(place / "qwen"), run.model("sft")).eval()
    ids = tokens(2, 40)
    with torch.no_grad():
        torch.testing.assert_close(opened(ids), theirs(ids).logits, atol=1e-4, rtol=0)
    lineage = json.loads((run.model("sft") / "chatwheel.json").read_text())
    assert list(lineage["parents"]) == [str(place / "qwen")]


def test_the_whole_model_is_trained(place: Path, tmp_path: Path) -> None:
    run = trained(place, tmp_path, *WHOLE)
    losses = [row["loss"] for row in read_metrics(run.stage("sft"))]
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])
    before, _ = load_model(place / "qwen", CausalLM)
    after, _ = load_model(run.model("sft"), CausalLM)
    assert not torch.equal(before.model.embed_tokens.weight, after.model.embed_tokens.weight)


@pytest.mark.slow
@pytest.mark.parametrize(
    "more", [["sft.lora.dropout=0.1"], pytest.param(WHOLE, marks=pytest.mark.slow)], ids=["adapter", "whole"]
)
def test_a_killed_run_ends_with_the_same_weights(more: list[str], place: Path, tmp_path: Path) -> None:
    run = trained(place, tmp_path / "straight", *more)
    name = run.recipe.name
    command: list[Any] = ["train", "sft", "--recipe", ROOT / "recipes/qwen-lora.yaml", *overrides(place, *more)]
    kill_in("sft", 4, command, tmp_path / "killed", run=name)
    state = tmp_path / "killed" / "runs" / name / "sft" / "state" / "state.safetensors"
    if name != "whole":  # what is saved on the way is the adapter's: weights and two moments, no base
        adapter = (run.model("sft") / "adapter_model.safetensors").stat().st_size
        assert state.stat().st_size < 4 * adapter
    result = finish(chatwheel(*command, home=tmp_path / "killed"))
    assert result.returncode == 0, result.stderr
    file = "model.safetensors" if name == "whole" else "adapter_model.safetensors"
    killed = tmp_path / "killed" / "models" / name / "sft" / file
    assert killed.read_bytes() == (run.model("sft") / file).read_bytes()


def test_a_whole_run_has_a_report_and_skips_what_is_done(place: Path, tmp_path: Path) -> None:
    recipe = Recipe.load(ROOT / "recipes/qwen-lora.yaml", overrides(place))
    run = Run.open(recipe, Settings.load(tmp_path))
    recorder = Recorder()
    results = run_recipe(run, recorder)
    assert recorder.begun == ["data", "sft"]
    assert "comparison" not in results
    assert "SFT" in (run.directory / "report.html").read_text(encoding="utf-8")
    assert sum(1 for _ in read_jsonl(run.data("demonstrations"))) > 70


ADAPTERS = [
    "name=adapters",
    "sft.lora.rank=4",
    "reward.lora.rank=4",
    "reward.lora.dropout=0.1",
    "reward.optimizer.learning_rate=0.01",
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    """A whole run whose SFT model and reward model are adapters, the second on the first."""
    home = tmp_path_factory.mktemp("wheel")
    run = Run.open(Recipe.load(write_recipe(home), ADAPTERS), Settings.load(home))
    run_recipe(run, Recorder())
    return run, home


def test_the_whole_wheel_turns_with_adapters(wheel: tuple[Run, Path]) -> None:
    run, home = wheel
    kinds = {e.name: (e.kind, is_adapter(e.directory)) for e in Registry(home / "models").list()}
    assert kinds == {
        "adapters/base": ("causal", False),
        "adapters/sft": ("causal", True),
        "adapters/reward": ("reward", True),
        "adapters/ppo": ("causal", False),
        "adapters/grpo": ("causal", False),
        "adapters/rloo": ("causal", False),
        "adapters/best_of_n": ("causal", False),
        "adapters/dpo": ("causal", False),
        "adapters/kto": ("causal", False),
    }
    values = json.loads((run.model("reward") / "adapter_config.json").read_text())
    assert (values["task_type"], values["modules_to_save"]) == ("SEQ_CLS", ["score"])
    assert values["base_model_name_or_path"] == str(run.model("sft"))
    rewards, _ = open_model(run.model("reward"), ScalarModel)
    answers, _ = open_model(run.model("sft"), CausalLM)
    assert rewards.score.weight.abs().max() > 0
    assert not torch.equal(rewards.model.layers[0].mlp.up_proj.weight, answers.model.layers[0].mlp.up_proj.weight)
    assert torch.equal(rewards.model.embed_tokens.weight, answers.model.embed_tokens.weight)
    lineage = json.loads((run.model("reward") / "chatwheel.json").read_text())
    assert list(lineage["parents"]) == ["adapters/sft"]
    assert lineage["metrics"]["reward_scale"]["std"] > 0


@torch.no_grad()
def test_merged_peft_opens_the_reward_model_over_it(wheel: tuple[Run, Path], tmp_path: Path) -> None:
    run, home = wheel
    merged = finish(chatwheel("models", "merge", "adapters/sft", "--output", tmp_path / "sft", home=home))
    assert merged.returncode == 0, merged.stderr
    base = AutoModelForSequenceClassification.from_pretrained(tmp_path / "sft", num_labels=1)
    theirs = PeftModel.from_pretrained(base, run.model("reward")).eval()
    ours, _ = open_model(run.model("reward"), ScalarModel)
    ids = tokens(3, 30)
    expected = theirs(ids).logits[:, 0]
    assert expected.std() > 1e-3
    torch.testing.assert_close(ours(ids)[:, -1], expected, atol=1e-4, rtol=0)
    finish(chatwheel("models", "merge", "adapters/reward", "--output", tmp_path / "reward", home=home))
    whole = AutoModelForSequenceClassification.from_pretrained(tmp_path / "reward").eval()
    torch.testing.assert_close(whole(ids).logits[:, 0], expected, atol=1e-4, rtol=0)
    assert json.loads((tmp_path / "reward" / "chatwheel.json").read_text())["merged"] == "adapters/reward"


@pytest.mark.parametrize("stage", ["reward", pytest.param("ppo", marks=pytest.mark.slow)])
def test_a_killed_stage_on_adapters_ends_with_the_same_weights(
    stage: str, wheel: tuple[Run, Path], tmp_path: Path
) -> None:
    run, home = wheel
    shutil.copytree(home, tmp_path / "home")
    again = Run.open(run.recipe, Settings.load(tmp_path / "home"))
    again.restart({stage: stage})
    command: list[Any] = ["train", stage, "--recipe", home / "tiny.yaml", *ADAPTERS]
    kill_in(stage, 3, command, tmp_path / "home", run="adapters")
    if stage == "reward":  # the adapter and its head: weights and two moments, no base
        state = again.stage("reward") / "state" / "state.safetensors"
        assert state.stat().st_size < 4 * (run.model("reward") / "adapter_model.safetensors").stat().st_size
    result = finish(chatwheel(*command, home=tmp_path / "home"))
    assert result.returncode == 0, result.stderr
    file = "adapter_model.safetensors" if stage == "reward" else "model.safetensors"
    assert (again.model(stage) / file).read_bytes() == (run.model(stage) / file).read_bytes()


MISTAKES: dict[str, tuple[list[str], str]] = {
    "a stage that is not in the recipe": (["only=ppo"], "has no ppo"),
    "a row beyond the context": (["sft.row_length=1024"], r"sft\.row_length \(1024\) is beyond the context"),
    "no such model": (["model=nowhere"], "'nowhere' not found"),
    "no such data": (["data=nowhere.jsonl"], "nowhere.jsonl: no such file"),
    "a shape and no tokenizer": (["model={hidden_size: 8}"], "model"),
    "a tokenizer for a model that has one": (["tokenizer.vocab_size=400"], "take tokenizer out"),
    "a target that does not exist": (["sft.lora.targets=[c_attn]"], "sft.lora.targets"),
    "a reward model's output": (["reward.lora.targets=[lm_head]"], r"reward\.lora: .*no lm_head"),
    "PPO without a reward model": (["ppo.rollouts=2"], "ppo needs reward, or judges"),
    "nothing to do": (["sft=null"], "a run needs pretrain or sft"),
}


@pytest.mark.parametrize(("changes", "message"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_one_line(changes: list[str], message: str, place: Path, tmp_path: Path) -> None:
    only = next((c.removeprefix("only=") for c in changes if c.startswith("only=")), "sft")
    given = [c for c in changes if not c.startswith("only=")]
    settings = Settings.load(tmp_path)
    with pytest.raises(ChatwheelError, match=message) as caught:  # noqa: PT012
        run = Run.open(Recipe.load(ROOT / "recipes/qwen-lora.yaml", overrides(place, *given)), settings)
        run_recipe(run, Recorder(), only=only)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "models").exists()
    assert "nowhere" not in message or not list(tmp_path.rglob("*.jsonl"))  # said before the data was made


def test_paths_on_the_command_line_count_from_where_one_is(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    recipe = Recipe.load(ROOT / "recipes/qwen-lora.yaml", ["model=qwen", "data=conversations.jsonl"])
    assert recipe.model == str(place / "qwen")
    monkeypatch.chdir(tmp_path)
    assert Recipe.load(ROOT / "recipes/qwen-lora.yaml").model == "Qwen/Qwen3-0.6B"


def test_begun_again_on_a_given_model_it_reads_the_data_again(place: Path, tmp_path: Path) -> None:
    file = tmp_path / "conversations.jsonl"
    lines = (place / "conversations.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    file.write_text("".join(lines[:40]), encoding="utf-8")
    recipe = Recipe.load(ROOT / "recipes/qwen-lora.yaml", [*overrides(place), f"data={file}"])
    run = Run.open(recipe, Settings.load(tmp_path))
    run_recipe(run, Recorder(), only="sft")
    before = run.data("demonstrations").read_bytes()
    file.write_text("".join(lines), encoding="utf-8")
    run_recipe(run, Recorder(), only="sft", restart=True)
    assert run.data("demonstrations").read_bytes().count(b"\n") > before.count(b"\n")
