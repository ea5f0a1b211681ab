"""What is said where Ray is not installed, or does not do what is asked; the rest is in tests/training/test_ray.py."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from chatwheel.errors import InputError
from chatwheel.jobs.ray_workers import run_in_ray


def test_without_ray_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match="pip install"):
        run_in_ray(lambda: None, 2, tmp_path / "ray")
    assert not (tmp_path / "ray").exists()


def test_a_gpu_is_not_promised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHATWHEEL_DEVICE", "cuda")
    with pytest.raises(InputError, match="--ray trains on processors only"):
        run_in_ray(lambda: None, 2, tmp_path / "ray")
