"""Cross-entropy and log-probs of the output layer, a slice of the tokens at a time: B x T x V logits are never there
together.

The gradient of the cross-entropy's sum is computed with it, while a slice's logits are in the cache (as Liger Kernel
does; Hsu et al., 2024), so that nothing is computed twice. Where each token's log-prob is wanted its weight in the loss
is not known yet: the slices are computed again on the way back. Shape suffixes: N tokens, D width, V vocabulary.
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


def cross_entropy_sum(output: Linear, hidden_ND: Tensor, targets_N: Tensor, hits: Tensor | None = None) -> Tensor:
    """-log p of each target in nats, summed, in fp32; logits in hidden's type, their softmax in fp32.

    hits: a number to which the targets that are the likeliest token are added; not where processes share a vocabulary.
    """
    size = SLICE if hidden_ND.device.type == "cpu" else SLICE_ON_GPU
    if output.adapter is not None:  # rare: the slices are computed again on the way back

        def of_slice(h: Tensor, t: Tensor) -> Tensor:
            return _of_slice(output, h, t, hits)

        return sum(
            (
                checkpoint(of_slice, hidden_ND[i : i + size], targets_N[i : i + size], use_reentrant=False)
                for i in range(0, max(1, len(targets_N)), size)  # of nothing too: a zero with a gradient
            ),
            start=torch.zeros((), device=hidden_ND.device),
        )
    apply: Callable[..., Tensor] = _CrossEntropy.apply
    weight_VD, share = output.weight, _Share()
    if isinstance(weight_VD, DTensor):
        share, hits = _Share.of(weight_VD), None
        weight_VD = weight_VD.to_local()
    return apply(hidden_ND, weight_VD, targets_N, size, torch.is_grad_enabled(), share, hits)


def token_log_probs(output: Linear, hidden_ND: Tensor, targets_N: Tensor) -> Tensor:
    """log p of each target in nats, N, in fp32 (fp64 of hidden states in fp64), with a gradient; logits in hidden's
    type, their softmax in the result's."""
    size = SLICE if hidden_ND.device.type == "cpu" else SLICE_ON_GPU
    if output.adapter is not None:
        return torch.cat(
            [
                checkpoint(_log_probs_of_slice, output, h, t, use_reentrant=False)
                for h, t in zip(torch.split(hidden_ND, size), torch.split(targets_N, size), strict=True)
            ]
        )
    apply: Callable[..., Tensor] = _TokenLogProbs.apply
    weight_VD, share = output.weight, _Share()
    if isinstance(weight_VD, DTensor):
        share = _Share.of(weight_VD)
        weight_VD = weight_VD.to_local()
    return apply(hidden_ND, weight_VD, targets_N, size, share)


def _log_probs_of_slice(output: Linear, hidden_ND: Tensor, targets_N: Tensor) -> Tensor:
    return _precise(output(hidden_ND)).log_softmax(-1).gather(1, targets_N[:, None])[:, 0]


def _precise(logits_NV: Tensor) -> Tensor:
    return logits_NV if logits_NV.dtype == torch.float64 else logits_NV.float()


def _of_slice(output: Linear, hidden_ND: Tensor, targets_N: Tensor, hits: Tensor | None) -> Tensor:
    logits_NV = output(hidden_ND).float()
    if hits is not None:  # on the way back once more: whoever wants the number has read it by then
        hits += (logits_NV.argmax(-1) == targets_N).sum()
    return F.cross_entropy(logits_NV, targets_N, reduction="sum")


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

    def log_sum_exp(self, logits_NV: Tensor) -> Tensor:
        """N, over the whole vocabulary."""
        if self.group is None:
            return logits_NV.logsumexp(-1)
        top_N = logits_NV.amax(-1)
        dist.all_reduce(top_N, dist.ReduceOp.MAX, group=self.group)
        return top_N + self.summed((logits_NV - top_N[:, None]).exp_().sum(-1)).log_()


class _TokenLogProbs(torch.autograd.Function):
    """log p_t = z_t - log sum exp z for logits z = h W'; d log p_t / d z = 1[t] - p."""

    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, size: int, share: _Share) -> Tensor:
        """Keeps the sums of the softmax, so that `backward` needs no second pass over the logits."""
        places_N, mine_N = share.places(targets_N, len(weight_VD))
        cast_VD = weight_VD.to(hidden_ND.dtype)
        dtype = torch.float64 if hidden_ND.dtype == torch.float64 else torch.float32
        chosen_N, sums_N = (torch.empty(len(targets_N), dtype=dtype, device=hidden_ND.device) for _ in range(2))
        for first in range(0, len(targets_N), size):
            part = slice(first, first + size)
            logits = _precise(hidden_ND[part] @ cast_VD.T)
            sums_N[part] = share.log_sum_exp(logits)
            chosen_N[part] = logits.gather(1, places_N[part, None])[:, 0] * mine_N[part]
        ctx.save_for_backward(hidden_ND, weight_VD, places_N, mine_N, sums_N)
        ctx.size, ctx.share = size, share
        return share.summed(chosen_N) - sums_N

    @staticmethod
    def backward(ctx: Any, grad_N: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        """Of hidden states and weights, each slice's logits computed again: (softmax - 1[target]) x -grad."""
        hidden_ND, weight_VD, places_N, mine_N, sums_N = ctx.saved_tensors
        cast_VD = weight_VD.to(hidden_ND.dtype)
        for_hidden, for_weight = ctx.needs_input_grad[:2]
        hidden_grad = torch.empty_like(hidden_ND) if for_hidden else None
        weight_grad = torch.zeros_like(weight_VD) if for_weight else None
        for first in range(0, len(places_N), ctx.size):
            part = slice(first, first + ctx.size)
            h, g = hidden_ND[part], grad_N[part, None]
            z = _precise(h @ cast_VD.T).sub_(sums_N[part, None]).exp_().mul_(-g)
            z.scatter_add_(1, places_N[part, None], g * mine_N[part, None])
            z = z.to(hidden_ND.dtype)
            if hidden_grad is not None:
                torch.mm(z, cast_VD, out=hidden_grad[part])
            if weight_grad is not None and z.dtype == weight_grad.dtype:
                weight_grad.addmm_(z.T, h)
            elif weight_grad is not None:
                weight_grad += z.T @ h
        if hidden_grad is not None:
            ctx.share.summed(hidden_grad)
        return hidden_grad, weight_grad, None, None, None


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
        hits: Tensor | None,
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
            if hits is not None:
                hits += (log_p.argmax(-1, keepdim=True) == t).sum()
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
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None, None, None]:
        hidden_grad, weight_grad = ctx.saved_tensors
        return (
            None if hidden_grad is None else hidden_grad * scale,  # a scalar in fp32: the result keeps the type
            None if weight_grad is None else weight_grad * scale,
            None,
            None,
            None,
            None,
            None,
        )
