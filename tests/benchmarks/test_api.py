"""The API's benchmark, on a small scale: a real server, as a process."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from chatwheel.assistant.orchestrator import Assistant
from chatwheel.benchmarks import api
from chatwheel.benchmarks.api import MODEL, Settings, measure_api, serving
from chatwheel.errors import ChatwheelError

SMALL = Settings(requests=3, answer_tokens=3, busy=3, idle=4, stream_tokens=6)


def test_overhead_and_streams_of_a_real_server() -> None:
    told: list[str] = []
    result = measure_api(SMALL, 1, lambda name, _: told.append(name))
    assert result["benchmark"] == "api"
    assert told == ["whole", "streamed", "streams"]
    whole, streamed, streams = result["workloads"]
    for workload in (whole, streamed):
        ours, engine = workload["ours"], workload["peers"]["engine"]
        for name in ("p50_ms", "p99_ms", "cpu_ms"):
            assert ours[f"overhead_{name}"] == pytest.approx(ours[name] - engine[name], rel=0.01, abs=0.1)
        assert ours["p50_ms"] > 0
    assert streams["ours"]["wrong_answers"] == 0
    assert streams["ours"]["idle_dropped"] == 0
    assert streams["ours"]["health_requests"] > 0


@pytest.mark.slow
def test_a_wrong_token_is_seen(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        assistant = Assistant.load(tmp_path / "models" / MODEL)
        expected = asyncio.run(api._alone(assistant, SMALL))
        assistant.close()
        assert len(set(expected)) == SMALL.busy
        expected[1] += expected[1][-1]
        assert asyncio.run(api._streams(server, SMALL, expected))["wrong_answers"] == 1


def test_a_server_that_ends_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "_furnish", lambda _home: "key")  # neither models nor runs
    with pytest.raises(ChatwheelError, match=r"did not start: .*neither models nor runs"), serving(tmp_path):
        pass
