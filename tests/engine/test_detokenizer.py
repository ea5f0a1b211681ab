"""Streaming text: never half a character, never a piece of a stop string, and in the end all of it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatwheel.engine.detokenizer import Detokenizer
from tests.tiny import VOCAB, tokenizer

TEXT = "The answer is 四十二 🙂, naïve é — 你好。END then 结束 and more"


def stream(ids: list[int], stop: tuple[str, ...] = ()) -> tuple[list[str], Detokenizer]:
    """The pieces a client gets, and the detokenizer at the end."""
    detokenizer = Detokenizer(tokenizer(), stop)
    pieces = []
    for i in ids:
        detokenizer.add(i)
        pieces.append(detokenizer.take(final=detokenizer.stopped))
        if detokenizer.stopped:
            return pieces, detokenizer
    pieces.append(detokenizer.take(final=True))
    return pieces, detokenizer


def bytewise(text: str) -> list[int]:
    """The longest way to write a text: a token for each byte."""
    single = {tokenizer().decode([i]): i for i in range(VOCAB) if len(tokenizer().decode([i])) == 1}
    ids = []
    for character in text:
        if character in single:
            ids.append(single[character])
        else:
            found = tokenizer().encode(character)
            assert len(found) > 1
            ids += found
    return ids


@pytest.mark.parametrize("spell", [tokenizer().encode, bytewise], ids=["tokens", "bytes"])
def test_pieces_are_whole_characters_and_add_up(spell: object) -> None:
    assert callable(spell)
    ids = spell(TEXT)
    pieces, detokenizer = stream(ids)
    assert "".join(pieces) == detokenizer.text == TEXT
    assert not any("\ufffd" in piece for piece in pieces)
    assert sum(bool(piece) for piece in pieces) > 20  # and they do not all wait for the end


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, VOCAB - 1), max_size=40))
def test_any_tokens_at_all_add_up_to_their_text(ids: list[int]) -> None:
    """A model may say anything, broken UTF-8 and special tokens too."""
    pieces, detokenizer = stream(ids)
    assert "".join(pieces) == detokenizer.text == tokenizer().decode(ids)


class NotBytes:
    """The same tokenizer, of which nobody knows that its tokens are bytes."""

    pieces = None

    def decode(self, ids: list[int]) -> str:
        return tokenizer().decode(ids)


@settings(max_examples=200, deadline=None)
@given(st.text("a b你好🙂é\n", max_size=24), st.lists(st.booleans(), max_size=40), st.booleans())
def test_whenever_the_text_is_taken_it_adds_up(text: str, moments: list[bool], known: bool) -> None:
    """Tokens are read when somebody asks: after each, after some, or in the end."""
    detokenizer = Detokenizer(tokenizer() if known else NotBytes(), ())  # type: ignore[arg-type]
    shown = ""
    for token, now in zip(bytewise(text), moments + [False] * len(bytewise(text)), strict=False):
        detokenizer.add(token)
        if now:
            shown += detokenizer.take(final=False)
            assert text.startswith(shown)
    assert detokenizer.text == text
    assert shown + detokenizer.take(final=True) == detokenizer.text == text


@settings(max_examples=200, deadline=None)
@given(
    st.text("ab你好🙂é\n", max_size=24),
    st.lists(st.text("ab你好🙂", min_size=1, max_size=4), min_size=1, max_size=3),
)
def test_stop_strings_by_brute_force(text: str, stop: list[str]) -> None:
    pieces, detokenizer = stream(bytewise(text), tuple(stop))
    # The first moment at which some stop string is complete; then everything before the earliest one.
    expected = next(
        (
            text[: min(i for i in (text[:end].find(s) for s in stop) if i >= 0)]
            for end in range(len(text) + 1)
            if any(s in text[:end] for s in stop)
        ),
        text,
    )
    assert "".join(pieces) == detokenizer.text == expected
    assert detokenizer.stopped == any(s in text for s in stop)


def test_a_stop_string_at_every_split_of_a_bilingual_text() -> None:
    ids = tokenizer().encode(TEXT)
    for begin in range(len(TEXT)):
        for length in (1, 2, 5):
            stop = TEXT[begin : begin + length]
            pieces, detokenizer = stream(ids, (stop,))
            shown = ""
            for piece in pieces:
                shown += piece
                assert TEXT.startswith(shown)  # what was shown is never taken back
                assert stop not in shown
            assert shown == detokenizer.text == TEXT[: TEXT.find(stop)]


def test_the_beginning_of_a_stop_string_is_held_back_and_then_given() -> None:
    detokenizer = Detokenizer(tokenizer(), ("END!",))
    shown = []
    for i in bytewise("xENDy"):
        detokenizer.add(i)
        shown.append(detokenizer.take(final=False))
    assert shown == ["x", "", "", "", "ENDy"]


def test_an_answer_that_ends_in_the_beginning_of_a_stop_string_keeps_it() -> None:
    pieces, detokenizer = stream(bytewise("the EN"), ("END",))
    assert "".join(pieces) == detokenizer.text == "the EN"


def test_a_cut_off_character_is_shown_only_at_the_end() -> None:
    ids = bytewise("a🙂")[:-1]
    pieces, _ = stream(ids)
    assert all("\ufffd" not in piece for piece in pieces[:-1])
    assert "".join(pieces) == tokenizer().decode(ids)
