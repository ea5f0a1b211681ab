"""What only the compiled kernels promise: without a compiler PyTorch computes, whose numbers depend on the batch."""

from __future__ import annotations

import pytest

from chatwheel.engine.native.bindings import has_tiles, load_kernels

needs_kernels = pytest.mark.skipif(load_kernels() is None, reason="the kernels need a C++ compiler")


def ways() -> tuple[str, ...]:
    """What CHATWHEEL_NATIVE may say here of how weights of fewer bits are multiplied: all that the processor has."""
    kernels = load_kernels()
    return ("panels", "") if kernels is not None and has_tiles(kernels) else ("panels",)
