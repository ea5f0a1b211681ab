"""A first trained classifier: hashed n-grams (`features.py`), logistic regression, inference in NumPy.

One safetensors file: `weights` (labels, buckets) in float16, `bias` (labels,) in float32, and metadata with the labels,
their thresholds and the lineage.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from chatwheel.atomic import write_atomically
from chatwheel.errors import InputError
from chatwheel.safety.categories import CATEGORIES
from chatwheel.safety.features import BUCKETS, VERSION, Bags, bags

FILE = "moderation.safetensors"
CARD = "moderation.json"
SHIPPED = Path(__file__).with_name(FILE)

Array = NDArray[np.float32]
_MEND = "train it again (`chatwheel moderation train`), or remove it: the one that comes with Chatwheel is used then"


@dataclass(frozen=True)
class Classifier:
    """labels: the categories that it has learnt. thresholds: from which score on each counts as found. lineage: what it
    was trained on. weights (labels, buckets), bias (labels,): logits are bags times weights, plus bias. digest: of the
    file, eight digits."""

    labels: tuple[str, ...]
    thresholds: dict[str, float]
    lineage: dict[str, Any]
    weights: Array
    bias: Array
    digest: str = ""

    def scores(self, texts: Sequence[str]) -> Array:
        """Probabilities (texts, labels) of normalised texts, each by itself: neighbours change nothing."""
        return self.scores_of(bags(texts))

    def scores_of(self, found: Bags) -> Array:
        """The same, of texts that are hashed already."""
        logits = self.bias + np.add.reduceat(
            self.weights.T[found.buckets] * found.values[:, None], found.begins, dtype=np.float64
        )
        return np.asarray(1 / (1 + np.exp(-logits)), np.float32)

    def save(self, path: Path) -> Classifier:
        """Writes the file, whole or not at all; returns the classifier as it is read from there."""
        about = {"labels": self.labels, "thresholds": self.thresholds, "features": VERSION, "lineage": self.lineage}
        tensors: dict[str, NDArray[Any]] = {
            "weights": self.weights.astype(np.float16),
            "bias": self.bias.astype(np.float32),
        }
        metadata = {"chatwheel": json.dumps(about, ensure_ascii=False, sort_keys=True)}
        write_atomically(path, [save(tensors, metadata)])
        return Classifier.load(path)

    @staticmethod
    def load(path: Path) -> Classifier:
        """Raises InputError, one line, for a file that is absent, damaged, or of another kind."""
        try:
            content = path.read_bytes()
        except OSError as error:
            raise InputError(f"{path}: could not be read ({error.strerror}); {_MEND}") from None
        try:
            return _parsed(content)
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            reason = f"no field {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
            raise InputError(f"{path}: damaged, or no moderation classifier ({reason}); {_MEND}") from None


def _parsed(content: bytes) -> Classifier:
    tensors = load(content)
    length = int.from_bytes(content[:8], "little")
    about = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["chatwheel"])
    labels, thresholds = tuple(about["labels"]), dict(about["thresholds"])
    weights, bias = tensors["weights"].astype(np.float32), tensors["bias"].astype(np.float32)
    if about["features"] != VERSION:
        raise ValueError(f"its features are of version {about['features']}, these of {VERSION}")
    if not labels or not set(labels) <= set(CATEGORIES) or set(thresholds) != set(labels):
        raise ValueError("its labels are not moderation's categories, each with a threshold")
    if weights.shape != (len(labels), BUCKETS) or bias.shape != (len(labels),):
        raise ValueError(f"its weights have the shape {weights.shape}, not {(len(labels), BUCKETS)}")
    if not (np.isfinite(weights).all() and np.isfinite(bias).all()):
        raise ValueError("its weights are not finite")
    if not all(isinstance(value, float) and 0 < value < 1 for value in thresholds.values()):
        raise ValueError("its thresholds are not between 0 and 1")
    return Classifier(labels, thresholds, about["lineage"], weights, bias, hashlib.sha256(content).hexdigest()[:8])
