"""Muon against PyTorch's own, and the orthogonality that it promises."""

from __future__ import annotations

import torch

from chatwheel.training.muon import Muon, orthogonalise


def test_it_moves_as_pytorchs_muon_does() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [(8, 8), (8, 20), (20, 8), (8, 8), (4, 8)]
    ours = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    mine = Muon(ours, lr=0.02, weight_decay=0.1)
    reference = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for _ in range(4):
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn(p.shape, generator=generator)
            q.grad = p.grad.clone()
        mine.step()
        reference.step()
    for p, q in zip(ours, theirs, strict=True):
        # PyTorch's rounds are in bfloat16.
        torch.testing.assert_close(p, q, atol=2e-3, rtol=2e-2)


def test_singular_values_come_near_one() -> None:
    matrices = torch.randn(5, 16, 40, generator=torch.Generator().manual_seed(1))
    values = torch.linalg.svdvals(orthogonalise(matrices, torch.float32))
    assert values.min() > 0.5
    assert values.max() < 1.5
