"""Checks an uploaded fine-tuning file, a line at a time in bounded memory, and reads its examples for training.

report = check(path, "supervised")                     # shapes, turns, duplicates: one pass, tens of MB/s
tokens = count_tokens(path, "supervised", tokenizer, context=512)    # a pass of its own: tokenizers are slower
for record in read_examples(path, "supervised"): ...   # what was checked is what training reads
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Literal, overload

import numpy as np

from chatwheel.data.records import Demonstration, Json, Prompt, Ranking, Record
from chatwheel.errors import InputError
from chatwheel.jobs.fine_tuning.examples import Fault, Kind, kind_of, read_line, to_record
from chatwheel.jobs.fine_tuning.lines import Limits, Text
from chatwheel.model.tokenizer import Tokenizer

MOST_FAULTS = 100
FEW_EXAMPLES = 10
"""OpenAI refuses fewer; here one may try, and is told."""
_AT_ONCE = 500


@dataclass(frozen=True, kw_only=True)
class TokenCount:
    """Of all examples, the template's tokens included. prompt: read only. trained: what is learnt, in one epoch; of
    preferences both answers, and each prompt twice, as the trainer counts; of reinforcement none, answers are sampled.
    longest: of an example. too_long: examples beyond the context, which training leaves out; first_too_long: the line
    of the first one, 0 if there is none."""

    prompt: int
    trained: int
    longest: int
    too_long: int
    first_too_long: int


@dataclass(frozen=True, kw_only=True)
class FileReport:
    """examples: right ones. num_bytes: of the text, unpacked. errors: the first hundred; num_errors: all that were
    found. warnings: sentences, none of which stands in the way."""

    kind: Kind
    examples: int
    num_bytes: int
    errors: list[Fault] = field(default_factory=list)
    num_errors: int = 0
    warnings: list[str] = field(default_factory=list)
    tokens: TokenCount | None = None

    @property
    def ok(self) -> bool:
        """The file can be trained on."""
        return not self.num_errors

    def to_json(self) -> Json:
        """As plain data."""
        return {"ok": self.ok, **asdict(self)}

    def summary(self) -> str:
        """In one line, as an error of a job has it."""
        if self.ok:
            return f"{self.examples:,} examples"
        more = f" (and {self.num_errors - 1:,} more errors)" if self.num_errors > 1 else ""
        return f"{self.errors[0]}{more}"


def check(
    path: Path,
    kind: Kind | None = None,
    *,
    tokenizer: Tokenizer | None = None,
    context: int | None = None,
    check_example: Callable[[Json], str | None] | None = None,
    limits: Limits = Limits(),
) -> FileReport:
    """What is right and wrong with a file. Nothing of it raises: a file that cannot be read on has one error more.

    kind: told from the first line unless given. tokenizer: counts tokens too, in a pass of its own, if the file is
    right. context: of the model, in tokens; its own rows if None. check_example: of each right example, the sentence
    that stands against it, if any (`Grader.missing` for a grader's fields).
    """
    text = Text(path, limits)
    faults: list[Fault] = []
    num_faults = examples = number = same = 0
    hashes, numbers = array("q"), array("l")

    def note(found: list[Fault]) -> None:
        nonlocal num_faults
        num_faults += len(found)
        faults.extend(found[: MOST_FAULTS - len(faults)])

    try:
        for line in text:
            number = line.number
            kind = kind or kind_of(line)
            value = read_line(line, kind)
            if isinstance(value, list):
                note(value)
                continue
            if check_example is not None and (problem := check_example(value)):
                note([Fault(number, "", problem)])
                continue
            examples += 1
            hashes.append(hash(line.content))
            numbers.append(number)
            same += kind == "preference" and _no_preference(value)
    except InputError as error:
        # Of the whole file, so it comes first.
        faults.insert(0, Fault(0, "", error.message))
        del faults[MOST_FAULTS:]
        num_faults += 1
    if not number and not num_faults:
        note([Fault(0, "", "the file is empty; write one example a line")])
    report = FileReport(
        kind=kind or "supervised",
        examples=examples,
        num_bytes=text.num_bytes,
        errors=faults,
        num_errors=num_faults,
        warnings=[*_of_text(text), *_of_examples(examples, same), *_duplicates(hashes, numbers)],
    )
    if tokenizer is None or not report.ok:
        return report
    tokens = count_tokens(path, report.kind, tokenizer, context=context, limits=limits)
    warnings = [*report.warnings, *_too_long(tokens, context)]
    return FileReport(**{**vars(report), "tokens": tokens, "warnings": warnings})


@overload
def read_examples(path: Path, kind: Literal["supervised"], *, limits: Limits = ...) -> Iterator[Demonstration]: ...
@overload
def read_examples(path: Path, kind: Literal["preference"], *, limits: Limits = ...) -> Iterator[Ranking]: ...
@overload
def read_examples(path: Path, kind: Literal["reinforcement"], *, limits: Limits = ...) -> Iterator[Prompt]: ...
@overload
def read_examples(path: Path, kind: Kind, *, limits: Limits = ...) -> Iterator[Demonstration | Ranking | Prompt]: ...
def read_examples(path: Path, kind: Kind, *, limits: Limits = Limits()) -> Iterator[Demonstration | Ranking | Prompt]:
    """The records of a file: demonstrations, rankings of two answers, or prompts. Raises InputError for the first
    fault, with its line and field."""
    for _, record in _records(path, kind, limits):
        yield record


def count_tokens(
    path: Path, kind: Kind, tokenizer: Tokenizer, *, context: int | None = None, limits: Limits = Limits()
) -> TokenCount:
    """Counts as training does: the chat template's tokens, and of them the assistant's. Examples are encoded by the
    hundred in the tokenizer's threads. Raises InputError as `read_examples` does."""
    prompt = trained = longest = too_long = first = 0
    records = _records(path, kind, limits)
    while some := list(islice(records, _AT_ONCE)):
        try:
            counts = _counts([record for _, record in some], tokenizer)
        except InputError as error:  # a template that wants other messages
            raise InputError(f"lines {some[0][0]} to {some[-1][0]}: {error.message}") from None
        for (line, _), (read, learnt, length) in zip(some, counts, strict=True):
            prompt, trained, longest = prompt + read, trained + learnt, max(longest, length)
            if context is not None and length > context:
                too_long, first = too_long + 1, first or line
    return TokenCount(prompt=prompt, trained=trained, longest=longest, too_long=too_long, first_too_long=first)


def _records(path: Path, kind: Kind, limits: Limits) -> Iterator[tuple[int, Demonstration | Ranking | Prompt]]:
    for line in Text(path, limits):
        value = read_line(line, kind)
        if isinstance(value, list):
            raise InputError(str(value[0]))
        yield line.number, to_record(value, kind)


def _counts(records: list[Record], tokenizer: Tokenizer) -> list[tuple[int, int, int]]:
    """Of each record: tokens read, tokens learnt, and how long the longest sequence made of it is."""
    first = records[0]
    if isinstance(first, Ranking):
        rankings = [record for record in records if isinstance(record, Ranking)]
        encoded = tokenizer.encode_conversations(_answered(r, answer) for r in rankings for answer in r.answers)
        # Earlier turns of the assistant's are the prompt's: only the last run of its tokens is learnt.
        sizes = [(len(ids), _last_run(mask)) for ids, mask in encoded]
        pairs = zip(sizes[::2], sizes[1::2], strict=True)
        return [(a + b - x - y, x + y, max(a, b)) for (a, x), (b, y) in pairs]
    if isinstance(first, Prompt):
        prompts = [record for record in records if isinstance(record, Prompt)]
        texts = [
            tokenizer.template.render([m.model_dump() for m in prompt.messages], add_generation_prompt=True).text
            for prompt in prompts
        ]
        return [(len(ids), 0, len(ids)) for ids in tokenizer.encode_batch(texts)]
    conversations = (record.model_dump(include={"messages", "tools"}) for record in records)
    encoded = tokenizer.encode_conversations(conversations)
    return [(int((~mask).sum()), int(mask.sum()), len(ids)) for ids, mask in encoded]


def _answered(ranking: Ranking, answer: str) -> list[Json]:
    return [*(m.model_dump() for m in ranking.messages), {"role": "assistant", "content": answer}]


def _last_run(mask: np.ndarray) -> int:
    learnt = np.flatnonzero(mask)
    before = np.flatnonzero(~mask[: learnt[-1] + 1])
    return int(learnt[-1] - (before[-1] if len(before) else -1))


def _no_preference(value: Json) -> bool:
    return bool(value["preferred_output"][0]["content"] == value["non_preferred_output"][0]["content"])


def _of_text(text: Text) -> list[str]:
    warnings = []
    if text.has_bom:
        warnings.append("the file begins with a byte order mark, which is passed over")
    if text.ends == "CRLF":
        warnings.append("lines end as on Windows (CRLF), which is read as well")
    return warnings


def _of_examples(examples: int, same: int) -> list[str]:
    warnings = []
    if 0 < examples < FEW_EXAMPLES:
        few = "there is 1 example" if examples == 1 else f"there are {examples} examples"
        warnings.append(f"{few}; with fewer than {FEW_EXAMPLES} hardly anything is learnt, 50 to 100 are a start")
    if same:
        warnings.append(f"{same:,} pairs have two equal outputs, from which nothing is learnt")
    return warnings


def _duplicates(hashes: array[int], numbers: array[int]) -> list[str]:
    """Sixteen bytes a line are kept for it: 64 bits of a hash that differs from process to process, and its number."""
    if not hashes:
        return []
    values = np.frombuffer(hashes, np.int64)
    order = np.argsort(values, kind="stable")
    again = np.flatnonzero(np.diff(values[order]) == 0) + 1
    if not len(again):
        return []
    first = int(np.min(np.frombuffer(numbers, np.dtype("l"))[order[again]]))
    return [f"{len(again):,} lines are repeated word for word (the first is line {first}); each counts as often"]


def _too_long(tokens: TokenCount, context: int | None) -> list[str]:
    if not tokens.too_long:
        return []
    where = f"the first is line {tokens.first_too_long}"
    return [f"{tokens.too_long:,} examples are longer than {context} tokens and will be left out ({where})"]
