"""Ray's actors sample for a learner: the same weights as with processes of this machine, whoever dies on the way."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from chatwheel.engine.requests import Completion
from chatwheel.errors import ChatwheelError, InputError
from chatwheel.jobs.ray_workers import ray_joined
from chatwheel.training.policy_gradient import run
from chatwheel.training.ray_rollout_workers import RayRolloutWorkers
from chatwheel.training.rollout_workers import Assignment, weights_of
from tests.tiny import causal
from tests.training.test_asynchronous import (
    PROMPTS,
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
        root = str(Path(__file__).parents[2])
        patch.setenv("PYTHONPATH", os.pathsep.join([f"{root}/src", root]))
        with ray_joined(2):
            yield
        for name in set(os.environ) - set(before) - {"PYTHONPATH"}:
            del os.environ[name]


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
