"""The loop: interrupted anywhere, it ends with the weights of an uninterrupted run, bit for bit."""

from __future__ import annotations

import errno
import itertools
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from chatwheel.data.packing import Packed, pack
from chatwheel.errors import InputError, StorageError
from chatwheel.model import checkpoint
from chatwheel.model.checkpoint import load_state
from chatwheel.training import loop as loop_module
from chatwheel.training.loop import Loop, Metrics, Progress, read_metrics
from chatwheel.training.next_token import NextTokenObjective
from chatwheel.training.optimizers import OptimizerConfig
from tests.tiny import causal, tokens

STEPS = 6
PACKED = pack([tokens(n, seed=n).tolist() for n in range(3, 24)], 24)


class PowerCutError(Exception):
    """Stands for whatever ends a process."""


class Lesson(NextTokenObjective):
    """Two micro-batches a step, a state of its own that the loss depends on, and an interruption if told so."""

    def __init__(self, model: Any, stop_at: int | None = None) -> None:
        super().__init__(model, PACKED, rows_per_step=4, rows_at_once=2, seed=11, dtype=torch.float32)
        self.stop_at, self.seen = stop_at, 1.0

    def batches(self, step: int) -> Sequence[tuple[Packed, int]]:
        self.seen = self.seen * 1.1
        return super().batches(step)

    def loss(self, batch: tuple[Packed, int]) -> tuple[Tensor, Metrics]:
        if self.stop_at is not None and self._calls == 2 * self.stop_at + 1:
            raise PowerCutError  # in the middle of a step, with half of its gradient there
        self._calls += 1
        loss, _ = super().loss(batch)
        return loss * self.seen, {"half": 0.5}

    _calls = 0

    def state(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def load_state(self, values: dict[str, Any]) -> None:
        self.seen = values["seen"]


def train(directory: Path, *, stop_after: int | None = None, save_seconds: float = -1.0, **options: Any) -> Any:
    """A process's life: fresh weights, then whatever is saved in the directory."""
    model = causal()
    loop = Loop(
        directory=directory,
        modules={"model": model},
        optimizer=OptimizerConfig(learning_rate=5e-3),
        steps=STEPS,
        save_seconds=save_seconds,
        **options,
    )
    last = loop.run(Lesson(model, stop_after))
    return model, last


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, list[dict[str, float]], Metrics]:
    directory = tmp_path_factory.mktemp("uninterrupted")
    model, last = train(directory)
    return model, read_metrics(directory), last


def same_weights(a: Any, b: Any) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def without_times(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{k: v for k, v in row.items() if k not in ("seconds", "tokens_per_second")} for row in rows]


@pytest.mark.parametrize("save_seconds", [-1.0, 1e9], ids=["saves each step", "saves at the end"])
@pytest.mark.parametrize("after", range(STEPS))
def test_a_run_interrupted_in_any_step_ends_the_same(
    after: int, save_seconds: float, tmp_path: Path, uninterrupted: Any
) -> None:
    with pytest.raises(PowerCutError):
        train(tmp_path, stop_after=after, save_seconds=save_seconds)
    with (tmp_path / "metrics.jsonl").open("a") as log:
        log.write('{"step": 5, "lo')  # the crash cut a line short
    resumed, last = train(tmp_path, save_seconds=save_seconds)
    expected, rows, expected_last = uninterrupted
    assert same_weights(resumed, expected)
    assert without_times(read_metrics(tmp_path)) == without_times(rows)
    assert [row["step"] for row in read_metrics(tmp_path)] == list(range(STEPS))
    assert without_times([last]) == without_times([expected_last])


def test_a_run_interrupted_again_and_again_ends_the_same(tmp_path: Path, uninterrupted: Any) -> None:
    for _ in range(STEPS - 1):
        with pytest.raises(PowerCutError):
            train(tmp_path, stop_after=1)  # one step a life
    resumed, _ = train(tmp_path)
    assert same_weights(resumed, uninterrupted[0])
    assert [row["step"] for row in read_metrics(tmp_path)] == list(range(STEPS))


def test_a_finished_run_is_not_run_again(tmp_path: Path, uninterrupted: Any) -> None:
    train(tmp_path)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    again, last = train(tmp_path, stop_after=0)
    assert same_weights(again, uninterrupted[0])
    assert (tmp_path / "metrics.jsonl").read_bytes() == before
    assert last["loss"] == uninterrupted[2]["loss"]  # its last numbers are known all the same


class Divergence(Lesson):
    def loss(self, batch: tuple[Packed, int]) -> tuple[Tensor, Metrics]:
        loss, metrics = super().loss(batch)
        return loss * float("nan" if self._calls > 4 else 1), metrics


def test_a_loss_that_is_no_number_ends_the_run_and_is_not_saved(tmp_path: Path) -> None:
    model = causal()
    loop = Loop(
        directory=tmp_path, modules={"model": model}, optimizer=OptimizerConfig(learning_rate=5e-3), steps=STEPS
    )
    loop.save_seconds = -1
    with pytest.raises(InputError, match=r"diverged at step 2 .*learning rate below 0\.005"):
        loop.run(Divergence(model))
    assert [row["step"] for row in read_metrics(tmp_path)] == [0, 1]
    saved = load_state(tmp_path / "state")
    assert saved is not None
    assert saved[1]["step"] == 2
    assert all(torch.isfinite(tensor).all() for tensor in saved[0].values())


def test_training_does_train(uninterrupted: Any) -> None:
    model, rows, last = uninterrupted
    assert not same_weights(model, causal())
    losses = [row["loss"] / 1.1 ** (i + 1) for i, row in enumerate(rows)]
    assert losses[-1] < losses[0]
    assert all(row["half"] == 1.0 for row in rows)  # summed over the two micro-batches
    assert last["gradient_norm"] > 0


@pytest.mark.parametrize("failing", ["save_file", "fsync"])
def test_a_save_that_fails_is_one_line_and_the_last_save_goes_on(
    failing: str, tmp_path: Path, uninterrupted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    calls = itertools.count()
    good = 3 if failing == "save_file" else 20

    def patched(real: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            if next(calls) >= good:
                raise full
            return real(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        if failing == "save_file":
            patch.setattr(checkpoint, "save_file", patched(save_file))
        else:
            patch.setattr(os, "fsync", patched(os.fsync))
        with pytest.raises(StorageError) as caught:
            train(tmp_path)
    assert "No space left" in caught.value.message
    assert len(caught.value.message.splitlines()) == 1
    saved = checkpoint.load_state(tmp_path / "state")
    assert saved is not None
    assert 0 < saved[1]["step"] < STEPS
    assert sorted(p.name for p in tmp_path.iterdir()) == ["metrics.jsonl", "state"]
    resumed, _ = train(tmp_path)
    assert same_weights(resumed, uninterrupted[0])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_log_that_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = loop_module._appending
    monkeypatch.setattr(loop_module, "_appending", lambda _: full(Path("/dev/full")))
    with pytest.raises(StorageError, match="make room and run the same command again"):
        train(tmp_path)


def test_saves_come_when_they_are_due(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    monkeypatch.setattr(Loop, "_save", lambda _, step, *__: steps.append(step))
    train(tmp_path / "often", save_seconds=-1)
    assert steps == [*range(1, STEPS + 1), STEPS]
    steps.clear()
    train(tmp_path / "seldom", save_seconds=1e9)
    assert steps == [STEPS]


def test_progress_is_told(tmp_path: Path) -> None:
    seen: list[Progress] = []
    train(tmp_path, on_progress=seen.append)
    assert [p.step for p in seen] == list(range(1, STEPS + 1))
    assert {p.steps for p in seen} == {STEPS}
    assert seen[-1].remaining == 0
    assert all(p.tokens_per_second > 0 for p in seen)


class Picky(Lesson):
    """Saves at even steps only, skips the update of step 2, and has enough after four."""

    def batches(self, step: int) -> Sequence[tuple[Packed, int]]:
        return [] if step == 2 else super().batches(step)

    def may_save(self, step: int) -> bool:
        return step % 2 == 0

    def finished(self, step: int) -> bool:
        return step >= 4


def test_an_objective_may_skip_a_step_forbid_a_save_and_stop_early(tmp_path: Path) -> None:
    model = causal()
    before = [p.clone() for p in model.parameters()]
    loop = Loop(
        directory=tmp_path,
        modules={"model": model},
        optimizer=OptimizerConfig(),
        steps=STEPS,
        save_seconds=-1,
    )
    saves: list[int] = []
    save = loop._save
    loop._save = lambda step, *rest: (saves.append(step), save(step, *rest))[1]  # type: ignore[method-assign,assignment]
    loop.run(Picky(model))
    assert saves == [2, 4, 4]
    rows = read_metrics(tmp_path)
    assert [row["step"] for row in rows] == [0, 1, 2, 3]
    assert "loss" not in rows[2]
    assert "gradient_norm" not in rows[2]
    assert not all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_metrics_are_json_lines_that_others_can_read(tmp_path: Path) -> None:
    train(tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows == read_metrics(tmp_path)
    assert all({"step", "loss", "learning_rate", "gradient_norm", "seconds"} <= row.keys() for row in rows)
    assert read_metrics(tmp_path / "nowhere") == []
