"""Compiled layers: the same training, the same bits each time, and nothing breaks where there is no compiler."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from chatwheel.data.packing import pack
from chatwheel.training import compilation
from chatwheel.training.compilation import FEWEST_STEPS, compiled, worth_compiling
from chatwheel.training.pretrain import PretrainConfig, pretrain
from tests.tiny import config, tokens

PACKED = pack([tokens(n, seed=n).tolist() for n in range(3, 24)], 24)


def weights(directory: Path, how: compilation.Compilation) -> dict[str, torch.Tensor]:
    recipe = PretrainConfig(
        steps=4, rows_per_step=4, rows_at_once=2, row_length=24, precision="float32", compilation=how
    )
    model, _ = pretrain(recipe, config(), PACKED, directory=directory, seed=5)
    assert all(layer._compiled_call_impl is None for layer in model.model.layers), "the model is left as it was"
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_compiled_training_is_the_same_training_and_the_same_bits_each_time(tmp_path: Path) -> None:
    plain = weights(tmp_path / "plain", "never")
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    first = weights(tmp_path / "first", "always")
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > graphs, "nothing was compiled"
    again = weights(tmp_path / "again", "always")
    for name, tensor in plain.items():
        torch.testing.assert_close(first[name], tensor, atol=2e-3, rtol=0, msg=name)
        assert torch.equal(first[name], again[name])


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
