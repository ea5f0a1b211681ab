"""Curves for TensorBoard and Weights & Biases, beside the `metrics.jsonl` that every stage writes anyway."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from chatwheel.errors import InputError
from chatwheel.jobs.pipeline import Observer, Stage
from chatwheel.jobs.run import Run
from chatwheel.training.loop import PLACE, Progress, read_metrics

TRACKERS = {"tensorboard": "tensorboard", "wandb": "wandb"}
"""What `--track` may name, and the package that it needs."""


class Tracker(Protocol):
    """Takes the numbers of one stage."""

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """The numbers of a step, which counts from 0."""
        ...

    def close(self) -> None:
        """The stage has ended, or stopped."""
        ...


@contextmanager
def tracked(observer: Observer, run: Run, names: Sequence[str]) -> Iterator[Observer]:
    """The observer itself, or one that also writes to trackers; they are closed when the block ends, however it does.

    Raises InputError for a tracker that is unknown or not installed.
    """
    tracking = TrackingObserver(observer, run, names)
    try:
        yield tracking if names else observer
    finally:
        tracking.close()


class TrackingObserver:
    """An observer that also writes each step's numbers to trackers; a stage that goes on is written from where it does,
    so that no step is there twice."""

    def __init__(self, observer: Observer, run: Run, names: Sequence[str]) -> None:
        for name in names:
            if name not in TRACKERS:
                raise InputError(f"--track {name}: not known; choose {' or '.join(TRACKERS)}")
            if importlib.util.find_spec(TRACKERS[name]) is None:
                raise InputError(f"--track {name}: not installed; pip install 'chatwheel[{name}]'")
        self._observer, self._run, self._names = observer, run, tuple(names)
        self._open: list[Tracker] = []
        self._stage: Stage | None = None

    def begin(self, stage: Stage) -> None:
        """A stage starts, or goes on; its trackers are opened with its first step."""
        self._stage = stage
        self._observer.begin(stage)

    def progress(self, progress: Progress) -> None:
        """A training step is done."""
        step = progress.step - 1
        if not self._open and self._stage is not None:
            self._open = [self._opened(name, self._stage.name, step) for name in self._names]
        for tracker in self._open:
            tracker.log(step, progress.metrics)
        self._observer.progress(progress)

    def end(self, stage: Stage, result: dict[str, Any], *, skipped: bool) -> None:
        """A stage is finished."""
        self.close()
        self._observer.end(stage, result, skipped=skipped)

    def answers(self, model: str, pairs: Sequence[tuple[str, str]], result: dict[str, Any]) -> None:
        """What a new model says."""
        self._observer.answers(model, pairs, result)

    def close(self) -> None:
        """Ends what is open, also when a stage was interrupted."""
        for tracker in self._open:
            tracker.close()
        self._open = []

    def _opened(self, name: str, stage: str, first: int) -> Tracker:
        directory = self._run.stage(stage)
        if name == "tensorboard":
            return _TensorBoard(self._run.directory / "tensorboard" / stage, first)
        earlier = [row for row in read_metrics(directory) if row["step"] < first]
        return _WandB(self._run.recipe.name, stage, self._run.read_json("recipe.json"), directory, earlier)


class _TensorBoard:
    """`tensorboard --logdir ~/.chatwheel/runs/NAME/tensorboard`."""

    def __init__(self, directory: Path, first: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # What an interrupted run wrote beyond its last save is done again.
        self._writer: Any = SummaryWriter(str(directory), purge_step=first)

    def log(self, step: int, metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class _WandB:
    """A run of the project `chatwheel`, a group a recipe's run, a job type a stage."""

    def __init__(
        self, run: str, stage: str, recipe: dict[str, Any], directory: Path, earlier: Sequence[dict[str, float]]
    ) -> None:
        import wandb

        self._run: Any = wandb.init(
            project="chatwheel",
            group=run,
            name=f"{run}/{stage}",
            job_type=stage,
            config=recipe,
            dir=str(directory),
            settings=wandb.Settings(console="off"),  # the terminal has the progress bar
        )
        for row in earlier:  # a run that goes on is a new one there: it gets the steps before too
            self.log(int(row["step"]), {name: value for name, value in row.items() if name not in PLACE})

    def log(self, step: int, metrics: dict[str, float]) -> None:
        self._run.log(metrics, step=step)

    def close(self) -> None:
        self._run.finish()
