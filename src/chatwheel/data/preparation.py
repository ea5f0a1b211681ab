"""From a recipe's list of files to the nine files that the stages read.

    documents.jsonl       documents.held_out.jsonl        pretraining
    demonstrations.jsonl  demonstrations.held_out.jsonl   SFT
    rankings.jsonl        rankings.held_out.jsonl         reward model, DPO, KTO
    ratings.jsonl         ratings.held_out.jsonl          KTO
    prompts.jsonl                                         PPO: the prompts of all these but the documents

For each source: load; order by hash, if it is capped; clean, fit, mask (`treat`, in several processes where there is
much); drop duplicates, cap; then split by the hash of the document or first question, repeat by weight, shuffle. Every
step depends on the text and the seed alone, so a run can be repeated. What is kept in memory is some hundred bytes a
record, and 256 more where near-duplicates are told; the records wait on disk (`external_sort`).
"""

from __future__ import annotations

import hashlib
import pickle
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TypeVar

from chatwheel.atomic import write_atomically
from chatwheel.data.cleaning import Rules, judged, said, texts, with_texts
from chatwheel.data.deduplication import near_duplicates, signature, signatures_from
from chatwheel.data.external_sort import ExternalSort
from chatwheel.data.mixture import DocumentSource, FilesData, Source
from chatwheel.data.pii import mask
from chatwheel.data.records import Conversation, Demonstration, Document, Prompt, Ranking, Rating, Record, json_line
from chatwheel.data.sources import Kind, load
from chatwheel.data.splits import digest_of, fraction, key_of, split
from chatwheel.data.workers import Workers, cores
from chatwheel.errors import InputError

RecordT = TypeVar("RecordT", bound=Record)
_MEGABYTE = 1_000_000
_KINDS: dict[type[Record], Kind] = {
    Document: "documents",
    Demonstration: "conversations",
    Ranking: "rankings",
    Rating: "ratings",
}
_NAMES: dict[type[Record], str] = {**_KINDS, Demonstration: "demonstrations"}
FILES = (
    *("documents", "documents.held_out", "demonstrations", "demonstrations.held_out"),
    *("prompts", "rankings", "rankings.held_out", "ratings", "ratings.held_out"),
)
CHUNK = 2**20
"""Characters that a worker treats at a time."""
BYTES_A_WORKER = 4 * _MEGABYTE
"""Of the sources, as they are on disk: a process takes half a second to start."""


@dataclass(frozen=True, kw_only=True)
class Treatment:
    """What is done to each record of a source, whatever the others are."""

    seed: int
    rules: Rules
    max_bytes: int
    mask_personal_data: bool
    signed: bool
    held_out: float
    weight: float
    prompt_weight: float
    max_prompt_bytes: int


@dataclass(frozen=True, kw_only=True)
class Treated:
    """What became of a record: why it was `dropped`, or its `line` and all that the mixture must know of it.

    digest: tells duplicates. size: bytes of its texts. copies: how often it is repeated. prompt: what it asks, which
    may itself be dropped. cut: it lost its last exchanges. masked: personal data, by kind. signature: see
    `deduplication`.
    """

    dropped: str | None = None
    line: bytes = b""
    digest: bytes = b""
    size: int = 0
    language: str = "unknown"
    held_out: bool = False
    copies: int = 1
    prompt: Treated | None = None
    cut: bool = False
    masked: dict[str, int] = field(default_factory=dict)
    signature: bytes = b""


def treat(treatment: Treatment, records: Sequence[Record]) -> list[Treated]:
    """Each record cleaned, fitted and measured."""
    return [_treat(record, treatment) for record in records]


def _treat(record: Record, how: Treatment) -> Treated:
    record, reason = judged(record, how.rules)
    if reason is not None:
        return Treated(dropped=reason)
    masked: list[Counter[str]] = []  # of each text, in their order

    def marked(text: str) -> str:
        masked.append(Counter())
        return mask(text, masked[-1])

    if how.mask_personal_data:
        record = with_texts(record, marked)
    fitted = _fitted(record, how.max_bytes)
    if fitted is None:
        return Treated(dropped="too long")
    # Only demonstrations know functions: PPO would not offer them.
    asked = prompt_of(fitted) if isinstance(fitted, Conversation) and not fitted.uses_functions else None
    return replace(
        _measured(fitted, how.seed, how.weight),
        held_out=split(key_of(fitted), how.held_out) == "held_out",
        prompt=_asked(asked, how) if asked is not None else None,
        cut=fitted is not record,
        masked=sum(masked[: len(texts(fitted))], Counter()),  # cut are the last ones
        signature=signature("\n".join(texts(fitted))).tobytes() if how.signed else b"",
    )


def _asked(prompt: Prompt, how: Treatment) -> Treated:
    if _num_bytes(texts(prompt)) > how.max_prompt_bytes:
        return Treated(dropped="too long")
    return _measured(prompt, how.seed, how.prompt_weight)


def _measured(record: Record, seed: int, weight: float) -> Treated:
    """`weight` copies on average: the whole part, and one more for a share of the records."""
    whole = int(weight)
    return Treated(
        line=json_line(record),
        digest=digest_of(record),
        size=_num_bytes(texts(record)),
        language=record.language or "unknown",
        copies=whole + (fraction(f"copies\x00{seed}\x00{_head(record)}") < weight - whole),
    )


def prepare(
    config: FilesData,
    directory: Path,
    seed: int,
    progress: Callable[[str], None] = lambda _: None,
    *,
    workers: Workers | None = None,
) -> dict[str, int]:
    """Writes the nine files into `directory`, each whole or not at all, and nothing before all sources are read.

    workers: processes; as many as there are cores and megabytes of text without. The files do not depend on them.

    Returns counts: records by file ("documents", "documents.held_out", ...), "bytes.documents.en",
    "records.demonstrations.zh"; of each source "chosen.rankings.<path>", how many of these were cut,
    "cut.rankings.<path>", and, of all that were looked at before its cap was reached,
    "dropped.rankings.<path>: <reason>"; and "masked: <kind>" in what was chosen.
    """
    _require_files(config)
    place = directory.with_name(f".{directory.name}.preparing")  # what a killed run left there is of no use
    shutil.rmtree(place, ignore_errors=True)
    try:
        with workers or Workers(_num_workers(config)) as processes:
            gathering = _Gathering(config, seed, place, processes, progress)
            gathering.read(Document, config.documents)
            gathering.read(Demonstration, config.demonstrations)
            gathering.read(Ranking, config.rankings)
            gathering.read(Rating, config.ratings)
        counts = gathering.counts
        for name in FILES:
            progress(f"writing {name}.jsonl")
            counts[name] = write_atomically(directory / f"{name}.jsonl", gathering.files[name].sorted())
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return dict(sorted(counts.items()))


class _Gathering:
    """Reads the sources of a mixture, kind by kind, and counts what becomes of them."""

    def __init__(
        self, config: FilesData, seed: int, place: Path, workers: Workers, progress: Callable[[str], None]
    ) -> None:
        self.config, self.seed, self.place, self.workers = config, seed, place, workers
        self.progress = progress
        self.counts: Counter[str] = Counter()
        self.files = {name: ExternalSort(place, name) for name in FILES}
        self._prompts_seen: set[bytes] = set()

    def read(self, kind: type[RecordT], sources: Sequence[Source]) -> None:
        """All sources of one kind: chosen, split, weighted; they wait in `files` in their final order."""
        seen: set[bytes] = set()
        each: Iterator[tuple[Path, Treated]] = (
            (source.path, treated) for source in sources for treated in self._chosen(kind, source, seen)
        )
        if kind is Document and self.config.near_duplicates is not None:
            each = self._without_near_duplicates(each, self.config.near_duplicates)
        for path, treated in each:
            self.counts[f"chosen.{_NAMES[kind]}.{path}"] += 1
            self.counts[f"cut.{_NAMES[kind]}.{path}"] += treated.cut
            self.counts.update({f"masked: {what}": n for what, n in treated.masked.items()})
            name = f"{_NAMES[kind]}.held_out" if treated.held_out else _NAMES[kind]
            for copy in range(1 if treated.held_out else treated.copies):
                self._put(name, treated, copy)
            if treated.prompt is not None and not treated.held_out:
                self._ask(treated.prompt)

    def _ask(self, prompt: Treated) -> None:
        """The different prompts of the training records, repeated by the weights of the sources they were first in."""
        if prompt.dropped is None and prompt.copies and prompt.digest in self._prompts_seen:
            prompt = Treated(dropped="duplicate")
        if prompt.dropped is not None:
            self.counts[f"dropped.prompts: {prompt.dropped}"] += 1
            return
        for copy in range(prompt.copies):
            self._prompts_seen.add(prompt.digest)
            self._put("prompts", prompt, copy)

    def _put(self, name: str, treated: Treated, copy: int) -> None:
        place = hashlib.blake2b(f"{self.seed} {copy} ".encode() + treated.digest, digest_size=8).digest()
        self.files[name].add(place, treated.line)
        self.counts[f"records.{name}.{treated.language}"] += 1
        self.counts[f"bytes.{name}.{treated.language}"] += treated.size

    def _without_near_duplicates(
        self, each: Iterable[tuple[Path, Treated]], threshold: float
    ) -> Iterator[tuple[Path, Treated]]:
        """Those that have no near-duplicate before them, in any source."""
        signatures = bytearray()
        with ExternalSort(self.place, "compared") as waiting:
            for number, (path, treated) in enumerate(each):
                signatures += treated.signature
                # In a directory of our own, and read by this process only: pickle is as good as any format.
                entry = pickle.dumps((path, replace(treated, signature=b"")))
                waiting.add(number.to_bytes(8, "big"), entry)
            self.progress("comparing documents")
            leaders = near_duplicates(signatures_from(signatures), threshold)
            for number, entry in enumerate(waiting.sorted()):
                path, treated = pickle.loads(entry)
                if leaders[number] == number:
                    yield path, treated
                else:
                    self.counts[f"dropped.documents.{path}: near-duplicate"] += 1

    def _chosen(self, kind: type[Record], source: Source, seen: set[bytes]) -> Iterator[Treated]:
        """What remains of one source, up to its cap."""
        self.progress(f"reading {source.path}")
        name = f"{_NAMES[kind]}.{source.path}"
        self.counts.update({f"chosen.{name}": 0, f"cut.{name}": 0})
        dropped: Counter[str] = Counter()
        cap = _Cap(source)
        for treated in self._treated(kind, source, dropped):
            if treated.dropped is not None:
                dropped[treated.dropped] += 1
            # Told after cutting, since a dialogue without its last turns is often another record.
            elif treated.digest in seen:
                dropped["duplicate"] += 1
            elif not cap.admits(treated.size):
                dropped["beyond the cap"] += 1  # another source may have it
            else:
                seen.add(treated.digest)
                yield treated
            if cap.is_reached:
                break
        self.counts.update({f"dropped.{name}: {reason}": n for reason, n in dropped.items()})

    def _treated(self, kind: type[Record], source: Source, dropped: Counter[str]) -> Iterator[Treated]:
        config = self.config
        treatment = Treatment(
            seed=self.seed,
            rules=Rules(
                min_characters=config.min_document_characters if kind is Document else 1,
                quality=config.quality,
                languages=config.languages,
            ),
            max_bytes=config.max_bytes,
            mask_personal_data=config.mask_personal_data,
            signed=kind is Document and config.near_duplicates is not None,
            held_out=config.held_out if kind is Document else config.held_out_prompts,
            weight=source.weight,
            prompt_weight=source.prompt_weight,
            max_prompt_bytes=config.max_prompt_bytes,
        )
        with ExternalSort(self.place, "ordered") as order:
            records = self._loaded(kind, source, dropped)
            if _Cap(source).is_one:  # which ones remain must not depend on the order in the file
                records = self._ordered(kind, records, order)
            yield from chain.from_iterable(self.workers.in_order(partial(treat, treatment), _chunks(records)))

    def _ordered(self, kind: type[RecordT], records: Iterable[Record], order: ExternalSort) -> Iterator[Record]:
        """The records in an order that the seed and the texts alone decide. Before they are cleaned: what the cap cuts
        off need not be."""
        for record in records:
            chance = fraction(f"{self.seed}\x00{_head(record)}")
            order.add(int(chance * 2**48).to_bytes(6, "big"), json_line(record))
        return (kind.model_validate_json(line) for line in order.sorted())

    def _loaded(self, kind: type[Record], source: Source, dropped: Counter[str]) -> Iterator[Record]:
        loaded = load(
            self.config.root / source.path,
            _KINDS[kind],
            format=source.format,
            language=source.language,
            fields=source.fields,
            passage_bytes=self.config.passage_bytes,
            skipped=dropped,
        )
        return (record for record in loaded if isinstance(record, kind))


class _Cap:
    """How much of a source may still come."""

    def __init__(self, source: Source) -> None:
        megabytes = source.max_megabytes if isinstance(source, DocumentSource) else None
        self.max_records = source.max_records
        self.max_bytes = None if megabytes is None else round(megabytes * _MEGABYTE)
        self.num_records = self.num_bytes = 0

    @property
    def is_one(self) -> bool:
        return self.max_records is not None or self.max_bytes is not None

    def admits(self, size: int) -> bool:
        """Counts a record of so many bytes if there is room for the whole of it."""
        if self.max_bytes is not None and self.num_bytes + size > self.max_bytes:
            return False
        self.num_records += 1
        self.num_bytes += size
        return True

    @property
    def is_reached(self) -> bool:
        """No further record, or less than a hundredth of the bytes: not worth a look through the rest."""
        full = self.max_bytes is not None and self.num_bytes >= 0.99 * self.max_bytes
        return full or self.num_records == self.max_records


def _chunks(records: Iterable[RecordT]) -> Iterator[list[RecordT]]:
    chunk: list[RecordT] = []
    size = 0
    for record in records:
        chunk.append(record)
        size += sum(map(len, texts(record)))
        if size >= CHUNK:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _sources(config: FilesData) -> tuple[Source, ...]:
    return (*config.documents, *config.demonstrations, *config.rankings, *config.ratings)


def _num_workers(config: FilesData) -> int:
    sources = {source.path for source in _sources(config)}
    size = sum((config.root / path).stat().st_size for path in sources)
    return min(cores(), size // BYTES_A_WORKER)


def _fitted(record: RecordT, max_bytes: int) -> RecordT | None:
    """The record itself, or a dialogue without the last exchanges that are too many, or None.

    Documents stay whole (packing cuts them). What was judged is never cut: it was with the whole prompt.
    """
    if isinstance(record, Ranking | Rating):
        answers = record.answers if isinstance(record, Ranking) else [record.answer]
        longest = max(_num_bytes([answer]) for answer in answers)
        return record if _num_bytes(m.content for m in record.messages) + longest <= max_bytes else None
    if not isinstance(record, Conversation):
        return record
    messages = record.messages
    questions = [i for i, m in enumerate(messages) if m.role == "user"]
    while len(questions) > 1 and _num_bytes(part for m in messages for part in said(m)) > max_bytes:
        messages = messages[: questions.pop()]
    if _num_bytes(part for m in messages for part in said(m)) > max_bytes:
        return None
    if messages is record.messages:
        return record
    # The answers that remain may all be repeated from another path of a tree (weight 0): nothing would be learned.
    learned = any(m.role == "assistant" and m.weight != 0 for m in messages)
    return record.model_copy(update={"messages": messages}) if learned else None


def prompt_of(record: Conversation) -> Prompt:
    """What a demonstration answers, or what judged answers answer."""
    *before, last = record.messages
    answered = last.role == "assistant"
    messages = before if answered else record.messages
    # Weights concern a demonstration's loss; without them equal prompts are equal.
    plain = [m.model_copy(update={"weight": None}) for m in messages]
    reference = record.reference or (last.content if answered else None)
    return Prompt(messages=plain, source=record.source, language=record.language, reference=reference)


def _head(record: Record) -> str:
    return "\x00".join(texts(record))[:2000]


def _require_files(config: FilesData) -> None:
    for source in _sources(config):
        if not (config.root / source.path).is_file():
            raise InputError(f"{config.root / source.path}: no such file; check data.root and the path in the recipe")


def _num_bytes(parts: Iterable[str]) -> int:
    return sum(len(part.encode("utf-8", "surrogatepass")) for part in parts)
