"""Each family as transformers makes and writes it: the same logits, rewards and greedy text, and the file again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel

from chatwheel.data.packing import pack
from chatwheel.engine.engine import Engine
from chatwheel.engine.requests import Request, SamplingParams
from chatwheel.errors import InputError
from chatwheel.model import checkpoint, transformer
from chatwheel.model.checkpoint import load_model, save_model
from chatwheel.model.config import ModelConfig
from chatwheel.model.transformer import CausalLM, ScalarModel, initialise
from chatwheel.store.registry import Registry
from chatwheel.training.batches import Rows
from tests.tiny import VOCAB, config, tokenizer, tokens

SHAPE: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,  # else the logits are so flat that anything agrees
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": 0,
}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3 |= {"original_max_position_embeddings": 32, "rope_theta": 10_000.0}
YARN = {"rope_type": "yarn", "factor": 3.0, "original_max_position_embeddings": 64, "rope_theta": 10_000.0}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama 2": ("Llama", {"num_key_value_heads": 4}),
    "llama 3": ("Llama", {"rope_parameters": LLAMA3}),
    "linear scaling": ("Llama", {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e5}}),
    "smollm": (
        "Llama",
        {"tie_word_embeddings": True, "hidden_size": 36, "num_attention_heads": 3, "num_key_value_heads": 1},
    ),
    "mistral 0.1": ("Mistral", {"sliding_window": 16}),
    "mistral 0.3": ("Mistral", {"sliding_window": None}),
    "qwen2": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen2 with windows": ("Qwen2", {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1}),
    "qwen2 with yarn": ("Qwen2", {"rope_parameters": YARN}),
    "qwen2 with its own yarn": ("Qwen2", {"rope_parameters": YARN | {"beta_fast": 8.0, "attention_factor": 1.3}}),
    "qwen3": ("Qwen3", {"head_dim": 16}),
    "qwen3 with windows": ("Qwen3", {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 2}),
}
each_family = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES.keys())


def written(directory: Path, family: tuple[str, dict[str, Any]], head: str, **saving: Any) -> PreTrainedModel:
    """A random model of the family as transformers makes it, saved by transformers, with a tokenizer beside it."""
    name, changes = family
    theirs_config = getattr(transformers, f"{name}Config")(**(SHAPE | changes))
    if head == "SequenceClassification":
        theirs_config.num_labels = 1
    torch.manual_seed(3)
    theirs: PreTrainedModel = getattr(transformers, f"{name}For{head}")(theirs_config).eval()
    with torch.no_grad():  # biases and norms begin as constants
        for parameter in theirs.parameters():
            if parameter.dim() == 1:
                parameter.uniform_(0.5, 1.5)
    theirs.save_pretrained(directory, **saving)
    tokenizer().save(directory, max_positions=256)
    return theirs


@each_family
def test_logits_are_those_of_transformers(family: tuple[str, dict[str, Any]], tmp_path: Path) -> None:
    theirs = written(tmp_path, family, "CausalLM")
    ours, _ = load_model(tmp_path, CausalLM)
    ids = tokens(3, 120)
    with torch.no_grad():
        expected = theirs(ids).logits
        assert expected.std() > 0.5
        torch.testing.assert_close(ours(ids), expected, atol=1e-4, rtol=0)
    assert ours.config.num_parameters == theirs.num_parameters()


@each_family
def test_greedy_text_is_that_of_transformers(family: tuple[str, dict[str, Any]], tmp_path: Path) -> None:
    theirs = written(tmp_path, family, "CausalLM")
    ours, _ = load_model(tmp_path, CausalLM)
    prompts = [tokens(n, seed=n).tolist() for n in (40, 3)]
    params = SamplingParams(temperature=0.0, max_tokens=64, ignore_eos=True)
    requests = [Request(prompt_ids=tuple(prompt), params=params) for prompt in prompts]
    answers = Engine(ours, tokenizer()).generate(requests)
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = theirs.generate(torch.tensor([prompt]), max_new_tokens=64, do_sample=False)
        assert list(answer.token_ids) == ids[0, len(prompt) :].tolist()


@each_family
@pytest.mark.parametrize("head", ["CausalLM", "SequenceClassification"])
def test_a_model_is_the_same_after_a_round_trip(family: tuple[str, dict[str, Any]], head: str, tmp_path: Path) -> None:
    theirs = written(tmp_path / "theirs", family, head)
    kind = CausalLM if head == "CausalLM" else ScalarModel
    ours, read = load_model(tmp_path / "theirs", kind)
    save_model(tmp_path / "ours", ours, read, {})
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("theirs", "ours"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    auto = AutoModelForCausalLM if head == "CausalLM" else AutoModelForSequenceClassification
    again = auto.from_pretrained(tmp_path / "ours").eval()
    assert type(again) is type(theirs)
    ids = tokens(2, 60)
    with torch.no_grad():
        torch.testing.assert_close(again(ids).logits, theirs(ids).logits, atol=1e-5, rtol=0)


@each_family
def test_rewards_are_those_of_transformers(family: tuple[str, dict[str, Any]], tmp_path: Path) -> None:
    theirs = written(tmp_path, family, "SequenceClassification")
    ours, _ = load_model(tmp_path, ScalarModel)
    ids = tokens(4, 50)
    with torch.no_grad():
        torch.testing.assert_close(ours(ids)[:, -1], theirs(ids).logits[:, 0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("longest_plain", [512, 0], ids=["two products", "fused kernel"])
@pytest.mark.parametrize("full", [0, 1])
def test_a_window_counts_within_a_packed_sequence(
    full: int, longest_plain: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transformer, "LONGEST_PLAIN", longest_plain)
    model = CausalLM(config(qk_norm=bool(full), sliding_window=5, num_full_layers=full))
    initialise(model, torch.Generator().manual_seed(0))
    sequences = [tokens(n, seed=n).tolist() for n in (17, 5, 9, 30)]
    packed = pack(sequences, 32)
    hidden_BTD = Rows.of(packed).hidden(model.model, torch.float32)
    for sequence, (row, begin, length) in zip(sequences, packed.places, strict=True):
        alone = model.model(torch.tensor([sequence]))[0]
        torch.testing.assert_close(hidden_BTD[row, begin : begin + length], alone, atol=1e-5, rtol=1e-5)


def test_a_window_is_as_wide_as_it_says() -> None:
    model = CausalLM(config(num_layers=1, qk_norm=False, sliding_window=5))
    initialise(model, torch.Generator().manual_seed(0))
    ids = tokens(1, 20)

    def moved(place: int) -> Tensor:
        changed = ids.clone()
        changed[0, place] = (ids[0, place] + 1) % VOCAB
        return (model(changed) - model(ids)).abs().amax(-1)[0] > 0

    assert moved(7).nonzero()[:, 0].tolist() == [7, 8, 9, 10, 11]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "another architecture": ({"model_type": "gemma3"}, "'gemma3' is not supported; supported are llama, mistral"),
    "a bias on all of attention": ({"attention_bias": True}, "attention_bias"),
    "another activation": ({"hidden_act": "gelu"}, "activations other than silu"),
    "scaling by the length": ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "RoPE scaling 'dynamic'"),
    "half rotated heads": (
        {"rope_parameters": {"rope_type": "llama3", "factor": 2.0, "partial_rotary_factor": 0.5}},
        "with partial_rotary_factor",
    ),
    "quantised": ({"quantization_config": {"bits": 4}}, "quantised"),
    "windows that alternate": (
        {
            "model_type": "qwen3",
            "use_sliding_window": True,
            "sliding_window": 8,
            "layer_types": ["sliding_attention", "full_attention"],
        },
        "layer_types",
    ),
    "scaling by the kind of layer": (
        {"rope_parameters": {"full_attention": {"rope_type": "default"}}},
        "not one for all layers",
    ),
    "scaling that is text": ({"rope_scaling": "x"}, "not one for all layers"),
    "scaling by nothing": ({"rope_scaling": {"rope_type": "linear", "factor": 0}}, "must be above 0"),
    "half of Llama 3's scaling": (
        {"rope_scaling": {"rope_type": "llama3", "factor": 2.0, "low_freq_factor": 1.0}},
        "the field 'high_freq_factor' is missing",
    ),
    "no heads": ({"num_attention_heads": 0}, "num_heads is 0"),
    "a vocabulary and a half": ({"vocab_size": 1.5}, "vocab_size is 1.5"),
    "a width in words": ({"intermediate_size": "a"}, "intermediate_size is 'a'"),
    "no context": ({"max_position_embeddings": 0}, "max_positions is 0"),
    "a field that is missing": ({"rope_scaling": {"rope_type": "linear"}}, "the field 'factor' is missing"),
}


@pytest.mark.parametrize(("changes", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_not_computed_is_refused_in_one_line(changes: dict[str, Any], message: str) -> None:
    values = config(qk_norm=False).to_hugging_face(head="CausalLM", eos_token_id=1, pad_token_id=0)
    with pytest.raises(InputError, match=message) as error:
        ModelConfig.from_hugging_face(values | changes, where="m/config.json")
    assert str(error.value).startswith("m/config.json: ")
    assert "\n" not in str(error.value)


MIXED: list[Callable[[], ModelConfig]] = [
    lambda: config(qk_norm=True, qkv_bias=True),
    lambda: config(qk_norm=False, sliding_window=8, num_full_layers=1),
    lambda: config(family="llama"),
    lambda: config(family="gpt2"),
    lambda: config(sliding_window=0),
]


@pytest.mark.parametrize("make", MIXED)
def test_a_combination_that_no_family_has_is_refused(make: Callable[[], ModelConfig]) -> None:
    with pytest.raises(InputError, match="model\\."):
        make()


def test_configs_of_before_transformers_5_are_read(tmp_path: Path) -> None:
    theirs = written(tmp_path, FAMILIES["llama 3"], "CausalLM")
    path = tmp_path / "config.json"
    values = json.loads(path.read_text())
    rope = values.pop("rope_parameters")
    old = values | {"rope_theta": rope.pop("rope_theta"), "rope_scaling": rope, "dtype": "float32"}
    path.write_text(json.dumps(old))
    ours, _ = load_model(tmp_path, CausalLM)
    ids = tokens(2, 90)
    with torch.no_grad():
        torch.testing.assert_close(ours(ids), theirs(ids).logits, atol=1e-4, rtol=0)


def test_shards_are_read_and_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = written(tmp_path / "theirs", FAMILIES["qwen2"], "CausalLM", max_shard_size="20KB")
    assert len(list((tmp_path / "theirs").glob("*.safetensors"))) > 2
    ours, read = load_model(tmp_path / "theirs", CausalLM)
    monkeypatch.setattr(checkpoint, "SHARD_BYTES", 30_000)
    save_model(tmp_path / "ours", ours, read, {})
    shards = list((tmp_path / "ours").glob("*.safetensors"))
    assert len(shards) > 2
    assert all(s.stat().st_size < 60_000 for s in shards)
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "ours").eval()
    ids = tokens(2, 30)
    with torch.no_grad():
        assert torch.equal(again(ids).logits, theirs(ids).logits)
    assert [e.name for e in Registry(tmp_path).list()] == ["ours", "theirs"]
    shards[0].unlink()
    with pytest.raises(InputError, match=f"{shards[0].name} is missing"):
        load_model(tmp_path / "ours", CausalLM)


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"weight_map": {"a": "../b.safetensors"}}', b'{"weight_map": 3}'])
def test_a_damaged_index_is_one_line(content: bytes, tmp_path: Path) -> None:
    written(tmp_path, FAMILIES["qwen2"], "CausalLM", max_shard_size="20KB")
    (tmp_path / "model.safetensors.index.json").write_bytes(content)
    with pytest.raises(InputError, match=r"model\.safetensors\.index\.json: "):
        load_model(tmp_path, CausalLM)


def test_bfloat16_goes_out_as_it_came(tmp_path: Path) -> None:
    theirs = written(tmp_path / "fp32", FAMILIES["qwen3"], "CausalLM").bfloat16()
    theirs.save_pretrained(tmp_path / "theirs")
    tokenizer().save(tmp_path / "theirs", max_positions=256)
    ours, read = load_model(tmp_path / "theirs", CausalLM)
    assert all(p.dtype == torch.float32 for p in ours.parameters())
    save_model(tmp_path / "ours", ours, read, {})
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("theirs", "ours"))
    assert all(after[name].dtype == torch.bfloat16 and torch.equal(before[name], after[name]) for name in before)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "ours").dtype == torch.bfloat16


@pytest.mark.parametrize("family", ["Mistral", "Qwen2", "Qwen3", "Llama"])
def test_absent_keys_mean_what_they_mean_to_transformers(family: str) -> None:
    shape = {k: SHAPE[k] for k in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")}
    shape |= {"num_attention_heads": 32, "hidden_size": 256, "max_position_embeddings": 64, "rms_norm_eps": 1e-6}
    theirs = getattr(transformers, f"{family}Config")(**shape, use_sliding_window=True)
    values = {**shape, "model_type": family.lower(), "use_sliding_window": True}
    ours = ModelConfig.from_hugging_face(values, where="m")
    assert ours.num_kv_heads == theirs.num_key_value_heads
    assert ours.head_dim == (getattr(theirs, "head_dim", None) or 256 // 32)
    kinds = getattr(theirs, "layer_types", None) or ["sliding_attention"] * 3
    window = getattr(theirs, "sliding_window", None)
    expected = [window if kind == "sliding_attention" else None for kind in kinds]
    assert [ours.window(i) for i in range(3)] == expected
