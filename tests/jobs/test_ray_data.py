"""Data treated by Ray's tasks: the same bytes as in one process, whoever dies on the way."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from chatwheel.data.mixture import DocumentSource, FilesData
from chatwheel.data.preparation import FILES, prepare
from chatwheel.data.workers import Workers
from chatwheel.errors import ChatwheelError, InputError
from chatwheel.jobs.ray_data import RayWorkers, ray_processors

pytestmark = pytest.mark.slow  # Ray's own start takes most of it


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    import ray

    assert ray_processors() is None
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
    yield
    ray.shutdown()


@pytest.mark.usefixtures("cluster")
def test_files_are_the_same_as_in_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "texts.jsonl").open("w") as file:
        for i in range(900):
            text = f"Number {i // 2} is written {bin(i // 2)[2:]} by machines. " * (3 + i % 5)
            file.write(json.dumps({"text": text + f"Mail me{i}@example.com."}) + "\n")
    config = FilesData(
        root=tmp_path,
        documents=(DocumentSource(path=Path("texts.jsonl")),),
        near_duplicates=0.8,
        mask_personal_data=True,
    )
    counts = prepare(config, tmp_path / "one", 0, workers=Workers(1))
    assert counts["dropped.documents.texts.jsonl: near-duplicate"]
    monkeypatch.setattr("chatwheel.data.preparation.CHUNK", 5000)
    workers = ray_processors()
    assert workers is not None
    assert workers.number == 2
    assert prepare(config, tmp_path / "ray", 0, workers=workers) == counts
    for name in FILES:
        assert (tmp_path / "one" / f"{name}.jsonl").read_bytes() == (tmp_path / "ray" / f"{name}.jsonl").read_bytes()


def held(seconds: float) -> tuple[float, float]:
    """When it began and ended."""
    began = time.time()
    time.sleep(seconds)
    return began, time.time()


@pytest.mark.usefixtures("cluster")
def test_no_more_run_at_a_time_than_are_asked_for() -> None:
    with RayWorkers(2) as workers:
        times = list(workers.in_order(held, [0.5] * 8))
    assert max(sum(began <= at < ended for began, ended in times) for at, _ in times) <= 2


def test_a_task_that_ray_ended_for_want_of_memory_is_one_line() -> None:
    from ray.exceptions import OutOfMemoryError

    ended: Future[int] = Future()
    ended.set_exception(OutOfMemoryError("the node is low on memory"))
    with pytest.raises(ChatwheelError, match="was killed, perhaps for want of memory"):
        RayWorkers(2)._result(ended)


def dies_once(number: int, place: Path) -> int:
    if number == 3 and not (place / "died").exists():
        (place / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 9:
        raise InputError("nine is not taken", param="number")
    return 2 * number


class DiesOnce:
    """A function of one argument that goes to another process by its module's name."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __call__(self, number: int) -> int:
        return dies_once(number, self.place)


@pytest.mark.usefixtures("cluster")
def test_a_killed_task_is_done_again_and_errors_arrive_as_they_are(tmp_path: Path) -> None:
    with RayWorkers(2) as workers:
        assert list(workers.in_order(DiesOnce(tmp_path), range(8))) == [2 * i for i in range(8)]
        assert (tmp_path / "died").exists()
        with pytest.raises(InputError, match="nine is not taken") as error:
            list(workers.in_order(DiesOnce(tmp_path), range(12)))
        assert error.value.param == "number"
