"""Opening a model for a stage of a run."""

from __future__ import annotations

from pathlib import Path

from chatwheel.jobs.run import Run
from chatwheel.model.checkpoint import ModelT
from chatwheel.model.tokenizer import Tokenizer
from chatwheel.store.loading import open_model
from chatwheel.training.precision import training_device


def opened(run: Run, directory: Path, kind: type[ModelT]) -> tuple[ModelT, Tokenizer]:
    """A model where training computes, and its tokenizer on the run's day."""
    model, tokenizer = open_model(directory, kind)
    return model.to(training_device()), tokenizer.dated(run.day)
