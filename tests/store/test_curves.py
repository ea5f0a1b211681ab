"""Curves out of files of metrics: the same points as from all rows at once, and little of the file in memory."""

from __future__ import annotations

import json
import random
import tracemalloc
from pathlib import Path

import pytest

from chatwheel.store import curves
from chatwheel.store.curves import Row, parse_rows, read_curves, thinned

DAMAGE = [b"", b"{", b"\x00" * 40, b'{"step": "x"}', b"[1]", b'{"loss": 1}', b"\xff\xfe", b'{"step": true}', b"9" * 300]


def write(path: Path, count: int, **more: object) -> None:
    rows = ({"step": step, "steps": count, "loss": 5 - step / count, **more} for step in range(count))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def means(rows: list[Row], most: int) -> list[dict[str, float]]:
    """As thinned is described: the rows in `most` parts, each number's mean over those that have it."""
    parts = [rows[len(rows) * i // most : len(rows) * (i + 1) // most] for i in range(most)]
    result = []
    for part in filter(None, parts):
        columns = {key: [row[key] for row in part if key in row] for row in part for key in row}
        result.append({key: sum(values) / len(values) for key, values in columns.items()} | {"step": part[-1]["step"]})
    return result


@pytest.mark.parametrize("seed", range(20))
def test_any_file_from_any_step_on(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(seed)
    monkeypatch.setattr(curves, "READ_BYTES", draw.choice([400, 1000, 2**20]))
    monkeypatch.setattr(curves, "NEAR_BYTES", draw.choice([1, 100, 2**16]))
    damage, lines, step = draw.choice([0.0, 0.3]), [], 0
    for _ in range(draw.choice([0, 1, 50, 700])):
        step += draw.choice([1, 1, 5])
        row = {"step": step, "loss": draw.random(), **({"kl": float(step)} if draw.random() < 0.2 else {})}
        lines.append(json.dumps(row).encode() if draw.random() >= damage else draw.choice(DAMAGE))
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"\n".join(lines) + draw.choice([b"", b"\n", b'\n{"step": 99']))
    for after in (None, -1, 0, step // 3, step - 1, step, step + 1):
        rows = [row for row in parse_rows(path.read_bytes()) if after is None or row["step"] > after]
        assert read_curves(path, 10_000, after) == (len(rows), rows)
        count, points = read_curves(path, 7, after)
        assert (count, min(count, 7) >= len(points)) == (len(rows), True)
        if not damage and count > 7 and path.read_bytes().endswith((b"}", b"}\n")):
            assert points == [pytest.approx(mean) for mean in means(rows, 7)]
            assert points == thinned(rows, 7)


def test_a_long_file_is_never_whole_in_memory(tmp_path: Path) -> None:
    write(tmp_path / "metrics.jsonl", 40_000, text="x" * 600)
    tracemalloc.start()
    try:
        count, points = read_curves(tmp_path / "metrics.jsonl", 500)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (count, len(points), points[-1]["step"]) == (40_000, 500, 39_999)
    assert peak < (tmp_path / "metrics.jsonl").stat().st_size / 3


def test_what_is_new_is_found_without_reading_what_is_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "metrics.jsonl", 100_000)
    parsed = 0

    def counted(lines: bytes) -> list[Row]:
        nonlocal parsed
        parsed += lines.count(b"\n") + 1
        return parse_rows(lines)

    monkeypatch.setattr(curves, "parse_rows", counted)
    assert [row["step"] for row in read_curves(tmp_path / "metrics.jsonl", 500, 99_997)[1]] == [99_998, 99_999]
    assert read_curves(tmp_path / "metrics.jsonl", 500, 99_999) == (0, [])
    assert parsed < 6000


def test_a_file_that_is_not_there_has_no_rows(tmp_path: Path) -> None:
    assert read_curves(tmp_path / "metrics.jsonl", 500) == (0, [])
    assert read_curves(tmp_path, 500, 3) == (0, [])
