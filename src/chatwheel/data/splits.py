"""Training and held-out parts by a stable hash: the same text falls on the same side in every file and every run."""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Literal, TypeVar

from chatwheel.data.cleaning import texts
from chatwheel.data.records import Conversation, Document, Ranking, Record

Part = Literal["train", "held_out"]
RecordT = TypeVar("RecordT", bound=Record)


def split(key: str, held_out: float = 0.02) -> Part:
    """The part of a document or prompt. A larger share holds out everything that a smaller one does.

    Case, white space and Unicode form do not matter, so that the same question written twice cannot straddle.
    """
    return "held_out" if fraction(" ".join(key.casefold().split())) < held_out else "train"


def fraction(text: str) -> float:
    """A number in [0, 1) from the text alone: blake2b, the same on every machine and in every run."""
    normal = unicodedata.normalize("NFC", text).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(normal, digest_size=6, person=b"chatwheel.split").digest()) / 2**48


def key_of(record: Record) -> str:
    """What must not be shared by the two parts: a document's text; a conversation's or a ranking's first question.

    The first question, not the whole prompt: so the paths of one tree and the turns of one dialogue stay together.
    """
    if isinstance(record, Document):
        return record.text
    if isinstance(record, Conversation):
        return next(m.content for m in record.messages if m.role == "user")
    raise TypeError(f"no split key for {type(record).__name__}")


def unique(records: Iterable[RecordT], dropped: Counter[str], seen: set[bytes] | None = None) -> Iterator[RecordT]:
    """The records whose text has not been seen; pass one `seen` to several calls to compare across sources."""
    seen = set() if seen is None else seen
    for record in records:
        digest = digest_of(record)
        if digest in seen:
            dropped["duplicate"] += 1
        else:
            seen.add(digest)
            yield record


def digest_of(record: Record) -> bytes:
    """Sixteen bytes that only records of the same texts share, and of the same calls. What two people say of the same
    answers is two rankings."""
    parts = texts(record)
    if isinstance(record, Ranking) and record.labeller:
        parts += [record.labeller]
    if isinstance(record, Conversation):
        parts += [call.function.model_dump_json() for m in record.messages for call in m.tool_calls or []]
    content = "\x00".join(parts).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(content, digest_size=16).digest()
