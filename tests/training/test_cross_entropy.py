"""The sliced cross-entropy against PyTorch's: the same loss and gradients, and never all logits."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from chatwheel.model.lora import LoRA, LoRAConfig
from chatwheel.model.transformer import Linear
from chatwheel.training import cross_entropy
from chatwheel.training.cross_entropy import cross_entropy_sum

D, V = 24, 70


def inputs(count: int, dtype: torch.dtype = torch.float32) -> tuple[Linear, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(count)
    output = Linear(D, V)
    with torch.no_grad():
        output.weight.normal_(generator=generator)
    hidden = torch.randn(count, D, generator=generator).to(dtype).requires_grad_()
    return output, hidden, torch.randint(0, V, (count,), generator=generator)


@pytest.mark.parametrize("count", [1, 10, 11, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_loss_and_gradients_are_those_of_all_logits_at_once(
    count: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cross_entropy, "SLICE", 10)
    output, hidden, targets = inputs(count, dtype)
    ours = cross_entropy_sum(output, hidden, targets)
    (ours / 3).backward()
    found = (hidden.grad, output.weight.grad)
    hidden.grad = output.weight.grad = None
    theirs = F.cross_entropy(output(hidden).float(), targets, reduction="sum")
    (theirs / 3).backward()
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0)
    close = {"rtol": 1e-5, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 0.03, "atol": 0.02}
    for gradient, expected in zip(found, (hidden.grad, output.weight.grad), strict=True):
        assert gradient is not None
        assert gradient.dtype == expected.dtype
        torch.testing.assert_close(gradient, expected, **close)


def test_an_adapted_output_has_its_gradients_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_entropy, "SLICE", 10)
    output, hidden, targets = inputs(25)
    output.requires_grad_(False)
    output.adapter = adapter = LoRA(D, V, LoRAConfig(rank=2))
    torch.nn.init.normal_(adapter.lora_A)
    torch.nn.init.normal_(adapter.lora_B)
    ours = cross_entropy_sum(output, hidden, targets)
    ours.backward()
    found = (adapter.lora_A.grad.clone(), adapter.lora_B.grad.clone(), hidden.grad.clone())
    adapter.zero_grad()
    hidden.grad = None
    theirs = F.cross_entropy(output(hidden), targets, reduction="sum")
    theirs.backward()
    torch.testing.assert_close(ours, theirs)
    for gradient, expected in zip(found, (adapter.lora_A.grad, adapter.lora_B.grad, hidden.grad), strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-4)


def test_of_nothing_an_adapted_output_has_a_gradient_too() -> None:
    output, hidden, targets = inputs(4)
    output.requires_grad_(False)
    output.adapter = adapter = LoRA(D, V, LoRAConfig(rank=2))
    loss = cross_entropy_sum(output, hidden.detach()[:0], targets[:0])  # as of answers of weight 0, on a frozen trunk
    loss.backward()
    assert float(loss) == 0
    assert all(p.grad is not None and not p.grad.any() for p in adapter.parameters())


def test_what_is_frozen_gets_no_gradient_and_nothing_is_kept_without_one() -> None:
    output, hidden, targets = inputs(20)
    output.requires_grad_(False)
    cross_entropy_sum(output, hidden, targets).backward()
    assert output.weight.grad is None
    assert hidden.grad is not None
    with torch.no_grad():
        assert not cross_entropy_sum(output, hidden, targets).requires_grad
    empty = cross_entropy_sum(output, hidden[:0], targets[:0])
    assert float(empty.detach()) == 0
    empty.backward()


class _Largest(TorchDispatchMode):
    """The largest tensor that any operation makes."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = function(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.elements = max(self.elements, result.numel())
        return result


def test_no_tensor_has_the_logits_of_all_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_entropy, "SLICE", 16)
    output, hidden, targets = inputs(400)
    with _Largest() as largest:
        cross_entropy_sum(output, hidden, targets).backward()
    assert largest.elements == max(400 * D, V * D) < 400 * V
