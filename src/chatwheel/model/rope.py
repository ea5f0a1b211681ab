"""Rotary position embeddings (Su et al., 2021), and how models stretch them to longer contexts.

Shape suffixes: B batch, T time, H heads, K head size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from chatwheel.errors import InputError

if TYPE_CHECKING:
    from chatwheel.model.config import ModelConfig


@dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """How a context is stretched by `factor` beyond the `original_max_positions` of pretraining.

    kind: "linear" divides all positions (Chen et al., 2023); "llama3" divides the slow angles only (Llama 3.1); "yarn"
    too, and sharpens the attention (Peng et al., 2023). low and high: from which to which number of turns within the
    original context angles go over from slow to fast. attention_factor: of cos and sin; computed unless given.
    """

    kind: str
    factor: float
    original_max_positions: int
    low: float = 1.0
    high: float = 32.0
    attention_factor: float | None = None

    def to_hugging_face(self) -> dict[str, Any]:
        """The dictionary `rope_scaling` of a `config.json`."""
        values: dict[str, Any] = {"rope_type": self.kind, "factor": self.factor}
        if self.kind != "linear":
            values["original_max_position_embeddings"] = self.original_max_positions
        if self.kind == "llama3":
            values |= {"low_freq_factor": self.low, "high_freq_factor": self.high}
        if self.kind == "yarn":
            values |= {"beta_slow": self.low, "beta_fast": self.high}
            if self.attention_factor is not None:
                values["attention_factor"] = self.attention_factor
        return values

    @staticmethod
    def from_hugging_face(values: Mapping[str, Any], max_positions: int, *, where: str) -> RopeScaling | None:
        """Reads it, None if nothing is stretched. Raises InputError for a kind that is not computed here."""
        kind = values.get("rope_type", values.get("type", "default"))
        if kind == "default":
            return None
        unknown = {"partial_rotary_factor", "mscale", "mscale_all_dim", "truncate"} & values.keys()
        if kind not in ("linear", "llama3", "yarn") or unknown:
            what = f"{kind!r}" + (f" with {', '.join(sorted(unknown))}" if unknown else "")
            raise InputError(f"{where}: RoPE scaling {what} is not supported; supported are linear, llama3 and yarn")
        names = ("low_freq_factor", "high_freq_factor") if kind == "llama3" else ("beta_slow", "beta_fast")
        given = {key: values.get(name) for key, name in zip(("low", "high"), names, strict=True)}
        if kind == "llama3":
            given = {"low": values["low_freq_factor"], "high": values["high_freq_factor"]}
        if float(values["factor"]) <= 0:
            raise InputError(f"{where}: the factor of RoPE scaling is {values['factor']}; it must be above 0")
        attention_factor = values.get("attention_factor")
        return RopeScaling(
            kind=kind,
            factor=float(values["factor"]),
            original_max_positions=int(values.get("original_max_position_embeddings") or max_positions),
            attention_factor=None if attention_factor is None else float(attention_factor),
            **{key: float(value) for key, value in given.items() if value is not None},
        )


@lru_cache(maxsize=64)
def frequencies(head_dim: int, theta: float, scaling: RopeScaling | None) -> tuple[Tensor, float]:
    """The angle that one position adds to each of the K/2 pairs, in fp32, and the factor of cos and sin."""
    plain = theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    if scaling is None:
        return plain, 1.0
    slow = plain / scaling.factor
    if scaling.kind == "linear":
        return slow, 1.0
    if scaling.kind == "llama3":
        turns = scaling.original_max_positions * plain / (2 * math.pi)
        share = ((turns - scaling.low) / (scaling.high - scaling.low)).clamp(0, 1)
        return (1 - share) * slow + share * plain, 1.0
    first, last = _yarn_borders(head_dim, theta, scaling)
    share = 1 - ((torch.arange(head_dim // 2) - first) / (last - first)).clamp(0, 1)
    factor = scaling.attention_factor
    if factor is None:
        factor = 0.1 * math.log(scaling.factor) + 1 if scaling.factor > 1 else 1.0
    return (1 - share) * slow + share * plain, factor


def _yarn_borders(head_dim: int, theta: float, scaling: RopeScaling) -> tuple[float, float]:
    """Between which pairs angles go over from fast to slow: those with `high` and `low` turns in the context."""

    def pair_with(turns: float) -> float:
        return head_dim * math.log(scaling.original_max_positions / (turns * 2 * math.pi)) / (2 * math.log(theta))

    first = max(math.floor(pair_with(scaling.high)), 0)
    last = min(math.ceil(pair_with(scaling.low)), head_dim - 1)
    return first, last if last != first else last + 0.001


def rope_tables(positions_BT: Tensor, config: ModelConfig, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """cos and sin of each position's angles, B1TK, in the half-split layout of Hugging Face."""
    per_position, factor = frequencies(config.head_dim, config.rope_theta, config.rope_scaling)
    angles = positions_BT[:, None, :, None].float() * per_position.to(positions_BT.device)
    angles = torch.cat((angles, angles), dim=-1)
    return (angles.cos() * factor).to(dtype), (angles.sin() * factor).to(dtype)


def rotate(x_BHTK: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
    """Turns each pair (k, k + K/2) by its position's angle."""
    cos, sin = rope
    left, right = x_BHTK.chunk(2, dim=-1)
    return x_BHTK * cos + torch.cat((-right, left), dim=-1) * sin
