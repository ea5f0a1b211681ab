"""A recipe whose stages take a few seconds together, and a run of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

RECIPE = """\
name: tiny
seed: 3
data:
  {kind: world, documents: 150, primer: 30, demonstrations: 120, ranked_prompts: 40, ppo_prompts: 40, examination: 24}
tokenizer: {vocab_size: 600}
model:
  hidden_size: 32
  num_layers: 2
  num_heads: 2
  num_kv_heads: 1
  head_dim: 16
  intermediate_size: 64
  max_positions: 512
pretrain: {steps: 12, primer: 0.25, rows_per_step: 4, row_length: 64, precision: float32}
sft: {epochs: 1, rows_per_step: 3, row_length: 256, precision: float32}
ranking: {answers: 3, reference: true, max_tokens: 12}
reward: {epochs: 1, rankings_per_step: 6, row_length: 256, precision: float32}
ppo:
  rollouts: 4
  prompts_per_rollout: 6
  max_tokens: 12
  row_length: 256
  precision: float32
grpo: {rollouts: 2, prompts_per_rollout: 2, samples_per_prompt: 3, max_tokens: 12, precision: float32}
rloo: {rollouts: 2, prompts_per_rollout: 3, samples_per_prompt: 2, max_tokens: 12, precision: float32}
best_of_n: {rollouts: 2, prompts_per_rollout: 3, samples_per_prompt: 2, max_tokens: 12, precision: float32}
dpo: {epochs: 1, rankings_per_step: 6, rankings_at_once: 4, row_length: 256, precision: float32}
kto: {epochs: 1, prompts_per_step: 6, prompts_at_once: 4, row_length: 256, precision: float32}
"""
MODELS = ("base", "sft", "reward", "ppo", "grpo", "rloo", "best_of_n", "dpo", "kto")
TRAINED = ("pretrain", "sft", "reward", "ppo", "grpo", "rloo", "best_of_n", "dpo", "kto")


def write_recipe(directory: Path) -> Path:
    """The recipe as a file."""
    path = directory / "tiny.yaml"
    path.write_text(RECIPE)
    return path


def chatwheel(
    *arguments: object, home: Path | None = None, before: str = "", **options: object
) -> subprocess.Popen[str]:
    """Starts the command as its entry point does; `before` is Python that runs first."""
    script = f"{before}\nfrom chatwheel.cli.app import main\nmain()"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", "NO_COLOR": "1"}
    environment.pop("CHATWHEEL_HOME", None)
    if home is not None:
        environment["CHATWHEEL_HOME"] = str(home)
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,  # type: ignore[call-overload]
    )


def finish(process: subprocess.Popen[str], timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Waits for it."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def run(arguments: Sequence[object], home: Path | None = None) -> subprocess.CompletedProcess[str]:
    """One command from begin to end."""
    return finish(chatwheel(*arguments, home=home))
