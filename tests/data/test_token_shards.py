"""Tokens on disk: the same rows as in memory, whole shards or none, and a killed run goes on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import psutil
import pytest

from chatwheel.data import token_shards
from chatwheel.data.packing import pack
from chatwheel.data.token_shards import TokenShards, write_shards
from chatwheel.errors import InputError

BORDER = 1
TEXTS = [chr(ord("a") + i % 26) * (1 + (i * 37) % 90) for i in range(200)]


def encode(texts: list[str]) -> list[list[int]]:
    return [[2 + ord(c) for c in text] for text in texts]


def write(directory: Path, texts: list[str] = TEXTS, vocab_size: int = 500, plan: str = "one") -> TokenShards:
    return write_shards(directory, texts, encode, border=BORDER, vocab_size=vocab_size, plan={"documents": plan})


def everything(shards: TokenShards) -> list[list[int]]:
    return [
        shards.document(shard, number).tolist() for shard, ends in enumerate(shards.ends) for number in range(len(ends))
    ]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of some thousand characters."""
    monkeypatch.setattr(token_shards, "SHARD_CHARACTERS", 2000)
    monkeypatch.setattr(token_shards, "BATCH_CHARACTERS", 300)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("vocab_size", "bits"), [(65_536, 16), (65_537, 32)])
def test_documents_are_what_went_in(vocab_size: int, bits: int, tmp_path: Path) -> None:
    shards = write(tmp_path / "tokens", vocab_size=vocab_size)
    assert everything(shards) == [[BORDER, *ids, BORDER] for ids in encode(TEXTS)]
    assert len(shards.ends) > 3
    assert shards.document(0, 0).dtype.itemsize * 8 == bits
    assert shards.num_documents == len(TEXTS)
    assert shards.num_tokens == sum(map(len, TEXTS)) + 2 * len(TEXTS)


def test_rows_of_one_shard_are_those_of_packing_in_memory(tmp_path: Path) -> None:
    rows = write(tmp_path / "tokens").packed(64)
    expected = pack([[BORDER, *ids, BORDER] for ids in encode(TEXTS)], 64)
    assert len(rows) == len(expected)
    assert rows.row_length == expected.row_length == 64
    index = np.random.default_rng(0).permutation(len(rows))
    for name in ("tokens", "positions", "segments", "supervised"):
        assert np.array_equal(getattr(rows.rows(index), name), getattr(expected, name)[index]), name


@pytest.mark.usefixtures("small")
def test_every_token_of_many_shards_is_predicted_once(tmp_path: Path) -> None:
    shards = write(tmp_path / "tokens")
    rows = shards.packed(32)
    whole = rows.rows(np.arange(len(rows)))
    assert int(whole.supervised.sum()) == shards.num_tokens - shards.num_documents  # all but the first of each
    found = sorted(whole.tokens[whole.supervised].tolist())
    assert found == sorted(token for document in everything(shards) for token in document[1:])
    again = TokenShards(tmp_path / "tokens").packed(32)  # the layout is read this time
    assert np.array_equal(again.rows(np.arange(len(again))).tokens, whole.tokens)


@pytest.mark.usefixtures("small")
def test_a_run_that_was_killed_goes_on_with_the_next_shard(tmp_path: Path) -> None:
    seen: list[str] = []

    def dying(texts: list[str]) -> list[list[int]]:
        if sum(map(len, seen)) > 4500:
            raise KeyboardInterrupt
        seen.extend(texts)
        return encode(texts)

    plan = {"documents": "one"}
    with pytest.raises(KeyboardInterrupt):
        write_shards(tmp_path / "tokens", TEXTS, dying, border=BORDER, vocab_size=500, plan=plan)
    with pytest.raises(InputError, match="not complete; run the same command again"):
        TokenShards(tmp_path / "tokens")
    finished = sorted(path.name for path in (tmp_path / "tokens").glob("*.ends.npy"))
    assert finished == ["00000.ends.npy", "00001.ends.npy"]
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "tokens").glob("0000[01].*")}
    shards = write(tmp_path / "tokens")
    assert everything(shards) == everything(write(tmp_path / "straight"))
    assert before == {name: (tmp_path / "tokens" / name).stat().st_mtime_ns for name in before}  # not made again


@pytest.mark.usefixtures("small")
def test_other_texts_are_tokenised_anew_and_the_same_ones_are_not(tmp_path: Path) -> None:
    write(tmp_path / "tokens")
    other = write(tmp_path / "tokens", texts=["other"], plan="two")
    assert everything(other) == [[BORDER, *encode(["other"])[0], BORDER]]
    kept = write(tmp_path / "tokens", texts=["never read"], plan="two")
    assert everything(kept) == everything(other)


@pytest.mark.usefixtures("small")
def test_a_shard_that_is_gone_is_missed(tmp_path: Path) -> None:
    shards = write(tmp_path / "tokens")
    (tmp_path / "tokens" / f"{len(shards.ends) - 1:05}.ends.npy").unlink()
    with pytest.raises(InputError, match=r"ends.npy is missing; remove .*tokens and run the same command again"):
        TokenShards(tmp_path / "tokens")


@pytest.mark.usefixtures("small")
def test_few_files_are_open_however_many_shards_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_shards, "MOST_MAPPED", 2)
    shards = write(tmp_path / "tokens")
    rows = shards.packed(32)
    whole = rows.rows(np.random.default_rng(0).permutation(len(rows)))
    assert int(whole.supervised.sum()) == shards.num_tokens - shards.num_documents
    mapped = [file for file in psutil.Process().memory_maps() if str(tmp_path) in file.path]
    assert 0 < len(mapped) <= 2 < len(shards.ends)


def test_no_documents_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no documents"):
        write(tmp_path / "tokens", texts=[])
