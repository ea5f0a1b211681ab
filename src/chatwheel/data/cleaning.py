"""Making text fit to learn from: one form of Unicode, no control characters, no boilerplate, sensible lengths.

Every record that is dropped is counted under a reason; nothing disappears silently.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from chatwheel.data.records import Conversation, Document, Ranking, Record

RecordT = TypeVar("RecordT", bound=Record)

# Control characters but tab and newline; soft hyphen, zero-width and direction marks (the joiner U+200D stays: emoji).
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u200b\u200c\u200e\u200f\u202a-\u202e\u2060\ufeff]")
_SPACES = str.maketrans({"\u00a0": " ", "\u2028": "\n", "\u2029": "\n", "\x0b": "\n", "\x0c": "\n", "\x85": "\n"})
_LINE_END = re.compile(r"[ \t\u3000]+$", re.MULTILINE)
_EMPTY_LINES = re.compile(r"\n{3,}")

# Boilerplate of the places where documents come from.
_LCTT_HEADER = re.compile(r"\A\s*(?:\[#\]:[^\n]*\n+)+")  # [#]: collector: (lujun9972)
# ------ via: https://... 译者：... 校对：... 本文由 LCTT 原创编译 [1]: https://...
_LCTT_FOOTER = re.compile(r"\n(?:-{3,}[ \t]*\n+)?[ \t]*(?:via[:：]\s*\S|译者[:：]|本文由 ?\[?LCTT).*\Z", re.DOTALL)
_YAML_HEADER = re.compile(r"\A\s*---\n(?:[\w-]+:[^\n]*\n|[ \t-][^\n]*\n)+---\n")
_LAW_HEADER = re.compile(r"\A(\s*#[^\n]*\n)?.{0,2000}?<!-- INFO END -->", re.DOTALL)  # when it was passed, and by whom
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_IMAGE = re.compile(r"!\[(?:[^\]\\]|\\.)*\](?:\([^)\n]*\)|\[[^\]\n]*\])")
_REFERENCE = re.compile(r"^ {0,3}\[[^\]\n]{1,60}\]:\s*<?(?:https?:|ftp:|mailto:|/|#)[^\n]*$", re.MULTILINE)
_LINK = re.compile(r"(?<!!)\[([^\]\n]+)\](?:\((?:https?:|mailto:|/|#)[^)\n]*\)|\[\d{1,3}\])")
_UNDERLINE = re.compile(r"(?<=\n)(?:={3,}|-{20,})[ \t]*(?:\n|\Z)")
_RUBY = re.compile(r"<rt>(.*?)</rt>", re.DOTALL)
_TAGS = re.compile(r"</?(?:ruby|rb|rp|center|br|p|div|span|font)\b[^<>\n]*>")
_ESCAPED_NUMBER = re.compile(r"^(\d+)\\\.", re.MULTILINE)


@dataclass(frozen=True)
class Rules:
    """What to clean and what to drop.

    min_characters, max_characters: bounds for a whole record's text, after cleaning.
    boilerplate: also strip headers, footers and link targets from documents.
    """

    min_characters: int = 1
    max_characters: int | None = None
    boilerplate: bool = True


def clean(records: Iterable[RecordT], rules: Rules, dropped: Counter[str]) -> Iterator[RecordT]:
    """The records that remain, cleaned; `dropped` is filled with how many went, by reason."""
    for record in records:
        cleaned = clean_record(record, boilerplate=rules.boilerplate)
        reason = fault(cleaned, rules)
        if reason is None:
            yield cleaned
        else:
            dropped[reason] += 1


def clean_record(record: RecordT, *, boilerplate: bool = True) -> RecordT:
    """The same record with every text cleaned; boilerplate is stripped from documents only."""
    if isinstance(record, Document) and boilerplate:
        return with_texts(record, lambda text: clean_text(strip_boilerplate(clean_text(text))))
    return with_texts(record, clean_text)


def with_texts(record: RecordT, change: Callable[[str], str]) -> RecordT:
    """The same record with every text changed."""
    if isinstance(record, Document):
        return record.model_copy(update={"text": change(record.text)})
    changes: dict[str, object] = {}
    if isinstance(record, Conversation):
        changes["messages"] = [m.model_copy(update={"content": change(m.content)}) for m in record.messages]
    if isinstance(record, Ranking):
        changes["answers"] = [change(answer) for answer in record.answers]
    return record.model_copy(update=changes)


def fault(record: Record, rules: Rules) -> str | None:
    """Why a record is dropped, or None."""
    parts = texts(record)
    if not all(parts):
        return "empty text"
    length = sum(map(len, parts))
    if length < rules.min_characters:
        return "too short"
    if rules.max_characters is not None and length > rules.max_characters:
        return "too long"
    return None


def texts(record: Record) -> list[str]:
    """Everything in a record that is text to learn from."""
    if isinstance(record, Document):
        return [record.text]
    messages = [m.content for m in record.messages] if isinstance(record, Conversation) else []
    return [*messages, *record.answers] if isinstance(record, Ranking) else messages


def clean_text(text: str) -> str:
    """NFC, no control characters, \\n for every line end, no spaces at line ends, at most one empty line, stripped."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").translate(_SPACES)
    text = _CONTROL.sub("", unicodedata.normalize("NFC", text))
    return _EMPTY_LINES.sub("\n\n", _LINE_END.sub("", text)).strip("\n\u3000 \t")


def strip_boilerplate(text: str) -> str:
    """A web or repository page -> its prose: headers, footers, images, link targets and ruby marks go."""
    text = _YAML_HEADER.sub("", _LCTT_HEADER.sub("", text))
    if "<!-- INFO END -->" in text:
        text = _LAW_HEADER.sub(lambda header: header[1] or "", text)
    text = _LCTT_FOOTER.sub("", text)
    text = _LINK.sub(r"\1", _REFERENCE.sub("", _IMAGE.sub("", _COMMENT.sub("", text))))
    text = _TAGS.sub("", _RUBY.sub(r"（\1）", text))
    return _ESCAPED_NUMBER.sub(r"\1.", _UNDERLINE.sub("", text))
