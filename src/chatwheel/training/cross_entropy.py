"""Cross-entropy of the output layer, a slice of the tokens at a time: B x T x V logits are never there together.

The gradient of a slice is computed with its loss, while its logits are in the cache (as Liger Kernel does; Hsu et al.,
2024), so that nothing is computed twice. Shape suffixes: N tokens, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.tensor import DTensor
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
                for i in range(0, max(1, len(targets_N)), size)  # of nothing too: a zero with a gradient
            ),
            start=torch.zeros((), device=hidden_ND.device),
        )
    apply: Callable[..., Tensor] = _CrossEntropy.apply
    weight_VD, share = output.weight, _Share()
    if isinstance(weight_VD, DTensor):
        share = _Share.of(weight_VD)
        weight_VD = weight_VD.to_local()
    return apply(hidden_ND, weight_VD, targets_N, size, torch.is_grad_enabled(), share)


def _of_slice(output: Linear, hidden_ND: Tensor, targets_N: Tensor) -> Tensor:
    return F.cross_entropy(output(hidden_ND).float(), targets_N, reduction="sum")


@dataclass(frozen=True)
class _Share:
    """The part of the vocabulary whose logits this process makes: from `first` on; a group makes the others'."""

    first: int = 0
    group: dist.ProcessGroup | None = None

    @staticmethod
    def of(weight_VD: DTensor) -> _Share:
        """Of a matrix whose rows are cut as `torch.chunk` does."""
        mesh = weight_VD.device_mesh
        return _Share(mesh.get_local_rank() * -(-weight_VD.shape[0] // mesh.size()), mesh.get_group())

    def summed(self, tensor: Tensor) -> Tensor:
        """In place, over the group."""
        if self.group is not None:
            dist.all_reduce(tensor, group=self.group)
        return tensor

    def places(self, targets_N: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """Where the targets are in the share, and 1 for those that are; the others get a place and 0."""
        if self.group is None:
            return targets_N, torch.ones_like(targets_N, dtype=torch.float32)
        places_N = targets_N - self.first
        mine_N = (places_N >= 0) & (places_N < size)
        return places_N.where(mine_N, 0), mine_N.float()

    def log_softmax(self, logits_NV: Tensor) -> Tensor:
        """Over the whole vocabulary."""
        if self.group is None:
            return logits_NV.log_softmax(-1)
        top_N1 = logits_NV.amax(-1, keepdim=True)
        dist.all_reduce(top_N1, dist.ReduceOp.MAX, group=self.group)
        logits_NV = logits_NV - top_N1
        return logits_NV.sub_(self.summed(logits_NV.exp().sum(-1, keepdim=True)).log_())


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        targets_N: Tensor,
        size: int,
        with_gradient: bool,
        share: _Share,
    ) -> Tensor:
        """The loss; its gradients are kept for `backward`, which only scales them."""
        targets_N, mine_N = share.places(targets_N, len(weight_VD))
        cast_VD = weight_VD.to(hidden_ND.dtype)
        loss = torch.zeros((), dtype=torch.float32, device=hidden_ND.device)
        for_hidden, for_weight = (with_gradient and needed for needed in ctx.needs_input_grad[:2])
        hidden_grad = torch.empty_like(hidden_ND) if for_hidden else None
        weight_grad = torch.zeros_like(weight_VD) if for_weight else None
        for first in range(0, len(targets_N), size):
            part = slice(first, first + size)
            h, t, mine = hidden_ND[part], targets_N[part, None], mine_N[part, None]
            log_p = share.log_softmax((h @ cast_VD.T).float())
            loss -= (log_p.gather(1, t) * mine).sum()
            if not (for_hidden or for_weight):
                continue
            p = log_p.exp_()  # d loss / d logits = p - 1[target]
            p.scatter_add_(1, t, -mine)
            p = p.to(hidden_ND.dtype)
            if hidden_grad is not None:
                torch.mm(p, cast_VD, out=hidden_grad[part])
            if weight_grad is not None and p.dtype == weight_grad.dtype:
                weight_grad.addmm_(p.T, h)
            elif weight_grad is not None:
                weight_grad += p.T @ h
        if hidden_grad is not None:
            share.summed(hidden_grad)
        ctx.save_for_backward(hidden_grad, weight_grad)
        return share.summed(loss)

    @staticmethod
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None, None]:
        hidden_grad, weight_grad = ctx.saved_tensors
        return (
            None if hidden_grad is None else hidden_grad * scale,  # a scalar in fp32: the result keeps the type
            None if weight_grad is None else weight_grad * scale,
            None,
            None,
            None,
            None,
        )
