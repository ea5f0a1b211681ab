"""Trains under torchrun for test_distributed.py: python distributed_worker.py DIRECTORY STEPS OUTPUT [option ...].

Options: lora, muon (training with them), reward, dpo, kto (these instead of SFT), recompute; qwen2, llama (that family
instead of qwen3), uneven (a vocabulary of an odd size); tensor=N (so many divide each matrix).
"""

from __future__ import annotations

import sys
from pathlib import Path
from unittest.mock import patch

import torch
from safetensors.torch import save_file

from chatwheel.data.packing import pack
from chatwheel.model.lora import EVERY_TARGET, LoRAConfig
from chatwheel.model.transformer import CausalLM, ScalarModel
from chatwheel.training.distributed import processes
from chatwheel.training.dpo import DPOConfig, dpo
from chatwheel.training.kto import KTOConfig, LabelledAnswers, kto
from chatwheel.training.loop import Loop, Metrics
from chatwheel.training.optimizers import OptimizerConfig
from chatwheel.training.preferences import EncodedPreferences, PromptedAnswer
from chatwheel.training.reward import EncodedRanking, RewardConfig, train_reward
from chatwheel.training.sft import SFTConfig, sft
from tests.tiny import VOCAB, causal, tokens

SHAPES = {
    "qwen2": {"qk_norm": False, "qkv_bias": True},
    "llama": {"qk_norm": False, "tied_embeddings": False},
    "uneven": {"vocab_size": VOCAB + 1},
}
SHAPE = {key: value for name in SHAPES if name in sys.argv for key, value in SHAPES[name].items()}
TENSOR = next((int(option.removeprefix("tensor=")) for option in sys.argv if option.startswith("tensor=")), 1)
TARGETS = (*EVERY_TARGET, "lm_head") if "llama" in sys.argv else EVERY_TARGET
LORA = LoRAConfig(rank=4, targets=TARGETS) if "lora" in sys.argv else None


def fine_tuned(directory: Path, optimizer: OptimizerConfig) -> tuple[CausalLM | None, Metrics]:
    sequences = [tokens(n, seed=n).tolist() for n in range(5, 29)] * 3
    config = SFTConfig(
        epochs=1,
        rows_per_step=12,
        rows_at_once=3,
        row_length=32,
        precision="float32",
        optimizer=optimizer,
        recompute="recompute" in sys.argv,
        lora=LORA,
    )
    model = causal(**SHAPE).train()
    return sft(config, model, pack(sequences, 32), directory=directory, seed=0, tensor_parallel=TENSOR)


def reward_model(directory: Path, optimizer: OptimizerConfig) -> tuple[ScalarModel | None, Metrics]:
    rankings = []
    for i in range(40):  # prompts, answers and their number differ in length
        prompt, answers = tokens(3 + i % 7, seed=i).tolist(), 2 + i % 3
        sequences = [prompt + tokens(2 + j + i % 5, seed=100 * i + j).tolist() for j in range(answers)]
        rankings.append(EncodedRanking(sequences, [(i, j) for j in range(answers) for i in range(j)]))
    config = RewardConfig(rankings_per_step=12, row_length=32, precision="float32", optimizer=optimizer, lora=LORA)
    return train_reward(config, causal(**SHAPE).train(), rankings, directory=directory, seed=0, tensor_parallel=TENSOR)


def rankings() -> list[EncodedPreferences]:
    found = []
    for i in range(40):  # prompts, answers and their number differ in length
        prompt, answers = tokens(3 + i % 7, seed=i).tolist(), 2 + i % 3
        encoded = [
            PromptedAnswer(prompt + tokens(2 + j + i % 5, seed=100 * i + j).tolist(), len(prompt))
            for j in range(answers)
        ]
        found.append(EncodedPreferences(encoded, [(i, j) for i in range(answers) for j in range(i)]))
    return found


def preferring(directory: Path, optimizer: OptimizerConfig) -> tuple[CausalLM | None, Metrics]:
    config = DPOConfig(
        rankings_per_step=12,
        rankings_at_once=5,
        row_length=32,
        precision="float32",
        optimizer=optimizer,
        recompute="recompute" in sys.argv,
        lora=LORA,
    )
    return dpo(
        config,
        causal(**SHAPE).train(),
        rankings(),
        directory=directory,
        seed=0,
        held_out=rankings()[:3],
        tensor_parallel=TENSOR,
    )


def by_thumbs(directory: Path, optimizer: OptimizerConfig) -> tuple[CausalLM | None, Metrics]:
    config = KTOConfig(
        desirable_weight=6.0,  # gradients that are clipped
        undesirable_weight=4.0,
        prompts_per_step=12,
        prompts_at_once=5,
        row_length=32,
        precision="float32",
        optimizer=optimizer,
        recompute="recompute" in sys.argv,
        lora=LORA,
    )
    groups = [LabelledAnswers(one.answers, [i % 2 > 0 for i, _ in enumerate(one.answers)]) for one in rankings()]
    return kto(config, causal(**SHAPE).train(), groups, directory=directory, seed=0, tensor_parallel=TENSOR)


def main() -> None:
    directory, steps, output = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    optimizer = OptimizerConfig(
        learning_rate=5e-3, matrices="muon" if "muon" in sys.argv else "adamw", warmup=0, decay=0
    )
    Loop.__init__.__kwdefaults__["save_seconds"] = -1.0
    with (
        processes() as ranks,
        patch.object(SFTConfig, "steps", lambda *_: steps),  # how far this time
        patch.object(RewardConfig, "steps", lambda *_: steps),
        patch.object(DPOConfig, "steps", lambda *_: steps),
        patch.object(KTOConfig, "steps", lambda *_: steps),
    ):
        stages = {"reward": reward_model, "dpo": preferring, "kto": by_thumbs}
        stage = next((made for name, made in stages.items() if name in sys.argv), fine_tuned)
        model, metrics = stage(directory, optimizer)
        assert (model is not None) == ranks.first
        if model is not None:
            tensors = {name: p.detach().clone() for name, p in model.named_parameters()}
            save_file(tensors, output, metadata={"loss": str(metrics["loss"])})
    names = {path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")}
    assert not any("gloo" in name for name in names), names  # they end with the process group, before Python does


if __name__ == "__main__":
    main()
