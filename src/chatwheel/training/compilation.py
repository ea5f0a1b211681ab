"""The layers compiled for one shape of rows, where a C++ compiler is found: about 1.4 times as fast (docs/LOG.md).

The products of matrices stay as they are; what is between them (norms, rotations, SwiGLU and their gradients) becomes a
few fused loops. All layers share one graph, so compiling takes the time of one layer, once for each shape.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import nn

Compilation = Literal["auto", "always", "never"]

# Compiling takes about twenty seconds on two cores; a shorter run would not win them back.
FEWEST_STEPS = 200


def worth_compiling(compilation: Compilation, steps: int) -> bool:
    """Whether to compile. auto: from so many steps on, and only with a C++ compiler.

    It depends on the whole run's length, never on what is left of it: while the compiler stays, a resumed run computes
    as the first one did.
    """
    if compilation != "auto":
        return compilation == "always"
    return steps >= FEWEST_STEPS and shutil.which(os.environ.get("CXX", "g++")) is not None


@contextmanager
def uncompiled(layers: Iterable[nn.Module]) -> Iterator[None]:
    """Inside, layers run as they are: for shapes that are not worth compiling for."""
    layers = list(layers)
    calls = [layer._compiled_call_impl for layer in layers]
    for layer in layers:
        layer._compiled_call_impl = None
    try:
        yield
    finally:
        for layer, call in zip(layers, calls, strict=True):
            layer._compiled_call_impl = call


@contextmanager
def compiled(layers: Iterable[nn.Module], enabled: bool) -> Iterator[None]:
    """Inside, the layers run compiled; what cannot be compiled runs as it is."""
    if not enabled:
        yield
        return
    with torch._dynamo.config.patch(suppress_errors=True):
        layers = list(layers)
        for layer in layers:
            layer.compile(dynamic=False)
        try:
            yield
        finally:
            for layer in layers:
                layer._compiled_call_impl = None
