"""Ray starts the processes of a stage, and starts them again when one dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from chatwheel.jobs.recipe import Recipe
from chatwheel.jobs.run import STARTING, Run
from chatwheel.model.checkpoint import save_model
from chatwheel.settings import Settings
from chatwheel.training.loop import read_metrics
from tests.tiny import causal, tokenizer

pytestmark = pytest.mark.slow  # a minute each, most of it Ray's own start

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
    "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
    "OMP_NUM_THREADS": "1",
}
COMMAND = [sys.executable, "-m", "chatwheel", "train", "sft"]


def recipe_arguments(place: Path) -> list[str]:
    """A base model, conversations, and some 190 steps on them."""
    save_model(place / "base", causal(), tokenizer(), {})
    with (place / "data.jsonl").open("w") as file:
        for i in range(300):
            turns = [{"role": "user", "content": f"Hi {i}"}, {"role": "assistant", "content": f"Hello, {i * i}!"}]
            file.write(json.dumps({"messages": turns}) + "\n")
    settings = ("row_length=64", "precision=float32", "lora=null", "rows_per_step=4", "rows_at_once=1", "epochs=12")
    return [f"model={place / 'base'}", f"data={place / 'data.jsonl'}", *(f"sft.{setting}" for setting in settings)]


def workers_of(command: psutil.Process) -> list[psutil.Process]:
    found = []
    for process in command.children(recursive=True):
        try:
            if "RayTrainWorker" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.mark.timeout(900)
def test_a_killed_worker_is_started_again_and_the_run_ends_by_itself(tmp_path: Path) -> None:
    arguments = recipe_arguments(tmp_path)
    straight = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
            *("-m", "chatwheel", "train", "sft", "-r", "qwen-lora", "--home", str(tmp_path / "straight"), *arguments),
        ],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert straight.returncode == 0, straight.stderr

    stage = tmp_path / "home" / "runs" / "qwen-lora" / "sft"
    script = Path(__file__).with_name("ray_start.py")
    command = [sys.executable, str(script), "qwen-lora", str(tmp_path / "home"), *arguments]
    with (tmp_path / "log").open("w") as log:
        started = subprocess.Popen(command, env=ENVIRONMENT, stdout=log, stderr=log)
        while not (stage / "state" / "state.json").is_file():
            assert started.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.05)
        saved = json.loads((stage / "state" / "state.json").read_text())["step"]
        workers = workers_of(psutil.Process(started.pid))
        assert len(workers) == 2
        workers[-1].send_signal(signal.SIGKILL)
        before = read_metrics(stage)
        assert started.wait(600) == 0, (tmp_path / "log").read_text()

    after = read_metrics(stage)
    assert [row["step"] for row in after] == list(range(len(after)))
    assert 0 < saved < len(after)
    assert after[:saved] == before[:saved]  # with their seconds: they were not done again
    assert after[-1]["seconds"] != before[-1]["seconds"]
    weights = [load_file(tmp_path / home / "models/qwen-lora/sft/model.safetensors") for home in ("straight", "home")]
    assert weights[0].keys() == weights[1].keys()
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, atol=1e-5, rtol=0)
    assert not (stage.parent / "ray").exists()


def test_the_command_and_what_it_refuses(tmp_path: Path) -> None:
    arguments = [*recipe_arguments(tmp_path), "sft.epochs=1"]
    home = ["-r", "qwen-lora", "--home", str(tmp_path / "home")]

    # A directory for temporary files whose name is too long for Ray's sockets.
    environment = {**ENVIRONMENT, "TMPDIR": str(tmp_path)}

    def outcome(*options: str) -> subprocess.CompletedProcess[str]:
        command = [*COMMAND, *options, *home, *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    refused = outcome("--workers", "2")
    assert refused.returncode == 2
    assert "--workers is for --ray" in refused.stderr
    refused = outcome("--ray", "--workers", "3")  # 4 rows a step; before Ray is started
    assert refused.returncode == 2
    assert refused.stderr.strip().endswith("sft.rows_per_step (4) must be a multiple of the 3 processes")
    recipe = Recipe.load(Path("qwen-lora"), arguments)
    with Run.open(recipe, Settings.load(tmp_path / "home")).locked(name=STARTING):
        refused = outcome("--ray", "--workers", "2")  # as long as the other's processes have not begun, too
    assert refused.returncode == 2
    assert "another process works on this run" in refused.stderr
    done = outcome("--ray", "--workers", "2")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "home/models/qwen-lora/sft/model.safetensors").is_file()


def test_an_error_of_another_process_than_the_first_ends_the_run(tmp_path: Path) -> None:
    call = f"run_in_ray(partial(second_refuses, Path({str(tmp_path)!r})), 2, Path({str(tmp_path / 'ray')!r}))"
    lines = (
        "from functools import partial",
        "from pathlib import Path",
        "from chatwheel.jobs.ray_workers import run_in_ray",
        "from tests.training.ray_start import second_refuses",
        call,
    )
    command = [sys.executable, "-c", "\n".join(lines)]
    outcome = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert outcome.stderr.strip().endswith("ChatwheelError: process 1: no tokens here; mount the disk")
    assert sorted((tmp_path / "starts").read_text().split()) == ["0", "1"]  # it was not tried again


def test_an_error_in_a_worker_is_one_line(tmp_path: Path) -> None:
    arguments = [*recipe_arguments(tmp_path), "sft.optimizer.learning_rate=1e30", "sft.optimizer.matrices=adamw"]
    command = [*COMMAND, "--ray", "--workers", "2", "-r", "qwen-lora", "--home", str(tmp_path / "home"), *arguments]
    outcome = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert outcome.returncode == 2
    assert "training diverged at step" in outcome.stderr.strip().splitlines()[-1]
