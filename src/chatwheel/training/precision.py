"""Where training computes, and in which number format."""

from __future__ import annotations

import os
from typing import Literal

import torch

from chatwheel.errors import InputError

Precision = Literal["auto", "float32", "bfloat16"]


def training_device() -> torch.device:
    """What $CHATWHEEL_DEVICE says: "cpu", as without it, or "cuda", this process's GPU. Raises InputError."""
    name = os.environ.get("CHATWHEEL_DEVICE") or "cpu"
    if name not in ("cpu", "cuda"):
        raise InputError(f"CHATWHEEL_DEVICE is {name!r}; it may be cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError(
            "CHATWHEEL_DEVICE is cuda, but PyTorch finds no GPU here; unset it, or install PyTorch for CUDA"
        )
    return torch.device(name)


def compute_dtype(precision: Precision, device: str = "cpu") -> torch.dtype:
    """bfloat16 where the hardware multiplies it (AVX-512 BF16, AMX, GPUs), else float32, unless told."""
    if precision != "auto":
        return torch.bfloat16 if precision == "bfloat16" else torch.float32
    if device != "cpu":
        return torch.bfloat16
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if fast else torch.float32
