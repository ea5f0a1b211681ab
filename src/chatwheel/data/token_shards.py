"""Documents as tokens on disk, memory-mapped: text of any size trains in the memory of a few rows.

    tokens/documents/
        plan.json               what was tokenised and by which tokenizer; another plan makes everything anew
        00000.tokens.npy        the tokens of its documents, one after the other, 16 or 32 bits each
        00000.ends.npy          where each document ends among them
        00000.rows-256.npy      the layout in rows of 256 (`packing.layout_of`)
        complete.json           written last

A shard is some megabytes of text, decided by the text alone, written whole or not at all; a run that was killed goes on
with the next one. The tokenizer's own threads use all cores.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
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
    done = _finished(directory)
    for ends in done:
        next(islice(texts, len(ends) - 1, len(ends)), None)  # those documents are there
    for number, batches in enumerate(_shards(texts), start=len(done)):
        pieces: list[NDArray[Any]] = []
        borders: list[int] = []
        total = 0
        for batch in batches:
            for ids in encode_batch(batch):
                pieces.append(np.array([border, *ids, border], dtype))
                total += len(pieces[-1])
                borders.append(total)
        _save(directory / f"{number:05}.tokens.npy", np.concatenate(pieces))
        _save(directory / f"{number:05}.ends.npy", np.array(borders, np.int64))  # the last: it marks a finished shard
    write_atomically(directory / "complete.json", [b"{}\n"])


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


def _finished(directory: Path) -> list[NDArray[np.int64]]:
    """The ends of documents of each finished shard."""
    found: list[NDArray[np.int64]] = []
    while (path := directory / f"{len(found):05}.ends.npy").is_file():
        found.append(np.load(path, mmap_mode="r"))
    return found


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
        self.ends = _finished(directory)
        self.tokens = [np.load(directory / f"{i:05}.tokens.npy", mmap_mode="r") for i in range(len(self.ends))]
        self.num_documents = sum(map(len, self.ends))
        self.num_tokens = sum(map(len, self.tokens))

    def document(self, shard: int, number: int) -> NDArray[Any]:
        """The tokens of a shard's document, a view of the file."""
        begin = int(self.ends[shard][number - 1]) if number else 0
        return self.tokens[shard][begin : int(self.ends[shard][number])]  # type: ignore[no-any-return]

    def packed(self, row_length: int) -> ShardRows:
        """The documents in rows, each shard's packed by itself."""
        return ShardRows(self, row_length)


class ShardRows:
    """Packed rows that are made when they are asked for; as `Packed` in all that training reads."""

    def __init__(self, shards: TokenShards, row_length: int) -> None:
        self.row_length = row_length
        self._shards = shards
        self._layouts = [self._layout(i) for i in range(len(shards.ends))]
        self._firsts = np.cumsum([0, *(layout.num_rows for layout in self._layouts)])

    def __len__(self) -> int:
        return int(self._firsts[-1])

    def rows(self, index: NDArray[np.int64]) -> Packed:
        """Some of the rows, in memory."""
        shards = np.searchsorted(self._firsts, index, side="right") - 1
        chosen = zip(shards.tolist(), (index - self._firsts[shards]).tolist(), strict=True)
        pieces = [
            (place, at, self._shards.document(shard, number)[begin:end])
            for place, (shard, row) in enumerate(chosen)
            for at, number, begin, end in self._layouts[shard].row(row)
        ]
        return filled(pieces, len(index), self.row_length)

    def _layout(self, shard: int) -> Layout:
        """Where each piece goes: computed once, then read."""
        path = self._shards.directory / f"{shard:05}.rows-{self.row_length}.npy"
        if not path.is_file():
            lengths = np.diff(self._shards.ends[shard], prepend=0)
            _save(path, layout_of(lengths.tolist(), self.row_length).pieces)
        return Layout(np.load(path, mmap_mode="r"))
