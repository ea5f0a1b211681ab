"""What is seen of two answers while they are written: nothing of the models' speed."""

from __future__ import annotations

import pytest

from chatwheel.server.curtain import SIDES, Curtain, Side

Shown = list[tuple[float, int, int]]


def watch(lengths: dict[Side, int], rates: dict[Side, float], begins: dict[Side, float] | None = None) -> Shown:
    """(time, characters of the left one, of the right one) each time that something more is seen: of two models that
    write so many characters a second, from a time on."""
    curtain, shown, seen = Curtain(), dict.fromkeys(SIDES, 0), []
    written = dict.fromkeys(SIDES, 0)
    for tick in range(4000):
        now = tick / 20
        for side in SIDES:
            if written[side] == lengths[side] and now > 0:
                continue
            since = now - (begins or {}).get(side, 0.0)
            due = min(lengths[side], int(since * rates[side])) if since > 0 else 0
            if due > written[side]:
                curtain.add(side, "x" * (due - written[side]), now)
                written[side] = due
            if due == lengths[side]:
                curtain.end(side, now)
        pieces = curtain.take(now)
        if any(pieces.values()):
            for side in SIDES:
                shown[side] += len(pieces[side])
            seen.append((now, shown["left"], shown["right"]))
        if curtain.over:
            assert shown == lengths
            return seen
    raise AssertionError("it never came to its end")


def test_both_are_shown_alike_whichever_is_the_faster() -> None:
    even: dict[Side, int] = {"left": 400, "right": 400}
    one = watch(even, {"left": 200.0, "right": 40.0})
    other = watch(even, {"left": 40.0, "right": 200.0})
    assert one == other
    assert all(left == right for _, left, right in one)
    assert len(one) > 100  # it streams


@pytest.mark.parametrize("begins", [{}, {"left": 8.0}, {"right": 8.0}])
def test_the_rest_of_the_longer_one_comes_at_the_pace_of_both(begins: dict[Side, float]) -> None:
    """Be it the slow model's, which needs as long, or the fast one's, which was there long before."""
    lengths: dict[Side, int] = {"left": 300, "right": 900}
    paces = []
    for rates in ({"left": 200.0, "right": 40.0}, {"left": 40.0, "right": 200.0}):
        seen = watch(lengths, rates, begins)
        start, middle = seen[0], next(one for one in seen if one[1] == 300)
        assert 300 <= middle[2] <= 303
        paces.append([(300 - start[1]) / (middle[0] - start[0]), 600 / (seen[-1][0] - middle[0])])
    for together, alone in paces:
        assert together == pytest.approx(40, rel=0.06)
        assert alone == pytest.approx(40, rel=0.06)


def test_a_short_answer_tells_no_pace_so_both_come_at_once() -> None:
    for lengths in ({"left": 6, "right": 500}, {"left": 500, "right": 6}, {"left": 6, "right": 0}):
        for rates in ({"left": 40.0, "right": 200.0}, {"left": 200.0, "right": 40.0}):
            assert len(watch(lengths, rates)) == 1  # type: ignore[arg-type]


def test_pieces_are_no_tokens() -> None:
    curtain = Curtain(first=4)
    curtain.add("left", "Strawberries ", 0.0)
    for place, letter in enumerate("Apple"):  # ten characters a second
        curtain.add("right", letter, place / 10)
    assert curtain.take(0.5) == {"left": "Stra", "right": "Appl"}
    assert curtain.take(0.65) == {"left": "w", "right": "e"}
    assert curtain.take(0.7) == {"left": "", "right": ""}
    curtain.add("right", "s", 0.8)
    assert curtain.take(0.9) == {"left": "b", "right": "s"}
    assert not curtain.over
    assert curtain.text("left") == "Strawberries "


def test_two_empty_answers_are_over() -> None:
    curtain = Curtain()
    for side in SIDES:
        curtain.end(side, 0.0)
    assert curtain.take(0.0) == {"left": "", "right": ""}
    assert curtain.over
