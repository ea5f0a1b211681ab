"""Compiled layers: the same training, the same bits each time, and nothing breaks where there is no compiler."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
import torch

from chatwheel.data.packing import pack
from chatwheel.model.transformer import CausalLM
from chatwheel.training import compilation
from chatwheel.training.batches import Rows
from chatwheel.training.compilation import FEWEST_STEPS, compiled, worth_compiling
from chatwheel.training.loop import Loop, OnProgress, Progress
from chatwheel.training.next_token import next_token_loss
from chatwheel.training.pretrain import PretrainConfig, pretrain
from tests.tiny import causal, config, tokens

PACKED = pack([tokens(n, seed=n).tolist() for n in range(3, 24)], 24)


def weights(
    directory: Path, how: compilation.Compilation, on_progress: OnProgress = lambda _: None
) -> dict[str, torch.Tensor]:
    recipe = PretrainConfig(
        steps=4, rows_per_step=4, rows_at_once=2, row_length=24, precision="bfloat16", compilation=how
    )
    model, _ = pretrain(recipe, config(), PACKED, directory=directory, seed=5, on_progress=on_progress)
    assert all(layer._compiled_call_impl is None for layer in model.model.layers), "the model is left as it was"
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def gradients(model: CausalLM, enabled: bool) -> dict[str, torch.Tensor]:
    rows = Rows.of(PACKED.rows(np.arange(4)))
    model.zero_grad()
    with compiled(model.model.layers, enabled):
        next_token_loss(model, rows, torch.float32).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.slow
def test_compiled_layers_have_the_same_gradients_and_share_one_graph() -> None:
    torch._dynamo.reset()
    model = causal()
    plain = gradients(model, enabled=False)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    fast = gradients(model, enabled=True)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs + 1
    assert plain.keys() == fast.keys()
    for name, gradient in plain.items():
        error = float((fast[name] - gradient).abs().max() / gradient.abs().max())
        assert error < 1e-3, (name, error)


class PowerCutError(Exception):
    """Stands for whatever ends a process."""


def test_a_compiled_run_that_was_interrupted_ends_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = weights(tmp_path / "whole", "always")
    monkeypatch.setattr("chatwheel.training.pretrain.Loop", functools.partial(Loop, save_seconds=0))

    def cut(progress: Progress) -> None:
        if progress.step == 2:
            raise PowerCutError

    with pytest.raises(PowerCutError):
        weights(tmp_path / "cut", "always", cut)
    assert (tmp_path / "cut" / "state" / "state.json").is_file()
    resumed = weights(tmp_path / "cut", "always")
    assert all(torch.equal(resumed[name], tensor) for name, tensor in whole.items())


def test_without_a_compiler_training_goes_on_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert not worth_compiling("auto", 10 * FEWEST_STEPS)
    plain = weights(tmp_path / "plain", "never")
    torch._dynamo.reset()
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
    monkeypatch.setattr("torch._inductor.config.force_disable_caches", True)
    tried = weights(tmp_path / "tried", "always")
    assert all(torch.equal(tried[name], tensor) for name, tensor in plain.items())


def test_only_a_long_run_is_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilation.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert worth_compiling("auto", FEWEST_STEPS)
    assert not worth_compiling("auto", FEWEST_STEPS - 1)
    assert worth_compiling("always", 1)
    assert not worth_compiling("never", 10**6)


def test_layers_are_plain_again_after_a_failure() -> None:
    layer = torch.nn.Linear(2, 2)

    def fail() -> None:
        with compiled([layer], enabled=True):
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert layer._compiled_call_impl is None
