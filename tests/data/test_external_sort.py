"""Sorting in runs is sorting, whatever the memory; nothing is left behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatwheel.data.external_sort import MOST_RUNS, ExternalSort
from chatwheel.errors import StorageError


@given(
    entries=st.lists(st.tuples(st.binary(max_size=2), st.binary(max_size=20))), memory=st.sampled_from([1, 600, 10**6])
)
def test_it_is_a_stable_sort(
    entries: list[tuple[bytes, bytes]], memory: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("runs")
    with ExternalSort(directory, "x", memory) as found:
        for key, value in entries:
            found.add(key, value)
        expected = [value for _, value in sorted(entries, key=lambda e: e[0])]
        assert list(found.sorted()) == expected
        assert list(found.sorted()) == expected  # once more
        assert len(found) == len(entries)
        spilled = sum(len(k) + len(v) + 200 for k, v in entries) > memory
        assert any(directory.iterdir()) == spilled
    assert not any(directory.iterdir())


def test_few_files_are_open_however_many_runs_there_are(tmp_path: Path) -> None:
    with ExternalSort(tmp_path, "x", memory=1) as found:
        numbers = [(7 * i) % 300 for i in range(300)]
        for number in numbers:
            found.add(number.to_bytes(2, "big"), str(number).encode())
            assert len(list(tmp_path.iterdir())) < MOST_RUNS
        assert list(found.sorted()) == [str(number).encode() for number in range(300)]
        same = [b"%d" % i for i in range(300)]
        for value in same:
            found.add(b"\xff\xff", value)
        assert list(found.sorted())[300:] == same  # equal keys stay in order through all merges


def test_a_disk_that_cannot_be_written_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    sort = ExternalSort(tmp_path / "file", "x", memory=1)
    with pytest.raises(StorageError, match="sorting needs up to twice as much room as the text"):
        sort.add(b"k", b"v")


def test_a_run_that_was_cut_short_is_not_taken_for_the_whole(tmp_path: Path) -> None:
    sort = ExternalSort(tmp_path, "x", memory=1)
    sort.add(b"key", b"value")
    run = next(tmp_path.iterdir())
    run.write_bytes(run.read_bytes()[:-2])
    with pytest.raises(StorageError, match="shorter than it was written"):
        list(sort.sorted())
