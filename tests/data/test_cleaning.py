"""What cleaning changes, what it leaves alone, and what it counts."""

from __future__ import annotations

import unicodedata
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatwheel.data.cleaning import Rules, clean, clean_text, strip_boilerplate
from chatwheel.data.records import Conversation, Document, Message, Ranking
from chatwheel.data.sources import load

SHARED = Path(__file__).parents[2].parent / "shared" / "data"

ARTICLE = """[#]: collector: (lujun9972)
[#]: url: (https://linux.cn/article-1.html)

标题
======

![图](https://example.org/a.png)

正文有[链接][1]和[另一个](https://example.org)，<ruby>内核<rt>kernel</rt></ruby>。

    $ echo a[0]

--------------------------------------------------------------------------------

via: https://itsfoss.com/x/

作者：[A][a]
[1]: https://example.org
"""
LAW = "# 某条例\n\n2020年12月28日 通过\n\n<!-- INFO END -->\n\n第一条 正文。"


def test_text_is_normalised() -> None:
    assert clean_text("\ufeffcafe\u0301\x00\u200b  \r\nb\u00a0c\r\n\n\n\nd\t\n") == "café\nb c\n\nd"


def test_indentation_and_joined_emoji_stay() -> None:
    assert clean_text("def f():\n    return '👩‍👧'") == "def f():\n    return '👩‍👧'"


@given(st.text())
def test_cleaning_twice_is_cleaning_once(text: str) -> None:
    once = clean_text(text)
    assert clean_text(once) == once
    assert unicodedata.is_normalized("NFC", once)


def test_what_stood_between_a_letter_and_its_accent_goes_first() -> None:
    assert clean_text("e\u200b\u0301") == "\u00e9"


def test_a_link_stays_a_link_beside_brackets_of_other_kinds() -> None:
    text = "[a](https://x.y) [b][1] ![c](d) [e] (f) [g]\n[1]: https://x.y\n\n1\\. h <b>i</b> <br>j"
    assert clean_text(strip_boilerplate(text)) == "a b  [e] (f) [g]\n\n1. h <b>i</b> j"


def test_a_translated_article_keeps_its_prose_only() -> None:
    assert clean_text(strip_boilerplate(ARTICLE)) == ("标题\n\n正文有链接和另一个，内核（kernel）。\n\n    $ echo a[0]")


def test_a_law_keeps_its_title() -> None:
    assert clean_text(strip_boilerplate(LAW)) == "# 某条例\n\n第一条 正文。"


def test_front_matter_goes_but_a_rule_does_not() -> None:
    assert strip_boilerplate("---\ntitle: x\ntags: [a]\n---\nBody") == "Body"
    assert strip_boilerplate("---\nA scene begins.\n---\nBody") == "---\nA scene begins.\n---\nBody"


def test_front_matter_of_options_that_never_ends_is_read_once() -> None:
    options = "---\n" + "--option: x\n" * 1000  # with two ways to read a line, 2 to the 1000th
    assert strip_boilerplate(options) == options
    assert strip_boilerplate(f"{options}---\nBody") == "Body"


UNCLOSED = ["![a ", "![a \\", "![a](b ", "<!-- a ", "<rt>", "[a", "[a](/b ", "<p ", "\n---", "[#]: a"]


@pytest.mark.timeout(60)  # read again from each opening, 2 MB take hours
@pytest.mark.parametrize("opening", UNCLOSED)
def test_what_is_opened_and_never_closed_is_read_once(opening: str) -> None:
    text = f"Begin.\n{opening * (2_000_000 // len(opening))}"
    for end in ("", "](", "\n```"):
        assert strip_boilerplate(text + end) == text + end


def test_what_is_closed_goes_from_among_what_is_not() -> None:
    assert strip_boilerplate("a <!-- b --> c <!-- d") == "a  c <!-- d"
    assert strip_boilerplate("<rt>x</rt> y <rt>z") == "（x） y <rt>z"
    assert strip_boilerplate("![a ![b](c) [d [e](/f) ![g](h ![i\\]j](k)") == "![a  [d e ![g](h "
    assert strip_boilerplate("![](x) ![two\nlines](y) ![z][9]!") == "  !"


def test_what_is_dropped_is_counted() -> None:
    texts = ["long enough", "short", "\u200b", "much too long for this"]
    dropped: Counter[str] = Counter()
    kept = list(clean([Document(text=t) for t in texts], Rules(min_characters=6, max_characters=15), dropped))
    assert [d.text for d in kept] == ["long enough"]
    assert dropped == {"too short": 1, "empty text": 1, "too long": 1}


def test_messages_and_answers_are_cleaned_and_other_fields_stay() -> None:
    asked = [Message(role="user", content="a\r\n"), Message(role="assistant", content="[x](https://y.z)\x07")]
    conversation, ranking = clean(
        [
            Conversation(messages=asked, source="s", language="en"),
            Ranking(messages=asked[:1], answers=["b ", "c"], ranks=[1, 2]),
        ],
        Rules(),
        Counter(),
    )
    assert [m.content for m in conversation.messages] == ["a", "[x](https://y.z)"]
    assert (conversation.source, conversation.language) == ("s", "en")
    assert isinstance(ranking, Ranking)
    assert ranking.answers == ["b", "c"]


@pytest.mark.parametrize("name", ["tech_zh", "laws_zh"])
def test_real_boilerplate(name: str) -> None:
    path = SHARED / "pretrain" / f"{name}.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"{path} is not on this machine")
    records = [r for r in islice(load(path, "documents"), 50) if isinstance(r, Document)]
    cleaned = [r.text for r in clean(records, Rules(), Counter())]
    assert len(cleaned) == 50
    for mark in ("[#]:", "<!-- INFO END -->", "\nvia: http", "译者：[", "![]("):
        assert not any(mark in text for text in cleaned)
