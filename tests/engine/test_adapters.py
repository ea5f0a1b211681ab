"""Adapters beside each other in a batch: each request is answered as by its own merged model."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from chatwheel.engine.engine import Engine
from chatwheel.engine.requests import Request, SamplingParams
from chatwheel.errors import ChatwheelError, InputError, OverloadedError
from chatwheel.model.lora import LoRAConfig, Target, add_lora, merge, save_adapter
from chatwheel.model.transformer import CausalLM
from tests.engine.compiled import needs_kernels
from tests.tiny import causal, tokenizer, tokens

pytestmark = needs_kernels


def adapted(base: CausalLM, config: LoRAConfig, seed: int) -> CausalLM:
    model = copy.deepcopy(base)
    generator = torch.Generator().manual_seed(seed)
    add_lora(model, config, generator)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0.0, 0.3, generator=generator)
    return model


@pytest.fixture
def base() -> CausalLM:
    return causal()


@pytest.fixture
def models(base: CausalLM, tmp_path: Path) -> dict[str, CausalLM]:
    """Adapters of different ranks and matrices, saved; the same merged."""
    targets: list[tuple[Target, ...]] = [
        ("q_proj", "v_proj"),
        ("o_proj", "gate_proj", "down_proj"),
        ("k_proj", "up_proj"),
    ]
    found = {}
    for i in range(6):
        config = LoRAConfig(rank=2 + 3 * i, alpha=8.0, targets=targets[i % 3])
        model = adapted(base, config, i)
        save_adapter(tmp_path / f"a{i}", model, config, tokenizer(), base="base", lineage={})
        merge(model)
        found[f"a{i}"] = model
    return found


def ask(i: int, adapter: str | None) -> Request:
    params = SamplingParams(max_tokens=25, seed=i, ignore_eos=True, temperature=0.7)
    return Request(prompt_ids=tuple(tokens(20 + i % 5, seed=i % 2).tolist()), params=params, adapter=adapter)


def test_each_answer_is_that_of_the_merged_model(base: CausalLM, models: dict[str, CausalLM], tmp_path: Path) -> None:
    engine = Engine(base, tokenizer(), adapters=lambda name: tmp_path / name)
    names = [None, *models, *models, None]
    together = engine.generate([ask(i, name) for i, name in enumerate(names)])
    for i, (name, answer) in enumerate(zip(names, together, strict=True)):
        model = models[name] if name is not None else base
        (alone,) = Engine(model, tokenizer()).generate([ask(i, None)])
        assert answer.token_ids == alone.token_ids
        torch.testing.assert_close(torch.tensor(answer.logprobs), torch.tensor(alone.logprobs), atol=1e-4, rtol=0)
        (again,) = Engine(base, tokenizer(), adapters=lambda n: tmp_path / n).generate([ask(i, name)])
        assert (again.token_ids, again.logprobs) == (answer.token_ids, answer.logprobs)  # the same bits alone


def test_the_one_not_used_for_longest_gives_way_and_comes_back(
    base: CausalLM, models: dict[str, CausalLM], tmp_path: Path
) -> None:
    opened: list[str] = []

    def find(name: str) -> Path:
        opened.append(name)
        return tmp_path / name

    engine = Engine(base, tokenizer(), adapters=find, adapter_memory=40_000)
    first = engine.generate([ask(0, "a0")])
    for name in (*models, *models):
        engine.generate([ask(1, name)])
    assert len(engine._adapters or ()) < len(models)
    assert opened.count("a0") > 1
    assert engine.generate([ask(0, "a0")]) == first


@pytest.mark.usefixtures("models")
def test_blocks_of_different_adapters_are_not_shared(base: CausalLM, tmp_path: Path) -> None:
    engine = Engine(base, tokenizer(), adapters=lambda name: tmp_path / name)
    cached = [engine.generate([ask(0, name)])[0].cached_tokens for name in ("a0", "a1", None, "a0")]
    assert cached == [0, 0, 0, 16]


def test_a_damaged_or_missing_adapter_ends_its_request_alone(
    base: CausalLM, models: dict[str, CausalLM], tmp_path: Path
) -> None:
    (tmp_path / "a3" / "adapter_model.safetensors").write_bytes(b"nothing")
    engine = Engine(base, tokenizer(), adapters=lambda name: tmp_path / name)
    running = engine.submit(ask(0, "a0"))
    for bad in ("a3", "a9"):
        with pytest.raises(ChatwheelError, match=bad):
            engine.submit(ask(1, bad))
    done = {}
    while not engine.idle:
        done |= {i: d.completion for i, d in engine.step() if d.completion is not None}
    (alone,) = Engine(models["a0"], tokenizer()).generate([ask(0, None)])
    assert done[running].token_ids == alone.token_ids
    with pytest.raises(InputError, match="speaks through no adapters"):
        Engine(base, tokenizer()).submit(ask(0, "a0"))


@pytest.mark.usefixtures("models")
def test_adapters_in_use_are_kept_and_one_too_many_is_refused(base: CausalLM, tmp_path: Path) -> None:
    engine = Engine(base, tokenizer(), adapters=lambda name: tmp_path / name, adapter_memory=20_000)
    engine.submit(ask(0, "a3"))
    with pytest.raises(OverloadedError, match="no room for the adapter a5") as error:
        engine.submit(ask(1, "a5"))
    assert error.value.status == 429
