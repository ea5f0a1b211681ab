"""Documents as tokens on disk, memory-mapped: text of any size trains in the memory of a few rows.

    tokens/documents/
        plan.json               what was tokenised and by which tokenizer; another plan makes everything anew
        00000.tokens.npy        the tokens of its documents, one after the other, 16 or 32 bits each
        00000.ends.npy          where each document ends among them
        00000.rows-256.npy      the layout in rows of 256 (`packing.layout_of`)
        complete.json           how many there are; written last

A shard is some megabytes of text, decided by the text alone, written whole or not at all; a run that was killed goes on
with the next one. The tokenizer's own threads use all cores.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chatwheel.atomic import write_atomically
from chatwheel.data.packing import Layout, Packed, filled, layout_of
from chatwheel.errors import InputError

SHARD_CHARACTERS = 2**25
BATCH_CHARACTERS = 2**20
"""What the tokenizer gets at a time; a list of Python integers is nine times as large as the tokens will be."""

MOST_MAPPED = 16
"""Files that are open at once; what is read of them counts as this process's memory until they are closed."""

EncodeBatch = Callable[[Sequence[str]], list[list[int]]]


def write_shards(
    directory: Path,
    texts: Iterable[str],
    encode_batch: EncodeBatch,
    *,
    border: int,
    vocab_size: int,
    plan: dict[str, Any],
) -> TokenShards:
    """Tokenises each text, between two `border` tokens, into `directory`, going on where it stopped.

    plan: identifies texts and tokenizer, as their hashes do. Raises InputError if there are no texts.
    """
    if not _begun(directory, plan):
        for name in ("complete.json", "plan.json"):  # first: a half removed one must not be taken for whole
            (directory / name).unlink(missing_ok=True)
        shutil.rmtree(directory, ignore_errors=True)
        write_atomically(directory / "plan.json", [json.dumps(plan).encode()])
    if not (directory / "complete.json").is_file():
        _write(directory, iter(texts), encode_batch, border, np.dtype(np.uint16 if vocab_size <= 2**16 else np.uint32))
    shards = TokenShards(directory)
    if not shards.num_documents:
        raise InputError("pretraining: no documents; check the recipe's data.documents")
    return shards


def _begun(directory: Path, plan: dict[str, Any]) -> bool:
    try:
        return bool(json.loads((directory / "plan.json").read_bytes()) == json.loads(json.dumps(plan)))
    except (FileNotFoundError, ValueError):
        return False


def _write(directory: Path, texts: Iterator[str], encode_batch: EncodeBatch, border: int, dtype: np.dtype[Any]) -> None:
    done = 0
    while (path := _ends_path(directory, done)).is_file():
        there = len(np.load(path, mmap_mode="r"))
        next(islice(texts, there - 1, there), None)
        done += 1
    for number, batches in enumerate(_shards(texts), start=done):
        done = number + 1
        pieces: list[NDArray[Any]] = []
        borders: list[int] = []
        total = 0
        for batch in batches:
            for ids in encode_batch(batch):
                pieces.append(np.array([border, *ids, border], dtype))
                total += len(pieces[-1])
                borders.append(total)
        _save(directory / f"{number:05}.tokens.npy", np.concatenate(pieces))
        _save(_ends_path(directory, number), np.array(borders, np.int64))  # the last: it marks a finished shard
    write_atomically(directory / "complete.json", [json.dumps({"shards": done}).encode()])


def _shards(texts: Iterator[str]) -> Iterator[Iterator[list[str]]]:
    """Batches of texts, shard by shard; each shard's must be taken before the next is asked for."""

    def batches(first: str) -> Iterator[list[str]]:
        batch, waiting, size = [first], len(first), len(first)
        while size < SHARD_CHARACTERS and (text := next(texts, None)) is not None:
            batch.append(text)
            waiting, size = waiting + len(text), size + len(text)
            if waiting >= BATCH_CHARACTERS:
                yield batch
                batch, waiting = [], 0
        if batch:
            yield batch

    while (first := next(texts, None)) is not None:
        yield batches(first)


def _ends_path(directory: Path, number: int) -> Path:
    return directory / f"{number:05}.ends.npy"


def _save(path: Path, array: NDArray[Any]) -> None:
    file = io.BytesIO()
    np.save(file, array)
    write_atomically(path, [file.getvalue()])


class TokenShards:
    """What `write_shards` wrote. num_documents, num_tokens: borders included."""

    def __init__(self, directory: Path) -> None:
        if not (directory / "complete.json").is_file():
            raise InputError(f"{directory}: tokens are not complete; run the same command again")
        self.directory = directory
        count = int(json.loads((directory / "complete.json").read_bytes())["shards"])
        try:
            self.ends: list[NDArray[np.int64]] = [np.load(_ends_path(directory, i)) for i in range(count)]
        except FileNotFoundError as error:
            raise InputError(
                f"{error.filename} is missing; remove {directory} and run the same command again"
            ) from None
        self.num_documents = sum(map(len, self.ends))
        self.num_tokens = sum(int(ends[-1]) for ends in self.ends)
        # A mapped file stays open, and a process may not have many.
        self.mapped = lru_cache(maxsize=MOST_MAPPED)(self._mapped)

    def _mapped(self, name: str) -> NDArray[Any]:
        return np.load(self.directory / name, mmap_mode="r")  # type: ignore[no-any-return]

    def document(self, shard: int, number: int) -> NDArray[Any]:
        """The tokens of a shard's document, a view of the file."""
        begin = int(self.ends[shard][number - 1]) if number else 0
        return self.mapped(f"{shard:05}.tokens.npy")[begin : int(self.ends[shard][number])]

    def packed(self, row_length: int) -> ShardRows:
        """The documents in rows, each shard's packed by itself."""
        return ShardRows(self, row_length)


class ShardRows:
    """Packed rows that are made when they are asked for; as `Packed` in all that training reads."""

    def __init__(self, shards: TokenShards, row_length: int) -> None:
        self.row_length = row_length
        self._shards = shards
        self._firsts = np.cumsum([0, *(self._layout(i).num_rows for i in range(len(shards.ends)))])

    def __len__(self) -> int:
        return int(self._firsts[-1])

    def rows(self, index: NDArray[np.int64]) -> Packed:
        """Some of the rows, in memory."""
        shards = np.searchsorted(self._firsts, index, side="right") - 1
        chosen = zip(shards.tolist(), (index - self._firsts[shards]).tolist(), strict=True)
        pieces = [
            (place, at, self._shards.document(shard, number)[begin:end])
            for place, (shard, row) in enumerate(chosen)
            for at, number, begin, end in self._layout(shard).row(row)
        ]
        return filled(pieces, len(index), self.row_length)

    def _layout(self, shard: int) -> Layout:
        """Where each piece goes: computed once, then read."""
        name = f"{shard:05}.rows-{self.row_length}.npy"
        if not (self._shards.directory / name).is_file():
            lengths = np.diff(self._shards.ends[shard], prepend=0)
            _save(self._shards.directory / name, layout_of(lengths.tolist(), self.row_length).pieces)
        return Layout(self._shards.mapped(name))
