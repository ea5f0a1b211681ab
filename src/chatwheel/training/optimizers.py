"""Muon for the matrices inside the layers (Jordan et al., 2024), AdamW for everything else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from chatwheel.training.distributed import whole
from chatwheel.training.muon import Muon
from chatwheel.training.precision import compute_dtype


class OptimizerConfig(BaseModel):
    """How weights move.

    learning_rate: the peak, for both optimizers; Muon's update is scaled to AdamW's size (Liu et al., 2025).
    warmup, decay: shares of the steps that rise from 0, and fall to `final` x the peak at the end. schedule: how they
    fall: "linear" (warm-up, stable, decay), or "cosine", where all steps after the warm-up fall.
    clip: the largest norm of the gradient. matrices: the optimizer of the layers' matrices.

    final: of the peak, what is left at the end. weight_decay: of all weights. betas: AdamW's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    learning_rate: float = Field(default=1e-3, gt=0)
    warmup: float = Field(default=0.03, ge=0, le=1)
    decay: float = Field(default=0.5, ge=0, le=1)
    final: float = Field(default=0.05, ge=0, le=1)
    schedule: Literal["linear", "cosine"] = "linear"
    weight_decay: float = Field(default=0.01, ge=0)
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = Field(default=1.0, gt=0)
    matrices: Literal["muon", "adamw"] = "muon"


class Optimizers:
    """One or two torch optimizers behind one step, with their state as flat tensors."""

    def __init__(self, modules: Sequence[nn.Module], config: OptimizerConfig) -> None:
        self.config = config
        self.groups = [[p for p in module.parameters() if p.requires_grad] for module in modules]
        muon: list[Tensor] = []
        adamw: list[Tensor] = []
        for module in modules:
            for name, parameter in module.named_parameters():
                if not parameter.requires_grad:
                    continue
                # The factors of an adapter are no matrices of their own: their product is.
                matrix = parameter.dim() == 2 and ".layers." in name and ".adapter." not in name
                inner = matrix and config.matrices == "muon"
                (muon if inner else adamw).append(parameter)
        self._optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(
                adamw, lr=config.learning_rate, betas=config.betas, weight_decay=config.weight_decay, fused=True
            )
        ]
        if muon:
            self._optimizers.append(
                Muon(
                    muon,
                    lr=config.learning_rate,
                    weight_decay=config.weight_decay,
                    dtype=compute_dtype("auto", muon[0].device.type),
                )
            )

    def learning_rate(self, step: int, steps: int) -> float:
        """The rate at a step of a run: warm-up, stable, decay (Hu et al., 2024), or a cosine (Loshchilov & Hutter,
        2017)."""
        config = self.config
        up, down = config.warmup * steps, config.decay * steps
        rise = min(1.0, (step + 1) / up) if step < up else 1.0
        if config.schedule == "cosine":
            done = max(0.0, step - up) / max(1.0, steps - up)
            return (
                config.learning_rate * rise * (config.final + (1 - config.final) * (1 + math.cos(math.pi * done)) / 2)
            )
        left = (steps - step) / down if down > 0 else 1.0
        return config.learning_rate * rise * (config.final + (1 - config.final) * min(1.0, left))

    def step(self, learning_rate: float) -> float:
        """Clips each module's gradient, moves the weights, clears the gradients; returns the largest norm."""
        norms = [float(whole(torch.nn.utils.clip_grad_norm_(group, self.config.clip))) for group in self.groups]
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return max(norms)

    def state(self) -> dict[str, Tensor]:
        """Every tensor that a resumed run needs, by `optimizer.number.parameter.name`, in its shards."""
        return {
            f"optimizer.{o}.{p}.{name}": value
            for o, optimizer in enumerate(self._optimizers)
            for p, values in optimizer.state_dict()["state"].items()
            for name, value in values.items()
        }

    def parameter(self, key: str) -> Tensor:
        """The one that a tensor of `state` is about."""
        _, number, parameter, _ = key.split(".", 3)
        return self._moved(self._optimizers[int(number)])[int(parameter)]

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Restores what `state` gave."""
        for o, optimizer in enumerate(self._optimizers):
            state: dict[int, dict[str, Tensor]] = {}
            for key, tensor in tensors.items():
                kind, number, rest = key.split(".", 2)
                if kind == "optimizer" and int(number) == o:
                    parameter, name = rest.split(".", 1)
                    state.setdefault(int(parameter), {})[name] = tensor
            optimizer.load_state_dict({**optimizer.state_dict(), "state": state})

    @staticmethod
    def _moved(optimizer: torch.optim.Optimizer) -> list[Tensor]:
        return [parameter for group in optimizer.param_groups for parameter in group["params"]]
