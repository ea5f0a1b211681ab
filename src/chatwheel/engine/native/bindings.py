"""Compiles the kernels once for this processor, and loads them; without a compiler PyTorch computes, slower."""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from chatwheel.engine.blocks import BLOCK_SIZE

logger = logging.getLogger(__name__)
SOURCE = Path(__file__).with_name("kernels.cpp")
HEADERS = sorted(SOURCE.parent.glob("*.h"))
COMPILERS = ("c++", "g++", "clang++")
FLAGS = ("-std=c++17", "-O3", "-march=native", "-ffp-contract=off", "-shared", "-fPIC", "-pthread")


class Matrix(ctypes.Structure):
    """step.h, Matrix."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("scale", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("n", ctypes.c_int32),
        ("k", ctypes.c_int32),
        ("kind", ctypes.c_int32),
    )


class Layer(ctypes.Structure):
    """step.h, Layer."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("input_norm", "post_norm", "q_norm", "k_norm")),
        *((name, Matrix) for name in ("q", "k", "v", "o", "gate", "up", "down")),
        ("window", ctypes.c_int32),
    )


class Model(ctypes.Structure):
    """step.h, Model."""

    _fields_ = (
        *(
            (name, ctypes.c_int32)
            for name in ("num_layers", "hidden", "heads", "kv_heads", "head_dim", "intermediate", "vocab")
        ),
        ("eps", ctypes.c_float),
        ("final_norm", ctypes.c_void_p),
        ("embedding", Matrix),
        ("head", Matrix),
        ("layers", ctypes.POINTER(Layer)),
    )


class Factors(ctypes.Structure):
    """step.h, Factors."""

    _fields_ = (("a", ctypes.c_void_p), ("b_t", ctypes.c_void_p), ("rank", ctypes.c_int32))


class AdaptedLayer(ctypes.Structure):
    """step.h, AdaptedLayer."""

    _fields_ = tuple((name, Factors) for name in ("q", "k", "v", "o", "gate", "up", "down"))


class Step(ctypes.Structure):
    """step.h, Step."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("num_tokens", "num_out", "num_scored", "table_width")),
        *((name, ctypes.c_void_p) for name in ("tokens", "positions", "sequences", "tables", "out")),
        *((name, ctypes.c_void_p) for name in ("cos", "sin", "keys", "values")),
        ("layer_size", ctypes.c_int64),
        ("short_cache", ctypes.c_int32),
        *((name, ctypes.c_void_p) for name in ("hidden", "logits", "adapter_of", "adapters")),
        ("largest_rank", ctypes.c_int32),
    )


class Choice(ctypes.Structure):
    """kernels.cpp, Choice."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("rows", "vocab")),
        *((name, ctypes.c_void_p) for name in ("scores", "raw", "temperature", "top_p", "min_p", "top_k", "uniform")),
        *((name, ctypes.c_void_p) for name in ("tokens", "logprobs", "normalisers")),
    )


@cache
def load_kernels() -> ctypes.CDLL | None:
    """The compiled kernels, or None where there is no compiler; CHATWHEEL_NATIVE=0 goes without them, "panels" without
    the tiles of the processor."""
    if os.environ.get("CHATWHEEL_NATIVE") == "0":
        return None
    compiler = next((path for name in COMPILERS if (path := shutil.which(name))), None)
    if compiler is None:
        logger.warning("no C++ compiler was found: answers come slower. Install one (g++ or clang++) to speed them up")
        return None
    try:
        return _loaded(_compiled(compiler))
    except (OSError, subprocess.CalledProcessError) as error:
        detail = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else error
        logger.warning("the kernels could not be compiled by %s, answers come slower: %s", compiler, detail)
        return None


def has_tiles(kernels: ctypes.CDLL) -> bool:
    """Whether products of fewer bits go by tiles."""
    return os.environ.get("CHATWHEEL_NATIVE") != "panels" and bool(kernels.chatwheel_tiles())


def _compiled(compiler: str) -> Path:
    """The shared object, made now unless it is there: for this source, compiler and processor."""
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout
    parts = (
        *(path.read_bytes() for path in (SOURCE, *HEADERS)),
        repr((version, FLAGS, platform.machine(), _processor())).encode(),
    )
    name = hashlib.blake2b(b"".join(parts), digest_size=10).hexdigest()
    path = _directory() / f"kernels-{name}.so"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".so")
        os.close(handle)
        try:
            command = [compiler, *FLAGS, str(SOURCE), "-o", temporary]
            subprocess.run(command, capture_output=True, text=True, check=True)
            Path(temporary).replace(path)
        finally:
            Path(temporary).unlink(missing_ok=True)
    return path


def _directory() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "chatwheel"


def _processor() -> str:
    """What instructions it has: a home directory may be shared by different machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())


def _loaded(path: Path) -> ctypes.CDLL:
    kernels = ctypes.CDLL(str(path))
    kernels.chatwheel_create.restype = ctypes.c_void_p
    kernels.chatwheel_create.argtypes = [ctypes.POINTER(Model), ctypes.c_int32]
    kernels.chatwheel_destroy.argtypes = [ctypes.c_void_p]
    kernels.chatwheel_forward.argtypes = [ctypes.c_void_p, ctypes.POINTER(Step)]
    kernels.chatwheel_choose.argtypes = [ctypes.c_void_p, ctypes.POINTER(Choice)]
    assert kernels.chatwheel_block_size() == BLOCK_SIZE
    return kernels
