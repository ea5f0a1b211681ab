"""Making text fit to learn from: one form of Unicode, no control characters, no boilerplate, sensible lengths.

Every record that is dropped is counted under a reason; nothing disappears silently.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from chatwheel.data.identification import identify, require
from chatwheel.data.quality import quality_fault
from chatwheel.data.records import Conversation, Document, Message, Ranking, Rating, Record

RecordT = TypeVar("RecordT", bound=Record)

# Control characters but tab and newline; soft hyphen, zero-width and direction marks (the joiner U+200D stays: emoji).
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u200b\u200c\u200e\u200f\u202a-\u202e\u2060\ufeff]")
_SPACES = {"\r\n": "\n", "\r": "\n", "\u00a0": " ", "\u2028": "\n", "\u2029": "\n"} | dict.fromkeys(
    "\x0b\x0c\x85", "\n"
)
_BLANKS = " \t\u3000"
_EMPTY_LINES = re.compile(r"\n{3,}")

# Boilerplate of the places where documents come from.
_LCTT_HEADER = re.compile(r"\A\s*(?:\[#\]:[^\n]*\n+)+")  # [#]: collector: (lujun9972)
# ------ via: https://... 译者：... 校对：... 本文由 LCTT 原创编译 [1]: https://...
_LCTT_FOOTER = re.compile(r"\n(?:-{3,}[ \t]*\n+)?[ \t]*(?:via[:：]\s*\S|译者[:：]|本文由 ?\[?LCTT).*\Z", re.DOTALL)
_YAML_HEADER = re.compile(r"\A\s*---\n(?>(?:[\w-]+:|[ \t-])[^\n]*\n)+---\n")  # atomic: "-x: y" fits both
_LAW_HEADER = re.compile(r"\A(\s*#[^\n]*\n)?.{0,2000}?<!-- INFO END -->", re.DOTALL)  # when it was passed, and by whom
# None of these reads a stretch of text again from the next place where it may begin: crawled text has thousands of
# openings that nothing closes. What is not closed is matched to the end, and stays; a label or an address ends where
# another one begins.
_COMMENT = re.compile(r"<!--.*?-->|(<!--.*)", re.DOTALL)
_IMAGE = re.compile(r"!\[(?:(?!\\?!\[)(?:[^\]\\]|\\.))*+\](?:\((?:(?!\]\()[^)\n])*+\)|\[[^\]\n]*\])")
_REFERENCE = re.compile(r"^ {0,3}\[[^\]\n]{1,60}\]:\s*<?(?:https?:|ftp:|mailto:|/|#)[^\n]*$", re.MULTILINE)
_LINK = re.compile(r"\[(?<!!\[)([^\[\]\n]+)\](?:\((?:https?:|mailto:|/|#)(?:(?!\]\()[^)\n])*+\)|\[\d{1,3}\])")
_UNDERLINE = re.compile(r"(?<=\n)(?:={3,}|-{20,})[ \t]*(?:\n|\Z)")
_RUBY = re.compile(r"<rt>(.*?)</rt>|<rt>.*", re.DOTALL)
_TAGS = re.compile(r"</?(?:ruby|rb|rp|center|br|p|div|span|font)\b[^<>\n]*>")
_ESCAPED_NUMBER = re.compile(r"^(\d+)\\\.", re.MULTILINE)


def _spoken(ruby: re.Match[str]) -> str:
    return ruby[0] if ruby[1] is None else f"（{ruby[1]}）"


_MARKUP: tuple[tuple[tuple[str, ...], re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = (
    # In this order. A text that a pattern matches holds one of the strings before it.
    (("<!--",), _COMMENT, r"\1"),
    (("![",), _IMAGE, ""),
    (("]:",), _REFERENCE, ""),
    (("](", "]["), _LINK, r"\1"),
    (("<rt>",), _RUBY, _spoken),
    (("<",), _TAGS, ""),
    (("\n===", "\n---"), _UNDERLINE, ""),
    (("\\.",), _ESCAPED_NUMBER, r"\1."),
)


@dataclass(frozen=True)
class Rules:
    """What to clean and what to drop.

    min_characters, max_characters: bounds for a whole record's text, after cleaning.
    boilerplate: also strip headers, footers and link targets from documents.
    quality: also drop documents that are hardly prose (see quality.py); for crawled text.
    languages: keep only texts in these (ISO 639: "en"), told from the text, and tag them so; None keeps all.
    Raises InputError for a language that is not known, or if none can be told.
    """

    min_characters: int = 1
    max_characters: int | None = None
    boilerplate: bool = True
    quality: bool = False
    languages: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.languages is not None:
            require(self.languages)


def clean(records: Iterable[RecordT], rules: Rules, dropped: Counter[str], *, change: bool = True) -> Iterator[RecordT]:
    """The records that remain, cleaned; `dropped` is filled with how many went, by reason. Without `change` texts stay
    as they are."""
    for record in records:
        cleaned, reason = judged(record, rules, change=change)
        if reason is None:
            yield cleaned
        else:
            dropped[reason] += 1


def judged(record: RecordT, rules: Rules, *, change: bool = True) -> tuple[RecordT, str | None]:
    """The record cleaned (without `change` its texts stay) and tagged with its language, where languages are chosen;
    and why it is to be dropped, or None."""
    cleaned = clean_record(record, boilerplate=rules.boilerplate) if change else record
    reason = fault(cleaned, rules)
    if reason is not None or rules.languages is None:
        return cleaned, reason
    language = identify("\n".join(texts(cleaned)))
    tagged = cleaned.model_copy(update={"language": language})
    return tagged, None if language in rules.languages else f"language {language}"


def clean_record(record: RecordT, *, boilerplate: bool = True) -> RecordT:
    """The same record with every text cleaned; boilerplate is stripped from documents only."""
    if isinstance(record, Document) and boilerplate:
        return with_texts(record, _clean_document)
    return with_texts(record, clean_text)


def _clean_document(text: str) -> str:
    cleaned = clean_text(text)
    stripped = strip_boilerplate(cleaned)
    return cleaned if stripped == cleaned else clean_text(stripped)


def with_texts(record: RecordT, change: Callable[[str], str]) -> RecordT:
    """The same record with every text changed."""
    if isinstance(record, Document):
        return record.model_copy(update={"text": change(record.text)})
    changes: dict[str, object] = {}
    if isinstance(record, Conversation):
        changes["messages"] = [_changed(m, change) for m in record.messages]
    if isinstance(record, Ranking):
        changes["answers"] = [change(answer) for answer in record.answers]
    if isinstance(record, Rating):
        changes["answer"] = change(record.answer)
    return record.model_copy(update=changes)


def fault(record: Record, rules: Rules) -> str | None:
    """Why a record is dropped, or None; its language is told by `judged` alone."""
    parts = texts(record)
    if not all(parts):
        return "empty text"
    length = sum(map(len, parts))
    if length < rules.min_characters:
        return "too short"
    if rules.max_characters is not None and length > rules.max_characters:
        return "too long"
    return quality_fault(record.text) if rules.quality and isinstance(record, Document) else None


def texts(record: Record) -> list[str]:
    """Everything in a record that is text to learn from."""
    if isinstance(record, Document):
        return [record.text]
    messages = [part for m in record.messages for part in said(m)] if isinstance(record, Conversation) else []
    if isinstance(record, Rating):
        return [*messages, record.answer]
    return [*messages, *record.answers] if isinstance(record, Ranking) else messages


def said(message: Message) -> list[str]:
    """What a turn says: its content, and what there is of text in the arguments of its calls."""
    if not message.tool_calls and message.role != "tool":  # most are so
        return [message.content]
    parts: list[str] = []
    _changed(message, lambda text: parts.append(text) or text)  # type: ignore[func-returns-value]
    return parts


def _changed(message: Message, change: Callable[[str], str]) -> Message:
    """The turn with every text changed, in the order of `said`. Beside calls or as a result, nothing is a text too."""
    may_be_empty = message.tool_calls or message.role == "tool"
    content = change(message.content) if message.content or not may_be_empty else ""
    if not message.tool_calls:
        return message.model_copy(update={"content": content})
    calls = []
    for call in message.tool_calls:
        arguments = json.loads(call.function.arguments) if call.function.arguments.strip() else {}
        text = json.dumps(_with_strings(arguments, change), ensure_ascii=False)
        calls.append(call.model_copy(update={"function": call.function.model_copy(update={"arguments": text})}))
    return message.model_copy(update={"content": content, "tool_calls": calls})


def _with_strings(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value) if value else value
    if isinstance(value, dict):
        return {key: _with_strings(item, change) for key, item in value.items()}
    return [_with_strings(item, change) for item in value] if isinstance(value, list) else value


def clean_text(text: str) -> str:
    """NFC, no control characters, \\n for every line end, no spaces at line ends, at most one empty line, stripped."""
    # Most texts need few of these steps: to look for what a step would change is far faster than the step.
    for old, new in _SPACES.items():
        text = text.replace(old, new)
    text = unicodedata.normalize("NFC", _CONTROL.sub("", text))
    if any(f"{blank}\n" in text for blank in _BLANKS):
        text = "\n".join([line.rstrip(_BLANKS) for line in text.split("\n")])
    text = _EMPTY_LINES.sub("\n\n", text) if "\n\n\n" in text else text
    return text.strip(f"\n{_BLANKS}")


def strip_boilerplate(text: str) -> str:
    """A web or repository page -> its prose: headers, footers, images, link targets and ruby marks go."""
    text = _YAML_HEADER.sub("", _LCTT_HEADER.sub("", text))
    if "<!-- INFO END -->" in text:
        text = _LAW_HEADER.sub(lambda header: header[1] or "", text)
    text = _LCTT_FOOTER.sub("", text)
    for marks, pattern, new in _MARKUP:
        if any(mark in text for mark in marks):
            text = pattern.sub(new, text)
    return text
