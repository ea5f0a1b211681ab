"""Adapters beside whole models: found by name, opened on their base, served and evaluated like any other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from chatwheel.assistant.orchestrator import Assistant
from chatwheel.errors import InputError, ModelNotFoundError
from chatwheel.model.checkpoint import save_model
from chatwheel.model.lora import LoRAConfig, save_adapter
from chatwheel.model.transformer import CausalLM, ScalarModel
from chatwheel.store.loading import open_model
from chatwheel.store.registry import Registry
from tests.model.test_lora import moved
from tests.tiny import causal, scalar, tokenizer, tokens

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
