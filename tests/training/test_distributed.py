"""Two processes train as one does, and a run goes on in another number of them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import psutil
import pytest
import torch
from safetensors.torch import load_file

from chatwheel.model.checkpoint import save_model
from chatwheel.training.loop import read_metrics
from tests.tiny import causal, tokenizer

# Minutes of starting processes.
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
WORKER = Path(__file__).with_name("distributed_worker.py")


def command(processes: int, *arguments: object) -> tuple[list[str], dict[str, str]]:
    """What starts them, and with which environment."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]), "OMP_NUM_THREADS": "1"}
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return [sys.executable, *(launcher if processes > 1 else []), *map(str, arguments)], environment


def start(processes: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    line, environment = command(processes, *arguments)
    return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=300, check=False)


def trained(processes: int, directory: Path, steps: int, output: Path, *options: str) -> dict[str, torch.Tensor]:
    outcome = start(processes, WORKER, directory, steps, output, *options)
    assert outcome.returncode == 0, outcome.stderr
    return load_file(output)


@pytest.mark.parametrize(
    ("processes", "options"),
    [
        (2, ["adamw"]),
        (3, ["muon"]),  # three cut no matrix evenly
        (2, ["muon", "lora"]),
        (2, ["muon", "reward"]),
        (2, ["muon", "dpo"]),
        (3, ["muon", "dpo", "lora"]),
        (2, ["muon", "kto", "recompute"]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else str(value),
)
def test_several_processes_are_one(processes: int, options: list[str], tmp_path: Path) -> None:
    one = trained(1, tmp_path / "one", 6, tmp_path / "one.safetensors", *options)
    many = trained(processes, tmp_path / "many", 6, tmp_path / "many.safetensors", *options)
    assert one.keys() == many.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(many[name], tensor, atol=1e-5, rtol=0)
    losses = [[row["loss"] for row in read_metrics(tmp_path / name)] for name in ("one", "many")]
    assert len(losses[0]) == len(losses[1]) == 6
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


@pytest.mark.parametrize("numbers", [(2, 1), (1, 2), (2, 4, 3)])
def test_a_run_goes_on_in_another_number_of_processes(numbers: tuple[int, ...], tmp_path: Path) -> None:
    straight = trained(1, tmp_path / "straight", 6, tmp_path / "straight.safetensors", "muon")
    state = tmp_path / "moved" / "state"
    for i, number in enumerate(numbers, start=1):
        moved = trained(number, tmp_path / "moved", 6 * i // len(numbers), tmp_path / "moved.safetensors", "muon")
        assert (state / "state.safetensors").is_file() == (number == 1)
        if number > 1:  # each has written its own shards, and no more
            sizes = [path.stat().st_size for path in state.glob("*.safetensors")]
            assert len(sizes) == number
            assert max(sizes) < 0.7 * sum(sizes)
    for name, tensor in straight.items():
        torch.testing.assert_close(moved[name], tensor, atol=1e-5, rtol=0)
    assert [row["step"] for row in read_metrics(tmp_path / "moved")] == list(range(6))


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("lost", ["shard-00001", "shard-00002"])
def test_a_save_whose_part_is_lost_is_refused(lost: str, processes: int, tmp_path: Path) -> None:
    trained(2, tmp_path / "run", 3, tmp_path / "run.safetensors", "muon")
    (shard,) = (tmp_path / "run/state").glob(f"{lost}*")
    shard.unlink()
    outcome = start(processes, WORKER, tmp_path / "run", 6, tmp_path / "run.safetensors", "muon")
    assert outcome.returncode != 0
    assert re.search(r"InputError: .*/run/state: damaged \(parts of \S+ are missing\); remove it", outcome.stderr)
    assert len(read_metrics(tmp_path / "run")) == 3


def test_killed_at_any_moment_a_run_of_two_goes_on(tmp_path: Path) -> None:
    straight = trained(2, tmp_path / "straight", 20, tmp_path / "straight.safetensors", "muon")
    line, environment = command(2, WORKER, tmp_path / "killed", 20, tmp_path / "killed.safetensors", "muon")
    random, steps = Random(0), []
    for _ in range(2):
        started = subprocess.Popen(line, env=environment, stderr=subprocess.DEVNULL)
        before = len(read_metrics(tmp_path / "killed"))
        while len(read_metrics(tmp_path / "killed")) < before + 4:  # it saves after every step
            assert started.poll() is None
            time.sleep(0.01)
        time.sleep(random.uniform(0, 0.1))
        for process in [*psutil.Process(started.pid).children(recursive=True), started]:
            process.send_signal(signal.SIGKILL)
        started.wait()
        steps.append(len(read_metrics(tmp_path / "killed")))
    assert steps == sorted(set(steps))
    killed = trained(2, tmp_path / "killed", 20, tmp_path / "killed.safetensors", "muon")
    for name, tensor in straight.items():
        torch.testing.assert_close(killed[name], tensor, atol=1e-5, rtol=0)
    assert [row["step"] for row in read_metrics(tmp_path / "killed")] == list(range(20))


def test_the_command_under_torchrun(tmp_path: Path) -> None:
    save_model(tmp_path / "base", causal(), tokenizer(), {})
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello there, how are you?"}]
    (tmp_path / "data.jsonl").write_text(
        "".join(json.dumps({"messages": [{**turns[0], "content": f"Hi {i}"}, turns[1]]}) + "\n" for i in range(60))
    )
    arguments = [
        *("-m", "chatwheel", "train", "sft", "--recipe", "qwen-lora", "--home", tmp_path / "home"),
        *(f"model={tmp_path / 'base'}", f"data={tmp_path / 'data.jsonl'}"),
        *("sft.row_length=64", "sft.precision=float32", "sft.lora.rank=2"),
    ]
    outcome = start(2, *arguments)
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stderr.count("Preparing data") == 1  # one of them speaks
    directory = tmp_path / "home/models/qwen-lora/sft"
    assert {"adapter_config.json", "adapter_model.safetensors"} <= {p.name for p in directory.iterdir()}
    again = start(1, *arguments)
    assert "done before" in again.stderr
    refused = start(2, *arguments, "name=other", "sft.rows_per_step=5")
    assert refused.returncode != 0
    assert refused.stderr.count("must be a multiple of the 2 processes") == 1  # the first process alone says it
    assert not (tmp_path / "home/runs/other/data").exists()
    missing = start(2, *arguments, "data=nothing.jsonl", "name=missing")
    assert missing.returncode != 0
    assert missing.stderr.count("no such file") == 1


ENDS = """
from chatwheel.errors import InputError
from chatwheel.training.distributed import processes, wait_for_all

with processes() as ranks:
    wait_for_all()
    if not ranks.first:
        raise {error}
    wait_for_all()
"""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("InputError('no tokens here; mount the disk')", "ChatwheelError: process 1: no tokens here; mount the disk"),
        ("RuntimeError('a bug')", "RuntimeError: a bug"),
    ],
    ids=["to be mended", "a bug"],
)
def test_what_ends_another_process_than_the_first_is_said(error: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "ends.py").write_text(ENDS.format(error=error))
    outcome = start(2, tmp_path / "ends.py")
    assert outcome.returncode != 0
    assert outcome.stderr.count(said) == 1


def test_no_resume_forgets_nothing_when_it_is_refused(tmp_path: Path) -> None:
    finished = tmp_path / "home/models/quickstart/ppo"
    finished.mkdir(parents=True)
    (finished / "config.json").write_text("{}")
    refused = start(
        2, "-m", "chatwheel", "train", "ppo", "-r", "quickstart", "--no-resume", "--home", tmp_path / "home"
    )
    assert refused.returncode != 0
    assert "runs in one process" in refused.stderr
    assert (finished / "config.json").is_file()


@pytest.mark.parametrize("more", [(), ("tensor_parallel=2", "model.num_heads=4", "model.num_kv_heads=2")])
def test_a_world_through_all_stages(more: tuple[str, ...], tmp_path: Path) -> None:
    small = (
        *("model.hidden_size=32", "model.num_layers=2", "pretrain.steps=6", "data.documents=300", "data.ppo_prompts=8"),
        *("data.demonstrations=300", "data.ranked_prompts=24", "data.examination=6", "sft.epochs=0.2", *more),
    )
    options = ("-r", "quickstart", "--home", tmp_path / "home", *small)
    for stage in ("pretrain", "sft", "reward"):
        outcome = start(2, "-m", "chatwheel", "train", stage, *options)
        assert outcome.returncode == 0, outcome.stderr
        assert "Warning" not in outcome.stderr
    models = tmp_path / "home/models/quickstart"
    assert {path.name for path in models.iterdir()} == {"base", "sft", "reward"}
    refused = start(2, "-m", "chatwheel", "train", "ppo", *options)
    assert refused.stderr.count("ppo runs in one process") == 1
