"""What is prose and what is not, in Chinese and English; the measures against a count by hand."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatwheel.data.cleaning import Rules, clean
from chatwheel.data.quality import LIMITS, measures, quality_fault
from chatwheel.data.records import Document, Message, Prompt
from chatwheel.data.sources import load

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
ENGLISH = (
    "It was a bright cold day in early spring when the surveyor came down from the hills with his chain and his notes. "
    "He had walked since dawn, and the mud of four valleys was on his boots.\n"
    '"You will want supper," said the innkeeper, who had seen such men before.\n\n'
    "Later, by the fire, he spread the map on the table. Nobody in the village had ever seen their own river drawn; "
    "they leaned over each other's shoulders and argued about where the mill ought to be.\n"
)
CHINESE = (
    "清晨的雾气还没有散去，老木匠已经推开了作坊的门。他年轻时走过许多地方，后来回到这座临河的小镇，"
    "靠一双手养活了全家人。\n\n“师傅，这张桌子什么时候能做好？”邻居家的孩子站在门口问道。\n"
    "木匠放下刨子，想了想，说：“木头要先晾干，急不得。等到秋天，你再来看吧。”\n"
)
RANDOM_WORDS = " ".join(f"{a}{b}" for a in ("stone", "river", "lamp", "cloud", "grain") for b in "abcdefghijklmno")

FAULTS: dict[str, tuple[str, str]] = {
    "hash tags": (ENGLISH + "#" * 40, "symbols"),
    "numbers": ("\n".join(f"{i} {i * 37} {i * i} {i / 7:.4f};" for i in range(80)), "alphabetic share"),
    "a menu in Chinese": ("\n".join(f"栏目{c}" for c in "一二三四五六七八九十甲乙丙丁戊己庚辛"), "unpunctuated lines"),
    "letters apart": (" ".join(RANDOM_WORDS[:400]) + ".", "mean word length"),
    "a list": ("\n".join(f"- The item {w} is here." for w in RANDOM_WORDS.split()), "bullet lines"),
    "teasers": ("\n".join(f"The story of {w} goes on…" for w in RANDOM_WORDS.split()[:12]) + ENGLISH, "ellipsis lines"),
    "a headline list": ("\n".join(f"Ten facts about {w}" for w in RANDOM_WORDS.split()), "unpunctuated lines"),
    "a paragraph twice": (ENGLISH + "\n" + ENGLISH, "duplicate paragraphs"),
    "a line again and again": (ENGLISH + "Buy this lamp today.\n" * 20, "duplicate lines"),
    "a line again and again in Chinese": (CHINESE + "点击这里下载全文。\n" * 12, "duplicate lines"),
    "two words": (f"{ENGLISH} {'cheap lamps and ' * 40}. {RANDOM_WORDS}.", "top 2-gram"),
    "three characters": ("".join(f"{c}买好货。" for c in CHINESE.replace("\n", "")), "top 2-gram"),
}


@pytest.mark.parametrize("text", [ENGLISH, CHINESE, ENGLISH + CHINESE, "Short."])
def test_prose_is_kept(text: str) -> None:
    assert quality_fault(text) is None


@pytest.mark.parametrize(("text", "reason"), FAULTS.values(), ids=FAULTS.keys())
def test_what_is_no_prose_goes_under_its_name(text: str, reason: str) -> None:
    assert quality_fault(text) == reason


def test_they_are_off_by_default_and_for_documents_only() -> None:
    text, _ = FAULTS["a list"]
    prompt = Prompt(messages=[Message(role="user", content=text)])
    for rules, reasons in ((Rules(), {}), (Rules(quality=True), {"bullet lines": 1})):
        dropped: Counter[str] = Counter()
        kept = list(clean([Document(text=text), prompt], rules, dropped))
        assert dropped == reasons
        assert len(kept) == 2 - len(reasons)


words_of_few_letters = st.lists(st.text("abz", min_size=1, max_size=4), min_size=50, max_size=90)


@given(words_of_few_letters)
def test_top_runs_are_those_counted_by_hand(words: list[str]) -> None:
    found = dict(measures(" ".join(words)))
    for size in (2, 3, 4):
        runs = Counter(tuple(words[i : i + size]) for i in range(len(words) - size + 1))
        most = max(runs.values())
        shares = {count * len("".join(run)) / len("".join(words)) for run, count in runs.items() if count == most}
        assert any(abs(found[f"top {size}-gram"] - (share if most > 1 else 0)) < 1e-9 for share in shares)
    assert found["mean word length"] == pytest.approx(len("".join(words)) / len(words))


@given(st.text())
def test_every_measure_is_a_number_with_limits(text: str) -> None:
    for name, value in measures(text):
        assert name in LIMITS
        assert value >= 0


@pytest.mark.parametrize("name", ["books_en", "laws_zh", "histories_zh", "tech_zh"])
def test_real_prose_mostly_stays(name: str) -> None:
    path = SHARED / "pretrain" / f"{name}.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"{path} is not on this machine")
    documents = [d for d, _ in zip(load(path, "documents"), range(60), strict=False)]
    long = list(clean(documents, Rules(min_characters=200), Counter()))
    kept = list(clean(long, Rules(quality=True), Counter()))
    assert len(kept) >= 0.95 * len(long) > 20
    assert all(re.search(r"\w", d.text) for d in kept if isinstance(d, Document))
