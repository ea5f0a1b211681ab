"""A stage in several processes that Ray Train starts, on this machine or on a cluster ($RAY_ADDRESS).

Ray starts them, and starts them all again when one dies; what they do is what `torchrun` has them do, and the stage
goes on from its last save in the run's directory, which all machines must see.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from chatwheel.atomic import write_atomically
from chatwheel.errors import ChatwheelError, InputError
from chatwheel.training.distributed import TIMEOUT, ranks

RESTARTS = 10  # after so many deaths something else is wrong


def run_in_ray(work: Callable[[], None], workers: int, directory: Path) -> None:
    """Calls `work` in so many processes, which have joined each other as under torchrun, until it has returned in all.

    work: importable by name, with what it is given. directory: for what Ray notes; it is removed at the end.
    Raises the ChatwheelError that one of them did, and one if processes die too often or Ray is not installed.
    """
    with ray_joined(workers):
        _train(work, workers, directory)


@contextmanager
def ray_joined(workers: int) -> Iterator[None]:
    """Joins the cluster at $RAY_ADDRESS, or an instance of its own with so many processors, and leaves it. Raises
    InputError where that can't be."""
    if os.environ.get("CHATWHEEL_DEVICE") == "cuda":
        raise InputError("--ray trains on processors only; unset CHATWHEEL_DEVICE, or start with torchrun")
    if importlib.util.find_spec("ray") is None:
        raise InputError("--ray: Ray is not installed; pip install 'chatwheel[ray]'")
    # Nobody is told who uses it; the engine of Ray Train that later versions have anyway.
    ours = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_TRAIN_V2_ENABLED": "1"}
    if not os.environ.get("RAY_ADDRESS"):
        # A key for this run alone; else Ray keeps one in the home directory.
        ours |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        ours["RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"] = "0"  # nobody takes this machine away
    for name, value in ours.items():
        os.environ.setdefault(name, value)
    import ray

    quiet = ray.LoggingConfig(log_level="ERROR")  # without a dashboard it warns every second that there is none
    with tempfile.TemporaryDirectory(
        prefix="chatwheel-ray-", dir=_short_place(), ignore_cleanup_errors=True
    ) as temporary:
        try:
            if os.environ.get("RAY_ADDRESS"):
                ray.init(logging_config=quiet)
            else:
                ray.init(
                    num_cpus=workers,
                    include_dashboard=False,
                    logging_config=quiet,
                    _node_ip_address="127.0.0.1",
                    _temp_dir=temporary,
                )
            yield
        finally:
            ray.shutdown()


def _train(work: Callable[[], None], workers: int, directory: Path) -> None:
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchConfig, TorchTrainer

    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    refused = directory / "refused"
    try:
        TorchTrainer(
            partial(_guarded, work, refused),
            torch_config=TorchConfig(backend="gloo", timeout_s=int(TIMEOUT.total_seconds())),
            scaling_config=ScalingConfig(num_workers=workers),
            run_config=RunConfig(
                name="run", storage_path=str(directory), failure_config=FailureConfig(max_failures=RESTARTS)
            ),
        ).fit()
        if refused.is_file():
            raise ChatwheelError(refused.read_text(encoding="utf-8"))
    except TrainingFailedError as error:
        raise ChatwheelError(
            f"Ray's workers died {RESTARTS + 1} times, at last with: {str(error).strip().splitlines()[-1]}; "
            "run the same command again, and the stage goes on from its last save"
        ) from error
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _short_place() -> str | None:
    """Where Ray's sockets can be: with the names that it adds, a path may have 103 letters on macOS, 107 on Linux."""
    return "/tmp" if len(tempfile.gettempdir()) > 16 and os.access("/tmp", os.W_OK) else None


def _guarded(work: Callable[[], None], refused: Path) -> None:
    """Ray starts the work again whatever it raises: what the user must mend is noted, and the next ones do nothing."""
    if refused.is_file():
        return
    try:
        work()
    except ChatwheelError as error:
        if ranks().first:
            write_atomically(refused, [error.message.encode()])
        elif not refused.is_file():
            write_atomically(refused, [f"process {ranks().rank}: {error.message}".encode()])
        raise
