"""Which number format a machine multiplies fastest."""

from __future__ import annotations

from typing import Literal

import torch

Precision = Literal["auto", "float32", "bfloat16"]


def compute_dtype(precision: Precision, device: str = "cpu") -> torch.dtype:
    """bfloat16 where the hardware multiplies it (AVX-512 BF16, AMX, GPUs), else float32, unless told."""
    if precision != "auto":
        return torch.bfloat16 if precision == "bfloat16" else torch.float32
    if device != "cpu":
        return torch.bfloat16
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if fast else torch.float32
