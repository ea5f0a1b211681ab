"""Where training computes. With a GPU, that it learns the same there; without one, what is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from chatwheel.data.packing import pack
from chatwheel.errors import InputError
from chatwheel.model.lora import LoRAConfig
from chatwheel.training.loop import Loop, Metrics
from chatwheel.training.precision import training_device
from chatwheel.training.reward import EncodedRanking, RewardConfig, train_reward
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


def fine_tuned(device: str, directory: Path, lora: LoRAConfig | None) -> Metrics:
    packed = pack([tokens(30, seed=i).tolist() for i in range(16)], 32)
    config = SFTConfig(epochs=2, rows_per_step=4, row_length=32, precision="float32", lora=lora)
    return sft(config, causal().to(device), packed, directory=directory, seed=0)[1]


def reward_model(device: str, directory: Path, lora: LoRAConfig | None) -> Metrics:
    sequences = [[tokens(9 + j, seed=10 * i + j).tolist() for j in range(2)] for i in range(16)]
    rankings = [EncodedRanking(pair, [(0, 1)]) for pair in sequences]
    config = RewardConfig(rankings_per_step=4, row_length=32, precision="float32", lora=lora)
    return train_reward(config, causal().to(device), rankings, directory=directory, seed=0)[1]


Training = Callable[[str, Path, LoRAConfig | None], Metrics]
EVERYTHING = pytest.mark.parametrize("train", [fine_tuned, reward_model])
WHOLE_OR_NOT = pytest.mark.parametrize("lora", [None, LoRAConfig(rank=2)], ids=["whole", "lora"])


@EVERYTHING
@WHOLE_OR_NOT
def test_all_that_is_trained_is_where_the_model_is(
    train: Training, lora: LoRAConfig | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[str] = []

    def look(loop: Loop, _: object) -> Metrics:
        found.extend(p.device.type for module in loop.modules.values() for p in module.parameters())
        return {}

    monkeypatch.setattr(Loop, "run", look)
    train("meta", tmp_path, lora)  # a device that every machine has
    assert set(found) == {"meta"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@EVERYTHING
@WHOLE_OR_NOT
def test_a_gpu_learns_the_same(train: Training, lora: LoRAConfig | None, tmp_path: Path) -> None:
    losses = [train(device, tmp_path / device, lora)["loss"] for device in ("cpu", "cuda")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
