"""Masks on a planted list, and what only looks like personal data."""

from __future__ import annotations

from collections import Counter

import pytest

from chatwheel.data.pii import mask

PLANTED = [
    ("Write to anna.berg+shop@mail.example.co.uk today.", "Write to <email> today."),
    ("联系人：li_wei@qq.com，谢谢", "联系人：<email>，谢谢"),
    ("Call +1 415 555 0132 or (415) 555-0132.", "Call <phone> or <phone>."),
    ("Tel. 415-555-0132", "Tel. <phone>"),
    ("+49 30 901820", "<phone>"),
    ("我的手机是13812345678。", "我的手机是<phone>。"),
    ("电话：010-62751234", "电话：<phone>"),
    ("手机 138 1234 5678", "手机 <phone>"),
    ("The server is 93.184.216.34, port 80.", "The server is <ip>, port 80."),
    ("at 2606:2800:220:1:248:1893:25c8:1946 now", "at <ip> now"),
    ("Card 4111 1111 1111 1111, please.", "Card <card>, please."),
    ("5500-0055-5555-5559", "<card>"),
    ("身份证11010519491231002X。", "身份证<id>。"),
    ("SSN 536-90-4399", "SSN <id>"),
    ("Pay to DE89 3704 0044 0532 0130 00 by Friday", "Pay to <iban> by Friday"),
    ("GB82WEST12345698765432", "<iban>"),
    ("token=hf_" + "aB3" * 10, "token=<key>"),
    ("export KEY=sk-proj-" + "x9Z_" * 8, "export KEY=<key>"),
    ("xoxb-" + "12aB-" * 8 + ".", "<key>."),
    ("sk-sk-Ab1-sk-" + "long" * 90, "<key>"),
    ("AKIAIOSFODNN7EXAMPLE", "<key>"),
    ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\n", "<private key>\n"),
    (
        "-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----\n-----BEGIN EC PRIVATE KEY-----\nMIIE",
        "<private key>\n-----BEGIN EC PRIVATE KEY-----\nMIIE",
    ),
]
INNOCENT = [
    "In 1969 and 1970, 3.14159 and 2,000,000 people",
    "ISBN 978-3-16-148410-1, pages 100-200",
    "at 192.168.1.1, 127.0.0.1 and 10.0.0.1",
    "version 1.2.3.4.5 and section 12.3.4.5.6",
    "4111 1111 1111 1112",
    "11010519491231002Y 110105194912310021",
    "DE89 3704 0044 0532 0130 01",
    "user@localhost, @name, a @ b",
    "from 10:30:45 to 12:00:00",
    "2026-11-24T10:00:00, 2026-11-24",
    "std::vector<int>::iterator and a::b",
    "0000 0000 0000 0000",
    "task_name sk-short",
    "hf_transformers_model_loader",
    "https://x.com/sk-innovation-battery-plant",
    "rose by +1500000 dollars",
    "+12 34 56 78",
    "1700000000004 and 1700000000012",
    "12345 + 67890 = 80235",
    "公元1949年10月1日，共有5400000人",
]


@pytest.mark.parametrize(("text", "masked"), PLANTED, ids=[masked for _, masked in PLANTED])
def test_what_was_planted_is_masked_and_counted(text: str, masked: str) -> None:
    found: Counter[str] = Counter()
    assert mask(text, found) == masked
    assert sum(found.values()) == masked.count("<")
    assert mask(masked) == masked


@pytest.mark.parametrize("text", INNOCENT)
def test_what_only_looks_like_it_stays(text: str) -> None:
    found: Counter[str] = Counter()
    assert mask(text, found) == text
    assert not found


def test_a_long_text_with_all_of_it() -> None:
    filler = "\nNothing to see here, only 3 numbers: 1, 22 and 333. 这里什么也没有。 "
    text = filler.join(text for text, _ in PLANTED)
    assert mask(text) == filler.join(masked for _, masked in PLANTED)


@pytest.mark.timeout(60)  # read again from each opening, they take hours
@pytest.mark.parametrize("opening", ["sk-", "xoxb-", "-----BEGIN PRIVATE KEY-----\n", "a.b@a.", "a:", "+1 22 "])
def test_what_might_begin_at_each_word_is_read_once(opening: str) -> None:
    text = f"PRIVATE KEY {opening * (1_000_000 // len(opening))}_"
    assert mask(text) == text
