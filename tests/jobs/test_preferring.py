"""DPO and KTO that begin with a model which is there already: by the command, as adapters, killed, and opened."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from chatwheel.errors import ChatwheelError
from chatwheel.jobs.pipeline import run_recipe
from chatwheel.jobs.recipe import Recipe
from chatwheel.jobs.run import Run
from chatwheel.model.checkpoint import load_model, save_model
from chatwheel.model.transformer import CausalLM
from chatwheel.settings import Settings
from chatwheel.store.loading import open_model
from chatwheel.training.loop import read_metrics
from tests.jobs.test_pipeline import Recorder, kill_in
from tests.jobs.tiny_recipe import chatwheel, finish, write_recipe
from tests.tiny import causal, tokenizer, tokens

RECIPE = Path(__file__).parents[2] / "recipes/qwen-dpo.yaml"
SMALL = [
    *("dpo.epochs=2", "dpo.row_length=128", "dpo.rankings_per_step=8", "dpo.precision=float32"),
    *("dpo.lora.rank=4", "dpo.optimizer.learning_rate=0.01"),
]
KTO = [
    *("name=thumbs", "dpo=null", "kto.epochs=2", "kto.row_length=128", "kto.prompts_per_step=8"),
    *("kto.precision=float32", "kto.lora.rank=4", "kto.optimizer.learning_rate=0.01"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen3 directory, pairs in OpenAI's format (polite answers are preferred) and thumbs that say the same."""
    directory = tmp_path_factory.mktemp("preferring")
    save_model(directory / "qwen", causal(), tokenizer(), {})
    pairs, thumbs = [], []
    for i in range(90):
        prompt = [{"role": "user", "content": f"What is {i} of {i * i}?"}]
        good, bad = f"Thank you. It is {i}, of course.", f"{i}"
        said = [[{"role": "assistant", "content": text}] for text in (good, bad)]
        pairs.append({"input": {"messages": prompt}, "preferred_output": said[0], "non_preferred_output": said[1]})
        thumbs += [{"prompt": prompt, "completion": one, "label": one is said[0]} for one in said]
    for name, lines in (("pairs", pairs), ("thumbs", thumbs)):
        (directory / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return directory


def overrides(place: Path, *more: str) -> list[str]:
    given = SMALL if "dpo=null" not in more else []
    file = "pairs" if "dpo=null" not in more else "thumbs"
    return [f"model={place / 'qwen'}", f"data={place / f'{file}.jsonl'}", *given, *more]


def trained(place: Path, home: Path, *more: str) -> Run:
    run = Run.open(Recipe.load(RECIPE, overrides(place, *more)), Settings.load(home))
    run_recipe(run, Recorder(), only="dpo" if run.recipe.dpo is not None else "kto")
    return run


def test_an_adapter_learns_what_is_preferred_and_peft_opens_it(place: Path, tmp_path: Path) -> None:
    run = trained(place, tmp_path)
    rows = read_metrics(run.stage("dpo"))
    assert rows[0]["margin"] == pytest.approx(0, abs=1e-3)
    assert rows[-1]["margin"] > 1
    assert rows[-1]["pair_accuracy"] > 0.9
    files = {p.name for p in run.model("dpo").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json"} <= files
    opened, _ = open_model(run.model("dpo"), CausalLM)
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(place / "qwen"), run.model("dpo")).eval()
    ids = tokens(2, 40)
    with torch.no_grad():
        torch.testing.assert_close(opened(ids), theirs(ids).logits, atol=1e-4, rtol=0)
    lineage = json.loads((run.model("dpo") / "chatwheel.json").read_text())
    assert list(lineage["parents"]) == [str(place / "qwen")]
    assert list(lineage["data"]) == ["rankings"]
    result = run.read_json("results/stage.dpo.json")
    assert result["pairs"] == sum(1 for _ in run.data("rankings.held_out").open()) > 0
    assert result["pair_accuracy"] > 0.9


def test_thumbs_teach_the_same(place: Path, tmp_path: Path) -> None:
    run = trained(place, tmp_path, *KTO)
    rows = read_metrics(run.stage("kto"))
    assert rows[0]["margin"] == pytest.approx(0, abs=1e-3)
    assert rows[-1]["margin"] > 1
    assert rows[-1]["label_accuracy"] > 0.8
    lineage = json.loads((run.model("kto") / "chatwheel.json").read_text())
    assert set(lineage["data"]) == {"rankings", "ratings"}


def test_a_whole_run_is_two_stages_and_a_report(place: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    run = Run.open(Recipe.load(RECIPE, overrides(place, "dpo.lora=null")), Settings.load(tmp_path))
    run_recipe(run, recorder)
    assert recorder.begun == ["data", "ranking", "dpo"]
    assert "DPO" in (run.directory / "report.html").read_text(encoding="utf-8")
    before, after = (load_model(d, CausalLM)[0] for d in (place / "qwen", run.model("dpo")))
    assert not torch.equal(before.model.embed_tokens.weight, after.model.embed_tokens.weight)


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        ["dpo.lora.dropout=0.1"],
        pytest.param(["dpo.lora=null", "dpo.loss=ipo"], marks=pytest.mark.slow),
        pytest.param(KTO, marks=pytest.mark.slow),
    ],
    ids=["adapter", "whole", "kto"],
)
def test_a_killed_run_ends_with_the_same_weights(more: list[str], place: Path, tmp_path: Path) -> None:
    run = trained(place, tmp_path / "straight", *more)
    name, stage = run.recipe.name, "kto" if run.recipe.dpo is None else "dpo"
    command: list[Any] = ["train", stage, "--recipe", RECIPE, *overrides(place, *more)]
    kill_in(stage, 4, command, tmp_path / "killed", run=name)
    result = finish(chatwheel(*command, home=tmp_path / "killed"))
    assert result.returncode == 0, result.stderr
    file = "model.safetensors" if "dpo.lora=null" in more else "adapter_model.safetensors"
    killed = tmp_path / "killed" / "models" / name / stage / file
    assert killed.read_bytes() == (run.model(stage) / file).read_bytes()


def test_an_adapter_is_put_on_the_sft_model_s_adapter(tmp_path: Path) -> None:
    changes = ["sft.lora.rank=4", "dpo.lora.rank=2", "reward=null", "kto=null"]
    changes += [f"{name}=null" for name in ("ppo", "grpo", "rloo", "best_of_n")]
    run = Run.open(Recipe.load(write_recipe(tmp_path), changes), Settings.load(tmp_path))
    recorder = Recorder()
    run_recipe(run, recorder)
    assert recorder.begun == ["data", "tokenizer", "pretrain", "sft", "ranking", "dpo"]
    values = json.loads((run.model("dpo") / "adapter_config.json").read_text())
    assert values["base_model_name_or_path"] == str(run.model("sft"))
    both = [open_model(run.model(name), CausalLM)[0] for name in ("sft", "dpo")]
    assert not torch.equal(*(model.model.layers[0].mlp.up_proj.weight for model in both))
    assert torch.equal(*(model.model.embed_tokens.weight for model in both))


MISTAKES: dict[str, tuple[list[str], str]] = {
    "a row beyond the context": (["dpo.row_length=1024"], r"dpo\.row_length \(1024\) is beyond the context"),
    "no such model": (["model=nowhere"], "'nowhere' not found"),
    "no such data": (["data=nowhere.jsonl"], "nowhere.jsonl: no such file"),
    "no rankings": (["data={kind: files}"], r"data\.rankings is empty, and dpo learns from it"),
    "no thumbs": (["data={kind: files}", *KTO], r"data\.ratings and data\.rankings are empty"),
    "nothing fits": (["dpo.row_length=8"], r"DPO: no ranking .* at most 8 tokens"),
    "a label that is more often wrong than right": (["dpo.label_smoothing=0.5"], r"dpo\.label_smoothing"),
    "another loss": (["dpo.loss=hinge"], r"dpo\.loss"),
    "no temperature": (["dpo.beta=0"], r"dpo\.beta"),
    "a misspelt key": (["dpo.betta=1"], r"unknown key 'dpo\.betta'; did you mean 'beta'"),
    "another stage": (["only=kto"], "has no kto"),
    "nothing to do": (
        ["dpo=null"],
        "a run needs pretrain or sft, or, with a model by its name, ppo, grpo, rloo, best_of_n, dpo, kto",
    ),
    "a shape and no SFT": (
        [
            "model={hidden_size: 32, num_layers: 1, num_heads: 2, num_kv_heads: 1, head_dim: 16, "
            "intermediate_size: 64, max_positions: 256}",
            *("tokenizer.vocab_size=400", "pretrain.steps=1"),
        ],
        "dpo needs sft, or a model by its name",
    ),
    "thumbs where pairs should be": (["thumbs"], r"holds ratings, prompts, not rankings"),
}


@pytest.mark.parametrize(("changes", "message"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_one_line(changes: list[str], message: str, place: Path, tmp_path: Path) -> None:
    usual = "kto" if KTO[0] in changes else "dpo"
    only = next((c.removeprefix("only=") for c in changes if c.startswith("only=")), usual)
    given = [c for c in changes if "only=" not in c and c != "thumbs"]
    if "thumbs" in changes:
        given.append(f"data={place / 'thumbs.jsonl'}")
    base = [f"model={place / 'qwen'}", f"data={place / 'pairs.jsonl'}", *(SMALL if "dpo=null" not in given else [])]
    settings = Settings.load(tmp_path)
    with pytest.raises(ChatwheelError, match=message) as caught:  # noqa: PT012
        run = Run.open(Recipe.load(RECIPE, [*base, *given]), settings)
        run_recipe(run, Recorder(), only=only)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "models").exists()
