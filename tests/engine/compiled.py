"""What only the compiled kernels promise: without a compiler PyTorch computes, whose numbers depend on the batch."""

from __future__ import annotations

import pytest

from chatwheel.engine.native.bindings import load_kernels

needs_kernels = pytest.mark.skipif(load_kernels() is None, reason="the kernels need a C++ compiler")
