"""What only the compiled kernels promise: without a compiler PyTorch computes, whose numbers depend on the batch."""

from __future__ import annotations

import pytest

from chatwheel.engine.native.library import library

needs_kernels = pytest.mark.skipif(library() is None, reason="the kernels need a C++ compiler")
