"""The deployment page's sketch of workers as Ray tasks, run as it stands there (`chatwheel[ray-serve]`)."""

from __future__ import annotations

import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import select

from chatwheel.model.checkpoint import save_model
from chatwheel.settings import Settings
from chatwheel.store import accounts
from chatwheel.store.database import Database
from chatwheel.store.tables import InstanceRow
from tests.databases import new_database
from tests.jobs.fine_tuning.test_worker import MODEL, Shop, examples, wait_for
from tests.tiny import causal, tokenizer

PAGE = Path(__file__).parents[2] / "docs" / "deployment.md"
METHOD = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 12, "batch_size": 1}}}
STEPS = 12 * 24


@pytest.mark.slow
def test_a_task_that_is_killed_leaves_its_job_to_another(tmp_path: Path, postgresql_server: str) -> None:
    settings = Settings(home=tmp_path / "home", database_url=new_database(postgresql_server))
    save_model(settings.models / MODEL, causal(), tokenizer(), {"stage": "sft"})
    database = Database.open(settings.database_url)
    try:
        with database.write() as session:
            shop = Shop(settings, database, accounts.local_principal(session))
        training = shop.upload(examples())
        jobs = [shop.job(training, METHOD) for _ in range(3)]  # the same thrice: only one is disturbed
        code = _sketch(settings, tasks=2)
        with _cluster(2) as environment, _driver(code, tmp_path / "work.py", environment) as runs:
            wait_for(lambda: runs() and _steps(shop, jobs[0]) >= 20, 240)
            first = shop.row(jobs[0]).worker
            assert first is not None
            assert _steps(shop, jobs[0]) < STEPS
            os.kill(_process(shop, first), signal.SIGKILL)
            wait_for(lambda: runs() and all(shop.row(job).status == "succeeded" for job in jobs), 400)
            rows = [shop.row(job) for job in jobs]
            assert {row.error for row in rows} == {None}
            places = _places(shop)
            assert len(places) >= 3  # two tasks, and the one that Ray began in the killed one's place
            steps = [event.data["step"] for event in shop.events(jobs[0]) if event.type == "metrics"]
            assert steps == sorted(set(steps))
            assert steps[-1] == STEPS
            assert len({shop.weights(job) for job in jobs}) == 1
    finally:
        database.close()


def _sketch(settings: Settings, tasks: int) -> str:
    """The page's code, with this test's places, and tasks of one processor."""
    (code,) = (
        block for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL) if "ray.remote" in block
    )
    for said, here in {
        "/srv/chatwheel": str(settings.home),
        "postgresql://...": settings.database_url,
        "num_cpus=4": "num_cpus=1",
        "range(4)": f"range({tasks})",
    }.items():
        assert code.count(said) == 1, said
        code = code.replace(said, here)
    return code


@contextmanager
def _cluster(cpus: int) -> Iterator[dict[str, str]]:
    """`ray start --head`, as a process of its own; the environment of whoever works with it. Neither joins nor ends
    (`ray stop`) what else there may be of Ray on this machine."""
    port, clients = _free_port(), _free_port()
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as place:  # a short path, for sockets
        # Said, as whoever has a token in ~/.ray has a cluster that demands it, and drivers that do not send it.
        door = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}
        environment = {**os.environ, **door, "RAY_ADDRESS": f"127.0.0.1:{port}"}
        command = [
            "--head",
            "--block",
            f"--port={port}",
            f"--ray-client-server-port={clients}",
            f"--num-cpus={cpus}",
            f"--temp-dir={place}",
        ]
        started = [sys.executable, "-m", "ray.scripts.scripts", "start", *command]
        alone = {name: value for name, value in environment.items() if name != "RAY_ADDRESS"}
        with (Path(place) / "start.log").open("wb") as log:
            process = subprocess.Popen(
                [*started, "--include-dashboard=false"], env=alone, stdout=log, stderr=log, start_new_session=True
            )
        try:
            said = Path(place) / "start.log"
            wait_for(lambda: process.poll() is not None or "Ray runtime started" in said.read_text(), 120)
            assert process.poll() is None, said.read_text()
            yield environment
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            finally:
                process.kill()


@contextmanager
def _driver(code: str, file: Path, environment: Mapping[str, str]) -> Iterator[Callable[[], bool]]:
    """Runs the sketch until the block ends; gives what asserts that it still does."""
    file.write_text(code)
    log = file.with_suffix(".log")
    with log.open("wb") as out:
        process = subprocess.Popen([sys.executable, str(file)], env=environment, stdout=out, stderr=out)

    def runs() -> bool:
        assert process.poll() is None, log.read_text()
        return True

    try:
        yield runs
        assert runs()
    finally:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def _steps(shop: Shop, job: str) -> int:
    return max((event.data["step"] for event in shop.events(job) if event.type == "metrics"), default=0)


def _places(shop: Shop) -> dict[str, str]:
    """Where the workers run, by their ids."""
    with shop.database.read() as session:
        return {row.id: row.place for row in session.scalars(select(InstanceRow).where(InstanceRow.kind == "worker"))}


def _process(shop: Shop, worker: str) -> int:
    return int(_places(shop)[worker].rpartition(":")[2])
