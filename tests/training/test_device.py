"""Where training computes. With a GPU, that it learns the same there; without one, what is said."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from chatwheel.data.packing import pack
from chatwheel.errors import InputError
from chatwheel.training.precision import training_device
from chatwheel.training.sft import SFTConfig, sft
from tests.tiny import causal, tokens


@pytest.mark.parametrize(("name", "said"), [("tpu", "it may be cpu or cuda"), ("cuda", "finds no GPU here")])
def test_a_device_that_is_not_there_is_one_line(name: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("CHATWHEEL_DEVICE", name)
    with pytest.raises(InputError, match=said):
        training_device()


def test_without_a_word_it_is_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CHATWHEEL_DEVICE", raising=False)
    assert training_device() == torch.device("cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_learns_the_same(tmp_path: Path) -> None:
    packed = pack([tokens(30, seed=i).tolist() for i in range(16)], 32)
    config = SFTConfig(epochs=2, rows_per_step=4, row_length=32, precision="float32", lora=None)
    losses = [
        sft(config, causal().to(device), packed, directory=tmp_path / device, seed=0)[1]["loss"]
        for device in ("cpu", "cuda")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
