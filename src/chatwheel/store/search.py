"""Search over titles and messages, in Chinese too. Each function works inside the caller's transaction.

Neither SQLite's FTS5 nor PostgreSQL's text search divides Chinese into words, and each divides other texts in its own
way. So texts are divided here, and both databases only keep words: letters and digits between other signs, in lower
case; and of Chinese, Japanese and Korean every two neighbouring characters, with the last one of a run alone. A query
is divided alike, and a text is found that has all of its words.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import TextClause, bindparam, insert, select, text, update
from sqlalchemy.orm import Session

from chatwheel.store.database import dialect_of
from chatwheel.store.tables import ConversationRow, MessageRow, SearchTextRow

MOST_CHARACTERS = 100_000
"""Of a text that is indexed: what comes later is not found. PostgreSQL keeps 1 MB of different words of a row."""
LONGEST_WORD = 64
MOST_WORDS = 32
"""Of a query; the others are not looked for."""
PREFIX = 3
"""From so many letters on, the last word of a query may be the beginning of one: people search while they write."""
CJK = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
RUN = re.compile(rf"[{CJK}]+|[^\W_{CJK}]+")
BEFORE, AFTER = 40, 120
"""Characters of a snippet on both sides of what was found."""


@dataclass(frozen=True)
class Found:
    """message: None where the title has the words. snippet: the text around them, in parts; every second is a hit."""

    conversation: ConversationRow
    message: MessageRow | None
    snippet: Sequence[str]


def words_of(content: str) -> str:
    """The words that a text is found by, with spaces between them."""
    return " ".join(word for run in _runs(content[:MOST_CHARACTERS]) for word in _words(run))


def index_message(session: Session, message: MessageRow) -> None:
    """A new message will be found."""
    values = {"conversation_id": message.conversation_id, "message_id": message.id, "words": words_of(message.content)}
    session.execute(insert(SearchTextRow).values(values))


def index_answer(session: Session, message_id: str, content: str) -> None:
    """An answer that has grown will be found by what it says now."""
    changed = update(SearchTextRow).where(SearchTextRow.message_id == message_id)
    session.execute(changed.values(words=words_of(content)))


def index_title(session: Session, conversation: ConversationRow) -> None:
    """A conversation will be found by its new title."""
    title = (SearchTextRow.conversation_id == conversation.id, SearchTextRow.message_id.is_(None))
    words = words_of(conversation.title)
    changed = session.execute(update(SearchTextRow).where(*title).values(words=words).returning(SearchTextRow.id))
    if changed.first() is None:
        session.execute(insert(SearchTextRow).values(conversation_id=conversation.id, words=words))


def search(session: Session, user_id: str, query: str, limit: int = 50) -> list[Found]:
    """What a user's own conversations have of these words, the newest first; nothing for a query without a word."""
    runs = list(_runs(query))[:MOST_WORDS]
    if not runs:
        return []
    found = (
        select(ConversationRow, MessageRow)
        .select_from(SearchTextRow)
        .join(ConversationRow, ConversationRow.id == SearchTextRow.conversation_id)
        .outerjoin(MessageRow, MessageRow.id == SearchTextRow.message_id)
        .where(ConversationRow.user_id == user_id, ConversationRow.deleted_at.is_(None), _has_words(session, runs))
    )
    for run in runs:
        if _is_cjk(run) and len(run) > 2:  # all its pairs are there, though perhaps not one after the other
            pairs = " ".join(_words(run)[:-1])
            found = found.where(SearchTextRow.words.contains(pairs, autoescape=True))
    # PostgreSQL would go through all texts from the newest on, where it guesses that many have the words.
    newest = SearchTextRow.id + 0 if dialect_of(session) == "postgresql" else SearchTextRow.id
    rows = session.execute(found.order_by(newest.desc()).limit(limit)).all()
    return [Found(chat, message, snippet(message.content if message else chat.title, runs)) for chat, message in rows]


def snippet(content: str, runs: Sequence[str]) -> list[str]:
    """A piece of a text around the first of these that it has, in parts: plain, hit, plain, hit, ..., plain."""
    hit = re.compile("|".join(re.escape(run) for run in sorted(runs, key=len, reverse=True)), re.IGNORECASE)
    first = hit.search(content)
    start = max(0, (first.start() if first else 0) - BEFORE)
    end = (first.end() if first else 0) + AFTER
    piece = content[start:end]
    parts, at = [], 0
    for match in hit.finditer(piece):
        parts += [piece[at : match.start()], match[0]]
        at = match.end()
    parts.append(piece[at:])
    parts[0] = ("…" if start else "") + parts[0]
    parts[-1] += "…" if end < len(content) else ""
    return parts


def _runs(content: str) -> Iterator[str]:
    """Words, and stretches of Chinese, as they are compared."""
    for match in RUN.finditer(unicodedata.normalize("NFKC", content).casefold()):
        yield match[0]


def _is_cjk(run: str) -> bool:
    return re.match(f"[{CJK}]", run) is not None


def _words(run: str) -> list[str]:
    """The last character of a stretch stands alone, so that each is the beginning of some word."""
    return [run[at : at + 2] for at in range(len(run))] if _is_cjk(run) else [run[:LONGEST_WORD]]


def _has_words(session: Session, runs: Sequence[str]) -> TextClause:
    wanted: dict[str, bool] = {}
    for place, run in enumerate(runs):
        if _is_cjk(run):
            wanted |= {run: True} if len(run) == 1 else dict.fromkeys(_words(run)[:-1], False)
        else:
            wanted[run[:LONGEST_WORD]] = place == len(runs) - 1 and len(run) >= PREFIX
    if dialect_of(session) == "postgresql":
        condition = "array_to_tsvector(string_to_array(search_texts.words, ' ')) @@ CAST(:wanted AS tsquery)"
        query = " & ".join(f"'{word}'{':*' if begins else ''}" for word, begins in wanted.items())
    else:
        condition = "search_texts.id IN (SELECT rowid FROM search_index WHERE search_index MATCH :wanted)"
        query = " ".join(f'"{word}"{"*" if begins else ""}' for word, begins in wanted.items())
    return text(condition).bindparams(bindparam("wanted", query))
