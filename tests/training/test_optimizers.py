"""The schedule, the two optimizers behind one step, and their state."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any, Literal

import pytest
import torch

from chatwheel.model.transformer import CausalLM
from chatwheel.training.optimizers import OptimizerConfig, Optimizers
from tests.tiny import causal, scalar, tokens


def step(model: CausalLM, optimizers: Optimizers, seed: int, rate: float = 1e-2) -> float:
    ids = tokens(2, 12, seed=seed)
    logits = model(ids)
    torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
    return optimizers.step(rate)


def test_the_schedule_rises_stays_and_falls() -> None:
    config = OptimizerConfig(learning_rate=2.0, warmup=0.1, decay=0.4, final=0.05)
    optimizers = Optimizers([causal()], config)
    rates = [optimizers.learning_rate(i, 100) for i in range(100)]
    assert rates[:10] == pytest.approx([0.2 * (i + 1) for i in range(10)])
    assert rates[10:60] == pytest.approx([2.0] * 50)
    assert rates[60:] == pytest.approx([2.0 * (0.05 + 0.95 * (100 - i) / 40) for i in range(60, 100)])
    assert all(a >= b for a, b in pairwise(rates[60:]))
    assert rates[-1] == pytest.approx(0.1, abs=0.06)


def test_a_cosine_falls_from_the_end_of_the_warm_up() -> None:
    config = OptimizerConfig(learning_rate=2.0, warmup=0.1, final=0.1, schedule="cosine")
    optimizers = Optimizers([causal()], config)
    rates = [optimizers.learning_rate(i, 100) for i in range(101)]
    assert rates[:10] == pytest.approx([0.2 * (i + 1) for i in range(10)])
    assert (rates[10], rates[55], rates[100]) == pytest.approx((2.0, 1.1, 0.2))
    assert all(a > b for a, b in pairwise(rates[10:]))


@pytest.mark.parametrize("steps", [1, 2, 3, 1000])
@pytest.mark.parametrize(("warmup", "decay"), [(0, 0), (1, 1), (0.03, 0.5), (0.5, 1)])
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_every_schedule_is_positive_and_below_the_peak(
    schedule: Literal["linear", "cosine"], steps: int, warmup: float, decay: float
) -> None:
    config = OptimizerConfig(learning_rate=1.0, warmup=warmup, decay=decay, schedule=schedule)
    optimizers = Optimizers([causal()], config)
    assert all(0 < optimizers.learning_rate(i, steps) <= 1.0 for i in range(steps))


@pytest.mark.parametrize("matrices", ["muon", "adamw"])
def test_the_state_comes_back_through_flat_tensors(matrices: Any) -> None:
    config = OptimizerConfig(matrices=matrices)
    model = causal()
    optimizers = Optimizers([model], config)
    for seed in range(3):
        step(model, optimizers, seed)
    other = copy.deepcopy(model)
    restored = Optimizers([other], config)
    state = {name: tensor.clone() for name, tensor in optimizers.state().items()}
    assert all(isinstance(tensor, torch.Tensor) for tensor in state.values())
    restored.load_state({**state, "weights.model.norm": torch.zeros(1)})  # a save holds other tensors too
    assert restored.state().keys() == state.keys()
    for seed in range(3, 6):
        assert step(model, optimizers, seed) == step(other, restored, seed)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    # A fresh optimizer would have gone elsewhere.
    fresh = copy.deepcopy(other)
    step(fresh, Optimizers([fresh], config), 6)
    step(other, restored, 6)
    assert not torch.equal(fresh.model.norm.weight, other.model.norm.weight)


def test_muon_moves_the_layers_matrices_and_adamw_the_rest() -> None:
    model = causal()
    optimizers = Optimizers([model], OptimizerConfig())
    step(model, optimizers, 0)
    adamw, muon = optimizers._optimizers
    shapes = {tuple(p.shape) for group in muon.param_groups for p in group["params"]}
    assert shapes == {tuple(p.shape) for n, p in model.named_parameters() if p.dim() == 2 and "layers" in n}
    moved = sum(len(group["params"]) for o in (adamw, muon) for group in o.param_groups)
    assert moved == len(list(model.parameters()))
    assert len(Optimizers([model], OptimizerConfig(matrices="adamw"))._optimizers) == 1


def test_each_module_s_gradient_is_clipped_by_itself() -> None:
    """A critic's large gradient must not shrink the actor's."""
    actor, critic = causal(), scalar()
    config = OptimizerConfig(clip=1.0, matrices="adamw")
    seen: dict[str, float] = {}
    optimizers = Optimizers([actor, critic], config)
    real = torch.optim.AdamW.step

    def watched(self: torch.optim.AdamW, closure: Any = None) -> Any:
        for name, module in (("actor", actor), ("critic", critic)):
            seen[name] = float(torch.stack([p.grad.norm() for p in module.parameters() if p.grad is not None]).norm())
        return real(self, closure)

    for module, scale in ((actor, 0.3), (critic, 50.0)):
        gradients = [torch.randn(p.shape, generator=torch.Generator().manual_seed(1)) for p in module.parameters()]
        norm = torch.stack([g.norm() for g in gradients]).norm()
        for parameter, gradient in zip(module.parameters(), gradients, strict=True):
            parameter.grad = gradient * scale / norm
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", watched)
        largest = optimizers.step(1e-3)
    assert largest == pytest.approx(50.0, rel=1e-3)
    assert seen["actor"] == pytest.approx(0.3, rel=1e-3)
    assert seen["critic"] == pytest.approx(1.0, rel=1e-3)
    assert all(p.grad is None for p in actor.parameters())


def test_frozen_weights_do_not_move() -> None:
    model = causal()
    model.model.embed_tokens.requires_grad_(False)
    before = model.model.embed_tokens.weight.clone()
    step(model, Optimizers([model], OptimizerConfig()), 0)
    assert torch.equal(before, model.model.embed_tokens.weight)
