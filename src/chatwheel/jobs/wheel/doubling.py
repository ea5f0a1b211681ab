"""What twice as many rankings would bring: a forecast that costs seconds, before anything is trained.

A reward model is the current model with another head (Ziegler et al., 2019). Here its body stays as it is and the head
alone learns: logistic regression on the difference of two answers' last hidden states, which is Bradley and Terry's
model with the worth of an answer linear in them. It is taught an eighth, a quarter, half and all of the rankings, each
several times with others drawn, and asked about prompts that a turn's reward model does not learn from either; the
errors give the curve of `evaluation.forecast`. The prior on the head's weights is chosen once, for all sizes, so that
only the rankings differ.

Shape suffixes: A answers, P pairs, D features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from chatwheel.atomic import write_atomically
from chatwheel.data.records import Message, Ranking
from chatwheel.engine.engine import Engine
from chatwheel.engine.requests import Request
from chatwheel.errors import InputError
from chatwheel.evaluation.forecast import Forecast, Measured, subset_sizes
from chatwheel.jobs.wheel.material import is_learnt
from chatwheel.model.transformer import CausalLM
from chatwheel.store.loading import open_model
from chatwheel.store.registry import ModelEntry

Array = NDArray[np.float64]
MOST = 4000
"""Rankings, the newest ones: with more a turn is not far away in any case."""
LEAST_TESTED = 10
DRAWS = (6, 4, 3, 1)
"""How often each part is drawn; the whole can be drawn once."""
PRECISIONS = (1.0, 10.0, 100.0, 1000.0)
"""Of the prior: what is tried, by four-fold cross-validation on all that is learnt from."""
FOLDS = 4


@dataclass(frozen=True)
class Pairs:
    """apart: better minus worse, P x D. ranking: which one each pair is of. weight: a ranking's pairs count as one."""

    apart: Array
    ranking: NDArray[np.int64]
    weight: Array

    def of(self, rankings: NDArray[np.int64]) -> Pairs:
        """Those of some rankings."""
        chosen = np.isin(self.ranking, rankings)
        return Pairs(self.apart[chosen], self.ranking[chosen], self.weight[chosen])


def forecast_rankings(entry: ModelEntry, rankings: Sequence[Ranking], cache: Path | None = None) -> Forecast:
    """The error is the share of pairs told wrong. cache: a directory where answers' features are kept. Raises
    InputError where there are too few."""
    usable = [ranking for ranking in rankings if ranking.pairs() and ranking.weight != 0][-MOST:]
    learnt = np.array([number for number, ranking in enumerate(usable) if is_learnt(ranking)], dtype=np.int64)
    tested = np.setdiff1d(np.arange(len(usable)), learnt)
    if len(learnt) < 16 or len(tested) < LEAST_TESTED:
        raise InputError(
            f"{len(learnt)} rankings to learn from and {len(tested)} to test with are too few for a forecast; "
            f"it needs at least 16 and {LEAST_TESTED}"
        )
    pairs = _pairs(usable, _features(entry, usable, cache))
    return _measured(pairs, learnt, tested)


def _measured(pairs: Pairs, learnt: NDArray[np.int64], tested: NDArray[np.int64]) -> Forecast:
    rng = np.random.default_rng(0)
    order = rng.permutation(learnt)
    precision = min(PRECISIONS, key=lambda one: _cross_validated(pairs, order, one))
    held_out = pairs.of(tested)
    measured = []
    for size, draws in zip(subset_sizes(len(learnt)), DRAWS, strict=True):
        some = [rng.permutation(learnt)[:size] for _ in range(draws)] if size < len(learnt) else [learnt]
        errors = [_error(held_out, fit(pairs.of(part), precision)) for part in some]
        measured.append(Measured.of_seeds(size, errors, len(tested)))
    return Forecast.fit(measured)


def _cross_validated(pairs: Pairs, order: NDArray[np.int64], precision: float) -> float:
    """The mean loss of what is left out."""
    total = 0.0
    for fold in np.array_split(order, FOLDS):
        weights_D = fit(pairs.of(np.setdiff1d(order, fold)), precision)
        left = pairs.of(fold)
        total += float((left.weight * np.logaddexp(0.0, -left.apart @ weights_D)).sum())
    return total


def fit(pairs: Pairs, precision: float, steps: int = 30) -> Array:
    """The weights D that make sum(weight log(1 + exp(-apart . w))) + precision |w|^2 / 2 the least, by Newton's method,
    which a step that is halved while it does not help makes certain: the function is convex."""
    x_PD, weight_P = pairs.apart, pairs.weight
    w_D = np.zeros(x_PD.shape[1])

    def loss(at_D: Array) -> float:
        return float((weight_P * np.logaddexp(0.0, -x_PD @ at_D)).sum() + precision * at_D @ at_D / 2)

    now = loss(w_D)
    for _ in range(steps):
        p_P = 1 / (1 + np.exp(x_PD @ w_D))  # of saying the wrong one
        gradient_D = precision * w_D - x_PD.T @ (weight_P * p_P)
        curvature_DD = (x_PD * (weight_P * p_P * (1 - p_P))[:, None]).T @ x_PD
        curvature_DD[np.diag_indices_from(curvature_DD)] += precision
        step_D = np.linalg.solve(curvature_DD, gradient_D)
        size = 1.0
        while (then := loss(w_D - size * step_D)) > now and size > 1e-6:
            size /= 2
        w_D, before, now = w_D - size * step_D, now, then
        if before - now < 1e-9 * max(1.0, abs(before)):
            break
    return w_D


def _error(pairs: Pairs, weights_D: Array) -> float:
    """The share of pairs told wrong, each ranking counting the same and ties half."""
    lead_P = pairs.apart @ weights_D
    wrong_P = np.where(lead_P == 0, 0.5, lead_P < 0)
    count = np.bincount(pairs.ranking)
    present = count > 0
    return float((np.bincount(pairs.ranking, wrong_P)[present] / count[present]).mean())


def _pairs(rankings: Sequence[Ranking], features_AD: Array) -> Pairs:
    """features_AD: of all answers of all rankings, in order."""
    apart, of, weight, first = [], [], [], 0
    for number, ranking in enumerate(rankings):
        found = ranking.pairs()
        for better, worse in found:
            apart.append(features_AD[first + better] - features_AD[first + worse])
            of.append(number)
            weight.append((1.0 if ranking.weight is None else ranking.weight) / len(found))
        first += len(ranking.answers)
    return Pairs(np.array(apart), np.array(of, dtype=np.int64), np.array(weight))


def _features(entry: ModelEntry, rankings: Sequence[Ranking], cache: Path | None) -> Array:
    """The model's last hidden state after each answer, A x D, each feature of variance 1. Those that were computed
    before are read from the cache, which begins anew with another model."""
    texts = [(ranking.messages, answer) for ranking in rankings for answer in ranking.answers]
    keys = [_key(messages, answer) for messages, answer in texts]
    path = cache / f"{_version(entry)}.npz" if cache is not None else None
    known = _read(path) if path is not None else {}
    missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
    if missing:
        known |= dict(zip(missing, _hidden(entry, list(missing.values())), strict=True))
        if path is not None:
            _write(path, known)
    states_AD = np.array([known[key] for key in keys], dtype=np.float64)
    spread_D = states_AD.std(axis=0)
    return np.asarray((states_AD - states_AD.mean(axis=0)) / np.where(spread_D > 1e-8, spread_D, 1.0))


def _hidden(entry: ModelEntry, texts: Sequence[tuple[Sequence[Message], str]]) -> list[NDArray[np.float32]]:
    model, tokenizer = open_model(entry.directory, CausalLM)
    engine = Engine(model, tokenizer, max_running=128)
    conversations = (
        [*(m.model_dump() for m in messages), {"role": "assistant", "content": answer}] for messages, answer in texts
    )
    requests = [
        Request(prompt_ids=tuple(ids.tolist()[: engine.context_length]), task="last")
        for ids, _ in tokenizer.encode_conversations(conversations)
    ]
    return [np.array(done.embedding, dtype=np.float32) for done in engine.generate(requests)]


def _key(messages: Sequence[Message], answer: str) -> str:
    said = "\0".join([*(f"{m.role}\0{m.content}" for m in messages), answer])
    return hashlib.blake2b(said.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _version(entry: ModelEntry) -> str:
    """Of a model's files: of another one of the same name nothing is read."""
    stamp = sorted((p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in entry.directory.glob("*.safetensors"))
    return hashlib.blake2b(f"{entry.name} {stamp}".encode(), digest_size=8).hexdigest()


def _read(path: Path) -> dict[str, NDArray[np.float32]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(zip((str(key) for key in file["keys"]), file["states"], strict=True))
    except (OSError, ValueError, KeyError):  # there is none, or a damaged one: it is computed again
        return {}


def _write(path: Path, known: dict[str, NDArray[np.float32]]) -> None:
    """And forgets what was kept of other models."""
    from io import BytesIO

    path.parent.mkdir(parents=True, exist_ok=True)
    for other in path.parent.glob("*.npz"):
        if other != path:
            other.unlink(missing_ok=True)
    content = BytesIO()
    np.savez(content, keys=np.array(list(known)), states=np.array(list(known.values())))
    write_atomically(path, [content.getvalue()], mode=0o600)


def digest(rankings: Sequence[Ranking]) -> str:
    """Of what rankings say, whoever said it: names are drawn anew at each reading."""
    said = hashlib.blake2b(digest_size=16)
    for line in sorted(f"{[m.content for m in r.messages]} {r.answers} {r.ranks} {r.weight}" for r in rankings):
        said.update(line.encode("utf-8", "surrogatepass"))
    return said.hexdigest()
