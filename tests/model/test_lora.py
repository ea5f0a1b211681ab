"""Adapters against PEFT: what it writes is opened here, what is written here it opens, and both compute the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from chatwheel.errors import InputError
from chatwheel.model.checkpoint import load_model, save_model
from chatwheel.model.lora import LoRA, LoRAConfig, adapters_of, add_lora, load_adapter, merge, save_adapter, unmerge
from chatwheel.model.transformer import CausalLM, ScalarModel, with_scalar_head
from tests.tiny import causal, scalar, tokenizer, tokens

CONFIGS: dict[str, LoRAConfig] = {
    "all matrices": LoRAConfig(rank=4, alpha=8),
    "queries and values": LoRAConfig(rank=3, alpha=5, targets=("q_proj", "v_proj")),
    "rank-stabilised": LoRAConfig(rank=9, alpha=4, rank_stabilised=True),
    "the output too": LoRAConfig(rank=2, targets=("down_proj", "lm_head")),
}
each_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())


def moved(model: CausalLM | ScalarModel, config: LoRAConfig) -> CausalLM | ScalarModel:
    """With adapters that do something, as after training."""
    add_lora(model, config, torch.Generator().manual_seed(1))
    with torch.no_grad():
        for seed, adapter in enumerate(adapters_of(model).values()):
            adapter.lora_B.normal_(0, 0.3, generator=torch.Generator().manual_seed(seed))
    return model


def run(model: CausalLM | ScalarModel, ids: Tensor) -> Tensor:
    with torch.no_grad():
        return model(ids)


@each_config
def test_peft_opens_what_is_written_here(config: LoRAConfig, tmp_path: Path) -> None:
    base = causal(tied_embeddings=False)
    save_model(tmp_path / "base", base, tokenizer(), {})
    ours = moved(base, config)
    save_adapter(tmp_path / "lora", ours, config, tokenizer(), base=str(tmp_path / "base"), lineage={"stage": "sft"})
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), tmp_path / "lora")
    ids = tokens(2, 30)
    plain, _ = load_model(tmp_path / "base", CausalLM)
    with torch.no_grad():
        expected = theirs.eval()(ids).logits
    assert (run(plain, ids) - expected).abs().max() > 0.1  # the adapter does something
    torch.testing.assert_close(run(ours, ids), expected, atol=1e-4, rtol=0)
    assert json.loads((tmp_path / "lora" / "chatwheel.json").read_text())["stage"] == "sft"
    assert (tmp_path / "lora" / "adapter_model.safetensors").stat().st_size < 200_000


@each_config
def test_what_peft_writes_is_opened_here(config: LoRAConfig, tmp_path: Path) -> None:
    save_model(tmp_path / "base", causal(tied_embeddings=False), tokenizer(), {})
    torch.manual_seed(0)  # PEFT draws the adapter
    theirs = get_peft_model(
        AutoModelForCausalLM.from_pretrained(tmp_path / "base"),
        LoraConfig(
            r=config.rank,
            lora_alpha=config.alpha,
            target_modules=list(config.targets),
            use_rslora=config.rank_stabilised,
            task_type="CAUSAL_LM",
            init_lora_weights=False,
        ),
    )
    theirs.save_pretrained(tmp_path / "lora")
    ours, _ = load_model(tmp_path / "base", CausalLM)
    read = load_adapter(ours, tmp_path / "lora")
    assert (read.rank, read.scale) == (config.rank, config.scale)
    ids = tokens(2, 30)
    with torch.no_grad():
        torch.testing.assert_close(run(ours, ids), theirs.eval()(ids).logits, atol=1e-4, rtol=0)


def test_a_reward_model_s_adapter_brings_its_head(tmp_path: Path) -> None:
    config = LoRAConfig(rank=4)
    base = scalar()
    save_model(tmp_path / "base", base, tokenizer(), {})
    ours = moved(base, config)
    assert isinstance(ours, ScalarModel)
    with torch.no_grad():
        ours.score.weight += 0.5
    save_adapter(tmp_path / "lora", ours, config, tokenizer(), base=str(tmp_path / "base"), lineage={})
    ids = tokens(3, 20)
    theirs = PeftModel.from_pretrained(
        AutoModelForSequenceClassification.from_pretrained(tmp_path / "base"), tmp_path / "lora"
    ).eval()
    with torch.no_grad():
        torch.testing.assert_close(run(ours, ids)[:, -1], theirs(ids).logits[:, 0], atol=1e-4, rtol=0)
    again, _ = load_model(tmp_path / "base", ScalarModel)
    load_adapter(again, tmp_path / "lora")
    assert torch.equal(run(again, ids), run(ours, ids))


@each_config
def test_merged_is_the_same_and_unmerged_the_old_one(config: LoRAConfig, tmp_path: Path) -> None:
    model = causal(tied_embeddings=False)
    ids = tokens(2, 30)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    adapted = run(moved(model, config), ids)
    adapters = adapters_of(model)
    merge(model)
    assert not adapters_of(model)
    assert model.state_dict().keys() == before.keys()
    torch.testing.assert_close(run(model, ids), adapted, atol=1e-4, rtol=0)
    save_model(tmp_path / "merged", model, tokenizer(), {})
    opened = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    with torch.no_grad():
        torch.testing.assert_close(opened(ids).logits, adapted, atol=1e-4, rtol=0)
    unmerge(model, adapters)
    torch.testing.assert_close(run(model, ids), adapted, atol=1e-4, rtol=0)
    for name, tensor in before.items():
        torch.testing.assert_close(model.state_dict()[name], tensor, atol=1e-6, rtol=0)


def test_a_fresh_adapter_changes_nothing_and_only_it_is_trained() -> None:
    model, ids = causal(), tokens(2, 30)
    before = run(model, ids)
    add_lora(model, LoRAConfig(rank=2), torch.Generator().manual_seed(0))
    assert torch.equal(run(model, ids), before)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {name for name, _ in model.named_parameters() if ".adapter.lora_" in name}
    model(ids).square().mean().backward()
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)
    assert any(a.lora_B.grad.abs().max() > 0 for a in adapters_of(model).values())
    with pytest.raises(InputError, match="merge it first"):
        add_lora(model, LoRAConfig(), torch.Generator())


def test_dropout_acts_in_training_only() -> None:
    adapter = LoRA(32, 32, LoRAConfig(rank=4, dropout=0.5))
    torch.nn.init.normal_(adapter.lora_A)
    torch.nn.init.normal_(adapter.lora_B)
    x = torch.randn(4, 32)
    assert not torch.equal(adapter(x), adapter(x))
    adapter.eval()
    assert torch.equal(adapter(x), adapter(x))


def _config(**changes: Any) -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        path = directory / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def _weights(change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Callable[[Path], None]:
    def changed(directory: Path) -> None:
        path = directory / "adapter_model.safetensors"
        save_file(change(load_file(path)), path)

    return changed


def _without(tensors: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if part not in name}


FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "DoRA": (_config(use_dora=True), "use_dora is not supported"),
    "PiSSA": (_config(init_lora_weights="pissa"), "init_lora_weights 'pissa' is not supported"),
    "aLoRA": (_config(alora_invocation_tokens=[1]), "alora_invocation_tokens is not supported"),
    "another variant": (_config(use_qalora=True), "use_qalora is not supported"),
    "a variant's settings": (_config(kasa_config={"a": 1}), "kasa_config is not supported"),
    "no rank": (_config(r=None), "rank is None"),
    "biases": (_config(bias="all"), "bias 'all' is not supported"),
    "another method": (_config(peft_type="IA3"), "peft_type 'IA3'"),
    "a rank that is text": (_config(r="many"), "rank is 'many'"),
    "no configuration": (lambda d: (d / "adapter_config.json").unlink(), "no adapter_config.json there"),
    "broken configuration": (lambda d: (d / "adapter_config.json").write_text("{"), "adapter_config.json: damaged"),
    "no weights": (lambda d: (d / "adapter_model.safetensors").unlink(), "no weights there"),
    "cut weights": (lambda d: (d / "adapter_model.safetensors").write_bytes(b"xx"), "damaged"),
    "empty weights": (_weights(lambda _: {}), "holds no matrices"),
    "half of a pair": (_weights(lambda t: _without(t, "lora_B")), "lora_B of model.layers.0"),
    "one matrix of 14": (
        _weights(lambda t: {n: x for n, x in t.items() if "layers.1.mlp.up_proj" in n}),
        r"nothing for model.layers.0.self_attn.q_proj.*\(13 of 14 are missing\)",
    ),
    "a layer that is asked for": (
        lambda d: (_config(layers_to_transform=[0, 1])(d), _weights(lambda t: _without(t, "layers.1"))(d))[0],
        r"model.layers.1.*\(7 of 14",
    ),
    "another rank": (_config(r=5), "for another model"),
    "an embedding": (
        _weights(lambda t: t | {"base_model.model.model.embed_tokens.lora_embedding_A": torch.ones(2, 2)}),
        "embed_tokens.lora_embedding_A",
    ),
}


@pytest.mark.parametrize(("damage", "message"), FAULTS.values(), ids=FAULTS.keys())
def test_a_damaged_adapter_is_one_line(damage: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    config = LoRAConfig(rank=4)
    save_adapter(tmp_path / "lora", moved(causal(), config), config, tokenizer(), base="b", lineage={})
    damage(tmp_path / "lora")
    with pytest.raises(InputError, match=message) as caught:
        load_adapter(causal(), tmp_path / "lora")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": ["q_proj", "mlp.up_proj"], "layers_to_transform": 1},
        {"target_modules": ["q_proj", "o_proj"], "layers_to_transform": [0], "layers_pattern": "layers"},
        {"target_modules": ["q_proj", "up_proj"], "exclude_modules": ["layers.0.self_attn.q_proj"]},
        {"target_modules": ["q_proj", "up_proj"], "exclude_modules": r".*\.0\..*"},
        {"target_modules": r".*\.1\.self_attn\.[qk]_proj"},
        {"target_modules": ["model.layers.1.mlp.down_proj"]},
        {"target_modules": "all-linear", "modules_to_save": []},
    ],
    ids=str,
)
def test_an_adapter_of_some_matrices_only_is_what_peft_makes_of_it(settings: dict[str, Any], tmp_path: Path) -> None:
    save_model(tmp_path / "base", causal(), tokenizer(), {})
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    torch.manual_seed(0)  # PEFT draws the adapter
    theirs = get_peft_model(plain, LoraConfig(r=4, task_type="CAUSAL_LM", init_lora_weights=False, **settings)).eval()
    theirs.save_pretrained(tmp_path / "lora")
    ours = causal()
    load_adapter(ours, tmp_path / "lora")
    with torch.no_grad():
        torch.testing.assert_close(run(ours, tokens(2, 20)), theirs(tokens(2, 20)).logits, atol=1e-4, rtol=0)


def test_a_reward_adapter_without_a_head_needs_one_below_it(tmp_path: Path) -> None:
    config = LoRAConfig(rank=4)
    save_adapter(tmp_path / "lora", moved(scalar(), config), config, tokenizer(), base="b", lineage={})
    _weights(lambda t: _without(t, "score"))(tmp_path / "lora")
    with pytest.raises(InputError, match=r"head that scores \(score.weight\)"):
        load_adapter(with_scalar_head(causal()), tmp_path / "lora")
    load_adapter(judge := scalar(), tmp_path / "lora")
    assert torch.equal(judge.score.weight, scalar().score.weight)


def test_an_adapter_for_a_larger_model_is_refused(tmp_path: Path) -> None:
    config = LoRAConfig(rank=4)
    save_adapter(tmp_path / "lora", moved(causal(), config), config, tokenizer(), base="b", lineage={})
    with pytest.raises(InputError, match="for another model"):
        load_adapter(causal(hidden_size=48), tmp_path / "lora")
    with pytest.raises(InputError, match="which this model does not have"):
        load_adapter(causal(num_layers=1), tmp_path / "lora")


def test_a_tied_output_cannot_be_adapted(tmp_path: Path) -> None:
    config = LoRAConfig(rank=2, targets=("lm_head",))
    with pytest.raises(InputError, match="lm_head can't be adapted"):
        add_lora(causal(tied_embeddings=True), config, torch.Generator())
    save_adapter(tmp_path, moved(causal(tied_embeddings=False), config), config, tokenizer(), base="b", lineage={})
    with pytest.raises(InputError, match="lm_head can't be adapted"):
        load_adapter(causal(tied_embeddings=True), tmp_path)


def test_a_head_of_another_size_is_refused(tmp_path: Path) -> None:
    config = LoRAConfig(rank=2)
    save_adapter(tmp_path, moved(scalar(), config), config, tokenizer(), base="b", lineage={})
    _weights(lambda t: t | {"base_model.model.score.weight": torch.ones(1, 1)})(tmp_path)
    with pytest.raises(InputError, match=r"score.weight should be \(1, 32\), found \(1, 1\)"):
        load_adapter(scalar(), tmp_path)


def test_a_model_with_adapters_is_not_saved_as_a_whole_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="merged first"):
        save_model(tmp_path / "m", moved(causal(), LoRAConfig(rank=2)), tokenizer(), {})
