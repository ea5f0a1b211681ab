"""Log-probs of chosen tokens by slices: values and gradients against finite differences and all logits at once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from chatwheel.model.lora import LoRA, LoRAConfig
from chatwheel.model.transformer import Linear
from chatwheel.training import cross_entropy
from chatwheel.training.cross_entropy import token_log_probs
from tests.training.test_cross_entropy import D, V, _Largest, inputs


@pytest.fixture(autouse=True)
def _small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_entropy, "SLICE", 10)


def whole(output: Linear, hidden: Tensor, targets: Tensor) -> Tensor:
    return -F.cross_entropy(output(hidden).float(), targets, reduction="none")


@pytest.mark.parametrize("count", [1, 10, 23])
def test_finite_differences_in_fp64(count: int) -> None:
    output, hidden, targets = inputs(count, torch.float64)
    weight = output.weight.detach().double().requires_grad_()

    def log_probs(h: Tensor, w: Tensor) -> Tensor:
        return token_log_probs(cast(Linear, SimpleNamespace(adapter=None, weight=w)), h, targets)

    assert log_probs(hidden, weight).dtype == torch.float64
    assert torch.autograd.gradcheck(log_probs, (hidden, weight), eps=1e-6, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("count", [1, 10, 11, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_as_all_logits_at_once(count: int, dtype: torch.dtype) -> None:
    output, hidden, targets = inputs(count, dtype)
    weights = torch.linspace(-1, 2, count)
    ours = token_log_probs(output, hidden, targets)
    ours.backward(weights)
    found = (hidden.grad, output.weight.grad)
    hidden.grad = output.weight.grad = None
    theirs = whole(output, hidden, targets)
    theirs.backward(weights)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    close = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 0.05, "atol": 0.05}
    for gradient, expected in zip(found, (hidden.grad, output.weight.grad), strict=True):
        assert gradient is not None
        assert gradient.dtype == expected.dtype
        torch.testing.assert_close(gradient, expected, **close)


def test_an_adapted_output_has_its_gradients_too() -> None:
    output, hidden, targets = inputs(25)
    output.requires_grad_(False)
    output.adapter = adapter = LoRA(D, V, LoRAConfig(rank=2))
    torch.nn.init.normal_(adapter.lora_A)
    torch.nn.init.normal_(adapter.lora_B)
    weights = torch.linspace(-1, 2, 25)
    ours = token_log_probs(output, hidden, targets)
    ours.backward(weights)
    found = (adapter.lora_A.grad.clone(), adapter.lora_B.grad.clone(), hidden.grad.clone())
    adapter.zero_grad()
    hidden.grad = None
    theirs = whole(output, hidden, targets)
    theirs.backward(weights)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    for gradient, expected in zip(found, (adapter.lora_A.grad, adapter.lora_B.grad, hidden.grad), strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-4)


def test_what_is_frozen_gets_no_gradient_and_large_logits_stay_finite() -> None:
    output, hidden, targets = inputs(20)
    output.requires_grad_(False)
    log_probs = token_log_probs(output, hidden * 1e4, targets)
    assert log_probs.isfinite().all()
    assert (log_probs <= 0).all()
    log_probs.sum().backward()
    assert output.weight.grad is None
    assert hidden.grad is not None
    assert hidden.grad.isfinite().all()
    assert token_log_probs(output, hidden[:0], targets[:0]).shape == (0,)


def test_no_tensor_has_the_logits_of_all_tokens() -> None:
    output, hidden, targets = inputs(400)
    with _Largest() as largest:
        token_log_probs(output, hidden, targets).sum().backward()
    assert largest.elements == max(400 * D, V * D) < 400 * V
