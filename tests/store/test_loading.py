"""Adapters beside whole models: found by name, opened on their base, served and evaluated like any other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from chatwheel.assistant.orchestrator import Assistant
from chatwheel.errors import InputError, ModelNotFoundError
from chatwheel.model.checkpoint import save_model
from chatwheel.model.lora import LoRAConfig, adapters_of, save_adapter
from chatwheel.model.tokenizer import Tokenizer
from chatwheel.model.transformer import CausalLM, ScalarModel
from chatwheel.store.loading import open_model, save_merged
from chatwheel.store.registry import Registry
from tests.model.test_lora import moved
from tests.tiny import TEXT, VOCAB, causal, scalar, tokenizer, tokens

CONFIG = LoRAConfig(rank=4)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A base, an adapter on it, and a reward adapter."""
    save_model(tmp_path / "run/base", causal(), tokenizer(), {})
    base = str(tmp_path / "run/base")
    save_adapter(
        tmp_path / "run/lora", moved(causal(), CONFIG), CONFIG, tokenizer(), base=base, lineage={"stage": "sft"}
    )
    save_model(tmp_path / "run/scalar", scalar(), tokenizer(), {})
    judge = moved(scalar(), CONFIG)
    save_adapter(
        tmp_path / "run/judge",
        judge,
        CONFIG,
        tokenizer(),
        base=str(tmp_path / "run/scalar"),
        lineage={"stage": "reward"},
    )
    return tmp_path


def test_an_adapter_is_a_model_with_a_name(root: Path) -> None:
    entries = {e.name: e for e in Registry(root).list()}
    assert {name: e.kind for name, e in entries.items()} == {
        "run/base": "causal",
        "run/judge": "reward",
        "run/lora": "causal",
        "run/scalar": "reward",
    }
    assert entries["run/lora"].lineage["stage"] == "sft"
    assert Registry(root).resolve("run/lora") == root / "run/lora"


@torch.no_grad()
def test_it_is_opened_on_its_base(root: Path) -> None:
    ids = tokens(2, 20)
    opened, read = open_model(root / "run/lora", CausalLM)
    torch.testing.assert_close(opened(ids), moved(causal(), CONFIG)(ids), atol=1e-4, rtol=0)
    assert read.encode("Hi") == tokenizer().encode("Hi")
    judge, _ = open_model(root / "run/judge", ScalarModel)
    torch.testing.assert_close(judge(ids), moved(scalar(), CONFIG)(ids), atol=1e-4, rtol=0)
    assistant = Assistant.load(root / "run/lora")
    try:
        assert assistant.chat("Hi") != ""
    finally:
        assistant.close()


def test_a_base_that_is_gone_is_one_line(root: Path) -> None:
    path = root / "run/lora/adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": "/nowhere/base"}))
    with pytest.raises(InputError, match=r"'/nowhere/base', is not there"):
        open_model(root / "run/lora", CausalLM)


def test_a_misspelt_name_of_ours_is_not_asked_of_the_hub(root: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"'run/lara' not found.*run/lora"):
        Registry(root, hub=True).resolve("run/lara")


def test_a_reward_adapter_on_a_language_model(root: Path) -> None:
    judge = moved(scalar(), CONFIG)
    assert isinstance(judge, ScalarModel)
    with torch.no_grad():
        judge.model.load_state_dict({**judge.model.state_dict(), **causal().model.state_dict()})
    base = str(root / "run/base")
    save_adapter(root / "run/other", judge, CONFIG, tokenizer(), base=base, lineage={})
    opened, _ = open_model(root / "run/other", ScalarModel)
    ids = tokens(2, 20)
    with torch.no_grad():
        torch.testing.assert_close(opened(ids), judge(ids), atol=1e-4, rtol=0)


@pytest.mark.parametrize("base", ["", None, ".", "run/base", "somebody/base"])
def test_a_base_is_a_whole_path_or_in_the_cache(base: str | None, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)  # where the relative ones would be found
    path = root / "run/lora/adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": base}))
    with pytest.raises(InputError, match=r"is not there|not in the Hub's cache"):
        open_model(root / "run/lora", CausalLM)


def test_an_adapter_with_its_base_s_configuration_beside_it(root: Path) -> None:
    shutil.copy(root / "run/base/config.json", root / "run/lora/config.json")
    entry = Registry(root).entry("run/lora")
    assert entry.kind == "causal"
    assert torch.equal(open_model(entry.directory, CausalLM)[0](tokens(1, 9)).isfinite().all(), torch.tensor(True))


def test_an_adapter_without_a_tokenizer_has_its_base_s(root: Path) -> None:
    path = root / "run/base/generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"temperature": 0.3}))
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        (root / "run/lora" / name).unlink()
    assistant = Assistant.load(root / "run/lora")
    try:
        assert assistant.default_params.temperature == 0.3
    finally:
        assistant.close()


def test_an_adapter_s_tokenizer_fits_its_base_s_embedding(root: Path) -> None:
    larger = Tokenizer.train(TEXT * 3, VOCAB + 9)
    save_adapter(root / "run/lora", moved(causal(), CONFIG), CONFIG, larger, base=str(root / "run/base"), lineage={})
    with pytest.raises(InputError, match=rf"ids go up to {VOCAB + 8}, .* {VOCAB} rows"):
        open_model(root / "run/lora", CausalLM)


def chained(root: Path, count: int) -> Path:
    """So many adapters on each other, on the base; the last one."""
    below = root / "run/base"
    for i in range(count):
        ours = moved(causal(), CONFIG)
        with torch.no_grad():
            for adapter in adapters_of(ours).values():
                adapter.lora_B.mul_(0.3 * (i + 1))
        save_adapter(root / f"run/{i}", ours, CONFIG, tokenizer(), base=str(below), lineage={})
        below = root / f"run/{i}"
    return below


@torch.no_grad()
def test_adapters_on_each_other_are_merged_from_the_base_up(root: Path) -> None:
    top = chained(root, 3)
    theirs = AutoModelForCausalLM.from_pretrained(root / "run/base")
    for i in range(3):
        theirs = PeftModel.from_pretrained(theirs, root / f"run/{i}").merge_and_unload()
    ids = tokens(2, 20)
    opened, _ = open_model(top, CausalLM)
    expected = theirs.eval()(ids).logits
    assert (causal()(ids) - expected).abs().max() > 0.1
    torch.testing.assert_close(opened(ids), expected, atol=1e-4, rtol=0)


@torch.no_grad()
def test_what_peft_trains_as_a_reward_model_is_opened_here(root: Path) -> None:
    below = chained(root, 1)
    save_merged(Registry(root).entry("run/0"), root / "merged")
    settings = LoraConfig(r=4, task_type="SEQ_CLS", target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    plain = AutoModelForSequenceClassification.from_pretrained(root / "merged", num_labels=1)
    torch.manual_seed(0)  # PEFT draws the adapter
    theirs = get_peft_model(plain, settings).eval()
    theirs.save_pretrained(root / "run/theirs")
    ids = tokens(2, 20)
    path = root / "run/theirs/adapter_config.json"
    for base in (root / "merged", below):  # as PEFT has it, and on our adapter
        path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": str(base)}))
        opened, _ = open_model(root / "run/theirs", ScalarModel)
        torch.testing.assert_close(opened(ids)[:, -1], theirs(ids).logits[:, 0], atol=1e-4, rtol=0)
    with pytest.raises(InputError, match="score"):
        open_model(root / "run/theirs", CausalLM)


@torch.no_grad()
def test_a_reward_adapter_on_a_reward_adapter_has_its_own_head(root: Path) -> None:
    judge = moved(scalar(), CONFIG)
    assert isinstance(judge, ScalarModel)
    judge.score.weight += 1
    save_adapter(root / "run/second", judge, CONFIG, tokenizer(), base=str(root / "run/judge"), lineage={})
    opened, _ = open_model(root / "run/second", ScalarModel)
    assert torch.equal(opened.score.weight, judge.score.weight)
    change = opened.model.layers[0].mlp.up_proj.weight - scalar().model.layers[0].mlp.up_proj.weight
    expected = 2 * adapters_of(judge)["model.layers.0.mlp.up_proj"].change()
    torch.testing.assert_close(change, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("count", "base", "message"), [(2, "run/1", "in turn"), (9, "run/base", "more than 8")])
def test_circles_and_towers_are_one_line(count: int, base: str, message: str, root: Path) -> None:
    top = chained(root, count)
    path = root / "run/0/adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": str(root / base)}))
    for attempt in (lambda: open_model(top, CausalLM), lambda: Registry(root, hub=True).resolve(str(top))):
        with pytest.raises(InputError, match=message) as caught:
            attempt()
        assert "\n" not in str(caught.value)


@torch.no_grad()
def test_an_adapter_is_made_whole(root: Path) -> None:
    registry, ids = Registry(root), tokens(2, 20)
    save_merged(registry.entry("run/lora"), root / "whole")
    theirs = AutoModelForCausalLM.from_pretrained(root / "whole").eval()
    torch.testing.assert_close(theirs(ids).logits, moved(causal(), CONFIG)(ids), atol=1e-4, rtol=0)
    assert registry.entry("whole").lineage["stage"] == "sft"
    with pytest.raises(InputError, match="is there already"):
        save_merged(registry.entry("run/lora"), root / "whole")
    with pytest.raises(InputError, match="whole model already"):
        save_merged(registry.entry("run/base"), root / "other")
