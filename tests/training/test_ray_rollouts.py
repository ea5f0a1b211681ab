"""Ray's actors sample for a learner: the same weights as with processes of this machine, whoever dies on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from chatwheel.engine.requests import Completion
from chatwheel.errors import ChatwheelError, InputError
from chatwheel.jobs.ray_workers import ray_joined
from chatwheel.model.checkpoint import save_model
from chatwheel.training.policy_gradient import run
from chatwheel.training.ray_rollout_workers import RayRolloutWorkers
from chatwheel.training.rollout_workers import Assignment, weights_of
from tests.tiny import causal, tokenizer
from tests.training.test_asynchronous import (
    PROMPTS,
    ROOT,
    Judge,
    blueprint,
    grpo_objective,
    learnt,
    same,
    without_times,
)

pytestmark = pytest.mark.slow  # Ray's own start takes most of it


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """Before this process joins Ray."""
    directory = tmp_path_factory.mktemp("local")
    return learnt(directory, {"staleness": 1, "workers": 2}), without_times(directory)


@pytest.fixture(scope="module")
def cluster(local: Any) -> Iterator[None]:  # noqa: ARG001
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("RAY_")]:
            patch.delenv(name)
        before = dict(os.environ)
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "src"), str(ROOT)]))
        with ray_joined(2):
            yield
        for name in set(os.environ) - set(before) - {"PYTHONPATH"}:
            del os.environ[name]


def test_the_command_learns_and_has_others_sample(tmp_path: Path) -> None:
    """With two of Ray's actors as with one process."""
    save_model(tmp_path / "base", causal(), tokenizer(), {})
    turns = [[("user", f"Hi {i}"), ("assistant", "Hello!")] for i in range(12)]
    said = [{"messages": [{"role": role, "content": text} for role, text in dialogue]} for dialogue in turns]
    (tmp_path / "said.jsonl").write_text("\n".join(map(json.dumps, said)))
    (tmp_path / "judge.py").write_text("def long(prompts, answers):\n    return [len(a) for a in answers]\n")
    (tmp_path / "own.yaml").write_text(f"""
name: own
model: {tmp_path}/base
data: {{kind: files, demonstrations: [{{path: said.jsonl}}]}}
grpo:
  {{rollouts: 3, prompts_per_rollout: 2, samples_per_prompt: 2, max_tokens: 8, row_length: 64, precision: float32,
   rewards: [{{function: '{tmp_path}/judge.py:long'}}]}}
""")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), str(ROOT)])

    def outcome(home: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "chatwheel", "train", "grpo", "-r", str(tmp_path / "own.yaml")]
        command += ["--home", str(tmp_path / home), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    refused = outcome("ray", "--ray", "--workers", "2")
    assert refused.returncode == 2
    assert "grpo learns in one process; with grpo.asynchronous='{staleness: 1}'" in refused.stderr
    ahead = "grpo.asynchronous={staleness: 1}"
    for home, options in (("ray", ["--ray", "--workers", "2"]), ("here", [])):
        done = outcome(home, *options, ahead)
        assert done.returncode == 0, done.stderr
    weights = [(tmp_path / home / "models/own/grpo/model.safetensors").read_bytes() for home in ("ray", "here")]
    assert weights[0] == weights[1]
    assert not (tmp_path / "here/runs/own/grpo/ahead").exists()


def actors() -> list[int]:
    """Processes of this cluster that sample."""
    return [p.pid for p in psutil.Process().children(recursive=True) if "_Actor" in " ".join(p.cmdline())]


@pytest.mark.usefixtures("cluster")
def test_two_actors_sample_what_two_processes_do_and_one_is_killed(tmp_path: Path, local: Any) -> None:
    killed: list[int] = []

    class Killing(Judge):
        def __call__(self, questions: Any, answers: Sequence[Completion]) -> Any:
            if len(self.rollouts) == 1:
                found = actors()
                assert len(found) == 2
                killed.append(found[0])
                os.kill(found[0], signal.SIGKILL)
            return super().__call__(questions, answers)

    objective = grpo_objective(tmp_path, {"staleness": 1, "workers": 2}, Killing())
    run(objective, directory=tmp_path)
    assert killed
    weights, rows = local
    assert same(list(objective.policy.model.parameters()), weights)
    assert without_times(tmp_path) == rows


@pytest.mark.usefixtures("cluster")
def test_errors_of_an_actor_are_a_line() -> None:
    with pytest.raises(InputError, match="3 workers are to sample, and the Ray cluster has 2 processors"):
        RayRolloutWorkers(blueprint(), causal(), number=3, threads=1)
    model = causal()
    workers = RayRolloutWorkers(blueprint(), model, number=1, threads=1)
    good = Assignment(prompts=[q.ids for q in PROMPTS], seeds=range(len(PROMPTS)), max_tokens=5)
    held = workers.hold(weights_of(model, trained=True))
    (refused,) = workers.answer(held, [replace(good, prompts=[(1, 9999)], seeds=[0])])
    with pytest.raises(ChatwheelError, match=r"^a process that samples failed: the prompt has a token"):
        refused.result()
    (well,) = workers.answer(held, [good])
    assert len(well.result().completions) == len(PROMPTS)
    workers.close()
