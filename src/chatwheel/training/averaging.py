"""A running mean of weights over the steps: it forgets less and is steadier than the last step's (Izmailov et al.,
2018, "Averaging weights leads to wider optima"; here with exponential forgetting)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class WeightAverage:
    """Of what is trained of a model. decay: what stays of the old at each step. weights: by name, kept with the run."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        self._trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.weights: dict[str, Tensor] = {name: p.detach().clone() for name, p in self._trained.items()}

    @torch.no_grad()
    def update(self) -> None:
        """After a step."""
        torch._foreach_lerp_(list(self.weights.values()), list(self._trained.values()), 1 - self._decay)

    @torch.no_grad()
    def take(self) -> None:
        """Puts the mean in the model's place."""
        for name, parameter in self._trained.items():
            parameter.copy_(self.weights[name])
