"""`bench ppo`: its arithmetic, and Chatwheel's contender for real."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from chatwheel.benchmarks import compare_rlhf as module
from chatwheel.benchmarks.compare_rlhf import compare_rlhf
from chatwheel.benchmarks.rlhf import (
    Clock,
    Result,
    Settings,
    even_share,
    ppo_chatwheel,
    result_of,
    split_of_steps,
    update_flops,
)
from chatwheel.errors import InputError


def figures(speed: float, update: float, memory: float) -> Result:
    parts = {"generation_seconds": 1.0, "scoring_seconds": 2.0, "update_seconds": update}
    return {"answers_per_second": speed, **parts, "peak_memory_mb": memory}


def test_seconds_are_medians_of_rollouts_by_hand() -> None:
    result = result_of(Settings(answers=12), [[1.0, 2.0, 3.0], [2.0, 2.0, 8.0], [3.0, 1.0, 2.0]])
    assert result == {
        "answers_per_second": 2.0,
        "generation_seconds": 2.0,
        "scoring_seconds": 2.0,
        "update_seconds": 3.0,
    }


def test_the_first_rollout_of_a_peer_is_not_counted() -> None:
    clock = Clock(began=[0.0, 100.0], sampled=[50.0, 101.0], judged=[60.0, 103.0], ended=[99.0, 106.0])
    result = clock.result(Settings(answers=12))
    assert (result["generation_seconds"], result["scoring_seconds"], result["update_seconds"]) == (1.0, 2.0, 3.0)
    assert result["answers_per_second"] == 2.0


def test_a_rollouts_own_seconds_are_its_first_steps() -> None:
    steps = [
        {"seconds": 5.0, "sampling_seconds": 2.0, "judging_seconds": 0.5, "scoring_seconds": 0.5},
        {"seconds": 3.0},
    ] * 2
    assert split_of_steps(steps, 2) == [[2.0, 1.0, 5.0]] * 2


def test_medians_become_ratios(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def run(_: str, contender: str, __: str) -> Result:
        order.append(contender)
        if contender == "matrix_peak":
            return {"gflops": 100.0}
        return {
            "ppo_chatwheel": figures(10.0, 4.0, 500.0),
            "ppo_chatwheel_head": figures(15.0, 2.0, 400.0),
            "ppo_trl": figures(4.0, 12.0, 1000.0),
            "ppo_trl_float32": figures(5.0, 8.0, 2000.0),
            "ppo_trl_bfloat16": figures(20.0, 2.0, 250.0),
        }[contender]

    monkeypatch.setattr(module, "run_contender", run)
    monkeypatch.setattr(module, "_check", lambda *_: None)
    (workload,) = compare_rlhf("ppo", ["trl"], Settings(), 2)["workloads"]
    assert (
        order
        == [
            *("matrix_peak", "ppo_chatwheel", "ppo_chatwheel_head"),
            *("ppo_trl", "ppo_trl_float32", "ppo_trl_bfloat16"),
        ]
        * 2
    )
    assert {name: (peer["ratio"], peer["memory_ratio"]) for name, peer in workload["peers"].items()} == {
        "trl": (2.5, 2.0),
        "trl-float32": (2.0, 4.0),
        "trl-bfloat16": (0.5, 0.5),
    }
    assert workload["peers"]["trl"]["ratio_head"] == 3.75
    assert workload["ours"]["update_share_of_peak"] == pytest.approx(ppo_flops() / 4 / 100e9, rel=1e-3)


def ppo_flops() -> float:
    """Of four epochs on 64 answers, counted by hand: 6 a weight, and 12 H K a layer and position seen."""
    layers = 6 * (4 * 256 * 256 + 3 * 256 * 672)
    attention = 12 * 6 * 256 * 96 * 97 / 2
    sequence = 2 * (6 * layers * 96 + attention) + 6 * 4096 * 256 * 64
    return 4 * 64 * sequence


def test_the_updates_work_by_hand() -> None:
    assert update_flops("ppo", Settings()) == pytest.approx(ppo_flops(), rel=1e-9)


def test_chatwheels_ppo_for_real() -> None:
    small: dict[str, Any] = {"answers": 4, "prompt_tokens": 6, "answer_tokens": 5, "epochs": 2, "rollouts": 1}
    result = ppo_chatwheel(Settings(**small))
    assert all(value > 0 for value in result.values())
    seconds = sum(result[f"{part}_seconds"] for part in ("generation", "scoring", "update"))
    assert result["answers_per_second"] == pytest.approx(4 / seconds)


def test_the_reward_of_grpo_has_its_best_at_one() -> None:
    assert even_share([[2, 4], [1, 3], [1, 2, 3, 4]]) == [1.0, 0.0, 0.5]


def test_peers_that_cannot_be_run_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="knows trl"):
        compare_rlhf("ppo", ["openrlhf"], Settings(), 1)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"not installed; pip install 'trl<1.13'"):
        compare_rlhf("ppo", ["trl"], Settings(), 1)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name.endswith("ppo") else object())
    with pytest.raises(InputError, match=r"no PPO, which left it after 1.12; pip install 'trl<1.13'"):
        compare_rlhf("ppo", ["trl"], Settings(), 1)
