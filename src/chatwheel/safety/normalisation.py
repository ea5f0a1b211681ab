"""One form for many spellings: what rules and classifier read, cut into windows so that any length costs linear time
and bounded memory."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import cache

WINDOW = 400
"""Characters that are judged together. An insult in a long text must not be diluted by the rest of it."""
OVERLAP = 80
"""So that what is cut by one window's end is whole in the next one."""

_SPACES = re.compile(r"\s+")
_TRADITIONAL = (
    "殺們個媽這裡說應該當讓給為嗎騙詐槍製彈藥買賣偽證號碼帳戶傷殘髮髒賤雞穢猶黃樂報複讎襲擊爛滾亂倫奮軟體貓視頻圖騷擾無業豬婦腦廢種滅絕趕國處請問樣連環綁劃腸內臟斷頭屍斬塊",
    "杀们个妈这里说应该当让给为吗骗诈枪制弹药买卖伪证号码帐户伤残发脏贱鸡秽犹黄乐报复仇袭击烂滚乱伦奋软体猫视频图骚扰无业猪妇脑废种灭绝赶国处请问样连环绑划肠内脏断头尸斩块",
)
"""The traditional characters of the rules' words, and the simplified ones."""


def windows(text: str) -> Iterator[str]:
    """The text in overlapping pieces of at most WINDOW characters; of an empty one, one empty piece."""
    for begin in range(0, max(1, len(text) - OVERLAP), WINDOW - OVERLAP):
        yield text[begin : begin + WINDOW]


def normalised(text: str) -> str:
    """Compatibility forms (full width, ligatures, styled letters) made plain, accents and invisible characters taken
    away, lower case, common traditional characters simplified, runs of space as one."""
    if text.isascii():
        text = text.lower()
    else:
        text = unicodedata.normalize("NFKD", text).translate(_replacements())
        text = unicodedata.normalize("NFKC", text).casefold()
    return _SPACES.sub(" ", text).strip()


@cache
def _replacements() -> dict[int, int | str | None]:
    """Marks that are put on letters, and characters that are not seen: nothing."""
    places = (*range(0x80, 0x10000), *range(0xE0000, 0xE0200))
    unseen: dict[int, int | str | None] = {
        c: None for c in places if unicodedata.category(chr(c)) in ("Mn", "Me", "Cf")
    }
    return unseen | str.maketrans(*_TRADITIONAL)
