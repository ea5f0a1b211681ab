"""Search over titles and messages, on both databases."""

from __future__ import annotations

import time
from pathlib import Path

from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from chatwheel.settings import Settings
from chatwheel.store import accounts, backup
from chatwheel.store import conversations as store
from chatwheel.store.database import Database, make_schema
from chatwheel.store.search import Found, search, words_of


def me(session: Session) -> str:
    return accounts.local_principal(session).user_id


def chat(session: Session, *texts: str, user: str | None = None) -> str:
    """A conversation, in which what stands at odd places is answered."""
    conversation = store.create_conversation(session, user or me(session), "m")
    parent = None
    for question, answer in zip(texts[::2], texts[1::2], strict=True):
        row = store.add_answer(session, store.add_user_message(session, conversation, question, parent), "m")
        store.save_answer(session, row.id, answer, "complete")
        parent = row.id
    return conversation.id


def texts(found: list[Found]) -> list[str]:
    return [one.message.content if one.message else f"title: {one.conversation.title}" for one in found]


def find(session: Session, query: str, **options: int) -> list[str]:
    session.expire_all()
    return texts(search(session, me(session), query, **options))


def test_words_are_found_whatever_their_case_and_the_last_one_by_its_beginning(session: Session) -> None:
    chat(session, "Which Transformers are there?", "The encoder, and the DECODER: naïve ones too.")
    assert find(session, "decoder encoder") == ["The encoder, and the DECODER: naïve ones too."]
    assert find(session, "ENCO") == find(session, "decoder")  # as it is being written
    assert find(session, "enco decoder") == []
    assert find(session, "NAÏVE") == find(session, "decoder")
    assert find(session, "which trans") == ["Which Transformers are there?", "title: Which Transformers are there?"]
    for nothing in ("", " ", "!?", "'", '"', "%", "* OR NOT", "missing", "encoder missing", "_"):
        assert find(session, nothing) == [], nothing


def test_chinese_is_found_by_any_of_its_characters_that_stand_together(session: Session) -> None:
    said = "机器学习是人工智能的一个分支，GPT很有名。"
    chat(session, "什么是AI？", said, "学习机器", "机器和学习，器学")
    for query in ("机器学习", "学习是", "智能", "支", "分支", "有名", "名", "gpt很", "人工 分支", "，机器学习"):
        assert find(session, query) == [said], query
    assert find(session, "学习机器") == ["学习机器"]
    assert set(find(session, "机器")) == {said, "学习机器", "机器和学习，器学"}
    for nothing in ("智力", "习机器学", "支分", "机学"):
        assert find(session, nothing) == [], nothing
    chat(session, "日本語のテスト", "한국어 시험")
    assert find(session, "本語") == ["日本語のテスト", "title: 日本語のテスト"]
    assert find(session, "국어") == ["한국어 시험"]


def test_a_message_is_found_as_it_is_now_and_not_when_it_is_gone(session: Session) -> None:
    conversation = store.create_conversation(session, me(session), "m")
    answer = store.add_answer(session, store.add_user_message(session, conversation, "question", None), "m")
    store.save_answer(session, answer.id, "half a senten", "partial", ended=False)
    assert find(session, "half senten") == ["half a senten"]
    store.save_answer(session, answer.id, "a whole sentence", "complete")
    assert find(session, "half") == []
    store.rename_conversation(session, me(session), conversation.id, "another title")
    assert find(session, "title") == ["title: another title"]
    assert find(session, "question") == ["question"]
    store.delete_conversation(session, me(session), conversation.id)
    for query in ("sentence", "question", "title"):
        assert find(session, query) == []
    store.purge(session, time.time() + 1)
    assert session.scalar(text("SELECT count(*) FROM search_texts")) == 0


def test_nobody_finds_what_others_have_written(session: Session) -> None:
    other = accounts.create_user(session, "Bob").id
    theirs = chat(session, "a secret word", "it is secret", user=other)
    assert find(session, "secret") == []
    assert {one.conversation.id for one in search(session, other, "secret")} == {theirs}
    assert len(search(session, other, "secret")) == 3
    assert len(search(session, other, "secret", limit=2)) == 2


def test_snippets_show_what_was_found(session: Session) -> None:
    chat(session, "x", "Before. " * 30 + "Here is the <b>Needle</b> and a needle. " + "After. " * 60)
    [found] = search(session, me(session), "needle the")
    assert found.snippet[1::2][:3] == ["the", "Needle", "needle"]
    assert found.snippet[0].startswith("…")
    assert "<b>" in found.snippet[2]
    assert found.snippet[-1].endswith("…")
    assert len("".join(found.snippet)) < 200
    chat(session, "y", "我们谈谈机器学习吧")
    assert search(session, me(session), "机器学习")[0].snippet == ["我们谈谈", "机器学习", "吧"]


def test_texts_without_end_and_of_odd_words_are_kept(session: Session) -> None:
    long = " ".join(f"word{number}" for number in range(40_000))
    odd = "x" * 5000 + " 'quoted' \\ & | ! :* ́ 👍 ²³ a\u0301b \x00 " + "\U00020000\U00020001\U00020002"
    chat(session, long, odd)
    assert find(session, "word77 word78") == [long]
    assert find(session, "\U00020001\U00020002") == find(session, "quoted") == [odd.replace("\x00", "\ufffd")]
    assert find(session, "x" * 5000) == find(session, "quoted")
    different = "".join(chr(0x20000 + number * 7919 % 40_000) for number in range(120_000))  # as large as an index gets
    chat(session, different, "ok")
    assert find(session, different[70:73]) == [different]
    assert find(session, "字 " * 5000) == []


def test_what_was_there_before_is_found_after_the_upgrade(database_url: str) -> None:
    engine = create_engine(database_url)
    with engine.begin() as connection:
        make_schema(connection, "0004", "here")
        user = connection.scalar(text("SELECT id FROM users"))
        columns = "(id, user_id, title, model, created_at, updated_at)"
        chats = f"INSERT INTO conversations {columns} VALUES (:id, :user, :title, 'm', 0, 0)"
        said = (
            "INSERT INTO messages (id, conversation_id, role, content, status, stop_wanted, created_at)"
            " VALUES (:id, 'conv-1', 'user', :content, 'complete', :no, 0)"
        )
        connection.execute(text(chats), {"id": "conv-1", "user": user, "title": "旧的标题"})
        connection.execute(text(chats), {"id": "conv-2", "user": user, "title": ""})
        for number in range(2500):
            connection.execute(text(said), {"id": f"msg-{number}", "content": f"old number{number}", "no": False})
    engine.dispose()
    Database.upgrade(database_url)
    database = Database.open(database_url)
    with database.write() as session:
        assert find(session, "number2499") == ["old number2499"]
        assert find(session, "标题") == ["title: 旧的标题"]
        assert session.scalar(text("SELECT count(*) FROM search_texts")) == 2501
        store.delete_conversation(session, me(session), "conv-1")
        assert find(session, "old") == []
    database.close()


def test_a_backup_that_was_restored_is_searched(tmp_path: Path, database_url: str) -> None:
    first = Settings(home=tmp_path / "first", database_url=f"sqlite:///{tmp_path / 'first.db'}")
    database = Database.open(first.database_url)
    with database.write() as session:
        chat(session, "a needle here", "机器学习")
    database.close()
    backup.save(first, tmp_path / "backup.zip")
    backup.load(Settings(home=tmp_path / "second", database_url=database_url), tmp_path / "backup.zip")
    database = Database.open(database_url)
    with database.write() as session:
        assert find(session, "needle") == ["a needle here", "title: a needle here"]
        assert find(session, "学习") == ["机器学习"]
        chat(session, "another needle", "ok")
        assert len(find(session, "needle")) == 4
    database.close()


def test_a_word_is_what_stands_between_other_signs() -> None:
    assert words_of("Hello, WORLD_2! 你好吗 a猫b") == "hello world 2 你好 好吗 吗 a 猫 b"
