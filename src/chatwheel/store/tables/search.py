"""What is searched: the words of each message and each title."""

from __future__ import annotations

from sqlalchemy import ForeignKey, Integer, Text
from sqlalchemy.orm import Mapped, mapped_column

from chatwheel.store.tables.declarative import Base


class SearchTextRow(Base):
    """The words of a message, or of its conversation's title where there is no message; see store/search.py.

    Later texts have larger ids. `search_index`, which the migration makes in each database's own way, finds them by
    their words, and follows every change of a row.
    """

    __tablename__ = "search_texts"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    conversation_id: Mapped[str] = mapped_column(ForeignKey("conversations.id", ondelete="CASCADE"), index=True)
    message_id: Mapped[str | None] = mapped_column(ForeignKey("messages.id", ondelete="CASCADE"), unique=True)
    words: Mapped[str] = mapped_column(Text)
