"""Samples beside training: the weights are the same bits with and without them, and no failure costs anything."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from chatwheel.data.packing import pack
from chatwheel.engine.engine import Engine
from chatwheel.engine.requests import Request, SamplingParams
from chatwheel.model.lora import LoRAConfig
from chatwheel.training import samples as module
from chatwheel.training.loop import read_metrics
from chatwheel.training.pretrain import PretrainConfig, pretrain
from chatwheel.training.samples import FixedPrompt, Sample, SampleLog, Watch
from chatwheel.training.sft import SFTConfig, sft
from tests.tiny import causal, config, tokenizer, tokens

PACKED = pack([tokens(n, seed=n).tolist() for n in range(3, 40)], 48)
PROMPTS = [FixedPrompt(text=f"prompt {n}", ids=tuple(tokens(n, seed=n).tolist())) for n in (4, 9)]
WATCH = Watch(peak=1e11, tokenizer=tokenizer(), prompts=PROMPTS, max_tokens=8, temperature=0.7)
STEPS = 10


def pretrained(directory: Path, watch: Watch, **options: Any) -> tuple[Any, list[dict[str, float]]]:
    settings = {"steps": STEPS, "rows_per_step": 4, "row_length": 48, "precision": "float32", **options}
    model, _ = pretrain(PretrainConfig(**settings), config(), PACKED, directory=directory, seed=1, watch=watch)
    return model, read_metrics(directory)


def lines(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "samples.jsonl").read_text().splitlines()]


def same(a: Any, b: Any) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


@pytest.mark.parametrize(
    "options",
    [{}, {"recompute": True}, pytest.param({"compilation": "always"}, marks=pytest.mark.slow)],
    ids=["plain", "recompute", "compiled"],
)
def test_sampling_does_not_change_the_trained_weights(options: dict[str, Any], tmp_path: Path) -> None:
    without, plain = pretrained(tmp_path / "without", Watch(), **options)
    watched, rows = pretrained(tmp_path / "watched", WATCH, **options)
    assert same(without, watched)
    assert [row["loss"] for row in rows] == [row["loss"] for row in plain]
    assert not (tmp_path / "without" / "samples.jsonl").exists()
    assert [line["step"] for line in lines(tmp_path / "watched")] == list(range(1, STEPS + 1))


def test_an_adapter_with_dropout_is_the_same_with_samples(tmp_path: Path) -> None:
    """Dropout draws from the global generator, which a step's seed sets, whatever sampling did to it."""
    settings = SFTConfig(
        epochs=2, rows_per_step=4, row_length=48, precision="float32", lora=LoRAConfig(rank=2, dropout=0.3)
    )
    trained = []
    for name, watch in (("without", Watch()), ("watched", WATCH)):
        model, _ = sft(settings, causal().train(), PACKED, directory=tmp_path / name, seed=1, watch=watch)
        assert model.training  # as it was
        trained.append(model)
    assert same(*trained)
    assert lines(tmp_path / "watched")


def test_a_sample_is_what_the_engine_says_of_these_weights(tmp_path: Path) -> None:
    model, _ = pretrained(tmp_path, WATCH)
    requests = [
        Request(prompt_ids=p.ids, params=SamplingParams(temperature=0.7, max_tokens=8, seed=i))
        for i, p in enumerate(PROMPTS)
    ]
    expected = [c.text for c in Engine(model.eval(), tokenizer(), max_running=2).generate(requests)]
    last = lines(tmp_path)[-1]
    assert last == {
        "step": STEPS,
        "samples": [{"prompt": p.text, "text": text} for p, text in zip(PROMPTS, expected, strict=True)],
    }


def test_a_sampler_that_fails_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without, _ = pretrained(tmp_path / "without", Watch())
    monkeypatch.setattr(module, "Engine", lambda *_, **__: 1 / 0)
    failed, rows = pretrained(tmp_path / "failed", WATCH)
    assert same(without, failed)
    assert len(rows) == STEPS
    (line,) = lines(tmp_path / "failed")  # told once, and not tried again
    assert line["step"] == 1
    assert "ZeroDivisionError" in line["error"]


def test_samples_that_cannot_be_written_lose_nothing(tmp_path: Path) -> None:
    (tmp_path / "samples.jsonl").mkdir()
    _, rows = pretrained(tmp_path, WATCH)
    assert len(rows) == STEPS


def test_each_line_says_how_fast_and_of_how_many(tmp_path: Path) -> None:
    _, rows = pretrained(tmp_path, WATCH)
    assert {row["steps"] for row in rows} == {STEPS}
    assert all(0 < row["share_of_peak"] < 10 for row in rows)
    _, rows = pretrained(tmp_path / "unknown", Watch())
    assert all("share_of_peak" not in row for row in rows)


def test_a_run_that_goes_on_has_no_step_twice(tmp_path: Path) -> None:
    log = SampleLog(tmp_path / "samples.jsonl", lambda _: [{"prompt": "a", "text": "b"}], 10)
    for step in range(1, 7):
        log.after(step, 1.0)
    with (tmp_path / "samples.jsonl").open("a") as file:
        file.write('{"step": 7, "sam')  # the crash cut a line short
    again = SampleLog(tmp_path / "samples.jsonl", lambda _: [{"prompt": "a", "text": "c"}], 10)
    again.keep_until(4)
    for step in range(5, 11):
        again.after(step, 1.0)
    assert [line["step"] for line in lines(tmp_path)] == list(range(1, 11))
    assert [line["samples"][0]["text"] for line in lines(tmp_path)] == ["b"] * 4 + ["c"] * 6


def test_it_costs_a_fiftieth_of_the_time_at_most(tmp_path: Path) -> None:
    given: list[float] = []

    def slow(seconds: float) -> Sequence[Sample]:
        given.append(seconds)
        time.sleep(0.02)
        return []

    log = SampleLog(tmp_path / "samples.jsonl", slow, 100)
    log.after(9, 1000.0)
    assert given == []  # not a tenth of the steps
    log.after(10, 1000.0)
    assert given == [20.0]
    log._last = 30.0
    log.after(20, 1500.0)
    assert given == [20.0]  # would be too dear
    log.after(30, 1600.0)
    assert len(given) == 2


def test_what_takes_too_long_is_cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Engine.step

    def slow(engine: Engine) -> Any:
        time.sleep(0.05)
        return step(engine)

    monkeypatch.setattr(Engine, "step", slow)
    sampler = Watch(tokenizer=tokenizer(), prompts=PROMPTS, max_tokens=200).sampler(causal())
    assert sampler is not None
    began = time.monotonic()
    cut = sampler(0.3)
    assert time.monotonic() - began < 2
    assert [s["prompt"] for s in cut] == ["prompt 4", "prompt 9"]
