"""From a recipe's list of files to the seven files that the stages read.

    documents.jsonl       documents.held_out.jsonl        pretraining
    demonstrations.jsonl  demonstrations.held_out.jsonl   SFT
    rankings.jsonl        rankings.held_out.jsonl         reward model
    prompts.jsonl                                         PPO: the prompts of the training demonstrations and rankings

For each source: load, drop duplicates, order by hash, clean, fit, cap; then split by the hash of the document or first
question, repeat by weight, shuffle. Every step depends on the text and the seed alone, so a run can be repeated.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Generic, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveInt

from chatwheel.data.cleaning import Rules, clean, texts, with_texts
from chatwheel.data.deduplication import firsts, near_duplicates, signatures_of
from chatwheel.data.pii import mask
from chatwheel.data.records import Conversation, Demonstration, Document, Prompt, Ranking, Record, write_jsonl
from chatwheel.data.sources import Kind, load
from chatwheel.data.splits import fraction, key_of, split, unique
from chatwheel.errors import InputError

RecordT = TypeVar("RecordT", bound=Record)
_MEGABYTE = 1_000_000
_KINDS: dict[type[Record], Kind] = {Document: "documents", Demonstration: "conversations", Ranking: "rankings"}
_NAMES: dict[type[Record], str] = {Document: "documents", Demonstration: "demonstrations", Ranking: "rankings"}


def _not_evaluation(path: Path) -> Path:
    if "evaluation" in path.parts:
        raise ValueError(f"{path} is evaluation data, which must never be trained on; choose another file")
    return path


class Source(BaseModel):
    """One file of a mixture.

    path: relative to the mixture's root.        format, language, fields: as in `sources.load`.
    weight: how often each record is repeated; 0.5 keeps half of them, 2.5 gives two or three copies.
    prompt_weight: how often each of its different prompts goes to prompts.jsonl; 0 keeps its prompts from PPO.
    max_records: a cap, held-out records included, before the weight; which ones remain depends on the seed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    path: Annotated[Path, AfterValidator(_not_evaluation)]
    format: str = "auto"
    language: Literal["en", "zh"] | None = None
    fields: dict[str, str] = {}
    weight: float = Field(default=1.0, gt=0, le=100)
    prompt_weight: float = Field(default=1.0, ge=0, le=100)
    max_records: PositiveInt | None = None


class DocumentSource(Source):
    """Text for pretraining. max_megabytes: a cap on the cleaned text in UTF-8; documents stay whole."""

    max_megabytes: float | None = Field(default=None, gt=0)


class FilesData(BaseModel):
    """The `data` part of a recipe that trains on files.

    root: where the paths begin, relative to the recipe (`located`).
    held_out: the share of documents that training never sees.
    held_out_prompts: the share of first questions, of demonstrations and rankings alike, that training never sees.
    min_document_characters: shorter documents are dropped.
    max_bytes: the longest demonstration, and the longest prompt with one answer of a ranking, in bytes of UTF-8: a
        token of a vocabulary of 8,192 is 3.7 bytes of English or 3.4 of Chinese, so 1,500 fit a context of 512.
    max_prompt_bytes: the longest prompt for PPO; the rest of the context is the answer's.
    passage_bytes: the passages of question-answering prompts are cut to this.
    near_duplicates: documents that share so much of their five-word runs with an earlier one are dropped; 0.8 is usual.
    mask_personal_data: e-mail addresses, telephone numbers, cards, keys and the like become marks.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["files"] = "files"
    root: Path = Path()
    held_out: float = Field(default=0.02, ge=0, le=0.5)
    held_out_prompts: float = Field(default=0.02, ge=0, le=0.5)
    min_document_characters: int = Field(default=200, ge=1)
    max_bytes: PositiveInt = 1500
    max_prompt_bytes: PositiveInt = 900
    passage_bytes: PositiveInt | None = 600
    near_duplicates: float | None = Field(default=None, ge=0.3, le=1)
    mask_personal_data: bool = False
    documents: tuple[DocumentSource, ...] = ()
    demonstrations: tuple[Source, ...] = ()
    rankings: tuple[Source, ...] = ()

    def located(self, recipe_directory: Path) -> Self:
        """The same with an absolute root; a recipe's paths are relative to the recipe."""
        return self.model_copy(update={"root": (recipe_directory / self.root.expanduser()).resolve()})


def prepare(
    config: FilesData, directory: Path, seed: int, progress: Callable[[str], None] = lambda _: None
) -> dict[str, int]:
    """Writes the seven files into `directory`, each whole or not at all, and nothing before all sources are read.

    Returns counts: records by file ("documents", "documents.held_out", ...), "bytes.documents.en",
    "records.demonstrations.zh"; and of each source "chosen.rankings.<path>", "cut.rankings.<path>",
    "dropped.rankings.<path>: <reason>".
    """
    _require_files(config)
    gathering = _Gathering(config, seed, progress)
    counts = gathering.counts
    documents = gathering.read(Document, config.documents)
    demonstrations = gathering.read(Demonstration, config.demonstrations)
    rankings = gathering.read(Ranking, config.rankings)
    prompts = gathering.prompts()
    counts.update({f"masked: {what}": n for what, n in gathering.counts_masked.items()})
    files: dict[str, Sequence[Record]] = {
        "documents": documents.train,
        "documents.held_out": documents.held_out,
        "demonstrations": demonstrations.train,
        "demonstrations.held_out": demonstrations.held_out,
        "prompts": prompts,
        "rankings": rankings.train,
        "rankings.held_out": rankings.held_out,
    }
    for name, records in files.items():
        progress(f"writing {name}.jsonl")
        counts[name] = write_jsonl(directory / f"{name}.jsonl", records)
        for record in records:
            counts[f"records.{name}.{record.language or 'unknown'}"] += 1
            counts[f"bytes.{name}.{record.language or 'unknown'}"] += _num_bytes(texts(record))
    return dict(sorted(counts.items()))


@dataclass
class _Parts(Generic[RecordT]):
    """Training and held-out records of one kind."""

    train: list[RecordT]
    held_out: list[RecordT]


class _Gathering:
    """Reads the sources of a mixture, kind by kind, and counts what becomes of them."""

    def __init__(self, config: FilesData, seed: int, progress: Callable[[str], None]) -> None:
        self.config = config
        self.seed = seed
        self.progress = progress
        self.counts: Counter[str] = Counter()
        self.counts_masked: Counter[str] = Counter()
        self._asked: list[tuple[Conversation, float]] = []  # training records and their sources' prompt weights

    def read(self, kind: type[RecordT], sources: Sequence[Source]) -> _Parts[RecordT]:
        """All sources of one kind: chosen, split, weighted, shuffled."""
        parts: _Parts[RecordT] = _Parts([], [])
        seen: set[bytes] = set()
        share = self.config.held_out if kind is Document else self.config.held_out_prompts
        for source, chosen in self._compared(kind, sources, seen):
            for record in chosen:
                if split(key_of(record), share) == "held_out":
                    parts.held_out.append(record)
                    continue
                parts.train += [record] * _copies(record, source.weight, self.seed)
                if isinstance(record, Conversation):
                    self._asked.append((record, source.prompt_weight))
        return _Parts(_shuffled(parts.train, self.seed), _shuffled(parts.held_out, self.seed))

    def _compared(
        self, kind: type[RecordT], sources: Sequence[Source], seen: set[bytes]
    ) -> Iterator[tuple[Source, Iterable[RecordT]]]:
        """Each source with its chosen records, documents without near-duplicates of earlier ones, of any source."""

        def each() -> Iterator[tuple[Source, Iterable[RecordT]]]:
            for source in sources:
                self.progress(f"reading {source.path}")
                yield source, self._chosen(kind, source, seen)

        if kind is not Document or self.config.near_duplicates is None:
            yield from each()
            return
        whole = [(source, list(chosen)) for source, chosen in each()]
        self.progress("comparing documents")
        leaders = near_duplicates(
            signatures_of("\n".join(texts(record)) for _, chosen in whole for record in chosen),
            self.config.near_duplicates,
        )
        begin = 0
        for source, chosen in whole:
            dropped: Counter[str] = Counter()
            kept = list(firsts(chosen, leaders, dropped, begin))
            name = f"{_NAMES[kind]}.{source.path}"
            self.counts[f"chosen.{name}"] = len(kept)
            self.counts.update({f"dropped.{name}: {reason}": n for reason, n in dropped.items()})
            begin += len(chosen)
            yield source, kept

    def prompts(self) -> list[Prompt]:
        """The different prompts of the training records read so far, repeated by their sources' prompt weights."""
        dropped: Counter[str] = Counter()
        seen: set[bytes] = set()
        found: list[Prompt] = []
        for record, weight in self._asked:
            asked = prompt_of(record)
            if _num_bytes(texts(asked)) > self.config.max_prompt_bytes:
                dropped["too long"] += 1
            elif weight:
                copies = _copies(asked, weight, self.seed)
                found += [prompt for prompt in unique([asked], dropped, seen) for _ in range(copies)]
        self.counts.update({f"dropped.prompts: {reason}": n for reason, n in dropped.items()})
        return _shuffled(found, self.seed)

    def _chosen(self, kind: type[RecordT], source: Source, seen: set[bytes]) -> Iterator[RecordT]:
        """What remains of one source, up to its cap."""
        dropped: Counter[str] = Counter()
        name = f"{_NAMES[kind]}.{source.path}"
        rules = Rules(min_characters=self.config.min_document_characters if kind is Document else 1)
        cap = _Cap(source)
        # Ordering before cleaning: what the cap cuts off need not be cleaned. Duplicates are told after cutting, since
        # a dialogue without its last turns is often another record.
        cleaned = clean(self._ordered(kind, source, dropped), rules, dropped)
        if self.config.mask_personal_data:
            cleaned = (with_texts(record, lambda text: mask(text, self.counts_masked)) for record in cleaned)
        for record in unique(self._fitting(cleaned, name, dropped), dropped, seen):
            if cap.admits(record):
                yield record
            if cap.is_reached:
                break
        self.counts[f"chosen.{name}"] = cap.num_records
        self.counts.update({f"dropped.{name}: {reason}": n for reason, n in dropped.items()})

    def _fitting(self, records: Iterable[RecordT], name: str, dropped: Counter[str]) -> Iterator[RecordT]:
        for record in records:
            fitted = _fitted(record, self.config.max_bytes)
            if fitted is None:
                dropped["too long"] += 1
            else:
                if fitted is not record:
                    self.counts[f"cut.{name}"] += 1
                yield fitted

    def _ordered(self, kind: type[RecordT], source: Source, dropped: Counter[str]) -> list[RecordT]:
        """The records of one file in an order that the seed and the texts alone decide."""
        loaded = load(
            self.config.root / source.path,
            _KINDS[kind],
            format=source.format,
            language=source.language,
            fields=source.fields,
            passage_bytes=self.config.passage_bytes,
            skipped=dropped,
        )
        records = [record for record in loaded if isinstance(record, kind)]
        return sorted(records, key=lambda record: fraction(f"{self.seed}\x00{_head(record)}"))


class _Cap:
    """How much of a source may still come."""

    def __init__(self, source: Source) -> None:
        megabytes = source.max_megabytes if isinstance(source, DocumentSource) else None
        self.max_records = source.max_records
        self.max_bytes = None if megabytes is None else round(megabytes * _MEGABYTE)
        self.num_records = self.num_bytes = 0

    def admits(self, record: Record) -> bool:
        """Counts the record if there is room for the whole of it."""
        size = _num_bytes(texts(record))
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


def _fitted(record: RecordT, max_bytes: int) -> RecordT | None:
    """The record itself, or a dialogue without the last exchanges that are too many, or None.

    Documents stay whole (packing cuts them). A ranking is never cut: its answers were judged with the whole prompt.
    """
    if isinstance(record, Ranking):
        longest = max(_num_bytes([answer]) for answer in record.answers)
        return record if _num_bytes(m.content for m in record.messages) + longest <= max_bytes else None
    if not isinstance(record, Conversation):
        return record
    messages = record.messages
    while len(messages) > 3 and _num_bytes(m.content for m in messages) > max_bytes:
        messages = messages[:-2]
    if _num_bytes(m.content for m in messages) > max_bytes:
        return None
    if messages is record.messages:
        return record
    # The answers that remain may all be repeated from another path of a tree (weight 0): nothing would be learned.
    learned = any(m.role == "assistant" and m.weight != 0 for m in messages)
    return record.model_copy(update={"messages": messages}) if learned else None


def _head(record: Record) -> str:
    return "\x00".join(texts(record))[:2000]


def _copies(record: Record, weight: float, seed: int) -> int:
    """`weight` copies on average: the whole part, and one more for a share of the records."""
    whole = int(weight)
    return whole + (fraction(f"copies\x00{seed}\x00{_head(record)}") < weight - whole)


def _shuffled(records: list[RecordT], seed: int) -> list[RecordT]:
    random.Random(seed).shuffle(records)
    return records


def _require_files(config: FilesData) -> None:
    for source in (*config.documents, *config.demonstrations, *config.rankings):
        if not (config.root / source.path).is_file():
            raise InputError(f"{config.root / source.path}: no such file; check data.root and the path in the recipe")


def prompt_of(record: Conversation) -> Prompt:
    """What a demonstration answers, or what a ranking's answers answer."""
    messages = record.messages[:-1] if record.messages[-1].role == "assistant" else record.messages
    # Weights concern a demonstration's loss; without them equal prompts are equal.
    plain = [m.model_copy(update={"weight": None}) for m in messages]
    return Prompt(messages=plain, source=record.source, language=record.language)


def _num_bytes(parts: Iterable[str]) -> int:
    return sum(len(part.encode("utf-8", "surrogatepass")) for part in parts)
