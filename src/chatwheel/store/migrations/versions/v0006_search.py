"""Search over titles and messages, those that are there too."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from chatwheel.store.search import words_of  # what is indexed must be divided as what is searched for

revision = "0006"
down_revision: str | None = "0005"
branch_labels = None
depends_on = None

TOGETHER = 1000
TEXTS = (
    "SELECT id AS conversation_id, NULL AS message_id, title AS content FROM conversations WHERE title <> ''",
    "SELECT conversation_id, id AS message_id, content FROM messages ORDER BY created_at, id",
)
SQLITE = (
    # The words alone are in the index; the texts are the table's. What is not ASCII is part of a word.
    "CREATE VIRTUAL TABLE search_index USING fts5"
    "(words, content='search_texts', content_rowid='id', tokenize='ascii', detail='none', columnsize=0)",
    "CREATE TRIGGER search_added AFTER INSERT ON search_texts BEGIN"
    " INSERT INTO search_index (rowid, words) VALUES (new.id, new.words); END",
    "CREATE TRIGGER search_removed AFTER DELETE ON search_texts BEGIN"
    " INSERT INTO search_index (search_index, rowid, words) VALUES ('delete', old.id, old.words); END",
    "CREATE TRIGGER search_changed AFTER UPDATE OF words ON search_texts BEGIN"
    " INSERT INTO search_index (search_index, rowid, words) VALUES ('delete', old.id, old.words);"
    " INSERT INTO search_index (rowid, words) VALUES (new.id, new.words); END",
)
POSTGRESQL = ("CREATE INDEX search_index ON search_texts USING gin (array_to_tsvector(string_to_array(words, ' ')))",)


def upgrade() -> None:
    """Adds the table and its index, and puts into them what is there."""
    op.create_table(
        "search_texts",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("conversation_id", sa.String(40), _key("conversations.id"), nullable=False, index=True),
        sa.Column("message_id", sa.String(40), _key("messages.id"), unique=True),
        sa.Column("words", sa.Text, nullable=False),
    )
    connection = op.get_bind()
    for statement in POSTGRESQL if connection.dialect.name == "postgresql" else SQLITE:
        connection.exec_driver_sql(statement)
    texts = sa.table("search_texts", sa.column("conversation_id"), sa.column("message_id"), sa.column("words"))
    for query in TEXTS:
        for rows in connection.execute(sa.text(query)).mappings().partitions(TOGETHER):
            values = [
                {name: row[name] for name in ("conversation_id", "message_id")} | {"words": words_of(row["content"])}
                for row in rows
            ]
            connection.execute(sa.insert(texts), values)


def downgrade() -> None:
    """Refused, as with the versions before. Restore a backup instead."""
    raise NotImplementedError("go back by restoring a backup that was made before")


def _key(of: str) -> sa.ForeignKey:
    return sa.ForeignKey(of, ondelete="CASCADE")
