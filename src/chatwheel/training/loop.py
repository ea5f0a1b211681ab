"""The loop: accumulate, clip, step, log, save, resume. It exists once; a stage gives it batches and a loss.

A run's directory holds `metrics.jsonl` (one line a step) and `state/` (weights, optimizer, the objective's own
state). Data and randomness depend on (seed, step) alone, so a resumed run repeats an uninterrupted one bit for bit.
"""

from __future__ import annotations

import errno
import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from io import FileIO
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from chatwheel.atomic import write_atomically
from chatwheel.errors import DivergedError, StorageError
from chatwheel.training import states
from chatwheel.training.distributed import agreed, mean, ranks, wait_for_all
from chatwheel.training.optimizers import OptimizerConfig, Optimizers
from chatwheel.training.samples import SampleLog, Sampler

BatchT = TypeVar("BatchT")
PLACE = frozenset({"step", "steps"})
"""What a line of metrics says of its place in the run: the step, which counts from 0, and of how many."""
Metrics = dict[str, float]


class Objective(Protocol[BatchT]):
    """What a stage is to the loop."""

    def batches(self, step: int) -> Sequence[BatchT]:
        """The micro-batches of a step; none skips the update. May depend on the step, the seed and `state` only."""
        ...

    def loss(self, batch: BatchT) -> tuple[Tensor, Metrics]:
        """A micro-batch's share of the step's loss (they are summed), and numbers to log (also summed)."""
        ...

    def metrics(self, step: int) -> Metrics:
        """Further numbers to log after a step: rollouts, held-out loss."""
        ...

    def tokens(self, step: int) -> int:
        """How many tokens the step went through, for tokens/s."""
        ...

    def flops(self, step: int) -> float:
        """What the step's model computed, see `throughput`; 0 if it is not known."""
        ...

    def may_save(self, step: int) -> bool:
        """Whether a run can resume before this step (PPO: only between rollouts)."""
        ...

    def finished(self, step: int) -> bool:
        """Whether to stop early, before this step."""
        ...

    def state(self) -> dict[str, Any]:
        """JSON values that `batches` depends on."""
        ...

    def load_state(self, values: dict[str, Any]) -> None:
        """Restores what `state` gave."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """What else is saved with the weights; a save is restored in place."""
        ...


class PlainObjective(Generic[BatchT]):
    """The answers of a stage that needs nothing special."""

    def metrics(self, step: int) -> Metrics:  # noqa: ARG002
        return {}

    def flops(self, step: int) -> float:  # noqa: ARG002
        return 0.0

    def may_save(self, step: int) -> bool:  # noqa: ARG002
        return True

    def finished(self, step: int) -> bool:  # noqa: ARG002
        return False

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, values: dict[str, Any]) -> None:
        pass

    def tensors(self) -> dict[str, Tensor]:
        return {}


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run is: for the progress bar. remaining: seconds, estimated."""

    step: int
    steps: int
    metrics: Metrics
    tokens_per_second: float
    remaining: float


OnProgress = Callable[[Progress], None]


def part_of(on_progress: OnProgress, part: int, parts: int) -> OnProgress:
    """For one of several equal trainings, one after the other, which are watched as a whole."""
    if parts == 1:
        return on_progress

    def told(progress: Progress) -> None:
        pace = progress.remaining / max(1, progress.steps - progress.step)
        rest = progress.remaining + (parts - 1 - part) * progress.steps * pace
        step, steps = progress.step + part * progress.steps, parts * progress.steps
        on_progress(replace(progress, step=step, steps=steps, remaining=rest))

    return told


@dataclass(kw_only=True)
class Loop:
    """One run of one stage. modules: what is trained, by name. seed: of dropout. save_seconds: after so long it saves,
    where the objective permits. peak: FLOP/s of a process, for the share of it that training reaches. sampler: asked
    now and then, see `SampleLog`."""

    directory: Path
    modules: Mapping[str, nn.Module]
    optimizer: OptimizerConfig
    steps: int
    seed: int = 0
    save_seconds: float = 20.0
    peak: float = 0.0
    sampler: Sampler | None = None
    on_progress: OnProgress = field(default=lambda _: None)

    def run(self, objective: Objective[Any]) -> Metrics:
        """Trains to the end, from the last save if there is one; returns the last step's metrics."""
        optimizers = Optimizers(list(self.modules.values()), self.optimizer)
        step, saved = self._resume(objective, optimizers), time.monotonic()
        metrics_path = self.directory / "metrics.jsonl"
        first = ranks().first
        last = _keep_steps_before(metrics_path, step) if first else {}
        samples = SampleLog(self.directory / "samples.jsonl", self.sampler if first else None, self.steps)
        samples.keep_until(step)
        wait_for_all()
        started, first_step = time.monotonic(), step
        with _appending(metrics_path) if first else nullcontext() as log:
            while step < self.steps and not objective.finished(step):
                began = time.monotonic()
                last = self._step(step, objective, optimizers)
                seconds = time.monotonic() - began
                last |= {"tokens_per_second": objective.tokens(step) / seconds, "seconds": seconds}
                if self.peak and (flops := objective.flops(step)):
                    last["share_of_peak"] = flops / seconds / (self.peak * ranks().size)
                if log is not None:
                    _write_line(log, {"step": step, "steps": self.steps, **last})
                step += 1
                pace = (time.monotonic() - started) / (step - first_step)
                self.on_progress(
                    Progress(
                        step=step,
                        steps=self.steps,
                        metrics=last,
                        tokens_per_second=last["tokens_per_second"],
                        remaining=pace * (self.steps - step),
                    )
                )
                samples.after(step, time.monotonic() - started)
                if objective.may_save(step) and agreed(time.monotonic() - saved > self.save_seconds):
                    self._save(step, objective, optimizers)
                    saved = time.monotonic()
        self._save(step, objective, optimizers)
        return last

    def _step(self, step: int, objective: Objective[Any], optimizers: Optimizers) -> Metrics:
        # Dropout draws from the global generator: a resumed run must find it as an uninterrupted one does.
        torch.manual_seed(int(np.random.SeedSequence((self.seed, step, ranks().rank)).generate_state(1)[0]))
        metrics: Metrics = {}
        batches = objective.batches(step)
        for batch in batches:
            loss, extra = objective.loss(batch)
            loss.backward()  # type: ignore[no-untyped-call]
            metrics["loss"] = metrics.get("loss", 0.0) + float(loss.detach())
            del loss  # with its graph, before the next one's: what is left of it would lie in the way of tensors
            for name, value in extra.items():
                metrics[name] = metrics.get(name, 0.0) + value
        metrics = {name: mean(value) for name, value in metrics.items()}
        rate = optimizers.learning_rate(step, self.steps)
        if batches:
            metrics |= {"gradient_norm": optimizers.step(rate), "learning_rate": rate}
            if not math.isfinite(metrics["loss"]) or not math.isfinite(metrics["gradient_norm"]):
                raise DivergedError(
                    f"{self.directory}: training diverged at step {step} (loss {metrics['loss']}, "
                    f"gradient norm {metrics['gradient_norm']}); begin again with a learning rate below "
                    f"{self.optimizer.learning_rate:g}"
                )
        return {**metrics, **objective.metrics(step)}

    def _save(self, step: int, objective: Objective[Any], optimizers: Optimizers) -> None:
        tensors = {name: kept.detach().contiguous() for name, kept in self._kept(objective).items()}
        values = {"step": step, "objective": objective.state()}
        states.save(self.directory / "state", tensors | optimizers.state(), values)

    def _resume(self, objective: Objective[Any], optimizers: Optimizers) -> int:
        self.directory.mkdir(parents=True, exist_ok=True)
        kept = self._kept(objective)
        saved = states.load(
            self.directory / "state", lambda name: kept[name] if name in kept else optimizers.parameter(name)
        )
        if saved is None:
            return 0
        tensors, values = saved
        with torch.no_grad():
            for name, tensor in kept.items():
                tensor.copy_(tensors[name])
        optimizers.load_state(tensors)
        objective.load_state(values["objective"])
        return int(values["step"])

    def _kept(self, objective: Objective[Any]) -> dict[str, Tensor]:
        """What is trained, and what the objective keeps, as a save names it."""
        weights = {
            f"weights.{name}.{key}": parameter
            for name, module in self.modules.items()
            for key, parameter in _trained(module)
        }
        return weights | {f"objective.{name}": tensor for name, tensor in objective.tensors().items()}


def _trained(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """What changes, each parameter once: of a model with an adapter, the adapter."""
    return [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]


def read_metrics(directory: Path) -> list[dict[str, float]]:
    """The lines of a run's `metrics.jsonl`; a last line that a crash cut short is left out."""
    path = directory / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    rows = []
    for line in lines:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def _keep_steps_before(path: Path, step: int) -> Metrics:
    """Takes out the steps that will be done again; the metrics of the last one that stays."""
    rows = [row for row in read_metrics(path.parent) if row["step"] < step]
    write_atomically(path, (json.dumps(row).encode() + b"\n" for row in rows))
    return {name: value for name, value in rows[-1].items() if name not in PLACE} if rows else {}


def _appending(path: Path) -> FileIO:
    # Without a buffer: what could not be written must not be tried again when the file is closed.
    return path.open("ab", buffering=0)


def _write_line(log: FileIO, row: dict[str, float]) -> None:
    line = json.dumps(row).encode() + b"\n"
    try:
        if log.write(line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        raise StorageError(
            f"{log.name}: could not write ({os.strerror(error.errno or 0)}); make room and run the same command again"
        ) from error
