"""The split: stable, close to the share asked for, and blind to what does not matter."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from chatwheel.data.records import Conversation, Document, Message, Prompt, Ranking
from chatwheel.data.splits import fraction, key_of, split, unique


def test_the_split_never_changes() -> None:
    # Recorded once: a change would move held-out questions into training for everyone who has a model already.
    assert [round(fraction(key), 6) for key in ("", "Hello", "你好")] == [0.694317, 0.455419, 0.44607]


def test_the_share_is_met() -> None:
    parts = Counter(split(f"question {i}", 0.1) for i in range(20_000))
    assert abs(parts["held_out"] / 20_000 - 0.1) < 0.01


@given(st.text(), st.floats(0, 0.5), st.floats(0, 0.5))
def test_a_larger_share_holds_out_what_a_smaller_one_does(key: str, one: float, two: float) -> None:
    if split(key, min(one, two)) == "held_out":
        assert split(key, max(one, two)) == "held_out"


def test_case_spaces_and_unicode_form_do_not_matter() -> None:
    for i in range(200):
        assert split(f"Café {i}", 0.5) == split(f"  cafe\u0301   {i}\n", 0.5)


def test_the_key_is_the_first_question() -> None:
    turns = [Message(role="system", content="S"), Message(role="user", content="Q")]
    more = [*turns, Message(role="assistant", content="A"), Message(role="user", content="Q2")]
    assert key_of(Document(text="T")) == "T"
    assert {key_of(r) for r in (Conversation(messages=turns), Prompt(messages=more))} == {"Q"}
    assert key_of(Ranking(messages=more, answers=["a", "b"], ranks=[1, 2])) == "Q"


def test_duplicates_are_dropped_across_sources() -> None:
    dropped: Counter[str] = Counter()
    seen: set[bytes] = set()
    first = list(unique([Document(text="a"), Document(text="b"), Document(text="a", source="s")], dropped, seen))
    second = list(unique([Document(text="b"), Document(text="c")], dropped, seen))
    assert [d.text for d in first + second] == ["a", "b", "c"]
    assert dropped == {"duplicate": 2}
