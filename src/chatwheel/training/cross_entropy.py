"""Cross-entropy of the output layer, a slice of the tokens at a time: B x T x V logits are never there together.

The gradient of a slice is computed with its loss, while its logits are in the cache (as Liger Kernel does; Hsu et al.,
2024), so that nothing is computed twice. Shape suffixes: N tokens, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from chatwheel.model.transformer import Linear

SLICE = 256
"""Tokens of a slice on a CPU: with a vocabulary of 4,096 its logits are 4 MB (docs/LOG.md). Kernels on a GPU want more
at once."""
SLICE_ON_GPU = 4096


def cross_entropy_sum(output: Linear, hidden_ND: Tensor, targets_N: Tensor) -> Tensor:
    """-log p of each target in nats, summed, in fp32; logits in hidden's type, their softmax in fp32."""
    size = SLICE if hidden_ND.device.type == "cpu" else SLICE_ON_GPU
    if output.adapter is not None:  # rare: the slices are computed again on the way back
        return sum(
            (
                checkpoint(_of_slice, output, hidden_ND[i : i + size], targets_N[i : i + size], use_reentrant=False)
                for i in range(0, len(targets_N), size)
            ),
            start=torch.zeros((), device=hidden_ND.device),
        )
    apply: Callable[..., Tensor] = _CrossEntropy.apply
    return apply(hidden_ND, output.weight, targets_N, size, torch.is_grad_enabled())


def _of_slice(output: Linear, hidden_ND: Tensor, targets_N: Tensor) -> Tensor:
    return F.cross_entropy(output(hidden_ND).float(), targets_N, reduction="sum")


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, size: int, with_gradient: bool
    ) -> Tensor:
        """The loss; its gradients are kept for `backward`, which only scales them."""
        cast_VD = weight_VD.to(hidden_ND.dtype)
        loss = torch.zeros((), dtype=torch.float32, device=hidden_ND.device)
        for_hidden, for_weight = (with_gradient and needed for needed in ctx.needs_input_grad[:2])
        hidden_grad = torch.empty_like(hidden_ND) if for_hidden else None
        weight_grad = torch.zeros_like(weight_VD) if for_weight else None
        for first in range(0, len(targets_N), size):
            h, t = hidden_ND[first : first + size], targets_N[first : first + size, None]
            log_p = (h @ cast_VD.T).float().log_softmax(-1)
            loss -= log_p.gather(1, t).sum()
            if not (for_hidden or for_weight):
                continue
            p = log_p.exp_()  # d loss / d logits = p - 1[target]
            p.scatter_add_(1, t, p.new_full(t.shape, -1.0))
            p = p.to(hidden_ND.dtype)
            if hidden_grad is not None:
                torch.mm(p, cast_VD, out=hidden_grad[first : first + size])
            if weight_grad is not None and p.dtype == weight_grad.dtype:
                weight_grad.addmm_(p.T, h)
            elif weight_grad is not None:
                weight_grad += p.T @ h
        ctx.save_for_backward(hidden_grad, weight_grad)
        return loss

    @staticmethod
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        hidden_grad, weight_grad = ctx.saved_tensors
        return (
            None if hidden_grad is None else hidden_grad * scale,  # a scalar in fp32: the result keeps the type
            None if weight_grad is None else weight_grad * scale,
            None,
            None,
            None,
        )
