"""What "auto" becomes, and what a job trains with then."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from chatwheel.jobs.fine_tuning.defaults import Hyperparameters, Settings, batch, epochs, rate, resolve
from chatwheel.jobs.fine_tuning.examples import KINDS, Kind
from chatwheel.jobs.fine_tuning.file_check import TokenCount


def _resolved(kind: Kind, examples: int, **asked: object) -> Settings:
    hyperparameters = Hyperparameters.model_validate(asked)
    return resolve(hyperparameters, kind, examples=examples, trained_tokens=30 * examples, hidden_size=192)


def test_more_examples_are_seen_less_often_in_larger_batches_and_wide_models_learn_slower() -> None:
    sizes = [1, 10, 50, 100, 200, 500, 1000, 5000, 10_000, 50_000, 10**6]
    for kind in KINDS:
        passes, batches = [epochs(kind, n) for n in sizes], [batch(kind, n) for n in sizes]
        assert passes == sorted(passes, reverse=True)
        assert batches == sorted(batches)
        assert all(size <= n for size, n in zip(batches, sizes, strict=True))
        rates = [rate(kind, width) for width in (64, 192, 1024, 4096, 16_384)]
        assert rates == sorted(rates, reverse=True)
        assert all(1e-5 <= one <= 4e-3 for one in rates)
    assert [epochs("supervised", n) for n in (50, 100, 200, 1000, 6000, 30_000)] == [10, 10, 5, 3, 2, 1]


def test_what_is_asked_for_stays() -> None:
    auto, asked = _resolved("supervised", 100), _resolved("supervised", 100, n_epochs=7, learning_rate_multiplier=2)
    assert (asked.n_epochs, asked.batch_size) == (7, auto.batch_size)
    assert asked.learning_rate == pytest.approx(2 * auto.learning_rate)
    assert (auto.learning_rate_multiplier, asked.learning_rate_multiplier) == (1.0, 2.0)
    assert _resolved("preference", 3, batch_size=256).batch_size == 3


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_epochs", 0),
        ("n_epochs", 51),
        ("n_epochs", True),
        ("batch_size", 257),
        ("batch_size", 1.5),
        ("learning_rate_multiplier", 0),
        ("learning_rate_multiplier", float("nan")),
        ("learning_rate_multiplier", float("inf")),
        ("n_epochs", "many"),
        ("epochs", 3),
    ],
)
def test_what_is_out_of_range_is_refused(name: str, value: object) -> None:
    with pytest.raises(ValidationError, match=name):
        Hyperparameters.model_validate({name: value})


def test_a_batch_of_examples_becomes_rows() -> None:
    tokens = TokenCount(prompt=2_000, trained=3_000, longest=103, too_long=0, first_too_long=0)
    config = _resolved("supervised", 100, batch_size=8).sft(100, tokens, context=512)
    assert (config.row_length, config.rows_per_step) == (104, 4)  # eight of 50 tokens in rows of 104
    assert config.lora is not None
    short = _resolved("supervised", 100, batch_size=1).sft(100, tokens, context=64)
    assert (short.row_length, short.rows_per_step) == (64, 1)
    pairs = _resolved("preference", 100).dpo(tokens, context=512, beta=0.2)
    assert (pairs.row_length, pairs.rankings_per_step, pairs.beta) == (208, 4, 0.2)
